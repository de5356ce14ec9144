package keyvault_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

// uses are all operations of the data door: what they need, how the record calls them, and one that is well-formed.
var uses = []struct {
	kind, permission, name string
	do                     func(*room, context.Context) error
}{
	{"keys", "create", "KeyCreate", func(r *room, ctx context.Context) error {
		_, err := r.CreateKey(ctx, "kv-one", "new", keyvault.NewKey{Type: "EC"})
		return err
	}},
	{"keys", "import", "KeyImport", func(r *room, ctx context.Context) error {
		_, err := r.ImportKey(ctx, "kv-one", "new", keyvault.JWK{Type: "EC"}, keyvault.Change{})
		return err
	}},
	{"keys", "get", "KeyGet", func(r *room, ctx context.Context) error {
		_, err := r.Key(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"})
		return err
	}},
	{"keys", "list", "KeyList", func(r *room, ctx context.Context) error {
		_, _, err := r.Keys(ctx, "kv-one", keyvault.Page{})
		return err
	}},
	{"keys", "list", "KeyListVersions", func(r *room, ctx context.Context) error {
		_, _, err := r.KeyVersions(ctx, "kv-one", "k", keyvault.Page{})
		return err
	}},
	{"keys", "update", "KeyUpdate", func(r *room, ctx context.Context) error {
		_, err := r.UpdateKey(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, keyvault.Change{})
		return err
	}},
	{"keys", "backup", "KeyBackup", func(r *room, ctx context.Context) error {
		_, err := r.BackUpKey(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"})
		return err
	}},
	{"keys", "restore", "KeyRestore", func(r *room, ctx context.Context) error {
		_, err := r.RestoreKey(ctx, "kv-one", []byte("no blob"))
		return err
	}},
	{"keys", "wrapKey", "KeyWrap", func(r *room, ctx context.Context) error {
		_, _, err := r.WrapKey(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, keyvault.RSAOAEP, secret.New([]byte("x")))
		return err
	}},
	{"keys", "unwrapKey", "KeyUnwrap", func(r *room, ctx context.Context) error {
		_, _, err := r.UnwrapKey(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, keyvault.RSAOAEP, []byte("x"))
		return err
	}},
	{"keys", "encrypt", "KeyEncrypt", func(r *room, ctx context.Context) error {
		_, _, err := r.Encrypt(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, keyvault.RSAOAEP, secret.New([]byte("x")), nil, nil)
		return err
	}},
	{"keys", "decrypt", "KeyDecrypt", func(r *room, ctx context.Context) error {
		_, _, err := r.Decrypt(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, keyvault.RSAOAEP, keyvault.Ciphertext{Value: []byte("x")})
		return err
	}},
	{"keys", "sign", "KeySign", func(r *room, ctx context.Context) error {
		_, _, err := r.Sign(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, "RS256", make([]byte, 32))
		return err
	}},
	{"keys", "verify", "KeyVerify", func(r *room, ctx context.Context) error {
		_, err := r.Verify(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"}, "RS256", make([]byte, 32), []byte("x"))
		return err
	}},
	{"keys", "rotate", "KeyRotate", func(r *room, ctx context.Context) error {
		_, err := r.RotateKey(ctx, "kv-one", "none")
		return err
	}},
	{"keys", "getrotationpolicy", "KeyRotationPolicyGet", func(r *room, ctx context.Context) error {
		_, _, err := r.RotationPolicy(ctx, "kv-one", "k")
		return err
	}},
	{"keys", "setrotationpolicy", "KeyRotationPolicySet", func(r *room, ctx context.Context) error {
		_, _, err := r.PutRotationPolicy(ctx, "kv-one", "k", keyvault.RotationPolicy{})
		return err
	}},
	{"keys", "release", "KeyRelease", func(r *room, ctx context.Context) error {
		return r.ReleaseKey(ctx, keyvault.KeyID{Vault: "kv-one", Name: "k"})
	}},
	{"keys", "get", "RandomBytesGet", func(r *room, ctx context.Context) error {
		_, err := r.RandomBytes(ctx, "kv-one", 8)
		return err
	}},
	{"keys", "delete", "KeyDelete", func(r *room, ctx context.Context) error {
		_, err := r.DeleteKey(ctx, "kv-one", "none")
		return err
	}},
	{"keys", "get", "KeyGetDeleted", func(r *room, ctx context.Context) error {
		_, err := r.DeletedKey(ctx, "kv-one", "none")
		return err
	}},
	{"keys", "list", "KeyListDeleted", func(r *room, ctx context.Context) error {
		_, _, err := r.DeletedKeys(ctx, "kv-one", keyvault.Page{})
		return err
	}},
	{"keys", "recover", "KeyRecover", func(r *room, ctx context.Context) error {
		_, err := r.RecoverKey(ctx, "kv-one", "none")
		return err
	}},
	{"keys", "purge", "KeyPurge", func(r *room, ctx context.Context) error { return r.PurgeKey(ctx, "kv-one", "none") }},

	{"secrets", "set", "SecretSet", func(r *room, ctx context.Context) error {
		_, err := r.SetSecret(ctx, "kv-one", "new", secret.New([]byte("x")), keyvault.Change{})
		return err
	}},
	{"secrets", "get", "SecretGet", func(r *room, ctx context.Context) error {
		_, err := r.Secret(ctx, keyvault.SecretID{Vault: "kv-one", Name: "s"})
		return err
	}},
	{"secrets", "list", "SecretList", func(r *room, ctx context.Context) error {
		_, _, err := r.Secrets(ctx, "kv-one", keyvault.Page{})
		return err
	}},
	{"secrets", "list", "SecretListVersions", func(r *room, ctx context.Context) error {
		_, _, err := r.SecretVersions(ctx, "kv-one", "s", keyvault.Page{})
		return err
	}},
	{"secrets", "set", "SecretUpdate", func(r *room, ctx context.Context) error {
		_, err := r.UpdateSecret(ctx, keyvault.SecretID{Vault: "kv-one", Name: "s"}, keyvault.Change{})
		return err
	}},
	{"secrets", "backup", "SecretBackup", func(r *room, ctx context.Context) error {
		_, err := r.BackUpSecret(ctx, keyvault.SecretID{Vault: "kv-one", Name: "s"})
		return err
	}},
	{"secrets", "restore", "SecretRestore", func(r *room, ctx context.Context) error {
		_, err := r.RestoreSecret(ctx, "kv-one", []byte("no blob"))
		return err
	}},
	{"secrets", "delete", "SecretDelete", func(r *room, ctx context.Context) error {
		_, err := r.DeleteSecret(ctx, "kv-one", "none")
		return err
	}},
	{"secrets", "get", "SecretGetDeleted", func(r *room, ctx context.Context) error {
		_, err := r.DeletedSecret(ctx, "kv-one", "none")
		return err
	}},
	{"secrets", "list", "SecretListDeleted", func(r *room, ctx context.Context) error {
		_, _, err := r.DeletedSecrets(ctx, "kv-one", keyvault.Page{})
		return err
	}},
	{"secrets", "recover", "SecretRecover", func(r *room, ctx context.Context) error {
		_, err := r.RecoverSecret(ctx, "kv-one", "none")
		return err
	}},
	{"secrets", "purge", "SecretPurge", func(r *room, ctx context.Context) error { return r.PurgeSecret(ctx, "kv-one", "none") }},
}

var (
	keyWords    = strings.Fields("encrypt decrypt wrapKey unwrapKey sign verify get list create update import delete backup restore recover purge release rotate getrotationpolicy setrotationpolicy")
	secretWords = strings.Fields("get list set delete backup restore recover purge")
)

// grantBob replaces bob's permissions.
func (r *room) grantBob(p keyvault.Permissions) {
	r.t.Helper()
	_, err := r.UpdateAccessPolicies(r.alice, vaultID("kv-one"), keyvault.Replace, []keyvault.AccessPolicy{{TenantID: tenant, ObjectID: strings.ToUpper(bob.ObjectID), Permissions: p}})
	if err != nil {
		r.t.Fatal(err)
	}
}

// Every operation needs exactly its own permission: with all others it is refused, in the words of Azure, and with that
// one alone it is not. Each try is in the record.
func TestEachOperationNeedsItsOwnPermission(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		r.createKey("kv-one", "k", 2048)
		r.setSecret("kv-one", "s", "value", keyvault.Change{})
		other := map[string]string{"keys": "secrets", "secrets": "keys"}
		for _, u := range uses {
			t.Run(u.name, func(t *testing.T) {
				without := map[string][]string{"keys": slices.Clone(keyWords), "secrets": slices.Clone(secretWords)}
				without[u.kind] = slices.DeleteFunc(without[u.kind], func(w string) bool { return w == u.permission })
				without[other[u.kind]] = []string{"all"}
				r.grantBob(keyvault.Permissions{Keys: without["keys"], Secrets: without["secrets"]})
				err := u.do(r, r.bob)
				wantCode(t, err, "Forbidden/AccessDenied")
				sentence := fmt.Sprintf("The user, group or application 'appid=%s;oid=%s;iss=https://login/x' does not have %s %s permission on key vault 'kv-one;location=westeurope'.",
					bob.AppID, bob.ObjectID, u.kind, u.permission)
				if err == nil || !strings.Contains(err.Error(), sentence) {
					t.Errorf("refusal is %v\nwant %s", err, sentence)
				}
				r.lastUse(t, u.name, bob, "AccessDenied")

				only := map[string][]string{u.kind: {strings.ToUpper(u.permission)}}
				r.grantBob(keyvault.Permissions{Keys: only["keys"], Secrets: only["secrets"]})
				if err := u.do(r, r.bob); err != nil && strings.Contains(err.Error(), "does not have") {
					t.Errorf("with the permission: %v", err)
				}
				err = u.do(r, context.Background())
				wantCode(t, err, "Unauthorized")
			})
		}
	})
}

func (r *room) lastUse(t *testing.T, operation string, who identity.Principal, result string) keyvault.Entry {
	t.Helper()
	list, err := r.Uses(r.alice, vaultID("kv-one"), "", 1)
	if err != nil || len(list) != 1 {
		t.Fatalf("uses: %d, %v", len(list), err)
	}
	u := list[0]
	if u.Operation != operation || u.Principal.ObjectID != who.ObjectID || u.Principal.AppID != who.AppID || u.Result != result || u.At.IsZero() {
		t.Errorf("last use is %+v, want %s by %s: %s", u, operation, who.Name, result)
	}
	return u
}

func TestUsesTellWhatHappened(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		r := open(t, db, t.TempDir())
		r.putVault("kv-one")
		k := r.createKey("kv-one", "K", 2048)
		if u := r.lastUse(t, "KeyCreate", alice, "Success"); u.Name != "K" || u.Version != k.ID.Version || u.Kind != string(keyvault.Keys) || u.Vault != "kv-one" {
			t.Errorf("use is %+v", u)
		}
		_, wrapped, err := r.WrapKey(r.alice, keyvault.KeyID{Vault: "KV-one", Name: "k"}, keyvault.RSAOAEP, secret.New([]byte("the value")))
		if err != nil {
			t.Fatal(err)
		}
		if u := r.lastUse(t, "KeyWrap", alice, "Success"); u.Version != k.ID.Version {
			t.Errorf("use is %+v", u)
		}
		wrapped[0] ^= 1
		_, _, err = r.UnwrapKey(r.alice, k.ID, keyvault.RSAOAEP, wrapped)
		wantCode(t, err, "BadParameter")
		r.lastUse(t, "KeyUnwrap", alice, "BadParameter")
		s := r.setSecret("kv-one", "s", "the value", keyvault.Change{Enabled: new(false)})
		r.lastUse(t, "SecretSet", alice, "Success")
		_, err = r.Secret(r.alice, s.ID)
		wantCode(t, err, "Forbidden/SecretDisabled")
		r.lastUse(t, "SecretGet", alice, "SecretDisabled")

		list, err := r.Uses(r.alice, vaultID("kv-one"), "", 100)
		if err != nil || len(list) != 5 {
			t.Fatalf("%d uses, %v", len(list), err)
		}
		rest, err := r.Uses(r.alice, vaultID("kv-one"), list[1].ID, 100)
		if err != nil || len(rest) != 3 || rest[0] != list[2] {
			t.Errorf("uses before the second: %v, %v", rest, err)
		}
		_, err = r.Uses(r.bob, vaultID("kv-one"), "", 1)
		wantCodeOnly(t, err, "AuthorizationFailed")
	})
}

