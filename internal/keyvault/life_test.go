package keyvault_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

func TestEverythingOpensAfterARestart(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		sealDir := t.TempDir()
		db, err := database.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, db, sealDir)
		r.putVault("kv-one")
		k := r.createKey("kv-one", "k", 2048)
		s := r.setSecret("kv-one", "s", "value", keyvault.Change{})
		_, wrapped, err := r.WrapKey(r.alice, k.ID, keyvault.RSAOAEP256, secret.New([]byte("bek")))
		if err != nil {
			t.Fatal(err)
		}
		blob, err := r.BackUpSecret(r.alice, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}

		db = databasetest.Open(t, url)
		r = open(t, db, sealDir)
		if got, err := r.Secret(r.alice, s.ID); err != nil || string(got.Value.Reveal()) != "value" {
			t.Errorf("Secret: %v", err)
		}
		if _, got, err := r.UnwrapKey(r.alice, k.ID, keyvault.RSAOAEP256, wrapped); err != nil || string(got.Reveal()) != "bek" {
			t.Errorf("UnwrapKey: %v", err)
		}
		if info, err := r.Describe(blob); err != nil || info.Name != "s" {
			t.Errorf("Describe: %+v, %v", info, err)
		}

		stranger, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = keyvault.New(keyvault.Options{DB: db, Seal: stranger, Authorizer: owner{}, DNSSuffix: "v.x", TenantID: tenant, Now: r.clock.Now})
		if !errors.Is(err, seal.ErrSealed) || !strings.Contains(err.Error(), "another root key") {
			t.Errorf("with another root key: %v", err)
		}
	})
}

// Planted values are looked for in every file of the database and of the seal, in the forms in which they could leak.
func TestNothingSecretIsOnDisk(t *testing.T) {
	dir := t.TempDir()
	r := open(t, databasetest.Open(t, "sqlite:"+filepath.Join(dir, "kluis.db")), filepath.Join(dir, "seal"))
	r.putVault("kv-one")
	var planted [][]byte
	for i := range 20 {
		value := fmt.Sprintf("planted secret value %d", i)
		planted = append(planted, []byte(value))
		r.setSecret("kv-one", fmt.Sprintf("s%d", i%3), value, keyvault.Change{Tags: map[string]string{"visible": "tag value"}})
	}
	bek := randomBytes(t, 64)
	k := r.createKey("kv-one", "k", 2048)
	_, wrapped, err := r.WrapKey(r.alice, k.ID, keyvault.RSAOAEP, secret.Copy(bek))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.UnwrapKey(r.alice, k.ID, keyvault.RSAOAEP, wrapped); err != nil {
		t.Fatal(err)
	}
	imported := plantedKey(t)
	if _, err := r.ImportKey(r.alice, "kv-one", "imported", imported, keyvault.Change{}); err != nil {
		t.Fatal(err)
	}
	planted = append(planted, bek, imported.D.Reveal(), imported.P.Reveal(), imported.Q.Reveal())
	blob, err := r.BackUpSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "blob"), blob, 0o600); err != nil {
		t.Fatal(err)
	}

	found := false
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found = found || bytes.Contains(content, []byte("tag value"))
		for i, p := range planted {
			for form, needle := range leaks(p) {
				if bytes.Contains(content, needle) {
					t.Errorf("%s holds planted value %d as %s", filepath.Base(path), i, form)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Error("the search doesn't even find the tags, which are in plain: it looks in the wrong place")
	}
}

// The same in what a dump of either database holds: every column of every table of the key vault.
func TestNothingSecretIsInADump(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		planted := [][]byte{[]byte("planted secret value"), plantedKey(t).D.Reveal()}
		r.setSecret("kv-one", "s", string(planted[0]), keyvault.Change{Tags: map[string]string{"visible": "tag value"}})
		if _, err := r.ImportKey(r.alice, "kv-one", "k", plantedKey(t), keyvault.Change{}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"}); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, table := range []string{"keyvault_vaults", "keyvault_objects", "keyvault_versions", "keyvault_uses", "keyvault_seal", "keyvault_audit_head", "keyvault_rotation_policies"} {
			content := dump(t, db, table)
			found = found || bytes.Contains(content, []byte("tag value"))
			for i, p := range planted {
				for form, needle := range leaks(p) {
					if bytes.Contains(content, needle) {
						t.Errorf("%s holds planted value %d as %s", table, i, form)
					}
				}
			}
		}
		if !found {
			t.Error("the search doesn't even find the tags, which are in plain")
		}
	})
}

