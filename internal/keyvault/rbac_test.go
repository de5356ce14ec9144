package keyvault_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/seal"
)

// actions are the data actions of all operations, below Microsoft.KeyVault/vaults.
var actions = map[string]string{
	"KeyCreate": "keys/create/action", "KeyImport": "keys/import/action", "KeyGet": "keys/read", "KeyList": "keys/read", "KeyListVersions": "keys/read",
	"KeyUpdate": "keys/update/action", "KeyDelete": "keys/delete", "KeyGetDeleted": "keys/read", "KeyListDeleted": "keys/read", "KeyRecover": "keys/recover/action",
	"KeyPurge": "keys/purge/action", "KeyBackup": "keys/backup/action", "KeyRestore": "keys/restore/action", "KeyWrap": "keys/wrap/action",
	"KeyUnwrap": "keys/unwrap/action", "KeyEncrypt": "keys/encrypt/action", "KeyDecrypt": "keys/decrypt/action", "KeySign": "keys/sign/action",
	"KeyVerify": "keys/verify/action", "KeyRotate": "keys/rotate/action", "KeyRelease": "keys/release/action",
	"KeyRotationPolicyGet": "keyrotationpolicies/read", "KeyRotationPolicySet": "keyrotationpolicies/write", "RandomBytesGet": "keys/read",
	"SecretSet": "secrets/setSecret/action", "SecretGet": "secrets/getSecret/action", "SecretList": "secrets/readMetadata/action",
	"SecretListVersions": "secrets/readMetadata/action", "SecretUpdate": "secrets/update/action", "SecretDelete": "secrets/delete",
	"SecretGetDeleted": "secrets/readMetadata/action", "SecretListDeleted": "secrets/readMetadata/action", "SecretRecover": "secrets/recover/action",
	"SecretPurge": "secrets/purge/action", "SecretBackup": "secrets/backup/action", "SecretRestore": "secrets/restore/action",
}

