package identity

import (
	"context"
	"fmt"
	"time"

	"kluis/internal/database"
)

// Refresh tokens let a program that a person signed in to get tokens for other audiences, and later ones, without him.
// Azure's clients can't do without: az gets a token for the Resource Manager when he signs in, and one for each key vault
// and storage account by the refresh token.
//
// Each is replaced when it is used. One that is used again later was copied, by somebody or from somebody, so all that
// came of the same sign-in ends. For a moment it may be used again: clients ask for several audiences at once.

const (
	refreshIdle  = 7 * 24 * time.Hour  // how long one is good that is not used
	refreshMost  = 30 * 24 * time.Hour // after which a person signs in again
	refreshAgain = time.Minute
)

func (s *Service) newRefreshToken(ctx context.Context, tx *database.Tx, b begun, w Wanted) (string, error) {
	token, hash, err := s.drawCode()
	if err != nil {
		return "", err
	}
	now := s.now()
	expires := now.Add(refreshIdle)
	if end := b.at.Add(refreshMost); end.Before(expires) {
		expires = end
	}
	if err := deleteExpiredRefreshTokens(ctx, tx, now); err != nil {
		return "", fmt.Errorf("forget expired refresh tokens: %w", err)
	}
	return token, insertRefreshToken(ctx, tx, storedRefresh{hash: hash, begun: b, wanted: w, expires: expires})
}

// RefreshRequest is how a client asks for further tokens.
type RefreshRequest struct {
	ClientID string
	Proof    Proof
	Token    string
	Wanted   Wanted // an empty audience: as before
}

// Refresh returns further tokens for a refresh token, which is replaced.
func (s *Service) Refresh(ctx context.Context, q RefreshRequest) (Session, error) {
	client, err := s.admit(ctx, q.ClientID, q.Proof, "refresh_token")
	if err != nil {
		return Session{}, err
	}
	return s.settle(ctx, func(tx *database.Tx) (o Session, refusal, err error) {
		t, found, err := refreshByHash(ctx, tx, hashOf(q.Token))
		now := s.now()
		switch {
		case err != nil:
			return o, nil, fmt.Errorf("find refresh token: %w", err)
		case !found:
			return o, invalidGrant(), nil
		case t.wanted.ClientID != client.ID:
			return o, otherClient(), nil
		case !now.Before(t.expires):
			return o, expiredGrant(), nil
		case !t.used.IsZero() && !now.Before(t.used.Add(refreshAgain)):
			return o, endedSession(), deleteFamily(ctx, tx, t.family)
		}
		if err := useRefreshToken(ctx, tx, t.hash, now); err != nil {
			return o, nil, err
		}
		o, err = s.openSession(ctx, tx, t.begun, q.Wanted.after(t.wanted))
		return o, nil, err
	})
}

// after is what is wanted by who wanted something before.
func (w Wanted) after(before Wanted) Wanted {
	if w.Audience == "" {
		w = before
	}
	w.ClientID, w.Offline, w.Nonce, w.RedirectURI, w.Challenge = before.ClientID, true, "", "", ""
	return w
}
