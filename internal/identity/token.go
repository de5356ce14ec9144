package identity

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"kluis/internal/database"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

const (
	tokenLife = time.Hour
	skew      = 5 * time.Minute // by which clocks of clients and servers may differ
	maxBearer = 16 << 10
)

// Token is what a client gets for its secret.
type Token struct {
	AccessToken string
	ExpiresIn   int // seconds
	NotBefore   time.Time
	ExpiresOn   time.Time
	Audience    string
}

// claims are what a token says. The names are those of Azure's tokens; clients read tid, oid and appid.
type claims struct {
	jwt.Claims
	TenantID string `json:"tid"`
	ObjectID string `json:"oid"`
	AppID    string `json:"appid,omitempty"`
	Kind     string `json:"idtyp,omitempty"`
	Version  string `json:"ver"`

	// Of people.
	Name     string `json:"name,omitempty"`
	UPN      string `json:"upn,omitempty"`
	Username string `json:"preferred_username,omitempty"`
	Scopes   string `json:"scp,omitempty"`
	Nonce    string `json:"nonce,omitempty"`
	Sessions int64  `json:"sess,omitempty"`
}

// ClientCredentials gives a principal that proves itself with its secret a token for one audience.
// The codes of its errors are those of OAuth.
func (s *Service) ClientCredentials(ctx context.Context, clientID string, clientSecret secret.Bytes, audience string) (Token, error) {
	return s.applicationToken(ctx, clientID, Proof{Secret: clientSecret}, audience)
}

func (s *Service) applicationToken(ctx context.Context, clientID string, proof Proof, audience string) (Token, error) {
	if audience = Audience(audience); audience == "" {
		return Token{}, missingAudience()
	}
	p, err := s.prove(ctx, clientID, proof, audience)
	if err != nil {
		return Token{}, err
	}
	return s.issue(claims{Claims: jwt.Claims{Subject: p.ObjectID}, ObjectID: p.ObjectID, AppID: p.AppID, Kind: "app"}, audience)
}

// prove returns the application that has proven itself. An assertion is spent on one use.
func (s *Service) prove(ctx context.Context, clientID string, proof Proof, use string) (Principal, error) {
	p, credentials, err := s.client(ctx, clientID)
	if err != nil {
		return Principal{}, err
	}
	if proof.Assertion != "" {
		a, err := s.checkAssertion(p, credentials, proof.Assertion, proof.Endpoints)
		if err == nil {
			err = s.useAssertion(ctx, p, a.claims, use)
		}
		return p, s.failed(p.AppID, err)
	}
	i := slices.IndexFunc(credentials, func(c credential) bool { return c.provenBy(proof.Secret) })
	switch {
	case i < 0:
		return Principal{}, s.failed(p.AppID, wrongSecret(p.AppID))
	case credentials[i].expired(s.now()):
		return Principal{}, s.failed(p.AppID, expiredCredential(p.AppID, credentials[i].Credential))
	}
	return p, nil
}

// client finds the application that wants to log in, and what it may prove itself with.
func (s *Service) client(ctx context.Context, clientID string) (p Principal, credentials []credential, err error) {
	id := strings.ToLower(clientID)
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		r, found, err := principalByID(ctx, tx, id)
		switch {
		case err != nil:
			return fmt.Errorf("find client: %w", err)
		case !found || r.AppID != id || r.Kind != Application:
			return unknownClient(clientID, s.tenant)
		case r.Disabled:
			return disabledClient(r.AppID)
		}
		p = s.full(r.Principal)
		credentials, err = credentialsOf(ctx, tx, r.ObjectID)
		return err
	})
	return p, credentials, err
}

// failed counts a failed login, and returns what is to be said of it. Who can prove itself is let in all the same:
// generated secrets and signatures can't be guessed, and nobody shall keep a client out by failing in its name.
func (s *Service) failed(name string, err error) error {
	if problem.KindOf(err) == problem.Unauthenticated && s.attempts.failed(name, s.now()) {
		return tooManyFailures()
	}
	return err
}

// issueFor makes the token by which a client acts in a person's name.
func (s *Service) issueFor(r record, w Wanted) (Token, error) {
	return s.issue(claims{Claims: jwt.Claims{Subject: r.ObjectID}, ObjectID: r.ObjectID, AppID: w.ClientID, Kind: "user",
		Name: r.Name, UPN: r.SignInName, Scopes: "user_impersonation", Sessions: r.sessions}, w.Audience)
}

// idToken tells the client who has signed in. It opens nothing: its audience is the client.
func (s *Service) idToken(r record, w Wanted) (string, error) {
	t, err := s.issue(claims{Claims: jwt.Claims{Subject: r.ObjectID}, ObjectID: r.ObjectID,
		Name: r.Name, UPN: r.SignInName, Username: r.SignInName, Nonce: w.Nonce}, w.ClientID)
	return t.AccessToken, err
}

