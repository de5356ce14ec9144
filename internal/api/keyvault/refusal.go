package keyvault

import (
	"net/http"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/problem"
)

// errorBody is the Key Vault's form of an error: the inner code is one level down, and there is no list of details.
type errorBody struct {
	Error struct {
		Code    string     `json:"code"`
		Message string     `json:"message"`
		Inner   *innerBody `json:"innererror,omitempty"`
	} `json:"error"`
}

type innerBody struct {
	Code string `json:"code"`
}

// refusal turns an error into status and body, and sets the challenge where the caller is not known.
func (d *dataPlane) refusal(w http.ResponseWriter, r *http.Request, err error, id string) (int, errorBody) {
	status := arm.Status(err)
	p := problem.Of(err)
	var b errorBody
	switch {
	case p == nil || p.Kind == problem.Internal:
		b.Error.Code = "InternalServerError"
		b.Error.Message = "The server could not do this. Its log has the cause under the request id " + id + "."
		return http.StatusInternalServerError, b
	case p.Kind == problem.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer authorization="`+d.o.Authority+`", resource="https://`+d.o.Suffix+`"`)
		b.Error.Code, b.Error.Message = "Unauthorized", unauthorized(r, p)
		return http.StatusUnauthorized, b
	case p.Code == methodCode:
		status = http.StatusMethodNotAllowed
	case p.Kind == problem.Unavailable:
		w.Header().Set("Retry-After", "5")
	}
	b.Error.Code, b.Error.Message = p.Code, strings.TrimSpace(p.Message+" "+p.Advice)
	if len(p.Details) > 0 {
		b.Error.Inner = &innerBody{p.Details[0].Code}
	}
	return status, b
}

// unauthorized begins with the codes by which people search for the reason.
func unauthorized(r *http.Request, p *problem.Error) string {
	if r.Header.Get("Authorization") == "" {
		return "AKV10000: Request is missing a Bearer or PoP token."
	}
	return strings.TrimSpace("AKV10022: " + p.Message + " " + p.Advice)
}

func badAPIVersion() *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The query parameter api-version is missing or not known.").WithTarget("api-version").
		WithAdvice("Send api-version=7.4, or another version from 7.0 to 7.6.")
}

func noSuchPath() *problem.Error {
	return problem.New(problem.NotFound, "NotFound", "There is no such operation on keys and secrets.").
		WithAdvice("Check host, path and api-version of the request.")
}

const methodCode = "MethodNotSupported"

func methodNotAllowed(method string) *problem.Error {
	return problem.New(problem.Invalid, methodCode, "The method %s is not known for this path.", sanitized(method)).
		WithAdvice("Check method and path of the request.")
}

func sanitized(method string) string {
	if !sane.MatchString(method) {
		return "of the request"
	}
	return method
}
