package arm

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"kluis/internal/identity"
	"kluis/internal/problem"
)

// ErrorBody is an error as clients read it, also inside operations and jobs.
type ErrorBody struct {
	Code    string      `json:"code"`
	Message string      `json:"message"`
	Target  string      `json:"target,omitempty"`
	Details []ErrorBody `json:"details,omitempty"`
}

// Error returns what a client is told of err. The recommended action is a detail of its own with the
// code RecommendedAction, so that the message stays Azure's. An error that nobody classified becomes
// InternalServerError with the correlation id; its text is not in the body.
func Error(err error, correlation string) ErrorBody {
	p := problem.Of(err)
	if p == nil || p.Kind == problem.Internal {
		p = internalError(correlation)
	}
	return body(p)
}

func body(p *problem.Error) ErrorBody {
	b := ErrorBody{Code: p.Code, Message: p.Message, Target: p.Target}
	for _, d := range p.Details {
		b.Details = append(b.Details, body(d))
	}
	if p.Advice != "" {
		b.Details = append(b.Details, ErrorBody{Code: "RecommendedAction", Message: p.Advice})
	}
	return b
}

// Status returns the HTTP status for err.
func Status(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	switch problem.KindOf(err) {
	case problem.Invalid, problem.Unsupported:
		return http.StatusBadRequest
	case problem.Unauthenticated:
		return http.StatusUnauthorized
	case problem.Denied:
		return http.StatusForbidden
	case problem.NotFound:
		return http.StatusNotFound
	case problem.Conflict:
		return http.StatusConflict
	case problem.TooLarge:
		return http.StatusRequestEntityTooLarge
	case problem.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// WriteError writes the envelope for err.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	h := w.Header()
	var s *statusError
	if errors.As(err, &s) {
		for name, values := range s.header {
			h[name] = values
		}
	}
	if h.Get("X-Ms-Failure-Cause") == "" {
		h.Set("X-Ms-Failure-Cause", "service")
	}
	status := Status(err)
	if status == http.StatusServiceUnavailable && h.Get("Retry-After") == "" {
		h.Set("Retry-After", "5")
	}
	writeJSON(w, r, status, struct {
		Error ErrorBody `json:"error"`
	}{Error(err, identity.Correlation(r.Context()))})
}

// writeJSON writes a whole answer. A value that can't be encoded is a defect of a handler: the router
// turns the panic into a 500, which it can because nothing has been written yet.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	b := encode(v)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // the client is gone; nobody is left to tell
	}
}

func encode(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}
