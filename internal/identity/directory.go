package identity

import (
	"context"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/secret"
)

// PrincipalType is the type under which principals are reached. The actions are of Microsoft.Authorization, because
// who makes or changes principals can act as any of them: the roles that may are those that give access.
const (
	PrincipalType   = "Kluis.Identity/principals"
	principalAction = "Microsoft.Authorization/principals"

	// Who signs tokens says who everybody is, so this too belongs to those that give access.
	signingKeyAction = "Microsoft.Authorization/signingKeys/write"
)

// Directory is what callers may do with principals, each of them authorized first.
type Directory struct{ s *Service }

// Directory returns it.
func (s *Service) Directory() Directory { return Directory{s} }

// Entry is a principal with its credentials and roles.
type Entry struct {
	Principal
	Credentials  []Credential
	Assignments  []Assignment
	RedirectURIs []string // where sign-ins of people to an application may lead back to
}

// NewPrincipal says what is to be made.
type NewPrincipal struct {
	Name        string
	Certificate []byte    // if there is one, the principal gets it and no secret
	Expires     time.Time // of the secret or certificate; zero: never, or with the certificate
	Role        string    // given at Scope; empty: none
	Scope       armid.ID
}

func (d Directory) authorize(ctx context.Context, verb string) error {
	return d.s.Authorize(ctx, principalAction+verb, armid.Subscription(d.s.subscription))
}

// List returns all principals, the built-in one first, without credentials and roles.
func (d Directory) List(ctx context.Context) ([]Principal, error) {
	if err := d.authorize(ctx, "/read"); err != nil {
		return nil, err
	}
	return d.s.Principals(ctx)
}

// Get returns the principal with that object id or application id.
func (d Directory) Get(ctx context.Context, id string) (Entry, error) {
	if err := d.authorize(ctx, "/read"); err != nil {
		return Entry{}, err
	}
	return d.entry(ctx, id)
}

func (d Directory) entry(ctx context.Context, id string) (e Entry, err error) {
	if e.Principal, err = d.s.Principal(ctx, id); err != nil || e.BuiltIn {
		return e, err
	}
	if e.Credentials, err = d.s.Credentials(ctx, e.ObjectID); err != nil {
		return e, err
	}
	if e.RedirectURIs, err = d.s.redirectURIs(ctx, e.ObjectID); err != nil {
		return e, err
	}
	all, err := d.s.Assignments(ctx, armid.Subscription(d.s.subscription))
	e.Assignments = slices.DeleteFunc(all, func(a Assignment) bool { return a.PrincipalID != e.ObjectID })
	return e, err
}

// Create makes an application. Its secret, if it gets one, can't be had again.
func (d Directory) Create(ctx context.Context, n NewPrincipal) (Entry, secret.Bytes, error) {
	if err := d.authorizeCreating(ctx, n.Role, n.Scope); err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	p, clientSecret, err := d.s.create(ctx, n)
	if err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	e, err := d.entry(ctx, p.ObjectID)
	return e, clientSecret, err
}

// CreateUser makes a person. The password, if it was drawn, can't be had again.
func (d Directory) CreateUser(ctx context.Context, n NewUser) (Entry, secret.Bytes, error) {
	if err := d.authorizeCreating(ctx, n.Role, n.Scope); err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	p, password, err := d.s.createUser(ctx, n)
	if err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	e, err := d.entry(ctx, p.ObjectID)
	return e, password, err
}

// authorizeCreating asks whether the caller may make a principal, and give it that role.
func (d Directory) authorizeCreating(ctx context.Context, roleName string, scope armid.ID) error {
	if err := d.authorize(ctx, "/write"); err != nil || roleName == "" {
		return err
	}
	role, known := RoleNamed(roleName)
	if !known {
		return unknownRole(roleName)
	}
	return d.s.authorizeAssigning(ctx, "/write", scope, role)
}

