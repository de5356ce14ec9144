package compute

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/compute"
)

func (h handlers) beginAccess(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body compute.AccessRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	a, err := h.s.BeginAccess(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return followed(r, a.Location, a.ID), nil
}

func (h handlers) endAccess(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.EndAccess(ctx, r.ID); err != nil {
		return nil, err
	}
	return arm.OK(nil), nil
}

type accessURI struct {
	AccessSAS string `json:"accessSAS"`
}
