package keyvault

import (
	"context"
	"io"
	"slices"

	"kluis/internal/database"
	"kluis/internal/secret"
)

// WrapKey encrypts key material to a key, and returns the version that did it.
func (s *Service) WrapKey(ctx context.Context, id KeyID, algorithm string, plain secret.Bytes) (KeyID, []byte, error) {
	used, c, err := s.seal(ctx, keyWrap, id, algorithm, plain, nil, nil)
	return used, c.Value, err
}

// UnwrapKey decrypts what WrapKey made.
func (s *Service) UnwrapKey(ctx context.Context, id KeyID, algorithm string, wrapped []byte) (KeyID, secret.Bytes, error) {
	return s.unseal(ctx, keyUnwrap, id, algorithm, Ciphertext{Value: wrapped})
}

// Encrypt encrypts a short value to a key, and returns the version that did it. iv and aad are nil unless the algorithm
// takes them: aad is for GCM, which makes its own iv; CBC takes an iv, or makes one.
func (s *Service) Encrypt(ctx context.Context, id KeyID, algorithm string, plain secret.Bytes, iv, aad []byte) (KeyID, Ciphertext, error) {
	return s.seal(ctx, keyEncrypt, id, algorithm, plain, iv, aad)
}

// Decrypt decrypts what Encrypt made.
func (s *Service) Decrypt(ctx context.Context, id KeyID, algorithm string, c Ciphertext) (KeyID, secret.Bytes, error) {
	return s.unseal(ctx, keyDecrypt, id, algorithm, c)
}

func (s *Service) seal(ctx context.Context, op operation, id KeyID, name string, plain secret.Bytes, iv, aad []byte) (used KeyID, out Ciphertext, err error) {
	err = s.withKey(ctx, op, id, name, func(v KeyID, k key) error {
		private, err := k.private()
		if err != nil {
			return err
		}
		defer private.wipe()
		used = v
		out, err = k.algorithm.scheme.close(private, plain, iv, aad)
		return err
	})
	if err != nil {
		return KeyID{}, Ciphertext{}, err
	}
	return used, out, nil
}

func (s *Service) unseal(ctx context.Context, op operation, id KeyID, name string, c Ciphertext) (used KeyID, out secret.Bytes, err error) {
	err = s.withKey(ctx, op, id, name, func(v KeyID, k key) error {
		private, err := k.private()
		if err != nil {
			return err
		}
		defer private.wipe()
		used = v
		if out, err = k.algorithm.scheme.open(private, c); err != nil {
			return unwrapFailed(op)
		}
		return nil
	})
	if err != nil {
		return KeyID{}, secret.Bytes{}, err
	}
	return used, out, nil
}

// Sign signs a digest, and returns the version that did it.
func (s *Service) Sign(ctx context.Context, id KeyID, algorithm string, digest []byte) (used KeyID, signature []byte, err error) {
	err = s.withKey(ctx, keySign, id, algorithm, func(v KeyID, k key) error {
		private, err := k.private()
		if err != nil {
			return err
		}
		defer private.wipe()
		used = v
		signature, err = k.algorithm.signer.sign(private, digest)
		return err
	})
	if err != nil {
		return KeyID{}, nil, err
	}
	return used, signature, nil
}

// Verify reports whether a signature is one that Sign makes for the digest. It needs the public part alone.
func (s *Service) Verify(ctx context.Context, id KeyID, algorithm string, digest, signature []byte) (valid bool, err error) {
	err = s.withKey(ctx, keyVerify, id, algorithm, func(_ KeyID, k key) error {
		valid, err = k.algorithm.signer.verify(*k.public, digest, signature)
		return err
	})
	return valid && err == nil, err
}

// key is a version of a key under an operation that may use it.
type key struct {
	public    *publicKey
	algorithm algorithm
	private   func() (privateKey, error) // opens it; the caller wipes it
}

// opening are the operations that undo or check what was done while the key was valid.
var opening = []string{"unwrapKey", "decrypt", "verify"}

// withKey hands the key to f if the caller, the key's operations and its attributes allow the operation.
// Outside of nbf and exp a key still opens what it has closed, but closes and signs nothing new.
func (s *Service) withKey(ctx context.Context, op operation, id KeyID, name string, f func(KeyID, key) error) error {
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
		opens := slices.Contains(opening, op.permission)
		switch {
		case d.Disabled:
			return disabled(op, Keys)
		case d.Key == nil || !slices.Contains(d.Key.Operations, op.permission):
			return operationForbidden(op)
		case !opens && d.NotBefore != 0 && now < d.NotBefore:
			return notYetValid(op)
		case !opens && d.Expires != 0 && now >= d.Expires:
			return expired(op)
		}
		a, err := algorithmFor(name, d.Key, op.permission)
		if err != nil {
			return err
		}
		private := func() (privateKey, error) {
			plain, err := u.open(r)
			if err != nil {
				return privateKey{}, err
			}
			return parsePrivate(d.Key.Type, plain)
		}
		return f(KeyID{v.Name(), r.name, r.version}, key{d.Key, a, private})
	})
}

const maxRandomBytes = 128

// RandomBytes returns bytes from the server's source of randomness.
func (s *Service) RandomBytes(ctx context.Context, vault string, count int) (secret.Bytes, error) {
	var out []byte
	err := s.use(ctx, randomBytesGet, target{vault: vault}, func(u *use) error {
		if count < 1 || count > maxRandomBytes {
			return badParameter("count", "count is %d, and must be from 1 to %d", count, maxRandomBytes)
		}
		if err := u.read(ctx, func(*database.Tx, Vault) error { return nil }); err != nil {
			return err
		}
		out = make([]byte, count)
		_, err := io.ReadFull(s.o.Rand, out)
		return err
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(out), nil
}

// ReleaseKey always refuses: a release hands a private key to an enclave that proves what it runs, and there is nothing
// here that could check such a proof.
func (s *Service) ReleaseKey(ctx context.Context, id KeyID) error {
	return s.use(ctx, keyRelease, id.target(), func(u *use) error {
		if err := u.read(ctx, func(*database.Tx, Vault) error { return nil }); err != nil {
			return err
		}
		return releaseUnsupported()
	})
}
