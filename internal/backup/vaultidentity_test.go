package backup_test

import (
	"testing"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

// A vault's identity is made once, stays while it is wanted, and goes with the vault.
func TestVaultIdentity(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		if v := must(h.Vault(h.ctx, vaultID))(t); v.Identity != (backup.VaultIdentity{}) || len(h.principals) != 0 {
			t.Errorf("a new vault has the identity %+v", v.Identity)
		}
		want := func(wanted bool, principals int) {
			t.Helper()
			v := must(h.Vault(h.ctx, vaultID))(t)
			v.Identity = backup.VaultIdentity{Wanted: wanted, ObjectID: "somebody else"}
			_, _, err := h.PutVault(h.ctx, v)
			h.check(err)
			v = must(h.Vault(h.ctx, vaultID))(t)
			if len(h.principals) != principals || wanted && v.Identity.ObjectID != h.principals[0] || !wanted && v.Identity != (backup.VaultIdentity{}) {
				t.Errorf("the vault has %+v, and there are %v", v.Identity, h.principals)
			}
		}
		want(true, 1)
		want(true, 1)
		want(false, 0)
		want(true, 1)
		if !must(h.DeleteVault(h.ctx, vaultID))(t) || len(h.principals) != 0 {
			t.Errorf("after the vault was deleted there are %v", h.principals)
		}
	})
}
