package identity

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"kluis/internal/database"
)

// A person signs in and lets a client act in his name. Until the client fetches its tokens, a code stands for that
// (codes.go, devices.go); afterwards a refresh token does (refresh.go). Each of them is drawn, kept as a hash, good once,
// and bound to the client, to what was wanted and to the person's number of sessions.

const codeSize = 32 // bytes; nobody guesses it, so its hash needs neither salt nor work factor

// Wanted is what a client asks a person for.
type Wanted struct {
	ClientID string `json:"client"`
	Audience string `json:"audience"`
	Scope    string `json:"scope"`            // as it was asked for
	OpenID   bool   `json:"openid,omitempty"` // an id token is wanted
	Offline  bool   `json:"offline,omitempty"`
	Nonce    string `json:"nonce,omitempty"`

	// Of an authorization code only.
	RedirectURI string `json:"redirect,omitempty"`
	Challenge   string `json:"challenge,omitempty"` // of PKCE, S256
}

// Session is what a client gets when a person has signed in.
type Session struct {
	Token
	Person       Principal
	Scope        string
	IDToken      string // empty: not asked for
	RefreshToken string // empty: not asked for
}

// begun is a sign-in, as whatever came of it remembers it.
type begun struct {
	principal string
	sessions  int64
	family    string // what all its refresh tokens have in common
	at        time.Time
}

// openSession makes the tokens, if the person may still have them.
func (s *Service) openSession(ctx context.Context, tx *database.Tx, b begun, w Wanted) (Session, error) {
	r, found, err := principalByID(ctx, tx, b.principal)
	switch {
	case err != nil:
		return Session{}, fmt.Errorf("find user: %w", err)
	case !found || r.sessions != b.sessions:
		return Session{}, endedSession()
	case r.Disabled:
		return Session{}, disabledUser()
	}
	o := Session{Person: s.full(r.Principal), Scope: w.Scope}
	if o.Token, err = s.issueFor(r, w); err != nil {
		return Session{}, err
	}
	if w.OpenID {
		if o.IDToken, err = s.idToken(r, w); err != nil {
			return Session{}, err
		}
	}
	if w.Offline {
		o.RefreshToken, err = s.newRefreshToken(ctx, tx, b, w)
	}
	return o, err
}

// settle runs f in a transaction. A refusal is an answer: what f has stored is stored all the same.
func (s *Service) settle(ctx context.Context, f func(tx *database.Tx) (o Session, refusal, err error)) (Session, error) {
	var o Session
	var refusal error
	err := s.db.InTx(ctx, func(tx *database.Tx) (err error) {
		o, refusal, err = f(tx)
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return o, refusal
}

// drawCode makes a code, and what it is kept as.
func (s *Service) drawCode() (code, hash string, err error) {
	b := make([]byte, codeSize)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return "", "", fmt.Errorf("draw code: %w", err)
	}
	code = base64.RawURLEncoding.EncodeToString(b)
	return code, hashOf(code), nil
}

func hashOf(code string) string {
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}