func dump(t *testing.T, db *database.DB, table string) (content []byte) {
	t.Helper()
	err := db.Read(t.Context(), func(tx *database.Tx) error {
		rows, err := tx.QueryContext(t.Context(), "SELECT * FROM "+table)
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			values := make([][]byte, len(columns))
			to := make([]any, len(columns))
			for i := range values {
				to[i] = &values[i]
			}
			if err := rows.Scan(to...); err != nil {
				return err
			}
			content = append(content, bytes.Join(values, []byte("\n"))...)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// leaks are the forms of a value; those in base64 at each of the three offsets that it can have inside of something longer.
func leaks(p []byte) map[string][]byte {
	m := map[string][]byte{"itself": p, "hex": []byte(hex.EncodeToString(p)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(p)))}
	for skip := range 3 {
		tail := p[skip : len(p)-(len(p)-skip)%3]
		m[fmt.Sprintf("base64 at offset %d", skip)] = []byte(base64.StdEncoding.EncodeToString(tail))
		m[fmt.Sprintf("base64url at offset %d", skip)] = []byte(base64.URLEncoding.EncodeToString(tail))
	}
	return m
}

// A row that is moved to another place doesn't open there: the seal is bound to vault, kind, name and version.
type moving struct {
	keyvault.Sealer
	contexts map[string]int
}

func (m *moving) Seal(context string, plain []byte) ([]byte, error) {
	m.contexts[context]++
	return m.Sealer.Seal(context, plain)
}

func TestEachVersionHasAContextOfItsOwn(t *testing.T) {
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &moving{root, map[string]int{}}
	r := openWith(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), m)
	for _, vault := range []string{"kv-one", "kv-two"} {
		r.putVault(vault)
		for _, name := range []string{"a", "b", "a"} {
			r.setSecret(vault, name, "x", keyvault.Change{})
		}
		if _, err := r.CreateKey(r.alice, vault, "a", keyvault.NewKey{Type: "EC"}); err != nil {
			t.Fatal(err)
		}
	}
	for context, n := range m.contexts {
		if n != 1 {
			t.Errorf("%s was sealed %d times", context, n)
		}
	}
	if len(m.contexts) != 1+2*4*2 { // one for the check at the start, one for each version, and one for its use
		t.Errorf("contexts: %v", m.contexts)
	}
}

func TestSoftDeleteKeepsTheName(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		r.setSecret("kv-one", "s", "value", keyvault.Change{})
		deleted, err := r.DeleteSecret(r.alice, "kv-one", "S")
		if err != nil || !deleted.Deletion.Purge.Equal(r.clock.Now().AddDate(0, 0, 7)) || deleted.Attributes.RecoveryLevel != "CustomizedRecoverable+Purgeable" {
			t.Errorf("DeleteSecret = %+v, %v", deleted, err)
		}
		_, err = r.SetSecret(r.alice, "kv-one", "s", secret.New(nil), keyvault.Change{})
		wantCode(t, err, "Conflict/ObjectIsDeletedButRecoverable")
		_, err = r.DeleteSecret(r.alice, "kv-one", "s")
		wantCode(t, err, "SecretNotFound")
		_, err = r.UpdateSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"}, keyvault.Change{})
		wantCode(t, err, "SecretNotFound")
		_, err = r.BackUpSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"})
		wantCode(t, err, "SecretNotFound")
		if _, err := r.RecoverSecret(r.alice, "kv-one", "s"); err != nil {
			t.Fatal(err)
		}
		_, err = r.RecoverSecret(r.alice, "kv-one", "s")
		wantCode(t, err, "MethodNotAllowed/RequestNotAllowedOnNonDeletedObject")
		if got, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"}); err != nil || string(got.Value.Reveal()) != "value" {
			t.Errorf("recovered: %v", err)
		}

		// When the retention is over it is as if it had never been, whether or not anything has cleaned up.
		if _, err := r.DeleteSecret(r.alice, "kv-one", "s"); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(7 * 24 * time.Hour)
		_, err = r.DeletedSecret(r.alice, "kv-one", "s")
		wantCode(t, err, "SecretNotFound")
		if list, _, err := r.DeletedSecrets(r.alice, "kv-one", keyvault.Page{}); err != nil || len(list) != 0 {
			t.Errorf("deleted secrets: %v, %v", list, err)
		}
		s := r.setSecret("kv-one", "s", "new", keyvault.Change{})
		if list, _, err := r.SecretVersions(r.alice, "kv-one", "s", keyvault.Page{}); err != nil || len(list) != 1 {
			t.Errorf("versions: %v, %v", list, err)
		}
		blob, err := r.BackUpSecret(r.alice, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.DeleteSecret(r.alice, "kv-one", "s"); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(7 * 24 * time.Hour)
		if _, err := r.RestoreSecret(r.alice, "kv-one", blob); err != nil {
			t.Errorf("restore over what has expired: %v", err)
		}
	})
}

