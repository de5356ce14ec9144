package keyvault

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"hash"
	"slices"
	"strings"

	"kluis/internal/database"
	"kluis/internal/secret"
)

// The algorithms that wrap and encrypt, by their names in JSON Web Algorithms.
const (
	RSA15      = "RSA1_5"
	RSAOAEP    = "RSA-OAEP" // with SHA-1: what Azure Disk Encryption uses unless told otherwise
	RSAOAEP256 = "RSA-OAEP-256"
)

// WrapKey encrypts key material to a key, and returns the version that did it.
func (s *Service) WrapKey(ctx context.Context, id KeyID, algorithm string, plain secret.Bytes) (KeyID, []byte, error) {
	return s.seal(ctx, keyWrap, id, algorithm, plain)
}

// UnwrapKey decrypts what WrapKey made.
func (s *Service) UnwrapKey(ctx context.Context, id KeyID, algorithm string, wrapped []byte) (KeyID, secret.Bytes, error) {
	return s.unseal(ctx, keyUnwrap, id, algorithm, wrapped)
}

// Encrypt encrypts a short value to a key, and returns the version that did it.
func (s *Service) Encrypt(ctx context.Context, id KeyID, algorithm string, plain secret.Bytes) (KeyID, []byte, error) {
	return s.seal(ctx, keyEncrypt, id, algorithm, plain)
}

// Decrypt decrypts what Encrypt made.
func (s *Service) Decrypt(ctx context.Context, id KeyID, algorithm string, value []byte) (KeyID, secret.Bytes, error) {
	return s.unseal(ctx, keyDecrypt, id, algorithm, value)
}

func (s *Service) seal(ctx context.Context, op operation, id KeyID, algorithm string, plain secret.Bytes) (used KeyID, out []byte, err error) {
	err = s.withKey(ctx, op, id, algorithm, func(v KeyID, key *rsa.PrivateKey) error {
		used = v
		out, err = rsaEncrypt(&key.PublicKey, algorithm, plain)
		return err
	})
	if err != nil {
		return KeyID{}, nil, err
	}
	return used, out, nil
}

func (s *Service) unseal(ctx context.Context, op operation, id KeyID, algorithm string, value []byte) (used KeyID, out secret.Bytes, err error) {
	err = s.withKey(ctx, op, id, algorithm, func(v KeyID, key *rsa.PrivateKey) error {
		used = v
		if out, err = rsaDecrypt(key, algorithm, value); err != nil {
			return unwrapFailed(op)
		}
		return nil
	})
	if err != nil {
		return KeyID{}, secret.Bytes{}, err
	}
	return used, out, nil
}

// withKey hands the private key to f if the caller, the key's operations and its attributes allow the operation.
// Outside of nbf and exp a key still opens what it has closed, but closes nothing new.
func (s *Service) withKey(ctx context.Context, op operation, id KeyID, algorithm string, f func(KeyID, *rsa.PrivateKey) error) error {
	return s.use(ctx, op, id.target(), func(u *use) error {
		var r record
		var v Vault
		err := u.read(ctx, func(tx *database.Tx, vault Vault) (err error) {
			v = vault
			r, err = u.version(ctx, tx)
			return err
		})
		if err != nil {
			return err
		}
		d, now := r.document, s.now().Unix()
		opens := op.permission == "unwrapKey" || op.permission == "decrypt"
		switch {
		case d.Disabled:
			return disabled(op, Keys)
		case d.Key == nil || !slices.Contains(d.Key.Operations, op.permission):
			return operationForbidden(op)
		case !opens && d.NotBefore != 0 && now < d.NotBefore:
			return notYetValid(op)
		case !opens && d.Expires != 0 && now >= d.Expires:
			return expired(op)
		case !slices.Contains([]string{RSA15, RSAOAEP, RSAOAEP256}, algorithm):
			return badParameter("alg", "the algorithm %q is not supported for keys of type %s; %s, %s and %s are", clip(algorithm), d.Key.Type, RSA15, RSAOAEP, RSAOAEP256)
		}
		plain, err := u.open(r)
		if err != nil {
			return err
		}
		defer clear(plain)
		key, err := parseRSA(plain)
		if err != nil {
			return err
		}
		return f(KeyID{v.Name(), r.name, r.version}, key)
	})
}

var errNotRSA = errors.New("not an RSA key")

func parseRSA(pkcs8 []byte) (*rsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errNotRSA // x509's error might speak of the key
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errNotRSA
	}
	return key, nil
}

func rsaEncrypt(key *rsa.PublicKey, algorithm string, plain secret.Bytes) ([]byte, error) {
	room := key.Size() - 11
	if h := oaepHash(algorithm); h != nil {
		room = key.Size() - 2*h.Size() - 2
	}
	if plain.Len() == 0 || plain.Len() > room {
		return nil, badParameter("value", "the value has %d bytes, and with %s this key takes 1 to %d", plain.Len(), algorithm, room)
	}
	if h := oaepHash(algorithm); h != nil {
		return rsa.EncryptOAEP(h, rand.Reader, key, plain.Reveal(), nil)
	}
	return rsa.EncryptPKCS1v15(rand.Reader, key, plain.Reveal()) //nolint:staticcheck // what clients ask for by the name RSA1_5
}

// rsaDecrypt fails with one error whatever is wrong: a caller must not learn which step it was.
func rsaDecrypt(key *rsa.PrivateKey, algorithm string, value []byte) (secret.Bytes, error) {
	var plain []byte
	var err error
	if h := oaepHash(algorithm); h != nil {
		plain, err = rsa.DecryptOAEP(h, nil, key, value, nil)
	} else {
		plain, err = rsa.DecryptPKCS1v15(nil, key, value) //nolint:staticcheck // who may call this may unwrap anything anyway
	}
	if err != nil {
		return secret.Bytes{}, ErrUnwrap
	}
	return secret.New(plain), nil
}

func oaepHash(algorithm string) hash.Hash {
	switch strings.ToUpper(algorithm) {
	case RSAOAEP:
		return sha1.New()
	case RSAOAEP256:
		return sha256.New()
	}
	return nil
}
