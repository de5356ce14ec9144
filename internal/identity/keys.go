package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kluis/internal/database"
)

// Tokens are signed with the newest signing key. An older one is shown and believed for keyGrace after it was
// replaced: that is longer than its last token lives, also where another process that shares the database has
// not heard yet of the new one.

const (
	signingKeyBits = 2048
	keyLook        = 10 * time.Second // between two looks for a key that is not known
	keyReload      = time.Hour        // how often a process looks for keys that another one has made
	keyGrace       = tokenLife + skew + 2*keyReload
)

// signingKey signs tokens.
type signingKey struct {
	id         string // thumbprint of the public key, RFC 7638
	generation int64
	created    time.Time
	private    *rsa.PrivateKey
}

// loadKeys reads the signing keys, and makes the first one if there is none. Of two processes that start at once,
// one's key is stored and both use it.
func (s *Service) loadKeys(ctx context.Context) error {
	stored, err := s.readKeys(ctx)
	if err != nil {
		return err
	}
	if len(stored) == 0 {
		if err := s.makeKey(ctx, 1); err != nil {
			return err
		}
		if stored, err = s.readKeys(ctx); err != nil {
			return err
		}
	}
	keys := make([]signingKey, len(stored))
	for i, k := range stored {
		if keys[i], err = openKey(s.seal, k); err != nil {
			return fmt.Errorf("open generation %d: %w", k.generation, err)
		}
	}
	s.keys.Store(&keys)
	return nil
}

// KeepKeys replaces the signing key when it is due, takes away those whose last token has expired, and reads what
// other processes have made. It is to be called every hour.
func (s *Service) KeepKeys(ctx context.Context) error {
	if err := s.loadKeys(ctx); err != nil {
		return err
	}
	keys, now := *s.keys.Load(), s.now()
	if !now.Before(keys[0].created.Add(s.keyLife)) {
		return s.RotateKey(ctx)
	}
	expired := int64(0)
	for i := 1; i < len(keys); i++ {
		if !now.Before(keys[i-1].created.Add(keyGrace)) { // the one that replaced it is that old
			expired = max(expired, keys[i].generation)
		}
	}
	if expired == 0 {
		return nil
	}
	err := s.db.InTx(ctx, func(tx *database.Tx) error { return deleteSigningKeys(ctx, tx, expired) })
	if err != nil {
		return fmt.Errorf("delete expired signing keys: %w", err)
	}
	return s.loadKeys(ctx)
}

// RotateKey makes a new signing key. Tokens of the present one stay good.
func (s *Service) RotateKey(ctx context.Context) error {
	if err := s.makeKey(ctx, (*s.keys.Load())[0].generation+1); err != nil {
		return fmt.Errorf("make signing key: %w", err)
	}
	return s.loadKeys(ctx)
}

// ForgetKeys takes all signing keys away but the present one, with the tokens that they have signed: for when one of them
// may have been copied. Another process that shares the database follows when it looks next, within an hour.
func (s *Service) ForgetKeys(ctx context.Context) error {
	present := (*s.keys.Load())[0].generation
	if err := s.db.InTx(ctx, func(tx *database.Tx) error { return deleteSigningKeys(ctx, tx, present-1) }); err != nil {
		return fmt.Errorf("forget signing keys: %w", err)
	}
	return s.loadKeys(ctx)
}

// SigningKey is a key that signs tokens, or has signed some that may still be good.
type SigningKey struct {
	ID      string // in the JWKS, and in the head of tokens
	Created time.Time
}

// SigningKeys returns them, the present one first.
func (s *Service) SigningKeys() (all []SigningKey) {
	for _, k := range *s.keys.Load() {
		all = append(all, SigningKey{k.id, k.created})
	}
	return all
}

// keyNamed finds a key; one that it has not heard of may be another process's new one.
func (s *Service) keyNamed(ctx context.Context, id string) (signingKey, error) {
	named := func(k signingKey) bool { return k.id == id }
	keys := *s.keys.Load()
	i := slices.IndexFunc(keys, named)
	if i < 0 && s.mayLook() {
		if err := s.loadKeys(ctx); err != nil {
			return signingKey{}, err
		}
		keys = *s.keys.Load()
		i = slices.IndexFunc(keys, named)
	}
	if i < 0 {
		return signingKey{}, fmt.Errorf("token is signed with the unknown key %q", clip(id))
	}
	return keys[i], nil
}

// mayLook reports whether it is time to look again. Whoever sends keys that nobody knows does not make us look each time.
func (s *Service) mayLook() bool {
	now := s.now().UnixMicro()
	last := s.looked.Load()
	return now-last >= keyLook.Microseconds() && s.looked.CompareAndSwap(last, now)
}

func (s *Service) readKeys(ctx context.Context) (stored []sealedKey, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		stored, err = signingKeys(ctx, tx)
		return err
	})
	return stored, err
}

func (s *Service) makeKey(ctx context.Context, generation int64) error {
	private, err := rsa.GenerateKey(s.rand, signingKeyBits)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("marshal: %w", err)
	}
	defer clear(plain)
	sealed, err := s.seal.Seal(keyContext(generation), plain)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return s.db.InTx(ctx, func(tx *database.Tx) error { return insertSigningKey(ctx, tx, sealedKey{generation, sealed, s.now()}) })
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
	return signingKey{base64.RawURLEncoding.EncodeToString(thumbprint), k.generation, k.created, private}, nil
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
	for _, k := range *s.keys.Load() {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(jose.RS256), Use: "sig"})
	}
	return set
}
