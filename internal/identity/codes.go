package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"regexp"
	"time"

	"kluis/internal/database"
)

// Authorization codes (RFC 6749, 4.1) with proof keys (RFC 7636): who fetches the tokens shows the secret whose hash
// came with the question, so that a code which others get to see is of no use to them.

const codeLife = 5 * time.Minute

// A challenge is the hash of a verifier; a verifier is what RFC 7636 lets clients draw.
var (
	challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	verifierForm  = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)
)

// CheckChallenge says whether a client may ask with this challenge. The only method is S256; programs must use it.
func (c Client) CheckChallenge(challenge, method string) error {
	switch {
	case challenge == "" && method == "" && !c.Public:
		return nil
	case challenge == "":
		return missingChallenge()
	case method != "S256":
		return wrongChallengeMethod(method)
	case !challengeForm.MatchString(challenge):
		return badChallenge()
	}
	return nil
}

// NewCode makes the code by which a client fetches what a person, who has just signed in, lets it have.
func (s *Service) NewCode(ctx context.Context, person Principal, w Wanted) (string, error) {
	code, hash, err := s.drawCode()
	if err != nil {
		return "", err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		r, found, err := principalByID(ctx, tx, person.ObjectID)
		if err != nil || !found || r.Disabled {
			return cmp.Or(err, error(disabledUser()))
		}
		if err := deleteExpiredCodes(ctx, tx, s.now().Add(-codeLife)); err != nil {
			return fmt.Errorf("forget expired codes: %w", err)
		}
		return insertCode(ctx, tx, storedCode{hash: hash, principal: r.ObjectID, sessions: r.sessions, wanted: w, expires: s.now().Add(codeLife)})
	})
	return code, err
}

// Redemption is how a client asks for the tokens of a code.
type Redemption struct {
	ClientID    string
	Proof       Proof
	Code        string
	RedirectURI string
	Verifier    string
	Audience    string // empty: that of the code
}

// Redeem returns the tokens of a code. A code is spent by the first who shows it, whatever comes of that; when it is
// shown again, what came of it ends.
func (s *Service) Redeem(ctx context.Context, q Redemption) (Session, error) {
	client, err := s.admit(ctx, q.ClientID, q.Proof, "authorization_code")
	if err != nil {
		return Session{}, err
	}
	return s.settle(ctx, func(tx *database.Tx) (Session, error, error) {
		c, refusal, err := spend(ctx, tx, hashOf(q.Code))
		if err == nil && refusal == nil {
			refusal = c.fits(q, client, s.now())
		}
		if err != nil || refusal != nil {
			return Session{}, refusal, err
		}
		o, err := s.openSession(ctx, tx, begun{c.principal, c.sessions, c.hash, s.now()}, c.wanted)
		return o, nil, err
	})
}

// spend marks a code as used.
func spend(ctx context.Context, tx *database.Tx, hash string) (c storedCode, refusal, err error) {
	c, found, err := codeByHash(ctx, tx, hash)
	switch {
	case err != nil:
		return c, nil, fmt.Errorf("find code: %w", err)
	case !found:
		return c, invalidGrant(), nil
	case c.used:
		return c, spentCode(), deleteFamily(ctx, tx, hash)
	}
	return c, nil, useCode(ctx, tx, hash)
}

// fits says what is wrong with how a code is redeemed.
func (c storedCode) fits(q Redemption, client Client, now time.Time) error {
	switch {
	case !now.Before(c.expires):
		return expiredGrant()
	case c.wanted.ClientID != client.ID:
		return otherClient()
	case c.wanted.RedirectURI != q.RedirectURI:
		return otherRedirectURI()
	case q.Audience != "" && q.Audience != c.wanted.Audience:
		return otherAudience()
	case !answers(q.Verifier, c.wanted.Challenge):
		return wrongVerifier()
	}
	return nil
}

// answers reports whether a verifier is the one of the challenge. Without a challenge there must be none.
func answers(verifier, challenge string) bool {
	if challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return verifierForm.MatchString(verifier) &&
		subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}
