package authorization

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
)

type lockBody struct {
	ID         string         `json:"id,omitempty"`
	Type       string         `json:"type,omitempty"`
	Name       string         `json:"name,omitempty"`
	Properties lockProperties `json:"properties"`
}

type lockProperties struct {
	Level string `json:"level"`
	Notes string `json:"notes,omitempty"`
}

func encodeLock(l identity.Lock) lockBody {
	return lockBody{l.ID().String(), identity.LockType, l.Name, lockProperties{string(l.Level), l.Notes}}
}

func (d door) getLock(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	l, err := d.s.Lock(ctx, r.ID.Extended(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeLock(l)), nil
}

func (d door) putLock(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body lockBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	l, created, err := d.s.PutLock(ctx, identity.Lock{Scope: r.ID.Extended(), Name: r.ID.Name(), Level: identity.LockLevel(body.Properties.Level), Notes: body.Properties.Notes})
	if err != nil {
		return nil, err
	}
	if created {
		return arm.Created(encodeLock(l)), nil
	}
	return arm.OK(encodeLock(l)), nil
}

func (d door) deleteLock(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := d.s.DeleteLock(ctx, r.ID.Extended(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return gone(existed, nil), nil
}

func (d door) listLocks(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	filter, err := filterOf(r, "atScope()")
	if err != nil {
		return nil, err
	}
	_, atScope := filter["atscope()"]
	all, err := d.s.Locks(ctx, r.ID, atScope)
	if err != nil {
		return nil, err
	}
	bodies := []lockBody{}
	for _, l := range all {
		bodies = append(bodies, encodeLock(l))
	}
	return arm.List(r, bodies), nil
}
