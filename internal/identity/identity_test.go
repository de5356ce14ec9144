package identity_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

const (
	tenant       = "8d1f1c52-3b5e-4d6e-9f0a-2d1c5b7a9e11"
	subscription = "c0ffee00-0000-4000-8000-000000000001"
	audience     = "https://localhost:8443"
)

// clock is a hand that the test turns.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) Add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

// sealer seals with AES-GCM, the context as additional data, as the product does.
type sealer struct{ aead cipher.AEAD }

func newSealer(t testing.TB) sealer {
	t.Helper()
	block, err := aes.NewCipher([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(context string, plain []byte) ([]byte, error) {
	return s.aead.Seal(nil, nil, plain, []byte(context)), nil
}

func (s sealer) Open(context string, sealed []byte) ([]byte, error) {
	return s.aead.Open(nil, nil, sealed, []byte(context))
}

func newService(t testing.TB, db *database.DB, c *clock) *identity.Service {
	t.Helper()
	s, err := identity.New(t.Context(), identity.Options{
		DB: db, TenantID: tenant, SubscriptionID: subscription, Issuer: audience + "/", Now: c.Now, Rand: rand.Reader, Seal: newSealer(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantCode fails unless err is a problem with that code and an advice.
func wantCode(t *testing.T, err error, kind problem.Kind, code string) {
	t.Helper()
	p := problem.Of(err)
	if p == nil || p.Code != code || p.Kind != kind {
		t.Fatalf("got error %v, want code %s of kind %d", err, code, kind)
	}
	if p.Advice == "" {
		t.Errorf("%s has no advice", code)
	}
}

func TestBootstrap(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx, s := t.Context(), newService(t, db, newClock())
		admin, clientSecret, created, err := s.Bootstrap(ctx, "admin")
		if err != nil || !created || clientSecret.Len() < 43 {
			t.Fatalf("first Bootstrap = created %v, secret of %d bytes, %v", created, clientSecret.Len(), err)
		}
		if fmt.Sprint(clientSecret) != "[secret]" {
			t.Error("the client secret prints")
		}
		again, none, created, err := s.Bootstrap(ctx, "admin")
		if err != nil || created || none.Len() != 0 || again != admin {
			t.Fatalf("second Bootstrap = %v, created %v, %d bytes, %v; want the same principal and no secret", again, created, none.Len(), err)
		}
		as := identity.With(ctx, admin)
		if err := s.Authorize(as, "Microsoft.Authorization/roleAssignments/write", armid.Subscription(subscription)); err != nil {
			t.Errorf("the administrator is not the subscription's owner: %v", err)
		}
		wantCode(t, s.Authorize(as, "Microsoft.Compute/disks/read", armid.Subscription("other")), problem.Denied, "AuthorizationFailed")
	})
}

func TestPrincipals(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx, s := t.Context(), newService(t, db, newClock())
		p, first, err := s.CreatePrincipal(ctx, "ci")
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{p.ObjectID, p.AppID} {
			if got, err := s.Principal(ctx, id); err != nil || got != p {
				t.Errorf("Principal(%s) = %v, %v", id, got, err)
			}
		}
		backup, err := s.Principal(ctx, identity.BackupManagementService.AppID)
		if err != nil || !backup.BuiltIn || backup.TenantID != tenant {
			t.Errorf("Backup Management Service = %+v, %v", backup, err)
		}
		all, err := s.Principals(ctx)
		if err != nil || len(all) != 2 || all[0] != backup || all[1] != p {
			t.Errorf("Principals = %v, %v", all, err)
		}

		second, err := s.NewSecret(ctx, p.AppID)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.ClientCredentials(ctx, p.AppID, first, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		if _, err = s.ClientCredentials(ctx, p.AppID, second, audience); err != nil {
			t.Errorf("the new secret does not work: %v", err)
		}

		if err := s.Assign(ctx, p.AppID, "Reader", armid.Subscription(subscription)); err != nil {
			t.Fatal(err)
		}
		if err := s.DeletePrincipal(ctx, p.ObjectID); err != nil {
			t.Fatal(err)
		}
		if left, err := s.Assignments(ctx, armid.ID{}); err != nil || len(left) != 0 {
			t.Errorf("assignments of a deleted principal: %v, %v", left, err)
		}
		_, err = s.Principal(ctx, p.ObjectID)
		wantCode(t, err, problem.NotFound, "PrincipalNotFound")
		wantCode(t, s.DeletePrincipal(ctx, p.ObjectID), problem.NotFound, "PrincipalNotFound")
	})
}

func TestBuiltInPrincipalCannotBeChanged(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		ctx, s := t.Context(), newService(t, db, newClock())
		id := identity.BackupManagementService.AppID
		_, err := s.NewSecret(ctx, id)
		wantCode(t, err, problem.Conflict, "BuiltInPrincipal")
		wantCode(t, s.DeletePrincipal(ctx, id), problem.Conflict, "BuiltInPrincipal")
	})
}

func TestPrincipalNames(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		for _, name := range []string{"", "  ", "a\nb", string(make([]byte, 300))} {
			_, _, err := s.CreatePrincipal(t.Context(), name)
			wantCode(t, err, problem.Invalid, "InvalidPrincipalName")
		}
	})
}

func TestNewRefusesMissingParts(t *testing.T) {
	if _, err := identity.New(context.Background(), identity.Options{TenantID: "t"}); err == nil {
		t.Error("New accepts options without a database")
	}
}