// stuckRand gives randomness until it is stopped.
type stuckRand struct{ stuck bool }

func (s *stuckRand) Read(p []byte) (int, error) {
	if s.stuck {
		return 0, io.ErrUnexpectedEOF
	}
	for i := range p {
		p[i] = byte(i*7 + len(p))
	}
	return len(p), nil
}

// A use that can't be recorded doesn't happen: nothing is handed out, nothing is written.
func TestNothingHappensUnrecorded(t *testing.T) {
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	r := open(t, db, t.TempDir())
	r.putVault("kv-one")
	r.setSecret("kv-one", "s", "value", keyvault.Change{})
	r.createKey("kv-one", "k", 2048)
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	random := &stuckRand{}
	next := 0
	s, err := keyvault.New(keyvault.Options{DB: other, Seal: root, Authorizer: owner{}, DNSSuffix: "v.x", TenantID: tenant, Now: r.clock.Now, Rand: random,
		NewVersion: func() string { next++; return version(next) }})
	if err != nil {
		t.Fatal(err)
	}
	r = &room{s, t, r.clock, r.alice, r.bob}
	r.putVault("kv-one")
	set := r.setSecret("kv-one", "s", "value", keyvault.Change{})
	k := r.createKey("kv-one", "k", 2048)
	random.stuck = true
	if got, err := r.Secret(r.alice, set.ID); err == nil || got.Value.Len() != 0 || got.ID.Name != "" {
		t.Errorf("Secret = %+v, %v", got, err)
	}
	if _, got, err := r.WrapKey(r.alice, k.ID, keyvault.RSAOAEP, secret.New([]byte("x"))); err == nil || got != nil {
		t.Errorf("WrapKey = %x, %v", got, err)
	}
	if got, err := r.BackUpKey(r.alice, k.ID); err == nil || got != nil {
		t.Errorf("BackUpKey = %x, %v", got, err)
	}
	if _, err := r.SetSecret(r.alice, "kv-one", "s", secret.New([]byte("new")), keyvault.Change{}); err == nil {
		t.Error("SetSecret succeeded")
	}
	if _, err := r.DeleteSecret(r.alice, "kv-one", "s"); err == nil {
		t.Error("DeleteSecret succeeded")
	}
	random.stuck = false
	if got, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"}); err != nil || got.ID != set.ID {
		t.Errorf("afterwards the secret is %+v, %v", got, err)
	}
}

