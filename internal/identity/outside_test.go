package identity_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// postbag is an issuer outside whose tokens are names; what each says stands in the map. That signatures are
// checked is shown in internal/issuer.
type postbag map[string]identity.OutsideToken

const outsideURL = "https://login.example.com"

func (postbag) URL() string { return outsideURL }

func (postbag) Owns(token string) bool { return strings.HasPrefix(token, "letter ") }

func (l postbag) Read(_ context.Context, token string) (identity.OutsideToken, error) {
	if token == "letter lost" {
		return identity.OutsideToken{}, identity.ErrOutsideAway
	}
	t, found := l[token]
	if !found {
		return t, errors.New("it is not signed")
	}
	return t, nil
}

// A token from outside acts as the principal that trusts its subject, else as the one that trusts one of its groups.
func TestTokensFromOutside(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		soon, now := c.Now().Add(time.Hour), c.Now()
		kluis := []string{"kluis"}
		all := postbag{
			"letter ci":        {Subject: "ci", Audience: kluis, Expiry: soon},
			"letter both":      {Subject: "ci", Groups: []string{"operators"}, Audience: kluis, Expiry: soon},
			"letter group":     {Subject: "bob", Groups: []string{"x", "operators"}, Audience: []string{"other", "kluis"}, NotBefore: now, Expiry: soon},
			"letter groups":    {Subject: "bob", Groups: []string{"operators", "readers"}, Audience: kluis, Expiry: soon},
			"letter stranger":  {Subject: "bob", Groups: []string{"x"}, Audience: kluis, Expiry: soon},
			"letter nobody":    {Audience: kluis, Groups: []string{""}, Expiry: soon},
			"letter other aud": {Subject: "ci", Audience: []string{audience}, Expiry: soon},
			"letter no aud":    {Subject: "ci", Expiry: soon},
			"letter late":      {Subject: "ci", Audience: kluis, Expiry: now.Add(-5 * time.Minute)},
			"letter latish":    {Subject: "ci", Audience: kluis, Expiry: now.Add(-5*time.Minute + time.Second)},
			"letter early":     {Subject: "ci", Audience: kluis, Expiry: soon, NotBefore: now.Add(5*time.Minute + time.Second)},
			"letter earlyish":  {Subject: "ci", Audience: kluis, Expiry: soon, NotBefore: now.Add(5 * time.Minute)},
		}
		s, err := identity.New(t.Context(), identity.Options{DB: db, TenantID: tenant, SubscriptionID: subscription, Issuer: audience, Now: c.Now, Rand: rand.Reader, Seal: newSealer(t),
			Outside: all, OutsideAudiences: kluis})
		if err != nil {
			t.Fatal(err)
		}
		ctx, d := administrator(t, s)
		ci, _, _ := s.CreatePrincipal(ctx, "ci")
		operators, _, _ := s.CreatePrincipal(ctx, "operators")
		readers, _, _ := s.CreatePrincipal(ctx, "readers")
		trust := func(p identity.Principal, kind identity.CredentialKind, value, issuer string) identity.Credential {
			return must(d.Trust(ctx, p.AppID, kind, value, issuer))(t)
		}
		trusted := trust(ci, identity.SubjectCredential, "ci", "")
		trust(operators, identity.GroupCredential, "operators", outsideURL)
		trust(readers, identity.GroupCredential, "readers", "")
		trust(readers, identity.SubjectCredential, "bob", "https://another.example.com")
		for token, want := range map[string]string{"letter ci": ci.ObjectID, "letter both": ci.ObjectID, "letter group": operators.ObjectID, "letter latish": ci.ObjectID, "letter earlyish": ci.ObjectID} {
			if p, err := s.Verify(t.Context(), token, audience); err != nil || p.ObjectID != want {
				t.Errorf("%s is %+v, %v", token, p, err)
			}
		}
		for token, code := range map[string]string{"letter groups": identity.CodeInvalidToken, "letter stranger": identity.CodeInvalidToken, "letter nobody": identity.CodeInvalidToken,
			"letter forged": identity.CodeInvalidToken, "letter other aud": identity.CodeWrongAudience, "letter no aud": identity.CodeWrongAudience,
			"letter late": identity.CodeExpiredToken, "letter early": identity.CodeInvalidToken, "hello": identity.CodeInvalidToken} {
			_, err := s.Verify(t.Context(), token, audience)
			wantCode(t, err, problem.Unauthenticated, code)
		}
		_, err = s.Verify(t.Context(), "letter lost", audience)
		wantCode(t, err, problem.Unavailable, "IssuerUnavailable")

		_, err = d.Trust(ctx, readers.AppID, identity.SubjectCredential, "ci", "")
		wantCode(t, err, problem.Conflict, "FederatedCredentialExists")
		_, err = d.Trust(ctx, readers.AppID, identity.SubjectCredential, "", "")
		wantCode(t, err, problem.Invalid, "InvalidCredential")
		_, err = d.Trust(ctx, readers.AppID, identity.PasswordCredential, "x", "")
		wantCode(t, err, problem.Invalid, "InvalidCredential")
		_, err = d.Trust(identity.With(ctx, ci), ci.AppID, identity.SubjectCredential, "me", "")
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
		_, err = d.Trust(ctx, identity.BackupManagementService.AppID, identity.SubjectCredential, "me", "")
		wantCode(t, err, problem.Conflict, "BuiltInPrincipal")

		must(0, s.SetDisabled(ctx, operators.ObjectID, true))(t)
		_, err = s.Verify(t.Context(), "letter group", audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)
		must(0, d.RemoveCredential(ctx, ci.AppID, trusted.ID))(t)
		_, err = s.Verify(t.Context(), "letter ci", audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)

		// A server that is told of no issuer believes none of it.
		_, err = newService(t, db, c).Verify(t.Context(), "letter both", audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)
		_, err = newService(t, db, c).Trust(ctx, ci.AppID, identity.SubjectCredential, "x", "")
		wantCode(t, err, problem.Invalid, "InvalidCredential")
	})
}
