package keyvault_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
)

// A VM that starts gets its key from a key vault that is enabled for disk encryption, and from no other, whoever has
// what permissions there. Each use is recorded as that of Azure Disk Encryption.
func TestDiskKey(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		ctx := t.Context() // of nobody
		r.putVault("kv-one")
		kek := r.createKey("kv-one", "kek", 2048)
		bek := r.setBEK("bek", kek.ID, keyvault.RSAOAEP, []byte("passphrase"))
		secretURL, keyURL := r.SecretURL(bek.ID), r.KeyURL(kek.ID)
		enabled := func(yes bool) {
			t.Helper()
			if _, err := r.UpdateVault(r.alice, vaultID("kv-one"), func(s *keyvault.Settings) error { s.EnabledForDiskEncryption = yes; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		want := func(code string) {
			t.Helper()
			_, key, err := r.DiskKey(ctx, secretURL, keyURL)
			wantCode(t, err, code)
			if key.Len() != 0 {
				t.Error("a key was given with an error")
			}
		}
		// Not even a policy for the principal lets it in.
		policy := keyvault.AccessPolicy{TenantID: tenant, ObjectID: identity.AzureDiskEncryption.ObjectID, Permissions: keyvault.Permissions{Keys: []string{"all"}, Secrets: []string{"all"}}}
		if _, err := r.UpdateVault(r.alice, vaultID("kv-one"), func(s *keyvault.Settings) error { s.AccessPolicies = append(s.AccessPolicies, policy); return nil }); err != nil {
			t.Fatal(err)
		}
		want("Forbidden/AccessDenied")
		enabled(true)
		about, key, err := r.DiskKey(ctx, secretURL, keyURL)
		if err != nil || string(key.Reveal()) != "passphrase" || !about.Wrapped {
			t.Fatalf("key %q, %+v, %v", key.Reveal(), about, err)
		}
		r.lastUse(t, "KeyUnwrap", identity.AzureDiskEncryption, "Success")
		if _, err := r.DeleteSecret(identity.With(ctx, identity.AzureDiskEncryption), "kv-one", "bek"); err == nil {
			t.Error("Azure Disk Encryption deleted a secret")
		}

		plain := r.setSecret("kv-one", "plain", base64.StdEncoding.EncodeToString([]byte("alone")), keyvault.Change{ContentType: new(keyvault.ContentBEK)})
		if _, key, err := r.DiskKey(ctx, r.SecretURL(plain.ID), ""); err != nil || string(key.Reveal()) != "alone" {
			t.Errorf("a BEK that nothing wraps: %q, %v", key.Reveal(), err)
		}
		other := r.createKey("kv-one", "other", 2048)
		if _, _, err := r.DiskKey(ctx, secretURL, r.KeyURL(other.ID)); !errors.Is(err, keyvault.ErrKeyVersionMissing) {
			t.Errorf("wrapped by another key than the settings say: %v", err)
		}
		text := r.setSecret("kv-one", "text", "no BEK", keyvault.Change{})
		if _, _, err := r.DiskKey(ctx, r.SecretURL(text.ID), keyURL); !errors.Is(err, keyvault.ErrNotWrapped) {
			t.Errorf("a secret that is no BEK: %v", err)
		}
		off := false
		if _, err := r.UpdateSecret(r.alice, bek.ID, keyvault.Change{Enabled: &off}); err != nil {
			t.Fatal(err)
		}
		want("Forbidden/SecretDisabled")
		on := true
		if _, err := r.UpdateSecret(r.alice, bek.ID, keyvault.Change{Enabled: &on}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.DeleteKey(r.alice, "kv-one", "kek"); err != nil {
			t.Fatal(err)
		}
		want("KeyNotFound")
		if err := r.DeleteVault(r.alice, vaultID("kv-one")); err != nil {
			t.Fatal(err)
		}
		want("VaultNotFound/VaultIsDeleted")
	})
}
