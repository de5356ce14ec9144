package keyvault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

func randomBytes(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// The story of the product, as far as keys go: a BEK wrapped by a KEK is backed up, the key vault is lost, a new
// one is made, and what comes back opens the disk.
func TestKeysComeBackAfterTheKeyVaultIsGone(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		kek := r.createKey("kv-one", "Kek", 3072)
		for _, algorithm := range []string{keyvault.RSAOAEP, keyvault.RSAOAEP256, keyvault.RSA15} {
			bek := randomBytes(t, 64)
			name := strings.ReplaceAll(algorithm, "_", "-")
			sec := r.setBEK(name, kek.ID, algorithm, bek)

			// Backup reads as its own principal, and only once it has been let in.
			service := identity.With(t.Context(), identity.BackupManagementService)
			_, err := r.BackUpKey(service, kek.ID)
			wantCode(t, err, "Forbidden/AccessDenied")
			_, err = r.UpdateAccessPolicies(r.alice, vaultID("kv-one"), keyvault.Add, []keyvault.AccessPolicy{
				{TenantID: tenant, ObjectID: identity.BackupManagementService.ObjectID, Permissions: keyvault.AzureBackupTemplate()}})
			if err != nil {
				t.Fatal(err)
			}
			keyBlob, err := r.BackUpKey(service, kek.ID)
			if err != nil {
				t.Fatal(err)
			}
			secretBlob, err := r.BackUpSecret(service, sec.ID)
			if err != nil {
				t.Fatal(err)
			}

			r.purgeVault("kv-one")
			if got, err := r.Unwrapped(t.Context(), keyBlob, secretBlob, sec.ID.Version); err != nil || !bytes.Equal(got.Reveal(), bek) {
				t.Errorf("%s: the blobs alone give another BEK: %v", algorithm, err)
			}
			r.putVault("kv-one")
			_, err = r.Secret(r.alice, sec.ID)
			wantCode(t, err, "SecretNotFound")
			gotKey, err := r.RestoreKey(r.alice, "kv-one", keyBlob)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(kek, gotKey); diff != "" {
				t.Errorf("the restored key differs (-was +is):\n%s", diff)
			}
			if _, err := r.RestoreSecret(r.alice, "kv-one", secretBlob); err != nil {
				t.Fatal(err)
			}
			got, err := r.Secret(r.alice, sec.ID)
			if err != nil || !bytes.Equal(got.Value.Reveal(), sec.Value.Reveal()) || cmp.Diff(got.Tags, sec.Tags) != "" || got.ContentType != sec.ContentType {
				t.Fatalf("%s: the restored secret differs: %v", algorithm, err)
			}
			wrapped, err := keyvault.DecodeValue(got.Value.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			if _, opened, err := r.UnwrapKey(r.alice, kek.ID, algorithm, wrapped); err != nil || !bytes.Equal(opened.Reveal(), bek) {
				t.Errorf("%s: the restored key unwraps something else: %v", algorithm, err)
			}
		}
	})
}

func TestBlobKeepsAllVersionsAndAttributes(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		r.putVault("kv-two")
		expires := r.clock.Now().Add(time.Hour).Truncate(time.Second)
		first := r.setSecret("kv-one", "S", "first", keyvault.Change{Expires: &expires, Tags: map[string]string{"a": "b"}})
		r.clock.forward(time.Minute)
		second := r.setSecret("kv-one", "s", "second", keyvault.Change{Enabled: new(false), ContentType: new("text")})
		blob, err := r.BackUpSecret(r.alice, first.ID)
		if err != nil {
			t.Fatal(err)
		}
		info, err := r.Describe(blob)
		if err != nil || info.Kind != keyvault.Secrets || info.Vault != "kv-one" || info.Name != "S" || info.Current != second.ID.Version || len(info.Versions) != 2 {
			t.Errorf("Describe = %+v, %v", info, err)
		}

		newest, err := r.RestoreSecret(r.alice, "kv-two", blob)
		if err != nil || newest.ID != (keyvault.SecretID{Vault: "kv-two", Name: "S", Version: second.ID.Version}) || newest.Value.Len() != 0 {
			t.Fatalf("RestoreSecret = %+v, %v", newest, err)
		}
		before, _, err := r.SecretVersions(r.alice, "kv-one", "S", keyvault.Page{})
		if err != nil {
			t.Fatal(err)
		}
		after, _, err := r.SecretVersions(r.alice, "kv-two", "S", keyvault.Page{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range after {
			after[i].ID.Vault = "kv-one"
		}
		if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b secret.Bytes) bool { return bytes.Equal(a.Reveal(), b.Reveal()) })); diff != "" || len(after) != 2 {
			t.Errorf("versions differ after the restore (-was +is):\n%s", diff)
		}
		got, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-two", Name: "S", Version: first.ID.Version})
		if err != nil || string(got.Value.Reveal()) != "first" {
			t.Errorf("the first version is %v, %v", got.Value.Len(), err)
		}
	})
}

func TestRestoreOverATakenNameIsAConflict(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		k := r.createKey("kv-one", "k", 2048)
		r.setSecret("kv-one", "s", "value", keyvault.Change{})
		keyBlob, err := r.BackUpKey(r.alice, k.ID)
		if err != nil {
			t.Fatal(err)
		}
		secretBlob, err := r.BackUpSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"})
		if err != nil {
			t.Fatal(err)
		}
		restoreBoth := func(code string) {
			t.Helper()
			_, err := r.RestoreKey(r.alice, "kv-one", keyBlob)
			wantCode(t, err, code)
			_, err = r.RestoreSecret(r.alice, "kv-one", secretBlob)
			wantCode(t, err, code)
		}
		restoreBoth("Conflict")
		if _, err := r.DeleteKey(r.alice, "kv-one", "k"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.DeleteSecret(r.alice, "kv-one", "s"); err != nil {
			t.Fatal(err)
		}
		restoreBoth("Conflict/ObjectIsDeletedButRecoverable")
		_, err = r.RestoreKey(r.alice, "kv-one", secretBlob)
		wantCode(t, err, "BadParameter")
	})
}