// withRoles is a room beside a real identity service; the key vault kv-one, which leaves access to roles, has a key k
// and a secret s.
func withRoles(t *testing.T) (*room, *identity.Service) {
	t.Helper()
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := openWith(t, db, root)
	id, err := identity.New(t.Context(), identity.Options{DB: db, TenantID: tenant, SubscriptionID: "22222222-2222-2222-2222-222222222222", Issuer: "https://x", Now: r.clock.Now, Seal: root})
	if err != nil {
		t.Fatal(err)
	}
	r.Service, err = keyvault.New(keyvault.Options{DB: db, Seal: root, Authorizer: owner{}, Roles: id, DNSSuffix: "vault.localhost:8443", TenantID: tenant, Issuer: "https://login/x", Now: r.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	r.putVault("kv-one")
	r.createKey("kv-one", "k", 2048)
	r.setSecret("kv-one", "s", "value", keyvault.Change{})
	r.rbac(true)
	return r, id
}

func (r *room) rbac(on bool) {
	r.t.Helper()
	if _, err := r.UpdateVault(r.alice, vaultID("kv-one"), func(s *keyvault.Settings) error { s.RBAC = on; return nil }); err != nil {
		r.t.Fatal(err)
	}
}

// holder makes a principal that has a role at a scope.
func holder(t *testing.T, id *identity.Service, role string, scope armid.ID) (context.Context, identity.Principal) {
	t.Helper()
	p, _, err := id.CreatePrincipal(t.Context(), role)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Assign(t.Context(), p.ObjectID, role, scope); err != nil {
		t.Fatal(err)
	}
	return identity.With(t.Context(), p), p
}

func refusedByRole(err error, action string) bool {
	p := problem.Of(err)
	return p != nil && p.Code == "Forbidden" && p.Details[0].Code == "ForbiddenByRbac" && strings.Contains(p.Message, "Action: 'Microsoft.KeyVault/vaults/"+action+"'")
}

// Every operation by the holder of every role: allowed exactly where the role has the operation's data action.
func TestRolesMatrix(t *testing.T) {
	r, id := withRoles(t)
	for _, role := range identity.Roles() {
		ctx, _ := holder(t, id, role.Name, vaultID("kv-one").Scope())
		for _, u := range uses {
			action, known := actions[u.name]
			if !known {
				t.Fatalf("%s is not in the table of data actions", u.name)
			}
			err := u.do(r, ctx)
			if may := role.AllowsData("Microsoft.KeyVault/vaults/" + action); may == refusedByRole(err, action) {
				t.Errorf("%s by %s: %v, want allowed %v", u.name, role.Name, err, may)
			}
		}
	}
	if len(actions) != len(uses) {
		t.Errorf("%d operations have data actions, there are %d", len(actions), len(uses))
	}
	// Not even all permissions of an access policy let anybody in.
	wantCode(t, second(r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"})), "Forbidden/ForbiddenByRbac")
	r.lastUse(t, "SecretGet", alice, "ForbiddenByRbac")
	r.rbac(false)
	if _, err := r.Secret(r.alice, keyvault.SecretID{Vault: "kv-one", Name: "s"}); err != nil {
		t.Errorf("with access policies again: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A role at one secret lets its holder at this one alone; lists need it at the key vault.
func TestRoleAtOneObject(t *testing.T) {
	r, id := withRoles(t)
	r.rbac(false)
	r.setSecret("kv-one", "other", "value", keyvault.Change{})
	r.rbac(true)
	ctx, _ := holder(t, id, "Key Vault Secrets User", vaultID("kv-one").Child("secrets", "S"))
	if _, err := r.Secret(ctx, keyvault.SecretID{Vault: "kv-one", Name: "s"}); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another secret": second(r.Secret(ctx, keyvault.SecretID{Vault: "kv-one", Name: "other"})),
		"a key":          second(r.Key(ctx, keyvault.KeyID{Vault: "kv-one", Name: "s"})),
	} {
		if isForbidden(err) != true {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err := r.Secrets(ctx, "kv-one", keyvault.Page{})
	wantCode(t, err, "Forbidden/ForbiddenByRbac")
}

// What the backup service needs is in a role of its own, no more and no less than in the template of access policies;
// the role that Azure's documentation names has it, too.
func TestBackupServiceByRole(t *testing.T) {
	r, id := withRoles(t)
	service := identity.BackupManagementService
	missing := func() keyvault.Permissions {
		t.Helper()
		m, err := r.Missing(t.Context(), vaultID("kv-one"), service.ObjectID, keyvault.AzureBackupTemplate())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := missing(); len(m.Keys) != 3 || len(m.Secrets) != 3 {
		t.Errorf("without a role is missing %+v", m)
	}
	for role, want := range map[string]string{"Key Vault Backup Service": "", "Key Vault Administrator": "", "Key Vault Secrets User": "Get List Backup Backup", "Key Vault Crypto User": "Get List Backup", "Key Vault Secrets Officer": "Get List Backup"} {
		if err := id.Assign(t.Context(), service.ObjectID, role, vaultID("kv-one")); err != nil {
			t.Fatal(err)
		}
		m := missing()
		if got := strings.Join(slices.Concat(m.Keys, m.Secrets), " "); got != want {
			t.Errorf("with %s is missing %q, want %q", role, got, want)
		}
		if err := id.Unassign(t.Context(), service.ObjectID, role, vaultID("kv-one")); err != nil {
			t.Fatal(err)
		}
	}
	if err := id.Assign(t.Context(), service.ObjectID, "Key Vault Backup Service", vaultID("kv-one")); err != nil {
		t.Fatal(err)
	}
	needed := []string{"KeyGet", "KeyList", "KeyListVersions", "KeyGetDeleted", "KeyListDeleted", "KeyBackup", "RandomBytesGet",
		"SecretGet", "SecretList", "SecretListVersions", "SecretGetDeleted", "SecretListDeleted", "SecretBackup"}
	for _, u := range uses {
		if may := !refusedByRole(u.do(r, identity.With(t.Context(), service)), actions[u.name]); may != slices.Contains(needed, u.name) {
			t.Errorf("%s by the backup service: allowed %v", u.name, may)
		}
	}
}

// assigner authorizes all management but the right to give access.
type assigner struct{ owner }

func (a assigner) Authorize(ctx context.Context, action string, scope armid.ID) error {
	if strings.HasPrefix(action, "Microsoft.Authorization/") {
		return problem.New(problem.Denied, "AuthorizationFailed", "%s on %s is not allowed.", action, scope)
	}
	return a.owner.Authorize(ctx, action, scope)
}

// Who manages key vaults without the right to give access can't change who decides about access; a new key vault is his
// to make either way.
func TestChangeOfModelGivesAccess(t *testing.T) {
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := openWith(t, db, root)
	if r.Service, err = keyvault.New(keyvault.Options{DB: db, Seal: root, Authorizer: assigner{}, DNSSuffix: "vault.x", TenantID: tenant, Now: r.clock.Now, NewVersion: uuid.NewString}); err != nil {
		t.Fatal(err)
	}
	v := vaultNamed("kv-one")
	v.RBAC = true
	if _, created, err := r.PutVault(r.alice, v); err != nil || !created {
		t.Fatal(created, err)
	}
	off := v
	off.RBAC = false
	_, _, err = r.PutVault(r.alice, off)
	wantCodeOnly(t, err, "AuthorizationFailed")
	_, err = r.UpdateVault(r.alice, v.ID, func(s *keyvault.Settings) error { s.RBAC = false; return nil })
	wantCodeOnly(t, err, "AuthorizationFailed")
	if _, err = r.UpdateVault(r.alice, v.ID, func(s *keyvault.Settings) error { s.Tags = map[string]string{"a": "b"}; return nil }); err != nil {
		t.Error(err)
	}
	if _, err := r.UpdateVault(r.alice, v.ID, func(*keyvault.Settings) error { return errors.New("no") }); err == nil {
		t.Error("an error of the change is lost")
	}
	if got, err := r.Vault(r.alice, v.ID); err != nil || !got.RBAC {
		t.Errorf("vault = %+v, %v", got, err)
	}
}