// Delete removes a principal with its credentials and roles. Nobody removes himself: so somebody is left who can
// make another.
func (d Directory) Delete(ctx context.Context, id string) error {
	if err := d.authorize(ctx, "/delete"); err != nil {
		return err
	}
	if err := d.notCaller(ctx, id); err != nil {
		return err
	}
	return d.s.DeletePrincipal(ctx, id)
}

// SetDisabled keeps a principal from logging in and being let in, or lets it again. Nobody disables himself.
func (d Directory) SetDisabled(ctx context.Context, id string, disabled bool) (Entry, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Entry{}, err
	}
	if err := d.notCaller(ctx, id); disabled && err != nil {
		return Entry{}, err
	}
	if err := d.s.SetDisabled(ctx, id, disabled); err != nil {
		return Entry{}, err
	}
	return d.entry(ctx, id)
}

func (d Directory) notCaller(ctx context.Context, id string) error {
	if p, ok := From(ctx); ok && (strings.EqualFold(id, p.ObjectID) || p.AppID != "" && strings.EqualFold(id, p.AppID)) {
		return notYourself(p)
	}
	return nil
}

// ResetPassword gives a person another password, which is returned if it was drawn, and ends what he had signed in to.
func (d Directory) ResetPassword(ctx context.Context, id string, given secret.Bytes) (Entry, secret.Bytes, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	password, err := d.s.ResetPassword(ctx, id, given)
	if err != nil {
		return Entry{}, secret.Bytes{}, err
	}
	e, err := d.entry(ctx, id)
	return e, password, err
}

// EndSessions ends everything that a person has signed in to.
func (d Directory) EndSessions(ctx context.Context, id string) error {
	if err := d.authorize(ctx, "/write"); err != nil {
		return err
	}
	return d.s.EndSessions(ctx, id)
}

// RotateSigningKey makes a new key that signs tokens. The tokens of the one before stay good, unless they are to be
// forgotten with it.
func (d Directory) RotateSigningKey(ctx context.Context, forget bool) ([]SigningKey, error) {
	if err := d.s.Authorize(ctx, signingKeyAction, armid.Subscription(d.s.subscription)); err != nil {
		return nil, err
	}
	if err := d.s.RotateKey(ctx); err != nil {
		return nil, err
	}
	if forget {
		if err := d.s.ForgetKeys(ctx); err != nil {
			return nil, err
		}
	}
	return d.s.SigningKeys(), nil
}

// AddSecret gives a principal one more secret. It can't be had again.
func (d Directory) AddSecret(ctx context.Context, id, name string, expires time.Time) (Credential, secret.Bytes, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Credential{}, secret.Bytes{}, err
	}
	return d.s.AddSecret(ctx, id, name, expires)
}

// Trust lets the holders of tokens from outside act as a principal.
func (d Directory) Trust(ctx context.Context, id string, kind CredentialKind, value, issuer string) (Credential, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Credential{}, err
	}
	return d.s.Trust(ctx, id, kind, value, issuer)
}

// SetRedirectURIs says where sign-ins of people to an application may lead back to.
func (d Directory) SetRedirectURIs(ctx context.Context, id string, uris []string) (Entry, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Entry{}, err
	}
	if err := d.s.SetRedirectURIs(ctx, id, uris); err != nil {
		return Entry{}, err
	}
	return d.entry(ctx, id)
}

// AddCertificate lets a principal prove itself by a certificate too.
func (d Directory) AddCertificate(ctx context.Context, id, name string, certificate []byte, expires time.Time) (Credential, error) {
	if err := d.authorize(ctx, "/write"); err != nil {
		return Credential{}, err
	}
	return d.s.AddCertificate(ctx, id, name, certificate, expires)
}

// RemoveCredential takes a secret or a certificate away.
func (d Directory) RemoveCredential(ctx context.Context, id, credentialID string) error {
	if err := d.authorize(ctx, "/write"); err != nil {
		return err
	}
	return d.s.RemoveCredential(ctx, id, credentialID)
}
