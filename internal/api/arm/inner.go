package arm

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"

	"kluis/internal/armid"
)

// A door that speaks of resources whoever keeps them - the list of all, their tags, a group with what is in it -
// asks the handlers of their types, as the same caller. So what is true of a resource is said in one place, and
// nobody learns or does there what he could not do at the type's own door.

// Read answers what a GET of the resource, or of a list below it, would, as JSON. A list comes whole.
func (r *Request) Read(ctx context.Context, get Handler, id armid.ID, version string) (json.RawMessage, error) {
	return r.ask(ctx, get, http.MethodGet, id, version, nil)
}

// Change sends a body to the handler of a PUT, PATCH or DELETE of the resource; nil is none.
func (r *Request) Change(ctx context.Context, handler Handler, method string, id armid.ID, version string, body json.RawMessage) error {
	_, err := r.ask(ctx, handler, method, id, version, body)
	return err
}

func (r *Request) ask(ctx context.Context, handler Handler, method string, id armid.ID, version string, body json.RawMessage) (json.RawMessage, error) {
	inner := &Request{ID: id, APIVersion: version, Query: url.Values{"api-version": {version}}, BaseURL: r.BaseURL,
		page: window{size: math.MaxInt}, linkKey: r.linkKey, HTTP: r.HTTP.Clone(ctx)}
	inner.HTTP.Method, inner.HTTP.URL = method, &url.URL{Path: id.String(), RawQuery: inner.Query.Encode()}
	inner.HTTP.Body, inner.HTTP.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	reply, err := handler(ctx, inner)
	if err != nil || reply == nil || reply.Body == nil {
		return nil, err
	}
	return encode(reply.Body), nil
}
