package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kluis/internal/seal"
	"kluis/internal/secret"
)

// safe is a key service: what it wraps it keeps, and gives back to who asks with the same recipient.
type safe struct {
	away bool
	kept [][]byte
	by   []string
}

var errAway = errors.New("it does not answer")

func (s *safe) Wrap(recipient string, plain []byte) ([]byte, error) {
	if s.away {
		return nil, errAway
	}
	s.kept, s.by = append(s.kept, bytes.Clone(plain)), append(s.by, recipient)
	return []byte{byte(len(s.kept) - 1)}, nil
}

func (s *safe) Unwrap(recipient string, wrapped []byte) (secret.Bytes, error) {
	if s.away {
		return secret.Bytes{}, errAway
	}
	if len(wrapped) != 1 || int(wrapped[0]) >= len(s.kept) || s.by[wrapped[0]] != recipient {
		return secret.Bytes{}, errors.New("it is not of this key")
	}
	return secret.Copy(s.kept[wrapped[0]]), nil
}

const vaultKey, transitKey = "azure-key-vault:https://kv1.vault.azure.net/keys/unseal", "transit:https://bao:8200/v1/transit/keys/kluis"

// With the identity file gone, a key service opens what was sealed; and the last one can't be removed.
func TestKeyServiceInsteadOfTheIdentityFile(t *testing.T) {
	dir, service := t.TempDir(), &safe{}
	o := seal.Options{Outside: service}
	r, _, err := seal.OpenOrCreate(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, r, "plain")
	for _, recipient := range []string{vaultKey, transitKey} {
		if err := r.AddRecipient(recipient); err != nil {
			t.Fatal(err)
		}
	}
	wrapped, err := r.Wrap([]byte("a store's key")) // asks nobody
	if err != nil || len(service.kept) != 2 {
		t.Fatalf("%v, asked %d times", err, len(service.kept))
	}
	if err := os.Remove(filepath.Join(dir, seal.IdentityFile)); err != nil {
		t.Fatal(err)
	}

	again, created, err := seal.OpenOrCreate(dir, o)
	if err != nil || created || !slices.Contains(again.Recipients(), vaultKey) || !slices.Contains(again.Recipients(), transitKey) {
		t.Fatalf("created %v, %v, %v", created, err, again.Recipients())
	}
	if plain, err := again.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
	if key, err := again.Unwrap(wrapped); err != nil || string(key) != "a store's key" {
		t.Error(err)
	}
	if err := again.Rotate(); err != nil {
		t.Error(err)
	}
	if _, err := seal.WriteKit(dir, o, seal.Kit{}); err != nil {
		t.Errorf("the recovery kit: %v", err)
	}
	if err := again.RemoveRecipient(vaultKey); err != nil {
		t.Fatal(err)
	}
	if err := again.RemoveRecipient(transitKey); !errors.Is(err, seal.ErrLastOutside) {
		t.Errorf("the last key service was removed: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "outside-*.age"))
	if len(files) != 1 {
		t.Errorf("there are %v", files)
	}

	service.away = true
	if _, _, err := seal.OpenOrCreate(dir, o); !errors.Is(err, seal.ErrOutside) || !errors.Is(err, errAway) {
		t.Errorf("with the key service away: %v", err)
	}
	if _, _, err := seal.OpenOrCreate(dir, seal.Options{}); !errors.Is(err, seal.ErrOutside) {
		t.Errorf("with none named: %v", err)
	}
	damaged, _ := os.ReadFile(files[0])
	damaged[len(damaged)-1] ^= 1
	if err := os.WriteFile(files[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	service.away = false
	if _, _, err := seal.OpenOrCreate(dir, o); err == nil {
		t.Error("a damaged file opens")
	}
}

// A key service that does not wrap, or does not give back what it wrapped, is no recipient.
func TestKeyServiceThatFailsIsNoRecipient(t *testing.T) {
	dir, service := t.TempDir(), &safe{away: true}
	r, _, err := seal.OpenOrCreate(dir, seal.Options{Outside: service})
	if err != nil {
		t.Fatal(err)
	}
	for recipient, want := range map[string]error{vaultKey: errAway, "azure-key-vault:https://a b": seal.ErrNotRecipient, "other": seal.ErrNotRecipient} {
		if err := r.AddRecipient(recipient); !errors.Is(err, want) || len(r.Recipients()) != 1 {
			t.Errorf("%s: %v, recipients %v", recipient, err, r.Recipients())
		}
	}
	lone, _ := open(t, t.TempDir())
	if err := lone.AddRecipient(vaultKey); !errors.Is(err, seal.ErrOutside) {
		t.Errorf("no key service named: %v", err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "outside-*")); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}