func TestDeletedKeyVaultTakesItsContentAlong(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		s := r.setSecret("kv-one", "s", "value", keyvault.Change{})
		id := vaultID("kv-one")
		if err := r.DeleteVault(r.alice, id); err != nil {
			t.Fatal(err)
		}
		_, err := r.Secret(r.alice, s.ID)
		wantCode(t, err, "VaultNotFound/VaultIsDeleted")
		_, err = r.VaultByName(t.Context(), "kv-one")
		wantCode(t, err, "VaultNotFound/VaultIsDeleted")
		_, err = r.VaultByName(t.Context(), "kv-none")
		wantCode(t, err, "VaultNotFound")
		_, err = r.Vault(r.alice, id)
		wantCode(t, err, "ResourceNotFound")
		wantCode(t, r.DeleteVault(r.alice, id), "ResourceNotFound")
		_, _, err = r.PutVault(r.alice, vaultNamed("KV-ONE"))
		wantCode(t, err, "ConflictError")
		wantCode(t, r.NameAvailable(t.Context(), "kv-one"), "ConflictError")
		wantCode(t, r.PurgeVault(r.alice, id, "eastus", "kv-one"), "DeletedVaultNotFound")
		if _, err := r.RecoverVault(r.alice, id); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Secret(r.alice, s.ID); err != nil || string(got.Value.Reveal()) != "value" {
			t.Errorf("after the recovery: %v", err)
		}
		r.purgeVault("kv-one")
		if err := r.NameAvailable(t.Context(), "kv-one"); err != nil {
			t.Errorf("after the purge: %v", err)
		}
		r.putVault("kv-one")
		if list, _, err := r.Secrets(r.alice, "kv-one", keyvault.Page{}); err != nil || len(list) != 0 {
			t.Errorf("a new key vault holds %v, %v", list, err)
		}

		if err := r.DeleteVault(r.alice, id); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(7 * 24 * time.Hour)
		_, err = r.VaultByName(t.Context(), "kv-one")
		wantCode(t, err, "VaultNotFound")
		_, err = r.RecoverVault(r.alice, id)
		wantCode(t, err, "DeletedVaultNotFound")
		r.putVault("kv-one")
		if list, _, err := r.Secrets(r.alice, "kv-one", keyvault.Page{}); err != nil || len(list) != 0 {
			t.Errorf("a new key vault holds %v, %v", list, err)
		}
	})
}

func TestPurgeExpiredTakesOnlyWhatIsDue(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		for _, name := range []string{"kv-keep", "kv-old", "kv-young"} {
			r.putVault(name)
			r.setSecret(name, "keep", "x", keyvault.Change{})
			r.setSecret(name, "old", "x", keyvault.Change{})
			r.setSecret(name, "young", "x", keyvault.Change{})
		}
		remove := func(vault, name string) {
			t.Helper()
			if _, err := r.DeleteSecret(r.alice, "kv-keep", name); err != nil {
				t.Fatal(err)
			}
			if err := r.DeleteVault(r.alice, vaultID(vault)); err != nil {
				t.Fatal(err)
			}
		}
		remove("kv-old", "old")
		r.clock.forward(24 * time.Hour)
		remove("kv-young", "young")
		r.clock.forward(6 * 24 * time.Hour)
		if err := r.PurgeExpired(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.clock.forward(-time.Hour) // a moment at which all could still be recovered
		_, err := r.RecoverVault(r.alice, vaultID("kv-old"))
		wantCode(t, err, "DeletedVaultNotFound")
		if _, err := r.RecoverVault(r.alice, vaultID("kv-young")); err != nil {
			t.Error(err)
		}
		_, err = r.RecoverSecret(r.alice, "kv-keep", "old")
		wantCode(t, err, "SecretNotFound")
		if _, err := r.RecoverSecret(r.alice, "kv-keep", "young"); err != nil {
			t.Error(err)
		}
		if list, _, err := r.Secrets(r.alice, "kv-keep", keyvault.Page{}); err != nil || len(list) != 2 {
			t.Errorf("secrets: %v, %v", list, err)
		}
	})
}

