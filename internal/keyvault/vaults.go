package keyvault

import (
	"context"
	"errors"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/identity"
)

// VaultType is the resource type of a key vault.
const VaultType = "Microsoft.KeyVault/vaults"

// Vault is a key vault as Resource Manager sees it: everything but the content.
type Vault struct {
	ID       armid.ID
	Location string
	URI      string // set by the service
	Settings
	Created, Changed     time.Time
	CreatedBy, ChangedBy string // object ids
}

// Settings are what the owner of a key vault may choose. The JSON form is what is stored.
type Settings struct {
	Tags                         map[string]string `json:"tags,omitempty"`
	SKU                          string            `json:"sku"` // standard or premium, as it was written
	AccessPolicies               []AccessPolicy    `json:"accessPolicies"`
	EnabledForDeployment         bool              `json:"enabledForDeployment,omitempty"`
	EnabledForDiskEncryption     bool              `json:"enabledForDiskEncryption,omitempty"`
	EnabledForTemplateDeployment bool              `json:"enabledForTemplateDeployment,omitempty"`
	RBAC                         bool              `json:"rbac,omitempty"` // roles decide who uses the content, not AccessPolicies
	PurgeProtection              bool              `json:"purgeProtection,omitempty"`
	SoftDeleteDays               int               `json:"softDeleteDays"`
	NetworkBypass                string            `json:"networkBypass,omitempty"` // shown only: no network is kept out
}

// Name returns the key vault's name.
func (v Vault) Name() string { return v.ID.Name() }

// key is the folded name: what its rows are found by.
func (v Vault) key() string { return fold(v.ID.Name()) }

// RecoveryLevel is Azure's word for what becomes of a deleted key or secret of this key vault.
func (v Vault) RecoveryLevel() string {
	level := "Recoverable"
	if v.SoftDeleteDays < maxSoftDeleteDays {
		level = "CustomizedRecoverable"
	}
	if !v.PurgeProtection {
		level += "+Purgeable"
	}
	return level
}

const minSoftDeleteDays, maxSoftDeleteDays = 7, 90

// purgeDate is when what is deleted now will be purged.
func (v Vault) purgeDate(now time.Time) time.Time { return now.AddDate(0, 0, v.SoftDeleteDays) }

// PutVault creates a key vault, or replaces the settings of one. SoftDeleteDays 0 means 90 for a new key
// vault and unchanged for an old one; purge protection, once on, stays on. It reports whether the key vault is new.
func (s *Service) PutVault(ctx context.Context, v Vault) (put Vault, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/write", v.ID); err != nil {
		return Vault{}, false, err
	}
	if err := s.checkVault(v); err != nil {
		return Vault{}, false, err
	}
	if s.o.Groups != nil {
		if err := s.o.Groups.GroupExists(ctx, v.ID.ResourceGroup); err != nil {
			return Vault{}, false, err
		}
	}
	err = s.askingForModel(ctx, v.ID, func(mayChangeModel bool) error {
		put, created, err = s.putVault(ctx, v, mayChangeModel)
		return err
	})
	return put, created, err
}

func (s *Service) putVault(ctx context.Context, v Vault, mayChangeModel bool) (put Vault, created bool, err error) {
	who, _ := identity.From(ctx)
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		now := s.now()
		old, deleted, err := s.selectVaultByName(ctx, tx, v.Name())
		if err == nil && deleted.expired(now) {
			if err := deleteVault(ctx, tx, old.key()); err != nil {
				return err
			}
			err = database.ErrNoRows
		}
		switch {
		case errors.Is(err, database.ErrNoRows):
			put, created = v, true
			put.stamp(who, now)
			put.Created, put.CreatedBy = put.Changed, put.ChangedBy
			if put.SoftDeleteDays == 0 {
				put.SoftDeleteDays = maxSoftDeleteDays
			}
			return insertVault(ctx, tx, put)
		case err != nil:
			return err
		case deleted != nil:
			return vaultNameDeleted(v.Name())
		case !old.ID.Equal(v.ID):
			return vaultNameTaken(v.Name())
		}
		put, created = old, false
		put.Settings = v.Settings
		put.PurgeProtection = v.PurgeProtection || old.PurgeProtection
		if put.SoftDeleteDays == 0 {
			put.SoftDeleteDays = old.SoftDeleteDays
		}
		put.stamp(who, now)
		if put.RBAC != old.RBAC && !mayChangeModel {
			return errModelChange
		}
		if err := checkVaultChange(old, put, v.Location); err != nil {
			return err
		}
		return updateVault(ctx, tx, put)
	})
	if err != nil {
		return Vault{}, false, err
	}
	put.URI = s.VaultURL(put.Name())
	return put, created, nil
}