func TestUnwrappedSaysWhatIsWrong(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	kek, other := r.createKey("kv-one", "kek", 2048), r.createKey("kv-one", "other", 2048)
	bek := randomBytes(t, 32)
	backUpKey := func(id keyvault.KeyID) []byte {
		blob, err := r.BackUpKey(r.alice, id)
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	backUp := func(s keyvault.Secret) []byte {
		blob, err := r.BackUpSecret(r.alice, s.ID)
		if err != nil {
			t.Fatal(err)
		}
		return blob
	}
	kekBlob := backUpKey(kek.ID)
	good := r.setBEK("bek", kek.ID, keyvault.RSAOAEP, bek)
	goodBlob := backUp(good)
	tags := func(url, algorithm string) keyvault.Change {
		return keyvault.Change{ContentType: new(keyvault.ContentWrappedBEK), Tags: map[string]string{keyvault.TagKeyURL: url, keyvault.TagAlgorithm: algorithm}}
	}
	value := string(good.Value.Reveal())
	kekURL := "https://any.vault.azure.net:443/keys/KEK/" + kek.ID.Version
	cases := []struct {
		name                string
		keyBlob, secretBlob []byte
		version             string
		want                error
	}{
		{"newest version", kekBlob, goodBlob, "", nil},
		{"secret version unknown", kekBlob, goodBlob, version(1), keyvault.ErrSecretVersionMissing},
		{"another key's blob", backUpKey(other.ID), goodBlob, "", keyvault.ErrKeyVersionMissing},
		{"no algorithm means RSA-OAEP, and the host may be any", kekBlob, backUp(r.setSecret("kv-one", "no-alg", value, tags(kekURL, ""))), "", nil},
		{"padded standard base64", kekBlob, backUp(r.setSecret("kv-one", "padded",
			strings.NewReplacer("-", "+", "_", "/").Replace(value)+"==", tags(kekURL, keyvault.RSAOAEP))), "", nil},
		{"key version unknown", kekBlob, backUp(r.setSecret("kv-one", "v", value, tags("https://kv.x/keys/kek/"+version(2), ""))), "", keyvault.ErrKeyVersionMissing},
		{"key version not named", kekBlob, backUp(r.setSecret("kv-one", "n", value, tags("https://kv.x.y/keys/kek", ""))), "", keyvault.ErrKeyVersionMissing},
		{"key URL malformed", kekBlob, backUp(r.setSecret("kv-one", "m", value, tags("ftp://kv1.x.y/keys/kek", ""))), "", keyvault.ErrKeyVersionMissing},
		{"other algorithm", kekBlob, backUp(r.setSecret("kv-one", "a", value, tags(kekURL, keyvault.RSAOAEP256))), "", keyvault.ErrUnwrap},
		{"unknown algorithm", kekBlob, backUp(r.setSecret("kv-one", "u", value, tags(kekURL, "A256KW"))), "", keyvault.ErrUnwrap},
		{"value not base64", kekBlob, backUp(r.setSecret("kv-one", "b", "*"+value, tags(kekURL, ""))), "", keyvault.ErrUnwrap},
		{"value of another key", kekBlob, backUp(r.setSecret("kv-one", "o", string(r.setBEK("x", other.ID, keyvault.RSAOAEP, bek).Value.Reveal()), tags(kekURL, ""))), "", keyvault.ErrUnwrap},
		{"BEK alone", kekBlob, backUp(r.setSecret("kv-one", "p", "cGxhaW4", keyvault.Change{ContentType: new(keyvault.ContentBEK)})), "", keyvault.ErrNotWrapped},
	}
	for _, c := range cases {
		got, err := r.Unwrapped(t.Context(), c.keyBlob, c.secretBlob, c.version)
		if !errors.Is(err, c.want) || c.want == nil && !bytes.Equal(got.Reveal(), bek) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	_, err := r.Unwrapped(t.Context(), goodBlob, goodBlob, "")
	wantCode(t, err, "BadParameter")
}

func TestBlobsOfOthersDontOpen(t *testing.T) {
	dir := t.TempDir()
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), dir)
	r.putVault("kv-one")
	r.setSecret("kv-one", "s", "value", keyvault.Change{})
	blob, err := r.BackUpSecret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 5, len("&KluisKeyVaultBackup/1\n"), len(blob) / 2, len(blob) - 1} {
		tampered := bytes.Clone(blob)
		tampered[at] ^= 1
		_, err := r.RestoreSecret(r.alice, "kv-one", tampered)
		wantCode(t, err, "BadParameter")
		_, err = r.Describe(tampered)
		wantCode(t, err, "BadParameter")
	}
	other := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	_, err = other.Describe(blob)
	wantCode(t, err, "BadParameter")

	root, _, err := seal.OpenOrCreate(dir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := keyvault.New(keyvault.Options{DB: databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), Seal: root, Authorizer: owner{},
		DNSSuffix: "vault.localhost", TenantID: "33333333-3333-3333-3333-333333333333", Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stranger.Describe(blob)
	wantCode(t, err, "BadParameter")
}