func TestMissing(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	backup := identity.BackupManagementService.ObjectID
	missing := func() string {
		t.Helper()
		m, err := r.Missing(context.Background(), vaultID("KV-One"), backup, keyvault.AzureBackupTemplate())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(m.Keys, m.Secrets)
	}
	grant := func(change keyvault.PolicyChange, p keyvault.AccessPolicy) {
		t.Helper()
		p.TenantID, p.ObjectID = tenant, backup
		if _, err := r.UpdateAccessPolicies(r.alice, vaultID("kv-one"), change, []keyvault.AccessPolicy{p}); err != nil {
			t.Fatal(err)
		}
	}
	if got := missing(); got != "[Get List Backup] [Get List Backup]" {
		t.Errorf("without a policy: %s", got)
	}
	grant(keyvault.Add, keyvault.AccessPolicy{ApplicationID: "another application", Permissions: keyvault.AzureBackupTemplate()})
	if got := missing(); got != "[Get List Backup] [Get List Backup]" {
		t.Errorf("with a policy for another application: %s", got)
	}
	grant(keyvault.Add, keyvault.AccessPolicy{Permissions: keyvault.Permissions{Keys: []string{"all"}, Secrets: []string{"GET"}}})
	if got := missing(); got != "[] [List Backup]" {
		t.Errorf("with all keys and GET secrets: %s", got)
	}
	grant(keyvault.Add, keyvault.AccessPolicy{Permissions: keyvault.AzureBackupTemplate()})
	if got := missing(); got != "[] []" {
		t.Errorf("with the template: %s", got)
	}
	_, err := r.Missing(context.Background(), vaultID("kv-none"), backup, keyvault.AzureBackupTemplate())
	wantCode(t, err, "ResourceNotFound")
}

