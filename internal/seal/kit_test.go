package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"kluis/internal/seal"
	"kluis/internal/secret"
)

func writeKit(t *testing.T, dir string, o seal.Options) (path string, text []byte) {
	t.Helper()
	text, err := seal.WriteKit(dir, o, seal.Kit{Made: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Notes: []string{"tenant: t", "two\nlines"}})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "kit")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, text
}

// The kit alone opens what was sealed, under each root, and what was wrapped; age itself reads it.
func TestKitOpensEverything(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	first := mustSeal(t, r, "first")
	wrapped, err := r.Wrap([]byte("store key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	second := mustSeal(t, r, "second")
	path, text := writeKit(t, dir, seal.Options{})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	kit, err := seal.OpenKit(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, sealed := range map[string][]byte{"first": first, "second": second} {
		if plain, err := kit.Open("c", sealed); err != nil || string(plain) != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if plain, err := kit.Unwrap(wrapped); err != nil || string(plain) != "store key" {
		t.Errorf("wrapped: %v", err)
	}
	if plain, err := seal.UnwrapWith(path, wrapped); err != nil || string(plain) != "store key" {
		t.Errorf("the kit as an identity file: %v", err)
	}
	if ids, err := age.ParseIdentities(bytes.NewReader(text)); err != nil || len(ids) != 1 {
		t.Errorf("age reads %d identities: %v", len(ids), err)
	}
	if !strings.Contains(string(text), "# tenant: t\n# two lines\n") {
		t.Errorf("the notes are missing: %.200s", text)
	}
}

// A kit from before a rotation opens what came after, with a copy of root.age from after.
func TestOldKitWithNewerRoots(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	path, _ := writeKit(t, dir, seal.Options{})
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, r, "later")
	wrapped, err := r.Wrapped()
	if err != nil {
		t.Fatal(err)
	}
	old, err := seal.OpenKit(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Open("c", sealed); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("the old kit alone: %v", err)
	}
	newer, err := seal.OpenWith(path, secret.Bytes{}, wrapped, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := newer.Open("c", sealed); err != nil || string(plain) != "later" {
		t.Errorf("the old kit with newer roots: %v", err)
	}
}

func TestKitOfAnIdentityUnderAPassphrase(t *testing.T) {
	dir := t.TempDir()
	o := seal.Options{Passphrase: secret.New([]byte("correct horse"))}
	r, _, err := seal.OpenOrCreate(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, r, "plain")
	if _, err := seal.WriteKit(dir, seal.Options{}, seal.Kit{}); !errors.Is(err, seal.ErrPassphrase) {
		t.Errorf("a kit without the passphrase: %v", err)
	}
	path, _ := writeKit(t, dir, o)
	kit, err := seal.OpenKit(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := kit.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
}

func TestDamagedKits(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	path, text := writeKit(t, dir, seal.Options{})
	for name, damaged := range map[string]string{
		"empty":        "",
		"no kit":       "AGE-SECRET-KEY-1QQQQQ\n",
		"no root":      strings.ReplaceAll(string(text), "# root: ", "# rot: "),
		"another root": strings.Replace(string(text), "# root: ", "# root: AAAA", 1),
		"no identity":  strings.ReplaceAll(string(text), "AGE-SECRET-KEY-1", "# "),
	} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.OpenKit(path, rand.Reader); err == nil {
			t.Errorf("%s: opens", name)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.OpenKit(path, rand.Reader); !errors.Is(err, seal.ErrExposed) {
		t.Errorf("a kit for everybody: %v", err)
	}
}

func FuzzKit(f *testing.F) {
	dir := f.TempDir()
	if _, _, err := seal.OpenOrCreate(dir, seal.Options{}); err != nil {
		f.Fatal(err)
	}
	text, err := seal.WriteKit(dir, seal.Options{}, seal.Kit{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)/2])
	path := filepath.Join(f.TempDir(), "kit")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = seal.OpenKit(path, rand.Reader) // must not panic
	})
}
