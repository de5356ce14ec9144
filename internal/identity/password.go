package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/argon2"

	"kluis/internal/secret"
)

// People choose passwords that can be guessed, so a guess has its price: Argon2id (RFC 9106) with the parameters that
// OWASP recommends first. A proof begins with the number of its recipe; a recipe is never changed, a better one is added.

const (
	minPassword  = 12 // bytes
	maxPassword  = 256
	passwordHash = 32
	hashesAtOnce = 2 // each takes the memory of its recipe
)

type recipe struct {
	passes, memory uint32 // memory in KiB
	lanes          uint8
}

var recipes = map[byte]recipe{1: {passes: 1, memory: 47104, lanes: 1}}

const newestRecipe = 1

func (r recipe) hash(salt, password []byte) []byte {
	return argon2.IDKey(password, salt, r.passes, r.memory, r.lanes, passwordHash)
}

// passwords hashes them, a few at once, so that many who sign in don't take all of the memory.
type passwords struct{ slots chan struct{} }

func newPasswords() passwords { return passwords{make(chan struct{}, hashesAtOnce)} }

func (p passwords) hash(ctx context.Context, r recipe, salt []byte, password secret.Bytes) ([]byte, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		return r.hash(salt, password.Reveal()), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// proven reports whether a password is the one of the credential. Without a credential it takes as long, and is not.
func (p passwords) proven(ctx context.Context, c *credential, password secret.Bytes) (bool, error) {
	if c == nil {
		_, err := p.hash(ctx, recipes[newestRecipe], make([]byte, saltSize), password)
		return false, err
	}
	r, known := recipes[c.proof[0]]
	if !known {
		return false, fmt.Errorf("the password of %s is kept by the unknown recipe %d", c.principal, c.proof[0])
	}
	sum, err := p.hash(ctx, r, c.salt, password)
	return err == nil && subtle.ConstantTimeCompare(sum, c.proof[1:]) == 1, err
}

// newPassword is what the password is checked by later.
func (s *Service) newPassword(ctx context.Context, password secret.Bytes) (credential, error) {
	if n := password.Len(); n < minPassword || n > maxPassword {
		return credential{}, badPassword()
	}
	c, err := s.newCredential(PasswordCredential, "", noEnd)
	if err != nil {
		return credential{}, err
	}
	c.salt = make([]byte, saltSize)
	if _, err := io.ReadFull(s.rand, c.salt); err != nil {
		return credential{}, fmt.Errorf("draw salt: %w", err)
	}
	sum, err := s.passwords.hash(ctx, recipes[newestRecipe], c.salt, password)
	c.proof = append([]byte{newestRecipe}, sum...)
	return c, err
}

// drawPassword makes one of 100 bits that can be read to somebody: five groups of four.
func (s *Service) drawPassword() (secret.Bytes, error) {
	b := make([]byte, 15)
	if _, err := io.ReadFull(s.rand, b); err != nil {
		return secret.Bytes{}, fmt.Errorf("draw password: %w", err)
	}
	text := strings.ToLower(base32.StdEncoding.EncodeToString(b))
	clear(b)
	groups := make([]string, 5)
	for i := range groups {
		groups[i] = text[4*i : 4*i+4]
	}
	return secret.New([]byte(strings.Join(groups, "-"))), nil
}