// UpdateVault changes some settings of a key vault: change is given the present ones, possibly several times.
func (s *Service) UpdateVault(ctx context.Context, id armid.ID, change func(*Settings) error) (Vault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/write", id); err != nil {
		return Vault{}, err
	}
	var v Vault
	err := s.askingForModel(ctx, id, func(mayChangeModel bool) (err error) {
		v, err = s.changeVault(ctx, id, func(v *Vault) error {
			before := v.RBAC
			if err := change(&v.Settings); err != nil {
				return err
			}
			if v.RBAC != before && !mayChangeModel {
				return errModelChange
			}
			return s.checkVault(*v)
		})
		return err
	})
	return v, err
}

// changeVault reads, changes and writes a living key vault in one transaction.
func (s *Service) changeVault(ctx context.Context, id armid.ID, change func(*Vault) error) (Vault, error) {
	who, _ := identity.From(ctx)
	var v Vault
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := s.liveVault(ctx, tx, id)
		if err != nil {
			return err
		}
		v = old
		if err := change(&v); err != nil {
			return err
		}
		v.stamp(who, s.now())
		if err := checkVaultChange(old, v, v.Location); err != nil {
			return err
		}
		return updateVault(ctx, tx, v)
	})
	return v, err
}

// Vault returns a key vault.
func (s *Service) Vault(ctx context.Context, id armid.ID) (Vault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/read", id); err != nil {
		return Vault{}, err
	}
	var v Vault
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		v, err = s.liveVault(ctx, tx, id)
		return err
	})
	return v, err
}

// Vaults returns the key vaults of a resource group or a subscription, by name.
func (s *Service) Vaults(ctx context.Context, scope armid.ID) ([]Vault, error) {
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.KeyVault/vaults/read", scope); err != nil {
		return nil, err
	}
	return s.vaultsIn(ctx, scope)
}

// CountIn says how many key vaults a resource group holds. It is for the service that deletes groups: no role
// is checked.
func (s *Service) CountIn(ctx context.Context, group armid.ID) (int, error) {
	vaults, err := s.vaultsIn(ctx, group)
	return len(vaults), err
}

func (s *Service) vaultsIn(ctx context.Context, scope armid.ID) ([]Vault, error) {
	var vaults []Vault
	err := s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectVaults(ctx, tx)
		if err != nil {
			return err
		}
		vaults = nil
		for _, r := range rows {
			if r.deleted == nil && r.ID.Within(scope) {
				r.URI = s.VaultURL(r.Name())
				vaults = append(vaults, r.Vault)
			}
		}
		return nil
	})
	return vaults, err
}

// VaultByName returns a living key vault by its name, which is what a key's or secret's URL holds. It is for
// other services: no role is checked.
func (s *Service) VaultByName(ctx context.Context, name string) (Vault, error) {
	var v Vault
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		v, err = s.liveVaultByName(ctx, tx, name)
		return err
	})
	return v, err
}

// NameAvailable reports whether a key vault may be called so; if not, the problem says why.
func (s *Service) NameAvailable(ctx context.Context, name string) error {
	if !validVaultName(name) {
		return badVaultName(name)
	}
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		_, deleted, err := s.selectVaultByName(ctx, tx, name)
		switch {
		case errors.Is(err, database.ErrNoRows), err == nil && deleted.expired(s.now()):
			return nil
		case err != nil:
			return err
		case deleted != nil:
			return vaultNameDeleted(name)
		}
		return vaultNameTaken(name)
	})
}

