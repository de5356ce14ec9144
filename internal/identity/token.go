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
	AppID    string `json:"appid"`
	Kind     string `json:"idtyp"`
	Version  string `json:"ver"`
}

// ClientCredentials gives a principal that proves itself with its secret a token for one audience.
// The codes of its errors are those of OAuth.
func (s *Service) ClientCredentials(ctx context.Context, clientID string, clientSecret secret.Bytes, audience string) (Token, error) {
	audience = Audience(audience)
	if audience == "" {
		return Token{}, missingAudience()
	}
	p, credentials, err := s.client(ctx, clientID)
	if err != nil {
		return Token{}, err
	}
	i := slices.IndexFunc(credentials, func(c credential) bool { return c.provenBy(clientSecret) })
	switch {
	case i < 0:
		return Token{}, s.failed(p.AppID, wrongSecret(p.AppID))
	case credentials[i].expired(s.now()):
		return Token{}, s.failed(p.AppID, expiredCredential(p.AppID, credentials[i].Credential))
	}
	return s.issue(p, audience)
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

func (s *Service) issue(p Principal, audience string) (Token, error) {
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
	text, err := jwt.Signed(signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer: s.issuer, Subject: p.ObjectID, Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
			ID: base64.RawURLEncoding.EncodeToString(id[:]),
		},
		TenantID: p.TenantID, ObjectID: p.ObjectID, AppID: p.AppID, Kind: "app", Version: "2.0",
	}).Serialize()
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

// Verify returns the principal of a bearer token that this service signed for one of the audiences.
// Each way to be wrong has its own code: AuthenticationFailed (there is none), InvalidAuthenticationToken
// (not ours or changed), ExpiredAuthenticationToken, InvalidAuthenticationTokenAudience.
func (s *Service) Verify(ctx context.Context, bearer string, audiences ...string) (Principal, error) {
	if bearer == "" {
		return Principal{}, missingToken()
	}
	c, err := s.open(ctx, bearer)
	if err != nil {
		return Principal{}, invalidToken().WithCause(err)
	}
	now := s.now()
	switch {
	case c.Issuer != s.issuer || c.TenantID != s.tenant:
		return Principal{}, wrongIssuer(c.Issuer, s.issuer)
	case c.Expiry == nil || c.NotBefore == nil:
		return Principal{}, invalidToken()
	case now.Add(skew).Before(c.NotBefore.Time()):
		return Principal{}, notYetValid(c.NotBefore.Time(), now)
	case !now.Add(-skew).Before(c.Expiry.Time()):
		return Principal{}, expiredToken(c.Expiry.Time(), now)
	case !intended(c.Audience, audiences):
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
	return s.full(r.Principal), nil
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
