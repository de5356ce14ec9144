// Package principals is the door to the principals of the directory: applications, with their secrets and
// certificates, and people, with their passwords. The paths are ours, in Resource Manager's manners, at the subscription:
//
//	GET    …/providers/Kluis.Identity/principals              all principals
//	GET    …/providers/Kluis.Identity/principals/{id}         one, with its credentials and roles
//	DELETE …/providers/Kluis.Identity/principals/{id}
//	POST   …/providers/Kluis.Identity/createPrincipal         {displayName, certificate?, endDateTime?, role?, scope?}
//	POST   …/principals/{id}/addSecret                        {displayName?, endDateTime?}
//	POST   …/principals/{id}/addCertificate                   {displayName?, endDateTime?, certificate}
//	POST   …/principals/{id}/removeCredential                 {keyId}
//	POST   …/principals/{id}/disable, …/enable
//	POST   …/principals/{id}/setRedirectUris                  {redirectUris}
//	POST   …/principals/{id}/trust                            {subject or group, issuer?}
//	POST   …/providers/Kluis.Identity/createUser              {userPrincipalName, displayName?, password?, role?, scope?}
//	POST   …/principals/{id}/resetPassword                    {password?}
//	POST   …/principals/{id}/revokeSignInSessions
//	POST   …/providers/Kluis.Identity/rotateSigningKey        {revokeTokens?}
//
// An id is the object id or the application id. The answers use Microsoft Graph's words (appId, displayName, keyId,
// secretText, userPrincipalName). A secret, or a password that was drawn because none was given, is in the one answer to
// the request that made it, and never again.
//
// The door decodes, calls identity.Directory, which authorizes, and encodes.
package principals

import (
	"context"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// Directory is what the door asks. identity.Directory is one.
type Directory interface {
	List(ctx context.Context) ([]identity.Principal, error)
	Get(ctx context.Context, id string) (identity.Entry, error)
	Create(ctx context.Context, n identity.NewPrincipal) (identity.Entry, secret.Bytes, error)
	CreateUser(ctx context.Context, n identity.NewUser) (identity.Entry, secret.Bytes, error)
	ResetPassword(ctx context.Context, id string, given secret.Bytes) (identity.Entry, secret.Bytes, error)
	EndSessions(ctx context.Context, id string) error
	RotateSigningKey(ctx context.Context, forget bool) ([]identity.SigningKey, error)
	Delete(ctx context.Context, id string) error
	SetDisabled(ctx context.Context, id string, disabled bool) (identity.Entry, error)
	AddSecret(ctx context.Context, id, name string, expires time.Time) (identity.Credential, secret.Bytes, error)
	Trust(ctx context.Context, id string, kind identity.CredentialKind, value, issuer string) (identity.Credential, error)
	SetRedirectURIs(ctx context.Context, id string, uris []string) (identity.Entry, error)
	AddCertificate(ctx context.Context, id, name string, certificate []byte, expires time.Time) (identity.Credential, error)
	RemoveCredential(ctx context.Context, id, credentialID string) error
}

type door struct{ d Directory }

// Provider is the table of what the door answers.
func Provider(d Directory) arm.Provider {
	h := door{d}
	return arm.Provider{Namespace: "Kluis.Identity", Versions: map[string]arm.Versions{"Kluis.Identity": {"2026-11-01"}}, Resources: []arm.Resource{
		{Type: "Kluis.Identity", Actions: map[string]arm.Handler{"createPrincipal": h.create, "createUser": h.createUser, "rotateSigningKey": h.rotateSigningKey}},
		{Type: identity.PrincipalType, List: h.list, Get: h.get, Delete: h.remove, Actions: map[string]arm.Handler{
			"addSecret": h.addSecret, "addCertificate": h.addCertificate, "removeCredential": h.removeCredential,
			"disable": h.setDisabled(true), "enable": h.setDisabled(false), "setRedirectUris": h.setRedirectURIs, "trust": h.trust, "resetPassword": h.resetPassword, "revokeSignInSessions": h.endSessions}},
	}}
}

// entry is a principal on the wire.
type entry struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	Properties properties `json:"properties"`
}

