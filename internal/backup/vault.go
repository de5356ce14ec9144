package backup

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// RecoveryVault is a Recovery Services vault. It is stored as this document.
type RecoveryVault struct {
	ID         armid.ID          `json:"id"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	SKU        string            `json:"sku"`
	Redundancy string            `json:"redundancy"` // LocallyRedundant, ZoneRedundant, GeoRedundant
	SoftDelete SoftDelete        `json:"softDelete"`
	// EnhancedSecurity guards agents that run inside machines, which are not backed up here; it is given back as it came.
	EnhancedSecurity string `json:"enhancedSecurity,omitempty"` // Enabled, which is also meant by "", or Disabled
	// Properties are those a client sent that change nothing here; they are given back as they came.
	Properties map[string]json.RawMessage `json:"properties,omitempty"`
	Changed    time.Time                  `json:"changed"`

	// Identity is the vault's own service principal; zero when it has none.
	Identity VaultIdentity `json:"identity,omitzero"`

	store string // the first part of the names of its items' recovery stores
}

// defaultRedundancy is the one of a vault whose maker names none.
const defaultRedundancy = "GeoRedundant"

// Redundancies are the storage replication settings of a vault.
var Redundancies = []string{"LocallyRedundant", "GeoRedundant", "ZoneRedundant"}

var vaultName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{1,49}$`)

// PutVault creates a vault, with its default policies, or changes one.
func (s *Service) PutVault(ctx context.Context, v RecoveryVault) (_ RecoveryVault, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/write", v.ID); err != nil {
		return RecoveryVault{}, false, err
	}
	return s.putVault(ctx, v)
}

func (s *Service) putVault(ctx context.Context, v RecoveryVault) (_ RecoveryVault, created bool, err error) {
	if !vaultName.MatchString(v.ID.Name()) {
		return RecoveryVault{}, false, invalidVaultName(v.ID.Name())
	}
	if v.Location == "" {
		return RecoveryVault{}, false, locationRequired(v.ID)
	}
	if v.Redundancy == "" {
		v.Redundancy = defaultRedundancy
	}
	if !slices.Contains(Redundancies, v.Redundancy) {
		return RecoveryVault{}, false, invalidRedundancy(v.Redundancy)
	}
	if v.SoftDelete = v.SoftDelete.complete(); !v.SoftDelete.valid() {
		return RecoveryVault{}, false, invalidSoftDelete(v.SoftDelete)
	}
	if !slices.Contains([]string{"", "Enabled", "Disabled"}, v.EnhancedSecurity) {
		return RecoveryVault{}, false, invalidEnhancedSecurity(v.EnhancedSecurity)
	}
	if err := s.o.Groups.GroupExists(ctx, v.ID.ResourceGroup); err != nil {
		return RecoveryVault{}, false, err
	}
	v.Changed = s.o.Now()
	if old, err := s.lookupVault(ctx, v.ID); err == nil {
		return s.changeVault(ctx, old, v)
	}
	v.store = s.o.NewID()
	if v.Identity, err = s.identityOf(ctx, v, VaultIdentity{}); err != nil {
		return RecoveryVault{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if err := insertVault(ctx, tx, v); err != nil {
			return err
		}
		return putDefaultPolicies(ctx, tx, v)
	})
	if err != nil {
		s.dropIdentity(ctx, v.Identity)
	}
	if database.IsUnique(err) {
		return RecoveryVault{}, false, vaultBeingChanged(v.ID)
	}
	return v, true, err
}

func (s *Service) changeVault(ctx context.Context, old, v RecoveryVault) (RecoveryVault, bool, error) {
	if !strings.EqualFold(old.Location, v.Location) {
		return RecoveryVault{}, false, locationFixed(old)
	}
	if old.SoftDelete.State == SoftDeleteAlwaysOn && v.SoftDelete.State != SoftDeleteAlwaysOn {
		return RecoveryVault{}, false, softDeleteAlwaysOn(old)
	}
	v.ID, v.Location, v.store = old.ID, old.Location, old.store
	var err error
	if v.Identity, err = s.identityOf(ctx, v, old.Identity); err != nil {
		return RecoveryVault{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		items, err := selectItems(ctx, tx, old.ID)
		if err != nil {
			return err
		}
		if len(items) > 0 && v.Redundancy != old.Redundancy {
			return redundancyLocked(old)
		}
		return updateVault(ctx, tx, v)
	})
	switch {
	case err != nil && v.Identity != old.Identity:
		s.dropIdentity(ctx, v.Identity)
	case err == nil && v.Identity != old.Identity:
		s.dropIdentity(ctx, old.Identity)
	}
	return v, false, err
}

// Vault returns a vault.
func (s *Service) Vault(ctx context.Context, id armid.ID) (RecoveryVault, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/read", id); err != nil {
		return RecoveryVault{}, err
	}
	return s.lookupVault(ctx, id)
}

