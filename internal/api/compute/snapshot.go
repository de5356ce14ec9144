package compute

import (
	"context"
	"encoding/json"

	"kluis/internal/api/arm"
	"kluis/internal/compute"
)

func (h handlers) getSnapshot(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	s, err := h.s.Snapshot(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(s), nil
}

func (h handlers) listSnapshots(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.s.Snapshots(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, all), nil
}

func (h handlers) putSnapshot(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var s compute.Snapshot
	if err := r.Decode(&s); err != nil {
		return nil, err
	}
	s.ID = r.ID
	s, _, err := h.s.PutSnapshot(ctx, s)
	if err != nil {
		return nil, err
	}
	return putFollowed(r, s, s.Location, s.Operation()), nil
}

func (h handlers) patchSnapshot(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	s, err := h.s.ChangeSnapshot(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return arm.OK(s), nil
}

func (h handlers) deleteSnapshot(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.s.DeleteSnapshot(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return deleted(existed), nil
}
