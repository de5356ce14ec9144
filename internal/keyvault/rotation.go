package keyvault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kluis/internal/database"
	"kluis/internal/identity"
)

// To rotate a key is to make a new version of it, of the same sort. Older versions stay and open what they have closed.
// A rotation policy says when that is done without being asked; RotateDue does it.

// RotationPolicy says when a key is rotated and how long its new versions are valid. Periods are ISO 8601 durations.
type RotationPolicy struct {
	Rotate  Trigger `json:"rotate,omitzero"`
	Notify  Trigger `json:"notify,omitzero"` // kept and shown; there is nobody here to notify
	Expiry  string  `json:"expiry,omitempty"`
	Created int64   `json:"created,omitempty"` // Unix seconds; 0 for the policy of a key that has none
	Updated int64   `json:"updated,omitempty"`
}

// Trigger is when something happens in the life of a version: one of the two, or never.
type Trigger struct {
	AfterCreate  string `json:"afterCreate,omitempty"`
	BeforeExpiry string `json:"beforeExpiry,omitempty"`
}

// defaultPolicy is what Azure shows for a key that has none.
var defaultPolicy = RotationPolicy{Notify: Trigger{BeforeExpiry: "P30D"}}

// Azure's bounds, in days.
const minExpiryDays, minTriggerDays = 28, 7

func (p RotationPolicy) check() error {
	expiry, err := parsePeriod(p.Expiry)
	switch {
	case p.Expiry != "" && err != nil:
		return badPeriod("attributes.expiryTime", p.Expiry)
	case p.Expiry != "" && expiry.days() < minExpiryDays:
		return badRotationPolicy("expiryTime is %s, and must be at least %d days", p.Expiry, minExpiryDays)
	case p.Notify.AfterCreate != "":
		return badRotationPolicy("a Notify action must be triggered by timeBeforeExpiry")
	}
	for _, t := range []Trigger{p.Rotate, p.Notify} {
		if err := t.check(p.Expiry, expiry); err != nil {
			return err
		}
	}
	return nil
}

func (t Trigger) check(expiryText string, expiry period) error {
	if t.AfterCreate != "" && t.BeforeExpiry != "" {
		return badRotationPolicy("a trigger has either timeAfterCreate or timeBeforeExpiry")
	}
	for _, text := range []string{t.AfterCreate, t.BeforeExpiry} {
		if text == "" {
			continue
		}
		p, err := parsePeriod(text)
		switch {
		case err != nil:
			return badPeriod("lifetimeActions.trigger", text)
		case p.days() < minTriggerDays:
			return badRotationPolicy("the trigger %s is earlier than %d days", text, minTriggerDays)
		case t.BeforeExpiry != "" && expiryText == "":
			return badRotationPolicy("a trigger with timeBeforeExpiry needs an expiryTime")
		case expiryText != "" && p.days()+minTriggerDays > expiry.days():
			return badRotationPolicy("the trigger %s leaves less than %d days of the expiryTime %s", text, minTriggerDays, expiryText)
		}
	}
	return nil
}

// due reports whether a version is old enough for the next one. What doesn't parse was refused when it was put.
func (p RotationPolicy) due(r record, now time.Time) bool {
	if r.document.Disabled {
		return false
	}
	if after, err := parsePeriod(p.Rotate.AfterCreate); err == nil {
		return !now.Before(after.after(r.created))
	}
	if before, err := parsePeriod(p.Rotate.BeforeExpiry); err == nil && r.document.Expires != 0 {
		return !now.Before(before.before(seconds(r.document.Expires)))
	}
	return false
}

// RotationPolicy returns the rotation policy of a key.
func (s *Service) RotationPolicy(ctx context.Context, vault, name string) (p RotationPolicy, id KeyID, err error) {
	err = s.use(ctx, keyGetRotationPolicy, KeyID{Vault: vault, Name: name}.target(), func(u *use) error {
		return u.read(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.version(ctx, tx)
			if err != nil {
				return err
			}
			id = KeyID{Vault: v.Name(), Name: r.name}
			p, err = selectRotationPolicy(ctx, tx, r.target)
			return err
		})
	})
	return p, id, err
}

