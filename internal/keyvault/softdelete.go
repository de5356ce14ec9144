package keyvault

import (
	"context"
	"errors"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// deletion says when something was deleted and when it will be purged; nil for what lives.
type deletion struct{ at, purge time.Time }

// expired reports whether the retention is over: it is as if it had never been.
func (d *deletion) expired(now time.Time) bool { return d != nil && !d.purge.After(now) }

// DeletedVault is a key vault that can still be recovered.
type DeletedVault struct {
	Vault
	Deleted, Purge time.Time
}

// DeletedID returns the id of the deleted key vault: a resource of its subscription and location.
func (d DeletedVault) DeletedID() armid.ID {
	return armid.Subscription(d.Vault.ID.Subscription).Resource("Microsoft.KeyVault/locations", d.Location).Child("deletedVaults", d.Name())
}

// DeleteVault deletes a key vault softly: with its content it can be recovered until its retention ends.
func (s *Service) DeleteVault(ctx context.Context, id armid.ID) error {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/delete", id); err != nil {
		return err
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		v, err := s.liveVault(ctx, tx, id)
		if err != nil {
			return err
		}
		now := s.now()
		return setVaultDeleted(ctx, tx, v.key(), &deletion{now, v.purgeDate(now)})
	})
}

// RecoverVault brings a deleted key vault back, with its content and its access policies.
func (s *Service) RecoverVault(ctx context.Context, id armid.ID) (Vault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/write", id); err != nil {
		return Vault{}, err
	}
	var v Vault
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) (err error) {
		var d *deletion
		v, d, err = s.selectVaultByName(ctx, tx, id.Name())
		switch {
		case errors.Is(err, database.ErrNoRows), err == nil && (d == nil || d.expired(s.now()) || !v.ID.Equal(id)):
			return deletedVaultNotFound(id.Name())
		case err != nil:
			return err
		}
		return setVaultDeleted(ctx, tx, v.key(), nil)
	})
	if err != nil {
		return Vault{}, err
	}
	return v, nil
}

// DeletedVaults returns the deleted key vaults of a subscription, by name.
func (s *Service) DeletedVaults(ctx context.Context, subscription armid.ID) ([]DeletedVault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/deletedVaults/read", subscription); err != nil {
		return nil, err
	}
	var out []DeletedVault
	err := s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectVaults(ctx, tx)
		if err != nil {
			return err
		}
		out = nil
		for _, r := range rows {
			if r.deleted != nil && !r.deleted.expired(s.now()) && r.ID.Within(subscription) {
				out = append(out, DeletedVault{r.Vault, r.deleted.at, r.deleted.purge})
			}
		}
		return nil
	})
	return out, err
}

// DeletedVault returns a deleted key vault of a subscription and location.
func (s *Service) DeletedVault(ctx context.Context, subscription armid.ID, location, name string) (DeletedVault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/locations/deletedVaults/read", subscription); err != nil {
		return DeletedVault{}, err
	}
	var out DeletedVault
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		out, err = s.deletedVault(ctx, tx, subscription, location, name)
		return err
	})
	return out, err
}

// PurgeVault ends a deleted key vault and its content for good. Purge protection forbids it.
func (s *Service) PurgeVault(ctx context.Context, subscription armid.ID, location, name string) error {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/locations/deletedVaults/purge/action", subscription); err != nil {
		return err
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		d, err := s.deletedVault(ctx, tx, subscription, location, name)
		if err != nil {
			return err
		}
		if d.PurgeProtection {
			return vaultPurgeProtected(d.Name())
		}
		return deleteVault(ctx, tx, d.key())
	})
}

func (s *Service) deletedVault(ctx context.Context, tx *database.Tx, subscription armid.ID, location, name string) (DeletedVault, error) {
	v, d, err := s.selectVaultByName(ctx, tx, name)
	switch {
	case errors.Is(err, database.ErrNoRows):
		return DeletedVault{}, deletedVaultNotFound(name)
	case err != nil:
		return DeletedVault{}, err
	case d == nil || d.expired(s.now()) || !v.ID.Within(subscription) || !strings.EqualFold(v.Location, location):
		return DeletedVault{}, deletedVaultNotFound(name)
	}
	return DeletedVault{v, d.at, d.purge}, nil
}

// PurgeExpired ends what was deleted so long ago that its retention is over. Nothing depends on when it runs: what
// has expired is treated as gone before. Run it now and then, so that it is gone from the disk too.
func (s *Service) PurgeExpired(ctx context.Context) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return purgeExpired(ctx, tx, s.now()) })
}
