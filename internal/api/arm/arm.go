// Package arm is the wire manners of Azure Resource Manager, for providers to be written on top of.
//
// A provider declares its resource types as a table of handlers (Resource); the Router finds the row
// for a request and calls the handler with a parsed Request; the handler returns a Reply or an error,
// and never touches the connection. The table is thus at once the routing, the list of what exists,
// and the source of 404 and 405.
//
// What holds for every request, so that no provider needs to think of it:
//
//   - Nobody gets past the router without a principal (RouterOptions.Authenticate).
//   - Ids and types match in any case. A handler sees the fixed words and type names as its table
//     spells them and the names as the client wrote them, so ids in answers are canonical; clients
//     that compare ids depend on it.
//   - api-version is there and one that the type has (Versions), the body is JSON and has at most MaxBody
//     bytes, $filter is parsed.
//   - A resource that has a GET also has a HEAD and an ETag, and If-Match and If-None-Match are heeded
//     (condition.go).
//   - Nobody asks for more than the Limits.
//   - Every answer carries x-ms-request-id, x-ms-routing-request-id and x-ms-correlation-request-id; every error is an
//     envelope {"error":{…}}; a panic is a 500. Text of unclassified errors goes to the log only.
//
// Words: a collection is the list of a type under its parent; an action is a POST on an odd trailing
// segment; kinds "subscriptions", "resourceGroups", "providers" and "tenants" are the types of ids
// without a provider's resource. No provider's name appears here.
package arm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/problem"
)

// MaxBody is the most that a request's body may hold.
const MaxBody = 4 << 20

// Handler answers one request.
type Handler func(ctx context.Context, r *Request) (*Reply, error)

// Request is a request as handlers see it.
type Request struct {
	ID         armid.ID          // the resource; for a list the parent resource or scope
	Collection string            // for a list, the last segment of the type: "backupPolicies"
	Action     string            // for an action, its name as the table spells it
	APIVersion string            // well-formed: 2024-04-01, 2022-06-01-preview
	Query      url.Values        // as sent
	Filter     map[string]string // $filter `a eq 'b' and c eq 'd'`, keys in lower case; nil without one
	HTTP       *http.Request     // its body ends at MaxBody
	BaseURL    string            // scheme://host that the client used

	page    window // what $top and $skipToken ask for
	linkKey []byte
}

// Decode reads the JSON body into v. Members that v does not know are ignored, because clients of
// newer api-versions send them.
func (r *Request) Decode(v any) error {
	b, err := io.ReadAll(r.HTTP.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return bodyTooLarge()
	case err != nil:
		return invalidContent("the body could not be read to its end").WithCause(err)
	case len(bytes.TrimSpace(b)) == 0:
		return invalidContent("the body is empty; this operation needs a JSON document")
	}
	if err := json.Unmarshal(b, v); err != nil {
		return invalidContent(explainJSON(err)).WithCause(err)
	}
	return nil
}

// URL returns the absolute URL of a path on the host that the client used, with the client's
// api-version and further query parameters given as name, value pairs. Semicolons stay as they are.
func (r *Request) URL(path string, query ...string) string {
	q := url.Values{"api-version": {r.APIVersion}}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	return r.BaseURL + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// Reply is an answer. A nil Body is an empty one.
type Reply struct {
	Status int
	Header http.Header
	Body   any
}

// OK is 200 with a body, or an empty 200 when body is nil.
func OK(body any) *Reply { return &Reply{Status: http.StatusOK, Body: body} }

// Created is 201 with a body.
func Created(body any) *Reply { return &Reply{Status: http.StatusCreated, Body: body} }

// NoContent is 204.
func NoContent() *Reply { return &Reply{Status: http.StatusNoContent} }

// Accepted is an empty 202 that tells where to follow the operation. Either URL may be "". Pollers
// sleep as long as Retry-After says, so it is short.
func Accepted(asyncOperation, location string) *Reply {
	h := http.Header{"Retry-After": {"1"}}
	if asyncOperation != "" {
		h.Set("Azure-AsyncOperation", asyncOperation)
	}
	if location != "" {
		h.Set("Location", location)
	}
	return &Reply{Status: http.StatusAccepted, Header: h}
}

// With returns the reply with one more header.
func (p *Reply) With(name, value string) *Reply {
	if p.Header == nil {
		p.Header = http.Header{}
	}
	p.Header.Set(name, value)
	return p
}

func baseURL(r *http.Request) string {
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + r.Host
}

// explainJSON says what is wrong and where, without repeating the values sent.
func explainJSON(err error) string {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	var known *problem.Error
	switch {
	case errors.As(err, &syntax):
		return "the body is not valid JSON: " + syntax.Error()
	case errors.As(err, &typ):
		kind, _, _ := strings.Cut(typ.Value, " ")
		if typ.Field == "" {
			return "the body holds a JSON " + kind + " where an object was expected"
		}
		return "the member '" + typ.Field + "' holds a JSON " + kind + ", which is not its type"
	case errors.As(err, &known):
		return known.Message
	}
	return "the body is not valid JSON for this operation: " + err.Error()
}
