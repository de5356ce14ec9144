package identity_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

const passphrase = "correct horse battery staple"

func text(s string) secret.Bytes { return secret.New([]byte(s)) }

// administrator is the directory as its first administrator uses it.
func administrator(t *testing.T, s *identity.Service) (context.Context, identity.Directory) {
	t.Helper()
	admin, _, _, err := s.Bootstrap(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	return identity.With(t.Context(), admin), s.Directory()
}

// addAda makes a person.
func addAda(t *testing.T, s *identity.Service) identity.Principal {
	t.Helper()
	ctx, d := administrator(t, s)
	e, _, err := d.CreateUser(ctx, identity.NewUser{SignInName: "ada", Name: "Ada Lovelace", Password: text(passphrase)})
	if err != nil {
		t.Fatal(err)
	}
	return e.Principal
}

func TestPeople(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ctx, d := administrator(t, s)
		made, password, err := d.CreateUser(ctx, identity.NewUser{SignInName: " Ada@Example.com ", Role: "Reader", Scope: armid.Subscription(subscription)})
		if err != nil {
			t.Fatal(err)
		}
		if made.Kind != identity.User || made.SignInName != "ada@example.com" || made.Name != made.SignInName || made.AppID != "" ||
			len(made.Assignments) != 1 || made.Assignments[0].PrincipalType != "User" || len(made.Credentials) != 1 {
			t.Errorf("made %+v", made)
		}
		if named, err := s.UserNamed(ctx, "ADA@example.com"); err != nil || named != made.Principal {
			t.Errorf("UserNamed = %+v, %v", named, err)
		}
		_, _, err = d.CreateUser(ctx, identity.NewUser{SignInName: "ada@example.com"})
		wantCode(t, err, problem.Conflict, "UserPrincipalNameExists")

		ada, err := s.SignIn(ctx, "ADA@example.com", password)
		if err != nil || ada != made.Principal {
			t.Fatalf("signed in %+v, %v", ada, err)
		}
		if err := s.Authorize(identity.With(ctx, ada), "Microsoft.Compute/disks/read", armid.Subscription(subscription)); err != nil {
			t.Errorf("the role of a person: %v", err)
		}
		for name, wrong := range map[string]secret.Bytes{"ada@example.com": text("wrong horse battery"), "bob": password, "": password, strings.Repeat("a", 300): password} {
			_, err := s.SignIn(ctx, name, wrong)
			wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		}
		_, err = s.ClientCredentials(ctx, ada.ObjectID, password, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeUnauthorizedClient)

		if _, err := d.SetDisabled(ctx, ada.ObjectID, true); err != nil {
			t.Fatal(err)
		}
		_, err = s.SignIn(ctx, ada.SignInName, password)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		if _, err := d.SetDisabled(ctx, ada.ObjectID, false); err != nil {
			t.Fatal(err)
		}
		if _, none, err := d.ResetPassword(ctx, ada.ObjectID, text(passphrase)); err != nil || none.Len() != 0 {
			t.Fatalf("reset: %d bytes, %v", none.Len(), err)
		}
		_, err = s.SignIn(ctx, ada.SignInName, password)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		must(s.SignIn(ctx, ada.SignInName, text(passphrase)))(t)

		if err := d.Delete(ctx, ada.ObjectID); err != nil {
			t.Fatal(err)
		}
		_, err = s.SignIn(ctx, ada.SignInName, text(passphrase))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
	})
}

// A person changes his password by the one he has, and is signed out.
func TestChangePassword(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ada := addAda(t, s)
		o := must(s.Redeem(t.Context(), redemption(must(s.NewCode(t.Context(), ada, asked()))(t))))(t)
		change := func(old, chosen string) error {
			_, err := s.ChangePassword(t.Context(), "ada", text(old), text(chosen))
			return err
		}
		wantCode(t, change("wrong horse battery", "another one entirely"), problem.Unauthenticated, identity.CodeInvalidGrant)
		wantCode(t, change(passphrase, "short"), problem.Invalid, "PasswordDoesNotComply")
		wantCode(t, change(passphrase, ""), problem.Invalid, "PasswordDoesNotComply")
		must(s.SignIn(t.Context(), "ada", text(passphrase)))(t)
		must(0, change(passphrase, "another one entirely"))(t)
		_, err := s.SignIn(t.Context(), "ada", text(passphrase))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		must(s.SignIn(t.Context(), "ada", text("another one entirely")))(t)
		_, err = s.Verify(t.Context(), o.AccessToken, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)
	})
}