// issue signs a token; what all tokens have in common is filled in.
func (s *Service) issue(c claims, audience string) (Token, error) {
	var id [16]byte
	if _, err := io.ReadFull(s.rand, id[:]); err != nil {
		return Token{}, fmt.Errorf("draw token id: %w", err)
	}
	key := (*s.keys.Load())[0]
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return Token{}, fmt.Errorf("sign token: %w", err)
	}
	now := s.now().Truncate(time.Second)
	expires := now.Add(tokenLife)
	c.Issuer, c.Audience, c.TenantID, c.Version = s.issuer, jwt.Audience{audience}, s.tenant, "2.0"
	c.IssuedAt, c.NotBefore, c.Expiry = jwt.NewNumericDate(now), jwt.NewNumericDate(now), jwt.NewNumericDate(expires)
	c.ID = base64.RawURLEncoding.EncodeToString(id[:])
	text, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		return Token{}, fmt.Errorf("sign token: %w", err)
	}
	return Token{AccessToken: text, ExpiresIn: int(tokenLife / time.Second), NotBefore: now, ExpiresOn: expires, Audience: audience}, nil
}

// Audience returns an audience in the form in which tokens carry it: without "/.default" and without
// slashes at the end. Clients disagree about both.
func Audience(resource string) string {
	resource = strings.TrimRight(strings.TrimSpace(resource), "/")
	return strings.TrimRight(strings.TrimSuffix(resource, "/.default"), "/")
}

// Verify returns the principal of a bearer token that this service signed for one of the audiences, or, of one that an
// issuer outside has signed, the principal that trusts what it says (outside.go).
// Each way to be wrong has its own code: AuthenticationFailed (there is none), InvalidAuthenticationToken
// (not ours or changed), ExpiredAuthenticationToken, InvalidAuthenticationTokenAudience.
func (s *Service) Verify(ctx context.Context, bearer string, audiences ...string) (Principal, error) {
	if bearer == "" {
		return Principal{}, missingToken()
	}
	if s.outside != nil && len(bearer) <= maxBearer && s.outside.Owns(bearer) {
		return s.verifyOutside(ctx, bearer)
	}
	c, err := s.open(ctx, bearer)
	if err != nil {
		return Principal{}, invalidToken().WithCause(err)
	}
	switch {
	case c.Issuer != s.issuer || c.TenantID != s.tenant:
		return Principal{}, wrongIssuer(c.Issuer, s.issuer)
	case c.Expiry == nil || c.NotBefore == nil:
		return Principal{}, invalidToken()
	}
	if err := s.timely(c.NotBefore.Time(), c.Expiry.Time()); err != nil {
		return Principal{}, err
	}
	if !intended(c.Audience, audiences) {
		return Principal{}, wrongAudience(c.Audience, audiences)
	}
	var r record
	var found bool
	err = s.db.Read(ctx, func(tx *database.Tx) (err error) {
		r, found, err = principalByID(ctx, tx, c.ObjectID)
		return err
	})
	if err != nil {
		return Principal{}, fmt.Errorf("find principal of token: %w", err)
	}
	if !found || r.ObjectID != c.ObjectID {
		return Principal{}, principalGone(c.ObjectID)
	}
	if r.Disabled {
		return Principal{}, principalDisabled(c.ObjectID)
	}
	if r.sessions != c.Sessions {
		return Principal{}, sessionEnded(c.ObjectID)
	}
	return s.full(r.Principal), nil
}

// timely allows for clocks that differ.
func (s *Service) timely(notBefore, expiry time.Time) error {
	now := s.now()
	switch {
	case now.Add(skew).Before(notBefore):
		return notYetValid(notBefore, now)
	case !now.Add(-skew).Before(expiry):
		return expiredToken(expiry, now)
	}
	return nil
}

// open checks the signature. Only the algorithm that we sign with is considered, and only our keys.
func (s *Service) open(ctx context.Context, bearer string) (c claims, err error) {
	if len(bearer) > maxBearer {
		return claims{}, fmt.Errorf("token has more than %d bytes", maxBearer)
	}
	parsed, err := jwt.ParseSigned(bearer, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return claims{}, err
	}
	if len(parsed.Headers) != 1 {
		return claims{}, fmt.Errorf("token has %d signatures", len(parsed.Headers))
	}
	key, err := s.keyNamed(ctx, parsed.Headers[0].KeyID)
	if err != nil {
		return claims{}, err
	}
	return c, parsed.Claims(key.private.Public(), &c)
}

func intended(got jwt.Audience, allowed []string) bool {
	for _, g := range got {
		for _, a := range allowed {
			if strings.EqualFold(Audience(g), Audience(a)) {
				return true
			}
		}
	}
	return false
}
