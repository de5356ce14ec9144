package compute

import (
	"context"
	"encoding/json"

	"kluis/internal/api/arm"
	"kluis/internal/compute"
)

func (h handlers) getExtension(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	e, err := h.s.Extension(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(e), nil
}

// listExtensions answers with all at once, as Azure does: there are few on a VM.
func (h handlers) listExtensions(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.s.Extensions(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, all), nil
}

func (h handlers) putExtension(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var e compute.Extension
	if err := r.Decode(&e); err != nil {
		return nil, err
	}
	e.ID = r.ID
	e, created, err := h.s.PutExtension(ctx, e)
	if err != nil {
		return nil, err
	}
	return put(e, created), nil
}

func (h handlers) patchExtension(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	e, err := h.s.ChangeExtension(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return arm.OK(e), nil
}

func (h handlers) deleteExtension(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.s.DeleteExtension(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return deleted(existed), nil
}
