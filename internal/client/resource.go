package client

import (
	"context"
	"encoding/json"
	"net/http"

	"kluis/internal/armid"
)

// Resource is a resource of the Resource Manager with properties of type P.
type Resource[P any] struct {
	ID         string            `json:"id,omitempty"`
	Name       string            `json:"name,omitempty"`
	Type       string            `json:"type,omitempty"`
	Location   string            `json:"location,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	SKU        *SKU              `json:"sku,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Properties P                 `json:"properties"`

	// Raw is the answer as the server sent it, with whatever P does not name. It is not sent back.
	Raw json.RawMessage `json:"-"`
}

// SKU is the size or tier of a resource.
type SKU struct {
	Name   string `json:"name"`
	Family string `json:"family,omitempty"`
	Tier   string `json:"tier,omitempty"`
}

// UnmarshalJSON reads the resource and keeps the answer itself in Raw.
func (r *Resource[P]) UnmarshalJSON(data []byte) error {
	type plain Resource[P]
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	r.Raw = append(json.RawMessage(nil), data...)
	return nil
}

// ARMID is the id as a parsed value; the zero ID if the server sent none that parses.
func (r Resource[P]) ARMID() armid.ID {
	id, err := armid.Parse(r.ID)
	if err != nil {
		return armid.ID{}
	}
	return id
}

// Ref is a reference to another resource.
type Ref struct {
	ID string `json:"id"`
}

func getResource[P any](ctx context.Context, c *Client, id armid.ID, version string) (Resource[P], error) {
	var r Resource[P]
	err := c.get(ctx, id.String(), version, nil, &r)
	return r, err
}

func putResource[P any](ctx context.Context, c *Client, id armid.ID, version string, body Resource[P]) (Resource[P], error) {
	var r Resource[P]
	err := c.do(ctx, http.MethodPut, id.String(), version, body, &r)
	return r, err
}

func listResources[P any](ctx context.Context, c *Client, path, version, filter string) ([]Resource[P], error) {
	return list[Resource[P]](ctx, c, c.armPipeline(), c.listARM(path, version, filter))
}

func (c *Client) delete(ctx context.Context, id armid.ID, version string) error {
	return c.do(ctx, http.MethodDelete, id.String(), version, nil, nil)
}

// collection is the path of a type of resource within a scope.
func collection(scope armid.ID, typ string) string { return scope.String() + "/providers/" + typ }
