package keyvault_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/keyvault"
	"kluis/internal/seal"
)

// mortal is a root whose process dies when it has sealed so often.
type mortal struct {
	*seal.Root
	left int
}

var errKilled = errors.New("killed")

func (m *mortal) Seal(context string, plain []byte) ([]byte, error) {
	if m.left--; m.left < 0 {
		return nil, errKilled
	}
	return m.Root.Seal(context, plain)
}

func openRooted(t *testing.T, db *database.DB, sealer keyvault.Sealer, root keyvault.Root) *room {
	t.Helper()
	r := openWith(t, db, sealer)
	s, err := keyvault.New(keyvault.Options{DB: db, Seal: sealer, Root: root, Authorizer: owner{}, DNSSuffix: "vault.localhost:8443", TenantID: tenant, Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	r.Service = s
	return r
}

// The root key is rotated while there is much under it; the sealing anew is killed again and again, and goes on. All
// the time everything can be read, and at the end nothing is left under the old root.
func TestRotationOfTheRootKeyGoesOnWhereItWasKilled(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		dir := t.TempDir()
		root, _, err := seal.OpenOrCreate(dir, seal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := openRooted(t, db, root, root)
		r.putVault("kv-one")
		const secrets = 410 // more than two batches
		name := func(n int) string { return fmt.Sprintf("s%03d", n) }
		for n := range secrets {
			r.setSecret("kv-one", name(n), "value of "+name(n), keyvault.Change{})
		}
		readAll := func() {
			t.Helper()
			for n := 0; n < secrets; n += 37 {
				s, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: name(n)})
				if err != nil || string(s.Value.Reveal()) != "value of "+name(n) {
					t.Fatalf("%s: %v", name(n), err)
				}
			}
		}
		if err := r.RotateRoot(r.alice, vaultID("kv-one").Scope()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-r.RootRotated():
		default:
			t.Error("nobody is told of the rotation")
		}
		pending := func() int {
			t.Helper()
			st, err := r.SealStatus(r.alice, vaultID("kv-one").Scope())
			if err != nil {
				t.Fatal(err)
			}
			return st.Pending
		}
		if got := pending(); got != secrets {
			t.Fatalf("%d are pending after the rotation", got)
		}
		for _, kill := range []int{0, 1, 150, 250} {
			m := &mortal{root, 1 << 30}
			dying := openRooted(t, db, m, root)
			m.left = kill
			if _, err := dying.Reseal(t.Context()); !errors.Is(err, errKilled) {
				t.Errorf("killed after %d: %v", kill, err)
			}
			readAll()
		}
		if got := pending(); got == 0 || got == secrets {
			t.Errorf("%d are pending after it was killed; some should be done and some not", got)
		}
		restarted, _, err := seal.OpenOrCreate(dir, seal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r = openRooted(t, db, restarted, restarted)
		if _, err := r.Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := pending(); got != 0 {
			t.Errorf("%d are pending at the end", got)
		}
		if n, err := r.Reseal(t.Context()); n != 0 || err != nil {
			t.Errorf("sealed %d anew for the second time: %v", n, err)
		}
		readAll()
	})
}

// A blob in a recovery point is sealed under the root of its day, and can't be sealed anew.
func TestBlobsOpenLongAfterRotations(t *testing.T) {
	dir := t.TempDir()
	root, _, err := seal.OpenOrCreate(dir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := openRooted(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), root, root)
	r.putVault("kv-one")
	kek := r.createKey("kv-one", "kek", 2048)
	bek := randomBytes(t, 64)
	sec := r.setBEK("bek", kek.ID, keyvault.RSAOAEP, bek)
	keyBlob, err := r.BackUpKey(r.alice, kek.ID)
	if err != nil {
		t.Fatal(err)
	}
	secretBlob, err := r.BackUpSecret(r.alice, sec.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := r.RotateRoot(r.alice, vaultID("kv-one").Scope()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reseal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.purgeVault("kv-one")

	// Another machine: root.age and identity, and an empty database.
	again, _, err := seal.OpenOrCreate(dir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r = openRooted(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), again, again)
	if got, err := r.Unwrapped(t.Context(), keyBlob, secretBlob, ""); err != nil || !bytes.Equal(got.Reveal(), bek) {
		t.Errorf("the blobs give another BEK: %v", err)
	}
	r.putVault("kv-new")
	if _, err := r.RestoreKey(r.alice, "kv-new", keyBlob); err != nil {
		t.Error(err)
	}
	if _, err := r.RestoreSecret(r.alice, "kv-new", secretBlob); err != nil {
		t.Error(err)
	}
}

// What is damaged stays as it is, is named, and keeps nothing else under the old root.
func TestDamagedVersionDoesntStopTheSealingAnew(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := openRooted(t, db, root, root)
		r.putVault("kv-one")
		for _, name := range []string{"a", "b", "c"} {
			r.setSecret("kv-one", name, "value", keyvault.Change{})
		}
		err = db.InTx(t.Context(), func(tx *database.Tx) error {
			_, err := tx.ExecContext(t.Context(), `UPDATE keyvault_versions SET sealed = $1 WHERE name_key = 'b'`, []byte("rubbish"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.RotateRoot(r.alice, vaultID("kv-one").Scope()); err != nil {
			t.Fatal(err)
		}
		n, err := r.Reseal(t.Context())
		if n != 2 || err == nil || !strings.Contains(err.Error(), "kv-one/secrets/b") {
			t.Errorf("sealed %d anew: %v", n, err)
		}
		if s, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "c"}); err != nil || string(s.Value.Reveal()) != "value" {
			t.Error(err)
		}
	})
}

func TestTheSealNeedsARoleAndIsRecorded(t *testing.T) {
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := openRooted(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), root, root)
	subscription := vaultID("kv-one").Scope()
	own := root.Recipients()[0]
	wantCodeOnly(t, r.RotateRoot(r.bob, subscription), "AuthorizationFailed")
	wantCodeOnly(t, r.AddRecipient(r.bob, subscription, own), "AuthorizationFailed")
	_, err = r.SealStatus(r.bob, subscription)
	wantCodeOnly(t, err, "AuthorizationFailed")
	wantCode(t, r.AddRecipient(r.alice, subscription, "nonsense"), "BadRecipient")
	wantCode(t, r.RemoveRecipient(r.alice, subscription, own), "BadRecipient")
	if err := r.RotateRoot(r.alice, subscription); err != nil {
		t.Fatal(err)
	}
	events, err := r.Audit(r.alice, subscription, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, e.Operation+" "+e.Result)
	}
	want := []string{"SealRotate AuthorizationFailed", "SealRecipientAdd AuthorizationFailed", "SealRecipientAdd BadRecipient", "SealRecipientRemove BadRecipient", "SealRotate Success"}
	if !slices.Equal(got, want) {
		t.Errorf("the record is %v, want %v", got, want)
	}
	fixed := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	wantCode(t, fixed.RotateRoot(fixed.alice, subscription), "NotSupported")
}