func TestPurgeProtectionCantBePassed(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	v := vaultNamed("kv-one")
	v.PurgeProtection = true
	if _, _, err := r.PutVault(r.alice, v); err != nil {
		t.Fatal(err)
	}
	r.setSecret("kv-one", "s", "value", keyvault.Change{})
	if _, err := r.DeleteSecret(r.alice, "kv-one", "s"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.PurgeSecret(r.alice, "kv-one", "s"), "Forbidden/ForbiddenByPolicy")
	v.PurgeProtection = false
	if put, _, err := r.PutVault(r.alice, v); err != nil || !put.PurgeProtection {
		t.Errorf("a PUT turned it off: %v", err)
	}
	_, err := r.UpdateVault(r.alice, v.ID, func(s *keyvault.Settings) error { s.PurgeProtection = false; return nil })
	wantCode(t, err, "BadRequest")
	_, err = r.UpdateVault(r.alice, v.ID, func(s *keyvault.Settings) error { s.SoftDeleteDays = 8; return nil })
	wantCode(t, err, "BadRequest")
	if err := r.DeleteVault(r.alice, v.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.PurgeVault(r.alice, v.ID, "westeurope", "kv-one"), "MethodNotAllowed")
	if _, err := r.RecoverVault(r.alice, v.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.PurgeSecret(r.alice, "kv-one", "s"), "Forbidden/ForbiddenByPolicy")
}

func TestKeyVaultNamesAreGlobal(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	elsewhere := vaultNamed("kv-one")
	elsewhere.ID = vaultID("kv-one").Scope().Parent().Group("other").Resource(keyvault.VaultType, "KV-one")
	_, _, err := r.PutVault(r.alice, elsewhere)
	wantCode(t, err, "VaultAlreadyExists")
	for _, name := range []string{"ab", "1abc", "abc-", "a--b", "a_b", strings.Repeat("a", 25), "ab.c"} {
		_, _, err := r.PutVault(r.alice, vaultNamed(name))
		wantCode(t, err, "VaultNameNotValid")
	}
}

// A key outside of its time closes nothing new but opens what it has closed; a disabled one does neither.
func TestWhenAKeyMayBeUsed(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	k := r.createKey("kv-one", "k", 2048)
	_, wrapped, err := r.WrapKey(r.alice, k.ID, keyvault.RSAOAEP, secret.New([]byte("bek")))
	if err != nil {
		t.Fatal(err)
	}
	never, before, after := time.Unix(1, 0), r.clock.Now().Add(-time.Hour), r.clock.Now().Add(time.Hour)
	cases := []struct {
		name         string
		change       keyvault.Change
		wrap, unwrap string
	}{
		{"valid", keyvault.Change{NotBefore: &before, Expires: &after}, "", ""},
		{"not yet valid", keyvault.Change{NotBefore: &after, Expires: new(after.Add(time.Hour))}, "Forbidden/KeyNotYetValid", ""},
		{"expired", keyvault.Change{NotBefore: &never, Expires: &before}, "Forbidden/KeyExpired", ""},
		{"disabled", keyvault.Change{Enabled: new(false)}, "Forbidden/KeyDisabled", "Forbidden/KeyDisabled"},
		{"only opens", keyvault.Change{Enabled: new(true), NotBefore: &never, Expires: &after, Operations: []string{"UNWRAPKEY"}}, "Forbidden/KeyOperationForbidden", ""},
		{"does nothing", keyvault.Change{Operations: []string{}}, "Forbidden/KeyOperationForbidden", "Forbidden/KeyOperationForbidden"},
	}
	for _, c := range cases {
		if _, err := r.UpdateKey(r.alice, k.ID, c.change); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		check := func(op string, err error, code string) {
			t.Helper()
			if code == "" && err != nil {
				t.Errorf("%s: %s: %v", c.name, op, err)
			} else if code != "" {
				wantCode(t, err, code)
			}
		}
		_, _, err := r.WrapKey(r.alice, k.ID, keyvault.RSAOAEP, secret.New([]byte("x")))
		check("wrap", err, c.wrap)
		_, _, err = r.UnwrapKey(r.alice, k.ID, keyvault.RSAOAEP, wrapped)
		check("unwrap", err, c.unwrap)
		if _, err := r.Key(r.alice, k.ID); err != nil { // the public part is always readable
			t.Errorf("%s: get: %v", c.name, err)
		}
	}
}