type properties struct {
	DisplayName string       `json:"displayName"`
	AppID       string       `json:"appId,omitempty"`
	SignInName  string       `json:"userPrincipalName,omitempty"`
	Kind        string       `json:"kind"`
	Enabled     bool         `json:"accountEnabled"`
	BuiltIn     bool         `json:"builtIn,omitempty"`
	Credentials []credential `json:"credentials,omitempty"`
	Roles       []role       `json:"roles,omitempty"`
	Redirects   []string     `json:"redirectUris,omitempty"`
	SecretText  string       `json:"secretText,omitempty"`
}

type credential struct {
	KeyID       string `json:"keyId"`
	Kind        string `json:"kind"`
	DisplayName string `json:"displayName,omitempty"`
	Thumbprint  string `json:"thumbprint,omitempty"`
	Issuer      string `json:"issuer,omitempty"`
	Start       string `json:"startDateTime"`
	End         string `json:"endDateTime,omitempty"`
	SecretText  string `json:"secretText,omitempty"`
}

type role struct {
	Role  string `json:"roleName"`
	Scope string `json:"scope"`
}

func encode(id armid.ID, e identity.Entry) entry {
	p := properties{DisplayName: e.Name, AppID: e.AppID, SignInName: e.SignInName, Kind: string(e.Kind), Enabled: !e.Disabled, BuiltIn: e.BuiltIn, Redirects: e.RedirectURIs}
	for _, c := range e.Credentials {
		p.Credentials = append(p.Credentials, encodeCredential(c))
	}
	for _, a := range e.Assignments {
		named, _ := identity.RoleNamed(a.Role)
		p.Roles = append(p.Roles, role{named.Name, a.Scope.String()})
	}
	return entry{armid.Subscription(id.Subscription).Resource(identity.PrincipalType, e.ObjectID).String(), e.ObjectID, identity.PrincipalType, p}
}