// VaultOf returns the vault of a part of it, such as …/backupconfig/vaultconfig, to whom may do with that part what the
// verb says: read, write, delete or action.
func (s *Service) VaultOf(ctx context.Context, part armid.ID, verb string) (RecoveryVault, error) {
	if err := s.o.Authorizer.Authorize(ctx, partAction(part, verb), vaultOf(part)); err != nil {
		return RecoveryVault{}, err
	}
	return s.lookupVault(ctx, vaultOf(part))
}

// AllowedAt is nil if the caller may do an action of a location, which belongs to no vault.
func (s *Service) AllowedAt(ctx context.Context, location armid.ID, action string) error {
	return s.o.Authorizer.Authorize(ctx, action, location.Scope())
}

// ConfigureVault changes a vault by one of its parts, for whom may write that part.
func (s *Service) ConfigureVault(ctx context.Context, part armid.ID, change func(*RecoveryVault)) (RecoveryVault, error) {
	v, err := s.VaultOf(ctx, part, "write")
	if err != nil {
		return RecoveryVault{}, err
	}
	change(&v)
	v, _, err = s.putVault(ctx, v)
	return v, err
}

// readableParts are the parts of a vault that Azure's roles for backup name, so that who may read the vault may not read all
// of them, and the other way round. The vault's readers may read what no role names.
var readableParts = []string{"backupstorageconfig", "backupconfig", "usages", "backupResourceGuardProxies", "extendedInformation",
	"registeredIdentities", "operationStatus", "operationResults", "backupEngines", "backupProtectionIntents", "backupPolicies"}

func partAction(part armid.ID, verb string) string {
	words := strings.Split(part.Type(), "/")
	known := len(words) > 2 && slices.ContainsFunc(readableParts, func(p string) bool { return strings.EqualFold(p, words[2]) })
	if verb == "read" && !known {
		return vaultType + "/read"
	}
	return part.Type() + "/" + verb
}

func (s *Service) lookupVault(ctx context.Context, id armid.ID) (v RecoveryVault, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		v, err = selectVault(ctx, tx, id)
		return err
	})
	return v, err
}

// Vaults returns the vaults of a resource group or a subscription, by id.
func (s *Service) Vaults(ctx context.Context, scope armid.ID) ([]RecoveryVault, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/read", scope); err != nil {
		return nil, err
	}
	return s.lookupVaults(ctx, scope)
}

func (s *Service) lookupVaults(ctx context.Context, scope armid.ID) (vaults []RecoveryVault, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err := selectVaults(ctx, tx)
		if err != nil {
			return err
		}
		vaults = slices.DeleteFunc(all, func(v RecoveryVault) bool { return !v.ID.Within(scope) })
		return nil
	})
	return vaults, err
}

// CountIn says how many vaults a resource group holds; those that hold nothing are deleted with it (Deletable).
func (s *Service) CountIn(ctx context.Context, group armid.ID) (int, error) {
	vaults, err := s.lookupVaults(ctx, group)
	return len(vaults), err
}

// Deletable is nil when a resource group can be deleted with the vaults in it: none of them holds backup data.
func (s *Service) Deletable(ctx context.Context, group armid.ID) error {
	vaults, err := s.lookupVaults(ctx, group)
	if err != nil {
		return err
	}
	return s.o.DB.Read(ctx, func(tx *database.Tx) error {
		for _, v := range vaults {
			items, err := selectItems(ctx, tx, v.ID)
			if err != nil {
				return err
			}
			if len(items) > 0 {
				return vaultNotEmpty(v, items)
			}
		}
		return nil
	})
}

// DeleteVault removes a vault that protects nothing and holds no recovery point. Deleting one that does
// not exist is no error. What is left below it in the bucket is erased.
func (s *Service) DeleteVault(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/delete", id); err != nil {
		return false, err
	}
	var v RecoveryVault
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) (err error) {
		existed = false
		v, err = selectVault(ctx, tx, id)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		items, err := selectItems(ctx, tx, v.ID)
		if err != nil {
			return err
		}
		if len(items) > 0 {
			return vaultNotEmpty(v, items)
		}
		existed = true
		return deleteVault(ctx, tx, v)
	})
	if err != nil || !existed {
		return existed, err
	}
	s.dropIdentity(ctx, v.Identity)
	left, err := s.stores.names(ctx, v.store+"/")
	for _, name := range left {
		err = errors.Join(err, s.stores.erase(context.WithoutCancel(ctx), name))
	}
	if err != nil { // the vault is gone; an empty store is in nobody's way
		s.o.Log.Error("erase what is left of a vault", "vault", id.String(), "error", err)
	}
	return existed, nil
}
