package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// codeAdvice is the code of the details entry that carries the recommended action.
const codeAdvice = "RecommendedAction"

// Error is what the server answers when it refuses, or what a failed job or operation ended with.
type Error struct {
	Status  int      `json:"-"` // HTTP status; 0 for a job, and 200 for an operation that failed
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Target  string   `json:"target,omitempty"`
	Advice  string   `json:"recommendedAction,omitempty"`
	Details []*Error `json:"details,omitempty"`
}

// Error returns code and message.
func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Is reports whether err carries the given code.
func Is(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// IsNotFound reports whether err says that the thing does not exist.
func IsNotFound(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// errorOf reads the error of an answer. It understands the envelopes of the Resource Manager, of Key
// Vault and of the token endpoint; an answer that is none of these becomes an error with its status.
func errorOf(resp *http.Response) error {
	data, err := runtime.Payload(resp)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	e := &Error{Status: resp.StatusCode}
	var envelope struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	if json.Unmarshal(data, &envelope) == nil && len(envelope.Error) > 0 {
		var code string
		if json.Unmarshal(envelope.Error, &code) == nil {
			e.Code, e.Message = code, envelope.Description
		} else {
			e.fill(envelope.Error)
		}
	}
	if e.Code == "" {
		e.Code = strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("The server answered %s to %s %s.", resp.Status, resp.Request.Method, resp.Request.URL.Path)
	}
	return e
}

// fill takes code, message and details from the JSON of an error. Malformed JSON leaves it empty.
func (e *Error) fill(data json.RawMessage) {
	var wire struct {
		Code       string            `json:"code"`
		Message    string            `json:"message"`
		Target     string            `json:"target"`
		Details    []json.RawMessage `json:"details"`
		InnerError struct {
			Code string `json:"code"`
		} `json:"innererror"`
	}
	if json.Unmarshal(data, &wire) != nil {
		return
	}
	e.Code, e.Message, e.Target = wire.Code, wire.Message, wire.Target
	for _, raw := range wire.Details {
		d := &Error{}
		d.fill(raw)
		if d.Code == codeAdvice {
			e.Advice = d.Message
			continue
		}
		e.Details = append(e.Details, d)
	}
	if wire.InnerError.Code != "" {
		e.Details = append(e.Details, &Error{Code: wire.InnerError.Code})
	}
}

// translate turns what azcore and azidentity return into an *Error where it says something to a person.
func translate(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if r, ok := errors.AsType[*azcore.ResponseError](err); ok && r.RawResponse != nil {
		return errorOf(r.RawResponse)
	}
	if a, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		return authenticationFailed(a)
	}
	if n, ok := errors.AsType[*net.OpError](err); ok && n.Op == "dial" {
		return unreachable(n.Error())
	}
	return err
}

func unreachable(why string) *Error {
	return &Error{
		Code:    "ServerUnreachable",
		Message: "The server does not answer: " + why + ".",
		Advice:  "Check that 'kluis serve' is running, and that endpoint and caFile in the admin file are right.",
	}
}

// authenticationFailed tells a refusal by the token endpoint from a token endpoint that did not answer:
// the first call to a server that is away ends here.
func authenticationFailed(a *azidentity.AuthenticationFailedError) error {
	if a.RawResponse == nil {
		// The identity library keeps the cause as text alone, over several lines.
		text := strings.Join(strings.Fields(a.Error()), " ")
		if i := strings.Index(text, "dial "); i >= 0 {
			text = text[i:]
		}
		return unreachable(strings.TrimSuffix(text, "."))
	}
	e := &Error{
		Status: a.RawResponse.StatusCode, Code: "AuthenticationFailed",
		Advice: "Check client id and secret in the admin file; a server whose data folder was made anew has a new one.",
	}
	if inner, ok := errors.AsType[*Error](errorOf(a.RawResponse)); ok {
		e.Message = inner.Message
	}
	return e
}
