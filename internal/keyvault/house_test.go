package keyvault_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

const (
	tenant = "11111111-1111-1111-1111-111111111111"
	group  = "/subscriptions/22222222-2222-2222-2222-222222222222/resourceGroups/Rg"
)

var (
	alice = identity.Principal{ObjectID: "aaaaaaaa-0000-0000-0000-000000000001", AppID: "aaaaaaaa-0000-0000-0000-00000000000a", TenantID: tenant, Name: "alice"}
	bob   = identity.Principal{ObjectID: "bbbbbbbb-0000-0000-0000-000000000002", AppID: "bbbbbbbb-0000-0000-0000-00000000000b", TenantID: tenant, Name: "bob"}
)

// owner authorizes everything for alice and nothing for anybody else.
type owner struct{}

func (owner) Authorize(ctx context.Context, action string, scope armid.ID) error {
	if p, ok := identity.From(ctx); ok && p.ObjectID == alice.ObjectID {
		return nil
	}
	return problem.New(problem.Denied, "AuthorizationFailed", "%s on %s is not allowed.", action, scope)
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// room is a service with what a test needs to speak to it.
type room struct {
	*keyvault.Service
	t     testing.TB
	clock *clock
	alice context.Context
	bob   context.Context
}

func open(t testing.TB, db *database.DB, sealDir string) *room {
	t.Helper()
	root, _, err := seal.OpenOrCreate(sealDir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return openWith(t, db, root)
}

func openWith(t testing.TB, db *database.DB, sealer keyvault.Sealer) *room {
	t.Helper()
	c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s, err := keyvault.New(keyvault.Options{
		DB: db, Seal: sealer, Authorizer: owner{}, DNSSuffix: "vault.localhost:8443", TenantID: tenant, Issuer: "https://login/x", Now: c.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	return &room{s, t, c, identity.With(ctx, alice), identity.With(ctx, bob)}
}

func vaultID(name string) armid.ID {
	return armid.Must(group + "/providers/Microsoft.KeyVault/vaults/" + name)
}

// everything lets alice do all that can be done with keys and secrets.
func everything() []keyvault.AccessPolicy {
	return []keyvault.AccessPolicy{{TenantID: tenant, ObjectID: alice.ObjectID,
		Permissions: keyvault.Permissions{Keys: []string{"all"}, Secrets: []string{"all"}}}}
}

func vaultNamed(name string) keyvault.Vault {
	return keyvault.Vault{ID: vaultID(name), Location: "westeurope",
		Settings: keyvault.Settings{SKU: "standard", SoftDeleteDays: 7, AccessPolicies: everything()}}
}

func (r *room) putVault(name string) keyvault.Vault {
	r.t.Helper()
	v, _, err := r.PutVault(r.alice, vaultNamed(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *room) purgeVault(name string) {
	r.t.Helper()
	if err := r.DeleteVault(r.alice, vaultID(name)); err != nil {
		r.t.Fatal(err)
	}
	if err := r.PurgeVault(r.alice, vaultID(name), "WestEurope", name); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) createKey(vault, name string, size int) keyvault.Key {
	r.t.Helper()
	k, err := r.CreateKey(r.alice, vault, name, keyvault.NewKey{Type: "RSA", Size: size})
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

func (r *room) setSecret(vault, name, value string, c keyvault.Change) keyvault.Secret {
	r.t.Helper()
	s, err := r.SetSecret(r.alice, vault, name, secret.New([]byte(value)), c)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// setBEK wraps bek with the key and keeps it as Azure Disk Encryption does.
func (r *room) setBEK(name string, key keyvault.KeyID, algorithm string, bek []byte) keyvault.Secret {
	r.t.Helper()
	used, wrapped, err := r.WrapKey(r.alice, key, algorithm, secret.Copy(bek))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.setSecret(key.Vault, name, base64.RawURLEncoding.EncodeToString(wrapped), keyvault.Change{
		ContentType: new(keyvault.ContentWrappedBEK),
		Tags:        map[string]string{keyvault.TagAlgorithm: algorithm, keyvault.TagKeyURL: r.KeyURL(used)},
	})
}

// wantCode fails the test unless err has the code, and the inner code where one is given ("Forbidden/AccessDenied").
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	p := problem.Of(err)
	if p == nil {
		t.Errorf("error is %v, want a problem with the code %s", err, code)
		return
	}
	got := p.Code
	if strings.Contains(code, "/") && len(p.Details) > 0 {
		got += "/" + p.Details[0].Code
	}
	if got != code {
		t.Errorf("error is %s (%v), want %s", got, err, code)
	}
	if p.Advice == "" {
		t.Errorf("%s has no advice", got)
	}
}

func version(n int) string { return fmt.Sprintf("%032x", n) }
