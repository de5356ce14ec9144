package keyservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Kind says what sort of failure a key service's is.
type Kind int

// The kinds.
const (
	NotConfigured   Kind = iota + 1 // the host is not in the file: it was not asked
	Unreachable                     // it does not answer, or not now
	Unauthenticated                 // the credentials are not taken
	Denied                          // they are, and the permission is missing
	NotFound                        // there is no such key or secret
	Conflict                        // the name is taken
	Refused                         // it is there and can't be used so: disabled, expired, of another type, a value that doesn't unwrap
	Malformed                       // the answer is none that the API documents, or the URL none of its
)

// Error is what went wrong with a key service. What the service says itself is clipped.
type Error struct {
	Kind      Kind
	Host      string // without the port where it is 443
	Operation string // backup of key kek
	Code      string // the service's own: Forbidden, or its inner code
	Message   string
	Err       error // the cause; for the log
}

// Error tells host, operation and reason.
func (e *Error) Error() string {
	s := e.Host + ": "
	if e.Operation != "" {
		s += e.Operation + ": "
	}
	if e.Code != "" {
		s += e.Code + ": "
	}
	return s + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the *Error inside err; zero if there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return 0
}

func notConfigured(host string) *Error {
	return &Error{Kind: NotConfigured, Host: shown(host), Message: "no entry of the key services file names this host, so it is not asked"}
}

// failed is a call that got no answer.
func failed(host, operation string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Kind: Unreachable, Host: shown(host), Operation: operation, Message: "it does not answer: " + clip(lastOf(err)), Err: err}
	if a, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		e.Message = "the authority that issues tokens for it does not answer: " + clip(dialOf(a.Error()))
		if a.RawResponse != nil {
			e.Kind, e.Message = Unauthenticated, "the authority refuses the credentials: "+clip(descriptionOf(a.Error()))
		}
	}
	return e
}

// lastOf is the innermost reason: what is around it repeats the URL.
func lastOf(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		if strings.HasPrefix(err.Error(), "dial ") {
			break
		}
		err = inner
	}
	return err.Error()
}

// dialOf takes the reason out of the text of several lines as which the identity library keeps it.
func dialOf(text string) string {
	text, _, _ = strings.Cut(strings.Join(strings.Fields(text), " "), " To troubleshoot")
	if i := strings.Index(text, "dial "); i >= 0 {
		return text[i:]
	}
	return text
}

// descriptionOf finds the authority's own words in the identity library's report of its answer.
func descriptionOf(text string) string {
	if start, end := strings.Index(text, "{"), strings.LastIndex(text, "}"); start >= 0 && end > start {
		var answer struct {
			Description string `json:"error_description"`
		}
		if json.Unmarshal([]byte(text[start:end+1]), &answer) == nil && answer.Description != "" {
			return answer.Description
		}
	}
	return "client id, secret or tenant are wrong"
}

// refused reads an answer that is not a success: Key Vault's envelope, or the list of errors of transit.
func refused(host, operation string, status int, data []byte) error {
	e := &Error{Kind: kindOf(status), Host: shown(host), Operation: operation, Message: fmt.Sprintf("it answers with status %d", status)}
	var answer struct {
		Error struct {
			Code       string `json:"code"`
			Message    string `json:"message"`
			InnerError struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(data, &answer) != nil {
		return e
	}
	if a := answer.Error; a.Code != "" {
		e.Code, e.Message = clip(a.Code), clip(a.Message)
		if inner := a.InnerError.Code; inner != "" {
			e.Code = clip(inner)
		}
	}
	if len(answer.Errors) > 0 {
		e.Message = clip(strings.Join(answer.Errors, "; "))
	}
	// Key Vault answers 403 also for what may be read and is disabled.
	if e.Kind == Denied && (strings.HasSuffix(e.Code, "Disabled") || strings.HasSuffix(e.Code, "Expired") || strings.HasSuffix(e.Code, "NotYetValid")) {
		e.Kind = Refused
	}
	return e
}

func kindOf(status int) Kind {
	switch status {
	case http.StatusUnauthorized:
		return Unauthenticated
	case http.StatusForbidden:
		return Denied
	case http.StatusNotFound:
		return NotFound
	case http.StatusConflict:
		return Conflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return Refused
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusInternalServerError:
		return Unreachable
	}
	return Malformed
}

const maxText = 300

// clip makes what a foreign server says fit to be shown: one line, and not for ever.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return strings.TrimSuffix(strings.TrimSpace(s), ".")
}