func encodeCredential(c identity.Credential) credential {
	return credential{KeyID: c.ID, Kind: string(c.Kind), DisplayName: c.Name, Thumbprint: c.Thumbprint, Issuer: c.Issuer, Start: stamp(c.Created), End: stamp(c.Expires)}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (h door) list(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.d.List(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(all))
	for i, p := range all {
		entries[i] = encode(r.ID, identity.Entry{Principal: p})
	}
	return arm.List(r, entries), nil
}

func (h door) get(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	e, err := h.d.Get(ctx, r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(encode(r.ID, e)), nil
}

func (h door) remove(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.d.Delete(ctx, r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

// request is the body of everything that is posted.
type request struct {
	DisplayName string `json:"displayName"`
	Certificate string `json:"certificate"` // PEM
	EndDateTime string `json:"endDateTime"`
	KeyID       string `json:"keyId"`
	Role        string `json:"role"`
	Scope       string `json:"scope"` // the subscription, if there is none
	SignInName  string `json:"userPrincipalName"`
	Password    string `json:"password"`

	RedirectURIs []string `json:"redirectUris"`
	RevokeTokens bool     `json:"revokeTokens"`
	Subject      string   `json:"subject"`
	Group        string   `json:"group"`
	Issuer       string   `json:"issuer"`
}

// place is where the role is given.
func (q request) place(r *arm.Request) (armid.ID, error) {
	if q.Scope == "" {
		return armid.Subscription(r.ID.Subscription), nil
	}
	scope, err := armid.Parse(q.Scope)
	if err != nil {
		return scope, problem.New(problem.Invalid, "InvalidRequestContent", "scope is not a resource id: %v.", err).
			WithTarget("scope").WithAdvice("Give the id of a subscription, a resource group or a resource.")
	}
	return scope, nil
}

func read(r *arm.Request) (q request, expires time.Time, err error) {
	if err := r.Decode(&q); err != nil {
		return q, expires, err
	}
	if q.EndDateTime != "" {
		if expires, err = time.Parse(time.RFC3339, q.EndDateTime); err != nil {
			return q, expires, problem.New(problem.Invalid, "InvalidRequestContent", "endDateTime %.100q is not a time such as 2027-01-31T12:00:00Z.", q.EndDateTime).
				WithTarget("endDateTime").WithAdvice("Write the time as RFC 3339 has it.")
		}
	}
	return q, expires, nil
}

func (h door) create(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, expires, err := read(r)
	if err != nil {
		return nil, err
	}
	scope, err := q.place(r)
	if err != nil {
		return nil, err
	}
	e, clientSecret, err := h.d.Create(ctx, identity.NewPrincipal{Name: q.DisplayName, Certificate: []byte(q.Certificate), Expires: expires, Role: q.Role, Scope: scope})
	if err != nil {
		return nil, err
	}
	body := encode(r.ID, e)
	body.Properties.SecretText = string(clientSecret.Reveal()) // this is where the caller gets it
	return arm.Created(body), nil
}

func (h door) createUser(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	scope, err := q.place(r)
	if err != nil {
		return nil, err
	}
	given := secret.New([]byte(q.Password))
	defer given.Wipe()
	e, password, err := h.d.CreateUser(ctx, identity.NewUser{Name: q.DisplayName, SignInName: q.SignInName, Password: given, Role: q.Role, Scope: scope})
	if err != nil {
		return nil, err
	}
	body := encode(r.ID, e)
	body.Properties.SecretText = string(password.Reveal()) // this is where the caller gets it
	return arm.Created(body), nil
}

func (h door) resetPassword(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	given := secret.New([]byte(q.Password))
	defer given.Wipe()
	e, password, err := h.d.ResetPassword(ctx, r.ID.Name(), given)
	if err != nil {
		return nil, err
	}
	body := encode(r.ID, e)
	body.Properties.SecretText = string(password.Reveal()) // this is where the caller gets it
	return arm.OK(body), nil
}

// rotateSigningKey answers with the keys that are believed, the one that signs first.
func (h door) rotateSigningKey(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	keys, err := h.d.RotateSigningKey(ctx, q.RevokeTokens)
	if err != nil {
		return nil, err
	}
	all := make([]credential, len(keys))
	for i, k := range keys {
		all[i] = credential{KeyID: k.ID, Kind: "signingKey", Start: stamp(k.Created)}
	}
	return arm.OK(map[string]any{"keys": all}), nil
}

func (h door) trust(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	kind, value := identity.SubjectCredential, q.Subject
	if q.Subject == "" {
		kind, value = identity.GroupCredential, q.Group
	} else if q.Group != "" {
		return nil, problem.New(problem.Invalid, "InvalidRequestContent", "A subject or a group is trusted, not both at once.").
			WithTarget("group").WithAdvice("Send two requests.")
	}
	c, err := h.d.Trust(ctx, r.ID.Name(), kind, value, q.Issuer)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeCredential(c)), nil
}

func (h door) setRedirectURIs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	e, err := h.d.SetRedirectURIs(ctx, r.ID.Name(), q.RedirectURIs)
	if err != nil {
		return nil, err
	}
	return arm.OK(encode(r.ID, e)), nil
}

func (h door) endSessions(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.d.EndSessions(ctx, r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

func (h door) addSecret(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, expires, err := read(r)
	if err != nil {
		return nil, err
	}
	c, clientSecret, err := h.d.AddSecret(ctx, r.ID.Name(), q.DisplayName, expires)
	if err != nil {
		return nil, err
	}
	body := encodeCredential(c)
	body.SecretText = string(clientSecret.Reveal()) // this is where the caller gets it
	return arm.OK(body), nil
}

func (h door) addCertificate(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, expires, err := read(r)
	if err != nil {
		return nil, err
	}
	c, err := h.d.AddCertificate(ctx, r.ID.Name(), q.DisplayName, []byte(q.Certificate), expires)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeCredential(c)), nil
}

func (h door) removeCredential(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	q, _, err := read(r)
	if err != nil {
		return nil, err
	}
	if err := h.d.RemoveCredential(ctx, r.ID.Name(), q.KeyID); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

func (h door) setDisabled(disabled bool) arm.Handler {
	return func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
		e, err := h.d.SetDisabled(ctx, r.ID.Name(), disabled)
		if err != nil {
			return nil, err
		}
		return arm.OK(encode(r.ID, e)), nil
	}
}
