package storage

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/secret"
)

// keySize is the length of an account's key, in bytes.
const keySize = 64

// Key is one of the two keys of an account.
type Key struct {
	Number  int // 1 or 2
	Value   secret.Bytes
	Created time.Time
}

// Name is what Azure calls the key.
func (k Key) Name() string { return fmt.Sprintf("key%d", k.Number) }

// sealedKey is a key as it is stored.
type sealedKey struct {
	account string
	number  int
	sealed  []byte
	created time.Time
}

func (k sealedKey) context() string {
	return fmt.Sprintf("storage/account-key/%s/%d", k.account, k.number)
}

// ListKeys returns both keys of an account.
func (s *Service) ListKeys(ctx context.Context, id armid.ID) ([]Key, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/listKeys/action", id); err != nil {
		return nil, err
	}
	return s.keysOf(ctx, id)
}

// RegenerateKey replaces one of the keys, "key1" or "key2". Whatever the old one has signed is void at once.
func (s *Service) RegenerateKey(ctx context.Context, id armid.ID, name string) ([]Key, error) {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/regenerateKey/action", id); err != nil {
		return nil, err
	}
	number := map[string]int{"key1": 1, "key2": 2}[name]
	if number == 0 {
		return nil, invalidKeyName(name)
	}
	if _, err := s.keysOf(ctx, id); err != nil {
		return nil, err
	}
	k, err := s.drawKey(id.Name(), number)
	if err != nil {
		return nil, err
	}
	if err := s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putKey(ctx, tx, k) }); err != nil {
		return nil, err
	}
	return s.keysOf(ctx, id)
}

// keysOf opens the keys of the account with that id.
func (s *Service) keysOf(ctx context.Context, id armid.ID) ([]Key, error) {
	a, err := s.account(ctx, id.Name())
	if err == nil && !a.ID.Equal(id) {
		err = accountNotFound(id)
	}
	if err != nil {
		return nil, err
	}
	return s.keys(ctx, a)
}

// keys opens the keys of an account, and draws those of one that was made before accounts had keys.
func (s *Service) keys(ctx context.Context, a Account) ([]Key, error) {
	stored, err := s.storedKeys(ctx, a)
	if err == nil && len(stored) == 0 {
		stored, err = s.firstKeys(ctx, a)
	}
	if err != nil {
		return nil, err
	}
	all := make([]Key, len(stored))
	for i, k := range stored {
		plain, err := s.o.Seal.Open(k.context(), k.sealed)
		if err != nil {
			return nil, fmt.Errorf("open key %d of storage account %s: %w", k.number, a.ID.Name(), err)
		}
		all[i] = Key{k.number, secret.New(plain), k.created}
	}
	return all, nil
}

func (s *Service) storedKeys(ctx context.Context, a Account) (stored []sealedKey, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		stored, err = selectKeys(ctx, tx, a.ID.Name())
		return err
	})
	return ownKeys(stored), err
}

// ownKeys are the keys of an account without its delegation secret.
func ownKeys(all []sealedKey) []sealedKey {
	return slices.DeleteFunc(all, func(k sealedKey) bool { return k.number == delegationNumber })
}

// firstKeys gives an account its keys. Of two that do it at once, one's keys are stored, and both use them.
func (s *Service) firstKeys(ctx context.Context, a Account) ([]sealedKey, error) {
	drawn, err := s.drawKeys(a.ID.Name())
	if err != nil {
		return nil, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if found, err := selectKeys(ctx, tx, a.ID.Name()); err != nil || len(ownKeys(found)) > 0 {
			drawn = ownKeys(found)
			return err
		}
		return putKeys(ctx, tx, drawn)
	})
	return drawn, err
}

func (s *Service) drawKeys(account string) ([]sealedKey, error) {
	first, err := s.drawKey(account, 1)
	if err != nil {
		return nil, err
	}
	second, err := s.drawKey(account, 2)
	return []sealedKey{first, second}, err
}

func (s *Service) drawKey(account string, number int) (sealedKey, error) {
	plain := make([]byte, keySize)
	defer clear(plain)
	if _, err := io.ReadFull(s.o.Rand, plain); err != nil {
		return sealedKey{}, fmt.Errorf("draw key of storage account %s: %w", account, err)
	}
	k := sealedKey{account: account, number: number, created: s.o.Now()}
	var err error
	if k.sealed, err = s.o.Seal.Seal(k.context(), plain); err != nil {
		return sealedKey{}, fmt.Errorf("seal key of storage account %s: %w", account, err)
	}
	return k, nil
}

// SignedBy returns the grant of an account's key to whoever has signed text with it, as Shared Key
// authorization does. It is the same refusal for an account that is not there and for a signature that is wrong.
func (s *Service) SignedBy(ctx context.Context, account, text string, signature []byte) (Grant, error) {
	a, err := s.signer(ctx, account, text, signature)
	if err != nil {
		return Grant{}, err
	}
	return Grant{account: a.ID.Name(), every: true}, nil
}

// signer finds the account with whose key text was signed.
func (s *Service) signer(ctx context.Context, account, text string, signature []byte) (Account, error) {
	a, err := s.account(ctx, account)
	if isNotFound(err) {
		return Account{}, authenticationFailed("the signature is not one of this account's keys")
	}
	if err != nil {
		return Account{}, err
	}
	keys, err := s.keys(ctx, a)
	if err != nil {
		return Account{}, err
	}
	var genuine bool
	for _, k := range keys {
		genuine = hmac.Equal(sign(k.Value, text), signature) || genuine // in constant time, whichever key it is
		k.Value.Wipe()
	}
	switch {
	case !genuine:
		return Account{}, authenticationFailed("the signature is not one of this account's keys")
	case a.NoSharedKeys:
		return Account{}, sharedKeysOff(a.ID)
	}
	return a, nil
}

func sign(key secret.Bytes, text string) []byte {
	m := hmac.New(sha256.New, key.Reveal())
	m.Write([]byte(text))
	return m.Sum(nil)
}

// Reseal seals the keys anew that don't begin with the mark of the present root key, and counts them.
func (s *Service) Reseal(ctx context.Context, mark []byte) (n int, err error) {
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		n = 0
		stored, err := selectKeys(ctx, tx, "")
		if err != nil {
			return err
		}
		for _, k := range stored {
			if bytes.HasPrefix(k.sealed, mark) {
				continue
			}
			plain, err := s.o.Seal.Open(k.context(), k.sealed)
			if err != nil {
				return fmt.Errorf("open key %d of storage account %s: %w", k.number, k.account, err)
			}
			k.sealed, err = s.o.Seal.Seal(k.context(), plain)
			clear(plain)
			if err != nil {
				return fmt.Errorf("seal key %d of storage account %s anew: %w", k.number, k.account, err)
			}
			if err := putKey(ctx, tx, k); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}