// liveVault returns the key vault with this id, or a problem that says it is not there.
func (s *Service) liveVault(ctx context.Context, tx *database.Tx, id armid.ID) (Vault, error) {
	v, deleted, err := s.selectVaultByName(ctx, tx, id.Name())
	if errors.Is(err, database.ErrNoRows) || err == nil && (deleted != nil || !v.ID.Equal(id)) {
		return Vault{}, vaultResourceNotFound(id)
	}
	return v, err
}

// liveVaultByName is liveVault for a name from a URL.
func (s *Service) liveVaultByName(ctx context.Context, tx *database.Tx, name string) (Vault, error) {
	v, deleted, err := s.selectVaultByName(ctx, tx, name)
	switch {
	case errors.Is(err, database.ErrNoRows), err == nil && deleted.expired(s.now()):
		return Vault{}, vaultNotFound(name)
	case err == nil && deleted != nil:
		return Vault{}, vaultIsDeleted(name)
	}
	return v, err
}

func (s *Service) selectVaultByName(ctx context.Context, tx *database.Tx, name string) (Vault, *deletion, error) {
	r, err := selectVault(ctx, tx, fold(name))
	if err != nil {
		return Vault{}, nil, err
	}
	r.URI = s.VaultURL(r.Name())
	return r.Vault, r.deleted, nil
}

func (v *Vault) stamp(who identity.Principal, now time.Time) {
	v.Changed, v.ChangedBy = now, who.ObjectID
}

func (s *Service) checkVault(v Vault) error {
	switch {
	case !v.ID.Is(VaultType) || v.ID.ResourceGroup == "":
		return badVault("id", "%s is not the id of a key vault", v.ID)
	case !validVaultName(v.Name()):
		return badVaultName(v.Name())
	case v.Location == "" || len(v.Location) > 64:
		return badVault("location", "location is required")
	case !strings.EqualFold(v.SKU, "standard") && !strings.EqualFold(v.SKU, "premium"):
		return badVault("sku", "sku.name is %q, and must be standard or premium", clip(v.SKU))
	case v.SoftDeleteDays != 0 && (v.SoftDeleteDays < minSoftDeleteDays || v.SoftDeleteDays > maxSoftDeleteDays):
		return badVault("softDeleteRetentionInDays", "softDeleteRetentionInDays is %d, and must be from %d to %d", v.SoftDeleteDays, minSoftDeleteDays, maxSoftDeleteDays)
	}
	if err := checkTags(v.Tags); err != nil {
		return err
	}
	return s.checkPolicies(v.AccessPolicies)
}

// checkVaultChange refuses changes that Azure forbids for good: of place, of retention, and of purge protection.
func checkVaultChange(old, v Vault, location string) error {
	switch {
	case !strings.EqualFold(location, old.Location):
		return badVault("location", "the key vault %s is in %s, and can't move to %s", old.Name(), old.Location, clip(location))
	case old.PurgeProtection && !v.PurgeProtection:
		return badVault("enablePurgeProtection", "purge protection of the key vault %s is on, and can't be turned off", old.Name())
	case v.SoftDeleteDays != old.SoftDeleteDays:
		return badVault("softDeleteRetentionInDays", "the retention of the key vault %s is %d days, and can't be changed", old.Name(), old.SoftDeleteDays)
	}
	return nil
}

const maxTags, maxTagLength = 15, 256

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return badParameter("tags", "there are %d tags, and at most %d are allowed", len(tags), maxTags)
	}
	for k, v := range tags {
		if k == "" || len(k) > maxTagLength || len(v) > maxTagLength {
			return badParameter("tags", "a tag's name and value may have at most %d characters each", maxTagLength)
		}
	}
	return nil
}