// PutRotationPolicy sets the rotation policy of a key.
func (s *Service) PutRotationPolicy(ctx context.Context, vault, name string, p RotationPolicy) (put RotationPolicy, id KeyID, err error) {
	err = s.use(ctx, keySetRotationPolicy, KeyID{Vault: vault, Name: name}.target(), func(u *use) error {
		if err := p.check(); err != nil {
			return err
		}
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			r, err := u.version(ctx, tx)
			if err != nil {
				return err
			}
			old, err := selectRotationPolicy(ctx, tx, r.target)
			if err != nil {
				return err
			}
			id, put = KeyID{Vault: v.Name(), Name: r.name}, p
			put.Updated = s.now().Unix()
			if put.Created = old.Created; put.Created == 0 {
				put.Created = put.Updated
			}
			return putRotationPolicy(ctx, tx, r.target, put)
		})
	})
	return put, id, err
}

// RotateKey makes a new version of a key, of the same sort.
func (s *Service) RotateKey(ctx context.Context, vault, name string) (Key, error) {
	return s.rotate(ctx, keyRotate, KeyID{Vault: vault, Name: name})
}

// keyVaultService is the principal as which keys are rotated by policy: nobody asked.
var keyVaultService = identity.Principal{ObjectID: "8d1f6a35-02c4-4e6b-9b0e-5a3e7c40d911", AppID: "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
	Name: "Azure Key Vault", BuiltIn: true}

// RotateDue rotates each key whose policy says that it is time. Run it now and then. A key that can't be rotated
// doesn't keep the others from it.
func (s *Service) RotateDue(ctx context.Context) error {
	var due []target
	err := s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectRotating(ctx, tx)
		due = nil
		for _, r := range rows {
			if r.policy.due(r.record, s.now()) {
				due = append(due, r.target)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("find keys to rotate: %w", err)
	}
	ctx = identity.With(ctx, keyVaultService)
	var errs []error
	for _, t := range due {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := s.rotate(ctx, keyRotateIfDue, KeyID{t.vault, t.name, t.version}); err != nil && !errors.Is(err, errRotated) {
			errs = append(errs, fmt.Errorf("rotate %s: %w", t, err))
		}
	}
	return errors.Join(errs...)
}

// errRotated means that somebody else was faster.
var errRotated = errors.New("the key has a newer version already")

// rotate makes the new version outside of any transaction, as putKey does. When the id names a version, it must still be
// the newest when the new one is written: of two that find a key due, one rotates it.
func (s *Service) rotate(ctx context.Context, op operation, id KeyID) (Key, error) {
	var out Key
	seen := id.Version
	id.Version = ""
	err := s.use(ctx, op, id.target(), func(u *use) error {
		var old record
		err := u.read(ctx, func(tx *database.Tx, _ Vault) (err error) {
			old, err = u.version(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		if seen != "" && seen != old.version {
			return errRotated
		}
		m, err := old.document.Key.another()
		if err != nil {
			return err
		}
		defer m.private.Wipe()
		return u.change(ctx, func(tx *database.Tx, v Vault) error {
			now, err := u.version(ctx, tx)
			if err != nil {
				return err
			}
			if seen != "" && now.version != seen {
				return errRotated
			}
			policy, err := selectRotationPolicy(ctx, tx, u.target)
			if err != nil {
				return err
			}
			d := document{Tags: now.document.Tags, Key: &m.public, Expires: policy.expires(s.now())}
			r, err := u.addVersion(ctx, tx, d, m.private.Reveal())
			out = r.key(v)
			return err
		})
	})
	if err != nil {
		return Key{}, err
	}
	return out, nil
}

// another makes a key of the same sort, for the same operations.
func (p publicKey) another() (material, error) {
	size := p.Size
	if p.Type == "RSA" {
		size = 8 * len(p.N)
	}
	m, err := generate(p.Type, size, p.Curve)
	m.public.Operations = slices.Clone(p.Operations)
	return m, err
}

// expires is the attribute exp of a version that is made now; 0 for no limit.
func (p RotationPolicy) expires(now time.Time) int64 {
	valid, err := parsePeriod(p.Expiry)
	if err != nil {
		return 0
	}
	return valid.after(now).Unix()
}
