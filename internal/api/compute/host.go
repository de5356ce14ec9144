package compute

import (
	"context"

	"kluis/internal/api/arm"
)

// Hosts are configured: they can be read, and that is all.

func (h handlers) getHostGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	g, err := h.s.HostGroup(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(g), nil
}

func (h handlers) listHostGroups(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.s.HostGroups(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, all), nil
}

func (h handlers) getHost(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	host, err := h.s.Host(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(host), nil
}

func (h handlers) listHosts(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.s.Hosts(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, all), nil
}
