package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// Who may give access may make principals and change them, but not shut himself out; others may at most look.
func TestDirectory(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		admin, _, _, err := s.Bootstrap(t.Context(), "admin")
		if err != nil {
			t.Fatal(err)
		}
		d, owner := s.Directory(), identity.With(t.Context(), admin)
		group := armid.Subscription(subscription).Group("prod")
		made, clientSecret, err := d.Create(owner, identity.NewPrincipal{Name: "ci", Role: "Contributor", Scope: armid.Subscription(subscription)})
		if err != nil || len(made.Credentials) != 1 || len(made.Assignments) != 1 || clientSecret.Len() < 43 {
			t.Fatalf("made %+v with a secret of %d bytes, %v", made, clientSecret.Len(), err)
		}
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
		certified, none, err := d.Create(owner, identity.NewPrincipal{Name: "tf", Certificate: certify(t, key), Role: "Reader", Scope: group})
		if err != nil || none.Len() != 0 || len(certified.Credentials) != 1 || certified.Credentials[0].Kind != identity.CertificateCredential {
			t.Fatalf("made %+v with a secret of %d bytes, %v", certified, none.Len(), err)
		}
		_, _, err = d.Create(owner, identity.NewPrincipal{Name: "x", Role: "King", Scope: group})
		wantCode(t, err, problem.NotFound, "RoleDefinitionDoesNotExist")
		_, _, err = d.Create(owner, identity.NewPrincipal{Name: "x", Certificate: []byte("x")})
		wantCode(t, err, problem.Invalid, "KeyCredentialInvalidCertificate")
		if all := must(d.List(owner))(t); len(all) != 4 {
			t.Errorf("there are %v", all)
		}

		// A Contributor who could give himself a secret of the Owner would be one.
		contributor := identity.With(t.Context(), made.Principal)
		if _, err := d.Get(contributor, admin.AppID); err != nil {
			t.Errorf("a Contributor sees no principals: %v", err)
		}
		for name, try := range map[string]func() error{
			"create": func() error { _, _, err := d.Create(contributor, identity.NewPrincipal{Name: "x"}); return err },
			"add secret": func() error {
				_, _, err := d.AddSecret(contributor, admin.AppID, "", c.Now().AddDate(1, 0, 0))
				return err
			},
			"add certificate":   func() error { _, err := d.AddCertificate(contributor, admin.AppID, "", nil, c.Now()); return err },
			"remove credential": func() error { return d.RemoveCredential(contributor, admin.AppID, "x") },
			"disable":           func() error { _, err := d.SetDisabled(contributor, admin.AppID, true); return err },
			"delete":            func() error { return d.Delete(contributor, admin.AppID) },
		} {
			t.Run(name, func(t *testing.T) { wantCode(t, try(), problem.Denied, "AuthorizationFailed") })
		}
		_, err = d.List(identity.With(t.Context(), certified.Principal))
		wantCode(t, err, problem.Denied, "AuthorizationFailed")

		wantCode(t, d.Delete(owner, admin.AppID), problem.Conflict, "OwnPrincipal")
		_, err = d.SetDisabled(owner, admin.ObjectID, true)
		wantCode(t, err, problem.Conflict, "OwnPrincipal")
		if e, err := d.SetDisabled(owner, made.ObjectID, true); err != nil || !e.Disabled {
			t.Errorf("disabled: %+v, %v", e, err)
		}
		if err := d.Delete(owner, made.AppID); err != nil {
			t.Error(err)
		}
		_, err = d.Get(owner, made.ObjectID)
		wantCode(t, err, problem.NotFound, "PrincipalNotFound")
	})
}
