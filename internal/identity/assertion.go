package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"kluis/internal/database"
)

// A client that has a certificate proves itself with an assertion (RFC 7523): a JWT that it signs itself, for
// this server's token endpoint, for some minutes. The header names the certificate by a thumbprint.

const (
	maxAssertion     = 16 << 10
	maxAssertionID   = 256
	maxAssertionLife = 24 * time.Hour // older libraries ask for a day
)

var assertionAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256}

// assertion is what a client says in one, read but not yet believed.
type assertion struct {
	token      *jwt.JSONWebToken
	claims     jwt.Claims
	thumbprint []byte // SHA-1 or SHA-256 of the certificate
}

// readAssertion takes a text apart. Nothing in it is checked but its form.
func readAssertion(text string) (a assertion, err error) {
	if len(text) > maxAssertion {
		return a, fmt.Errorf("it has more than %d bytes", maxAssertion)
	}
	if a.token, err = jwt.ParseSigned(text, assertionAlgorithms); err != nil {
		return a, err
	}
	if len(a.token.Headers) != 1 {
		return a, fmt.Errorf("it has %d signatures", len(a.token.Headers))
	}
	if a.thumbprint, err = thumbprintOf(a.token.Headers[0]); err != nil {
		return a, err
	}
	if err := a.token.UnsafeClaimsWithoutVerification(&a.claims); err != nil {
		return a, err
	}
	switch {
	case a.claims.Expiry == nil:
		return a, errors.New("it has no exp")
	case a.claims.ID == "" || len(a.claims.ID) > maxAssertionID:
		return a, fmt.Errorf("its jti does not have 1 to %d bytes", maxAssertionID)
	}
	return a, nil
}

// Azure's library for Go writes thumbprints in base64's other alphabet, others with padding.
var urlAlphabet = strings.NewReplacer("+", "-", "/", "_", "=", "")

// thumbprintOf is the certificate's, from x5t#S256, from x5t, or from kid, where some libraries put it.
func thumbprintOf(h jose.Header) ([]byte, error) {
	for _, name := range []jose.HeaderKey{"x5t#S256", "x5t"} {
		if text, ok := h.ExtraHeaders[name].(string); ok {
			b, err := base64.RawURLEncoding.DecodeString(urlAlphabet.Replace(text))
			if err != nil {
				return nil, fmt.Errorf("its %s is not base64url", name)
			}
			return b, nil
		}
	}
	if b, err := hex.DecodeString(h.KeyID); err == nil && len(b) > 0 {
		return b, nil
	}
	return nil, errors.New("its header names no certificate: x5t#S256 or x5t is missing")
}

// in finds the certificate that the assertion names.
func (a assertion) in(all []credential) (credential, bool) {
	i := slices.IndexFunc(all, func(c credential) bool {
		if c.Kind != CertificateCredential {
			return false
		}
		sum := sha256.Sum256(c.proof)
		return slices.Equal(a.thumbprint, sum[:]) || strings.EqualFold(c.Thumbprint, hex.EncodeToString(a.thumbprint))
	})
	if i < 0 {
		return credential{}, false
	}
	return all[i], true
}

// signedBy reports whether the certificate's key has signed it.
func (a assertion) signedBy(c credential) error {
	certificate, err := parseCertificate(c.proof)
	if err != nil {
		return err
	}
	return a.token.Claims(certificate.PublicKey)
}

// ClientAssertion gives an application that proves itself by an assertion a token for one audience. endpoints are
// the token endpoints that the assertion may be for. The codes of its errors are those of OAuth.
//
// An assertion is good once for each audience: Azure's library for Python sends the same one for all that it asks
// for within some minutes.
func (s *Service) ClientAssertion(ctx context.Context, clientID, text string, endpoints []string, audience string) (Token, error) {
	return s.applicationToken(ctx, clientID, Proof{Assertion: text, Endpoints: endpoints}, audience)
}

func (s *Service) checkAssertion(p Principal, credentials []credential, text string, endpoints []string) (assertion, error) {
	a, err := readAssertion(text)
	if err != nil {
		return a, badAssertion(err)
	}
	now := s.now()
	c, found := a.in(credentials)
	switch {
	case !found:
		return a, unknownCertificate(p.AppID)
	case a.signedBy(c) != nil:
		return a, wrongSignature()
	case !strings.EqualFold(a.claims.Issuer, p.AppID) || !strings.EqualFold(a.claims.Subject, p.AppID):
		return a, wrongAssertionClient(a.claims.Subject, p.AppID)
	case !slices.ContainsFunc(a.claims.Audience, func(aud string) bool { return slices.Contains(endpoints, strings.ToLower(strings.TrimRight(aud, "/"))) }):
		return a, wrongAssertionAudience(a.claims.Audience, endpoints)
	case !a.timely(now):
		return a, untimelyAssertion(now)
	case c.expired(now):
		return a, expiredCredential(p.AppID, c.Credential)
	}
	return a, nil
}

// timely allows for clocks that differ, and for no more than a day ahead.
func (a assertion) timely(now time.Time) bool {
	expires := a.claims.Expiry.Time()
	begins := func(d *jwt.NumericDate) bool { return d == nil || !now.Add(skew).Before(d.Time()) }
	return now.Add(-skew).Before(expires) && !now.Add(maxAssertionLife+skew).Before(expires) && begins(a.claims.NotBefore) && begins(a.claims.IssuedAt)
}

// useAssertion remembers that the assertion was used, for as long as it would be accepted.
func (s *Service) useAssertion(ctx context.Context, p Principal, c jwt.Claims, audience string) error {
	sum := sha256.Sum256([]byte(strings.Join([]string{p.ObjectID, strings.ToLower(audience), c.ID}, "\n")))
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		if err := deleteAssertions(ctx, tx, s.now().Add(-skew)); err != nil {
			return fmt.Errorf("forget expired assertions: %w", err)
		}
		fresh, err := insertAssertion(ctx, tx, hex.EncodeToString(sum[:]), c.Expiry.Time())
		if err != nil {
			return fmt.Errorf("remember assertion: %w", err)
		}
		if !fresh {
			return usedAssertion()
		}
		return nil
	})
}
