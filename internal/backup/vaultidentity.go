package backup

import (
	"context"
	"fmt"

	"kluis/internal/armid"
)

// A vault can have an identity of its own: a service principal that roles and access policies can name, and that goes with
// the vault. Nobody holds a secret of it, so nobody can log in as it, and nothing is done as it here: keys are read as
// Backup Management Service. It is there because scripts give it rights and read its id.

// VaultIdentity is the service principal of a vault.
type VaultIdentity struct {
	Wanted   bool   `json:"wanted"`
	ObjectID string `json:"objectId"`
	TenantID string `json:"tenantId"`
}

// Principals makes service principals that nobody can log in as.
type Principals interface {
	MakePrincipal(ctx context.Context, name string) (objectID, tenantID string, err error)
	DropPrincipal(ctx context.Context, objectID string) error
}

// identityOf is the identity that a vault is to have: the one it has, a new one, or none. Only Wanted is asked of the
// caller.
func (s *Service) identityOf(ctx context.Context, v RecoveryVault, old VaultIdentity) (VaultIdentity, error) {
	switch {
	case !v.Identity.Wanted:
		return VaultIdentity{}, nil
	case old.Wanted:
		return old, nil
	}
	object, tenant, err := s.o.Principals.MakePrincipal(ctx, principalName(v.ID))
	if err != nil {
		return VaultIdentity{}, fmt.Errorf("make the identity of vault %s: %w", v.ID.Name(), err)
	}
	return VaultIdentity{Wanted: true, ObjectID: object, TenantID: tenant}, nil
}

// principalName tells vaults of one name in two groups apart.
func principalName(vault armid.ID) string { return vault.Name() + " (" + vault.ResourceGroup + ")" }

// dropIdentity removes an identity that no vault has any more. One that stays behind has no rights that anybody could use.
func (s *Service) dropIdentity(ctx context.Context, i VaultIdentity) {
	if i.ObjectID == "" {
		return
	}
	if err := s.o.Principals.DropPrincipal(context.WithoutCancel(ctx), i.ObjectID); err != nil {
		s.o.Log.Warn("the identity of a vault is left behind", "principal", i.ObjectID, "error", err)
	}
}