// What is an application's is not a person's, and the other way round.
func TestPeopleAreNoApplications(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ada := addAda(t, s)
		ctx, d := administrator(t, s)
		app, _, err := s.CreatePrincipal(ctx, "ci")
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = d.AddSecret(ctx, ada.ObjectID, "", time.Time{})
		wantCode(t, err, problem.Conflict, "NotAnApplication")
		_, _, err = d.ResetPassword(ctx, app.ObjectID, text(passphrase))
		wantCode(t, err, problem.Conflict, "NotAUser")
		wantCode(t, d.EndSessions(ctx, app.ObjectID), problem.Conflict, "NotAUser")
		_, _, err = s.PutRoleAssignment(ctx, identity.Assignment{Name: "4a6a1f6e-5b0e-4f0c-9a55-0c1d2e3f4a5b", Scope: armid.Subscription(subscription),
			PrincipalID: ada.ObjectID, PrincipalType: "ServicePrincipal", Role: "Reader"})
		wantCode(t, err, problem.Invalid, "UnmatchedPrincipalType")
	})
}

func TestPeopleThatAreRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ctx, d := administrator(t, s)
		for name, c := range map[string]struct {
			n    identity.NewUser
			code string
		}{
			"no name":           {identity.NewUser{}, "InvalidUserPrincipalName"},
			"a space":           {identity.NewUser{SignInName: "ada lovelace"}, "InvalidUserPrincipalName"},
			"markup":            {identity.NewUser{SignInName: "<b>"}, "InvalidUserPrincipalName"},
			"two at signs":      {identity.NewUser{SignInName: "a@b@c"}, "InvalidUserPrincipalName"},
			"a long name":       {identity.NewUser{SignInName: strings.Repeat("a", 65)}, "InvalidUserPrincipalName"},
			"a short password":  {identity.NewUser{SignInName: "bob", Password: text("hunter2")}, "PasswordDoesNotComply"},
			"a long password":   {identity.NewUser{SignInName: "bob", Password: text(strings.Repeat("x", 257))}, "PasswordDoesNotComply"},
			"a display name":    {identity.NewUser{SignInName: "bob", Name: "a\nb"}, "InvalidPrincipalName"},
			"an unknown role":   {identity.NewUser{SignInName: "bob", Role: "King"}, "RoleDefinitionDoesNotExist"},
			"a role of nothing": {identity.NewUser{SignInName: "bob", Role: "Reader", Scope: armid.Subscription("other")}, "AuthorizationFailed"},
		} {
			t.Run(name, func(t *testing.T) {
				_, _, err := d.CreateUser(ctx, c.n)
				wantCode(t, err, problem.KindOf(err), c.code)
				if strings.Contains(err.Error(), "hunter2") {
					t.Error("the error tells the password")
				}
			})
		}
		if all := must(d.List(ctx))(t); len(all) != 2 {
			t.Errorf("there are %+v", all)
		}
		_, _, err := d.CreateUser(identity.With(t.Context(), addAda(t, s)), identity.NewUser{SignInName: "bob"})
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
	})
}

// Who guesses is stopped, also when at last he guesses right; after a while he may try again.
func TestGuessing(t *testing.T) {
	c := newClock()
	s := newService(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db"), c)
	addAda(t, s)
	for range 10 {
		_, err := s.SignIn(t.Context(), "ada", text("wrong horse battery"))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
	}
	_, err := s.SignIn(t.Context(), "Ada", text(passphrase))
	wantCode(t, err, problem.Unavailable, identity.CodeTryLater)
	c.Add(time.Minute)
	must(s.SignIn(t.Context(), "ada", text(passphrase)))(t)
	for range 2 { // and is then as good as new
		_, err := s.SignIn(t.Context(), "ada", text("wrong horse battery"))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
	}
	var all sync.WaitGroup
	var looked atomic.Int32
	for range 20 { // many at once don't get ahead of the count
		all.Go(func() {
			_, err := s.SignIn(t.Context(), "bob", text("wrong horse battery"))
			if problem.Of(err) != nil && problem.Of(err).Code == identity.CodeInvalidGrant {
				looked.Add(1)
			}
		})
	}
	if all.Wait(); looked.Load() != 10 {
		t.Errorf("%d guesses at once were looked at", looked.Load())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.SignIn(ended, "ada", text(passphrase)); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that was given up: %v", err)
	}
}
