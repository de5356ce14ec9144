package client

import (
	"context"
	"net/http"

	"kluis/internal/armid"
)

const (
	versionPrincipals = "2026-11-01"
	principalType     = "Kluis.Identity/principals"
)

// KindUser is the kind of the principals that are people.
const KindUser = "User"

// Principal is who may log in: an application, or a person. Its name is the object id.
type Principal = Resource[PrincipalProperties]

// PrincipalProperties say who it is. SecretText is there only in the answer to the request that made it.
type PrincipalProperties struct {
	DisplayName string          `json:"displayName"`
	AppID       string          `json:"appId"`
	SignInName  string          `json:"userPrincipalName"`
	Kind        string          `json:"kind"`
	Enabled     bool            `json:"accountEnabled"`
	BuiltIn     bool            `json:"builtIn"`
	Credentials []Credential    `json:"credentials"`
	Roles       []PrincipalRole `json:"roles"`
	Redirects   []string        `json:"redirectUris"`
	SecretText  string          `json:"secretText"`
}

// Credential is a secret or a certificate of a principal.
type Credential struct {
	KeyID       string `json:"keyId"`
	Kind        string `json:"kind"`
	DisplayName string `json:"displayName,omitempty"`
	Thumbprint  string `json:"thumbprint,omitempty"`
	Issuer      string `json:"issuer,omitempty"`
	Start       string `json:"startDateTime"`
	End         string `json:"endDateTime,omitempty"`
	SecretText  string `json:"secretText,omitempty"`
}

// PrincipalRole is what a principal may do, and where.
type PrincipalRole struct {
	RoleName string `json:"roleName"`
	Scope    string `json:"scope"`
}

// NewCredential asks for a secret or, if Certificate (PEM) is not empty, for a certificate. A new principal may get a role
// with it.
type NewCredential struct {
	DisplayName string `json:"displayName,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	End         string `json:"endDateTime,omitempty"`
	Role        string `json:"role,omitempty"`
	Scope       string `json:"scope,omitempty"`
}

// NewUser asks for a person. Without a password one is drawn.
type NewUser struct {
	SignInName  string `json:"userPrincipalName"`
	DisplayName string `json:"displayName,omitempty"`
	Password    string `json:"password,omitempty"`
	Role        string `json:"role,omitempty"`
	Scope       string `json:"scope,omitempty"`
}

func (c *Client) principalID(id string) armid.ID { return c.Subscription().Resource(principalType, id) }

// Principals lists all principals, without credentials and roles.
func (c *Client) Principals(ctx context.Context) ([]Principal, error) {
	return listResources[PrincipalProperties](ctx, c, collection(c.Subscription(), principalType), versionPrincipals, "")
}

// Principal reads one by its object id or application id.
func (c *Client) Principal(ctx context.Context, id string) (Principal, error) {
	return getResource[PrincipalProperties](ctx, c, c.principalID(id), versionPrincipals)
}

// CreatePrincipal makes an application.
func (c *Client) CreatePrincipal(ctx context.Context, n NewCredential) (Principal, error) {
	var p Principal
	err := c.do(ctx, http.MethodPost, collection(c.Subscription(), "Kluis.Identity")+"/createPrincipal", versionPrincipals, n, &p)
	return p, err
}

// CreateUser makes a person.
func (c *Client) CreateUser(ctx context.Context, n NewUser) (Principal, error) {
	var p Principal
	err := c.do(ctx, http.MethodPost, collection(c.Subscription(), "Kluis.Identity")+"/createUser", versionPrincipals, n, &p)
	return p, err
}

// ResetPassword gives a person another password, and ends what he had signed in to. Without a password one is drawn.
func (c *Client) ResetPassword(ctx context.Context, id, password string) (Principal, error) {
	var p Principal
	err := c.do(ctx, http.MethodPost, c.principalID(id).String()+"/resetPassword", versionPrincipals, NewUser{Password: password}, &p)
	return p, err
}

// EndSessions ends everything that a person has signed in to.
func (c *Client) EndSessions(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, c.principalID(id).String()+"/revokeSignInSessions", versionPrincipals, nil, nil)
}

// DeletePrincipal removes one.
func (c *Client) DeletePrincipal(ctx context.Context, id string) error {
	return c.delete(ctx, c.principalID(id), versionPrincipals)
}

// AddCredential gives a principal one more secret or certificate.
func (c *Client) AddCredential(ctx context.Context, id string, n NewCredential) (Credential, error) {
	action := "/addSecret"
	if n.Certificate != "" {
		action = "/addCertificate"
	}
	var added Credential
	err := c.do(ctx, http.MethodPost, c.principalID(id).String()+action, versionPrincipals, n, &added)
	return added, err
}

// RotateSigningKey makes a new key that signs tokens, and returns those that are believed, the new one first. Tokens of the one
// before stay good, unless they are revoked: then every client gets a new one, this one too.
func (c *Client) RotateSigningKey(ctx context.Context, revoke bool) ([]Credential, error) {
	var all struct{ Keys []Credential }
	err := c.do(ctx, http.MethodPost, collection(c.Subscription(), "Kluis.Identity")+"/rotateSigningKey", versionPrincipals, map[string]bool{"revokeTokens": revoke}, &all)
	return all.Keys, err
}

// SetRedirectURIs says where sign-ins of people to an application may lead back to.
func (c *Client) SetRedirectURIs(ctx context.Context, id string, uris []string) (Principal, error) {
	var p Principal
	err := c.do(ctx, http.MethodPost, c.principalID(id).String()+"/setRedirectUris", versionPrincipals, map[string]any{"redirectUris": uris}, &p)
	return p, err
}

// Outside names who holds tokens of another issuer: by subject, or by group.
type Outside struct {
	Issuer  string `json:"issuer,omitempty"` // empty: the one that the server is told of
	Subject string `json:"subject,omitempty"`
	Group   string `json:"group,omitempty"`
}

// Trust lets him act as a principal.
func (c *Client) Trust(ctx context.Context, id string, o Outside) (Credential, error) {
	var added Credential
	err := c.do(ctx, http.MethodPost, c.principalID(id).String()+"/trust", versionPrincipals, o, &added)
	return added, err
}

// RemoveCredential takes one away.
func (c *Client) RemoveCredential(ctx context.Context, id, keyID string) error {
	return c.do(ctx, http.MethodPost, c.principalID(id).String()+"/removeCredential", versionPrincipals, map[string]string{"keyId": keyID}, nil)
}

// EnablePrincipal lets a principal log in, or keeps it from that.
func (c *Client) EnablePrincipal(ctx context.Context, id string, enabled bool) (Principal, error) {
	action := "/disable"
	if enabled {
		action = "/enable"
	}
	var p Principal
	err := c.do(ctx, http.MethodPost, c.principalID(id).String()+action, versionPrincipals, nil, &p)
	return p, err
}