func TestManagementNeedsARole(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	r.putVault("kv-one")
	id := vaultID("kv-one")
	for name, do := range map[string]func(context.Context) error{
		"PutVault":      func(ctx context.Context) error { _, _, err := r.PutVault(ctx, vaultNamed("kv-two")); return err },
		"UpdateVault":   func(ctx context.Context) error { _, err := r.UpdateVault(ctx, id, nil); return err },
		"Vault":         func(ctx context.Context) error { _, err := r.Vault(ctx, id); return err },
		"Vaults":        func(ctx context.Context) error { _, err := r.Vaults(ctx, id.Scope()); return err },
		"DeleteVault":   func(ctx context.Context) error { return r.DeleteVault(ctx, id) },
		"RecoverVault":  func(ctx context.Context) error { _, err := r.RecoverVault(ctx, id); return err },
		"DeletedVault":  func(ctx context.Context) error { _, err := r.DeletedVault(ctx, id, "westeurope", "kv-one"); return err },
		"DeletedVaults": func(ctx context.Context) error { _, err := r.DeletedVaults(ctx, id.Scope()); return err },
		"PurgeVault":    func(ctx context.Context) error { return r.PurgeVault(ctx, id, "westeurope", "kv-one") },
		"UpdateAccessPolicies": func(ctx context.Context) error {
			_, err := r.UpdateAccessPolicies(ctx, id, keyvault.Add, nil)
			return err
		},
	} {
		if err := do(r.bob); err == nil || !strings.Contains(err.Error(), "AuthorizationFailed") {
			t.Errorf("%s without a role: %v", name, err)
		}
	}
}