// Whatever is wrong with a wrapped value, the refusal is the same, so that it can't be used as an oracle.
func TestUnwrapFailuresLookTheSame(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	k := r.createKey("kv-one", "k", 2048)
	_, wrapped, err := r.WrapKey(r.alice, k.ID, keyvault.RSA15, secret.New([]byte("bek")))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, algorithm := range []string{keyvault.RSA15, keyvault.RSAOAEP, keyvault.RSAOAEP256} {
		for _, value := range [][]byte{nil, {1}, wrapped[1:], append(bytes.Clone(wrapped), 0), bytes.Repeat([]byte{0xff}, len(wrapped)), make([]byte, len(wrapped)), bytes.Repeat([]byte{7}, len(wrapped))} {
			if _, plain, err := r.UnwrapKey(r.alice, k.ID, algorithm, value); err == nil {
				t.Errorf("%s unwraps %x to %d bytes", algorithm, value, plain.Len())
			} else {
				seen[err.Error()] = true
			}
		}
	}
	if len(seen) != 1 {
		t.Errorf("the refusals differ: %v", seen)
	}
	for _, c := range []struct {
		algorithm string
		size      int
	}{{"A256KW", 16}, {"", 16}, {"rsa-oaep", 16}, {keyvault.RSAOAEP, 0}, {keyvault.RSAOAEP, 215}, {keyvault.RSAOAEP256, 191}, {keyvault.RSA15, 246}} {
		_, _, err := r.WrapKey(r.alice, k.ID, c.algorithm, secret.New(make([]byte, c.size)))
		wantCode(t, err, "BadParameter")
	}
}

func TestVersionsWrittenAtOnceAreAllKept(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := r.SetSecret(r.alice, "kv-one", "s", secret.New([]byte{byte('a' + i)}), keyvault.Change{}); err != nil {
					t.Error(err)
				}
				if _, err := r.UpdateAccessPolicies(r.alice, vaultID("kv-one"), keyvault.Add, []keyvault.AccessPolicy{
					{TenantID: tenant, ObjectID: fmt.Sprint("object-", i), Permissions: keyvault.AzureBackupTemplate()}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if list, _, err := r.SecretVersions(r.alice, "kv-one", "s", keyvault.Page{}); err != nil || len(list) != 8 {
			t.Errorf("%d versions, %v", len(list), err)
		}
		if v, err := r.Vault(r.alice, vaultID("kv-one")); err != nil || len(v.AccessPolicies) != 9 {
			t.Errorf("%d policies, %v", len(v.AccessPolicies), err)
		}
	})
}

// The built-in principal belongs to no tenant of its own, and is still only let in by a policy.
func TestBackupManagementServiceIsLetInByAPolicyOnly(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	s := r.setSecret("kv-one", "s", "value", keyvault.Change{})
	service := identity.With(context.Background(), identity.BackupManagementService)
	_, err := r.BackUpSecret(service, s.ID)
	wantCode(t, err, "Forbidden/AccessDenied")
	if _, err := r.UpdateAccessPolicies(r.alice, vaultID("kv-one"), keyvault.Add, []keyvault.AccessPolicy{
		{TenantID: tenant, ObjectID: identity.BackupManagementService.ObjectID, Permissions: keyvault.AzureBackupTemplate()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.BackUpSecret(service, s.ID); err != nil {
		t.Errorf("with the template: %v", err)
	}
	_, err = r.DeleteSecret(service, "kv-one", "s")
	wantCode(t, err, "Forbidden/AccessDenied")
}
