package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"kluis/internal/database"
)

// signingKey signs tokens. The newest signs, all verify, so that a key can be replaced while tokens
// of the old one are still valid.
type signingKey struct {
	id      string // thumbprint of the public key, RFC 7638
	private *rsa.PrivateKey
}

const signingKeyBits = 2048

// openKeys reads the signing keys, and makes the first one if there is none. Of two processes that
// start at once, one's key is stored and both use it.
func (s *Service) openKeys(ctx context.Context, seal Sealer) ([]signingKey, error) {
	stored, err := s.readKeys(ctx)
	if err != nil {
		return nil, err
	}
	if len(stored) == 0 {
		if err := s.makeKey(ctx, seal); err != nil {
			return nil, err
		}
		if stored, err = s.readKeys(ctx); err != nil {
			return nil, err
		}
	}
	keys := make([]signingKey, len(stored))
	for i, k := range stored {
		if keys[i], err = openKey(seal, k); err != nil {
			return nil, fmt.Errorf("open generation %d: %w", k.generation, err)
		}
	}
	return keys, nil
}

func (s *Service) readKeys(ctx context.Context) (stored []sealedKey, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		stored, err = signingKeys(ctx, tx)
		return err
	})
	return stored, err
}

func (s *Service) makeKey(ctx context.Context, seal Sealer) error {
	const generation = 1
	private, err := rsa.GenerateKey(s.rand, signingKeyBits)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("marshal: %w", err)
	}
	defer clear(plain)
	sealed, err := seal.Seal(keyContext(generation), plain)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error { return insertSigningKey(ctx, tx, generation, sealed) })
}

func openKey(seal Sealer, k sealedKey) (signingKey, error) {
	plain, err := seal.Open(keyContext(k.generation), k.sealed)
	if err != nil {
		return signingKey{}, err
	}
	defer clear(plain)
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return signingKey{}, err
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return signingKey{}, fmt.Errorf("key is a %T, not RSA", parsed)
	}
	thumbprint, err := (&jose.JSONWebKey{Key: private.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return signingKey{}, err
	}
	return signingKey{id: base64.RawURLEncoding.EncodeToString(thumbprint), private: private}, nil
}

// Reseal seals the signing keys anew that don't begin with the mark of the present root key.
func (s *Service) Reseal(ctx context.Context, seal Sealer, mark []byte) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		stored, err := signingKeys(ctx, tx)
		if err != nil {
			return err
		}
		for _, k := range stored {
			if bytes.HasPrefix(k.sealed, mark) {
				continue
			}
			plain, err := seal.Open(keyContext(k.generation), k.sealed)
			if err != nil {
				return fmt.Errorf("open signing key %d: %w", k.generation, err)
			}
			k.sealed, err = seal.Seal(keyContext(k.generation), plain)
			clear(plain)
			if err != nil {
				return fmt.Errorf("seal signing key %d anew: %w", k.generation, err)
			}
			if err := updateSigningKey(ctx, tx, k); err != nil {
				return err
			}
		}
		return nil
	})
}

func keyContext(generation int64) string { return fmt.Sprintf("identity/signing-key/%d", generation) }

// JWKS returns the public keys, as JSON (RFC 7517).
func (s *Service) JWKS() any {
	set := jose.JSONWebKeySet{}
	for _, k := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(jose.RS256), Use: "sig"})
	}
	return set
}
