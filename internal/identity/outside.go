package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kluis/internal/database"
	"kluis/internal/problem"
)

// Tokens of an issuer outside are believed beside our own, if there is one. A principal of ours trusts what such a token
// says of itself: a subject, or a group. Who shows a token acts as that principal, with its roles. Nobody acts as
// anybody whom no principal trusts, and a token that fits several is refused, since nothing says which of them is meant;
// only that a subject goes before groups.
//
// A principal trusts a subject of one issuer, so when the server is told of another one, nothing is trusted any more.

// Outside reads tokens of the issuer that is believed beside our own.
type Outside interface {
	// URL is the issuer, as its tokens name it.
	URL() string
	// Owns reports whether a token says that it is of this issuer.
	Owns(token string) bool
	// Read checks the signature and returns what the token says. ErrOutsideAway means that nothing is known of it.
	Read(ctx context.Context, token string) (OutsideToken, error)
}

// ErrOutsideAway means that the issuer outside does not answer.
var ErrOutsideAway = errors.New("the issuer outside is away")

// OutsideToken is what a token of an issuer outside says.
type OutsideToken struct {
	Subject   string
	Groups    []string
	Audience  []string
	NotBefore time.Time // zero: not said
	Expiry    time.Time
}

// The kinds of credentials by which a principal trusts tokens from outside.
const (
	SubjectCredential CredentialKind = "subject"
	GroupCredential   CredentialKind = "group"
)

// Trust lets the holders of tokens from outside act as a principal: those that name the subject or the group. An
// empty issuer is the one that the server is told of.
func (s *Service) Trust(ctx context.Context, idOrAppID string, kind CredentialKind, value, issuer string) (Credential, error) {
	if issuer == "" && s.outside != nil {
		issuer = s.outside.URL()
	}
	switch {
	case kind != SubjectCredential && kind != GroupCredential:
		return Credential{}, badCredential("it is of no kind that there is")
	case value == "":
		return Credential{}, badCredential("it names neither a subject nor a group")
	case issuer == "":
		return Credential{}, noOutsideIssuer()
	}
	c, err := s.newCredential(kind, value, noEnd)
	if err != nil {
		return Credential{}, err
	}
	c.Name, c.Issuer, c.salt, c.proof = value, issuer, []byte{}, []byte(issuer)
	return c.Credential, s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.changeable(ctx, tx, idOrAppID)
		if err != nil {
			return err
		}
		c.principal = p.ObjectID
		return insertTrust(ctx, tx, c)
	})
}

// insertTrust stores it, unless somebody else trusts the same.
func insertTrust(ctx context.Context, tx *database.Tx, c credential) error {
	there, err := trusted(ctx, tx, c.Kind, c.Issuer)
	if err != nil {
		return err
	}
	for _, old := range there {
		if old.Name == c.Name {
			return alreadyTrusted(c.Credential, old.principal)
		}
	}
	own, err := credentialsOf(ctx, tx, c.principal)
	if err != nil {
		return err
	}
	if len(own) >= maxCredentials {
		return badCredential(fmt.Sprintf("the principal has %d already", len(own)))
	}
	return insertCredential(ctx, tx, c)
}

// trusted returns what is trusted of an issuer.
func trusted(ctx context.Context, tx *database.Tx, kind CredentialKind, issuer string) ([]credential, error) {
	all, err := credentialsOfKind(ctx, tx, kind)
	return slices.DeleteFunc(all, func(c credential) bool { return c.Issuer != issuer }), err
}

// verifyOutside returns the principal that a token from outside acts as. Its audiences are those that the server is told of.
func (s *Service) verifyOutside(ctx context.Context, bearer string) (Principal, error) {
	t, err := s.outside.Read(ctx, bearer)
	switch {
	case errors.Is(err, ErrOutsideAway):
		return Principal{}, outsideAway(s.outside.URL()).WithCause(err)
	case err != nil:
		return Principal{}, invalidToken().WithCause(err)
	}
	if err := s.timely(t.NotBefore, t.Expiry); err != nil {
		return Principal{}, err
	}
	if !intended(t.Audience, s.outsideAudiences) {
		return Principal{}, wrongAudience(t.Audience, s.outsideAudiences)
	}
	var r record
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		objectID, err := s.actsAs(ctx, tx, t)
		if err != nil {
			return err
		}
		var found bool
		if r, found, err = principalByID(ctx, tx, objectID); err == nil && !found {
			err = principalGone(objectID)
		}
		return err
	})
	switch {
	case problem.Of(err) != nil:
		return Principal{}, err
	case err != nil:
		return Principal{}, fmt.Errorf("find principal of token: %w", err)
	case r.Disabled:
		return Principal{}, principalDisabled(r.ObjectID)
	}
	return s.full(r.Principal), nil
}

// actsAs finds who trusts what a token says: its subject, else its groups.
func (s *Service) actsAs(ctx context.Context, tx *database.Tx, t OutsideToken) (string, error) {
	subjects, err := trusted(ctx, tx, SubjectCredential, s.outside.URL())
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(subjects, func(c credential) bool { return c.Name == t.Subject }); i >= 0 {
		return subjects[i].principal, nil
	}
	groups, err := trusted(ctx, tx, GroupCredential, s.outside.URL())
	if err != nil {
		return "", err
	}
	var found []string
	for _, c := range groups {
		if slices.Contains(t.Groups, c.Name) && !slices.Contains(found, c.principal) {
			found = append(found, c.principal)
		}
	}
	switch len(found) {
	case 0:
		return "", nobodyTrusts(t.Subject)
	case 1:
		return found[0], nil
	}
	return "", severalTrust(t.Subject, strings.Join(found, ", "))
}