// Adding what is there changes nothing; removing what was added restores what was; nothing changes for others.
func TestPolicyChanges(t *testing.T) {
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	r := open(t, db, t.TempDir())
	words := rapid.SliceOfDistinct(rapid.SampledFrom(secretWords), func(s string) string { return s })
	rapid.Check(t, func(t *rapid.T) {
		first, second := words.Draw(t, "first"), words.Draw(t, "second")
		v := vaultNamed("kv-policies")
		if _, _, err := r.PutVault(r.alice, v); err != nil {
			t.Fatal(err)
		}
		change := func(c keyvault.PolicyChange, secrets []string) []string {
			v, err := r.UpdateAccessPolicies(r.alice, vaultID("kv-policies"), c, []keyvault.AccessPolicy{{TenantID: tenant, ObjectID: bob.ObjectID, Permissions: keyvault.Permissions{Secrets: secrets}}})
			if err != nil {
				t.Fatal(err)
			}
			if len(v.AccessPolicies) == 0 || v.AccessPolicies[0].Permissions.Keys[0] != "all" {
				t.Fatal("alice's policy changed")
			}
			if len(v.AccessPolicies) == 1 {
				return nil
			}
			got := slices.Clone(v.AccessPolicies[1].Permissions.Secrets)
			slices.Sort(got)
			return got
		}
		set := func(lists ...[]string) []string {
			out := slices.Concat(lists...)
			slices.Sort(out)
			return slices.Compact(out)
		}
		if got := change(keyvault.Add, first); !slices.Equal(got, set(first)) {
			t.Fatalf("add %v: %v", first, got)
		}
		if got := change(keyvault.Add, second); !slices.Equal(got, set(first, second)) {
			t.Fatalf("add %v: %v", second, got)
		}
		left := slices.DeleteFunc(set(first, second), func(w string) bool { return slices.Contains(second, w) || len(second) == 0 })
		if got := change(keyvault.Remove, second); !slices.Equal(got, left) {
			t.Fatalf("remove %v: %v, want %v", second, got, left)
		}
		change(keyvault.Replace, []string{"all"})
		if len(first) > 0 {
			left := slices.DeleteFunc(set(secretWords), func(w string) bool { return slices.Contains(first, w) })
			if got := change(keyvault.Remove, first); !slices.Equal(got, left) {
				t.Fatalf("remove %v from all: %v", first, got)
			}
		}
	})
}

// wantCodeOnly is wantCode for problems of others, whose advice is not ours.
func wantCodeOnly(t testing.TB, err error, code string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), code) {
		t.Errorf("error is %v, want %s", err, code)
	}
}

func isForbidden(err error) bool { return problem.Is(err, "Forbidden") }
