package seal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"kluis/internal/seal"
	"kluis/internal/secret"
)

func TestIdentityUnderAPassphrase(t *testing.T) {
	dir := t.TempDir()
	with := seal.Options{Passphrase: secret.New([]byte("correct horse"))}
	r, created, err := seal.OpenOrCreate(dir, with)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	sealed := mustSeal(t, r, "plain")
	text, err := os.ReadFile(filepath.Join(dir, seal.IdentityFile))
	if err != nil || bytes.Contains(text, []byte("AGE-SECRET-KEY")) {
		t.Errorf("the identity is in plain: %v", err)
	}
	again, created, err := seal.OpenOrCreate(dir, with)
	if err != nil || created {
		t.Fatalf("created %v, %v", created, err)
	}
	if plain, err := again.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
	for _, o := range []seal.Options{{}, {Passphrase: secret.New([]byte("wrong"))}} {
		if _, _, err := seal.OpenOrCreate(dir, o); !errors.Is(err, seal.ErrPassphrase) {
			t.Errorf("%v", err)
		}
	}
	plain := t.TempDir()
	open(t, plain)
	if _, _, err := seal.OpenOrCreate(plain, with); !errors.Is(err, seal.ErrPassphrase) {
		t.Errorf("a passphrase that protects nothing is taken: %v", err)
	}
}

func TestIdentityFromSystemd(t *testing.T) {
	dir, credentials := t.TempDir(), t.TempDir()
	r, _ := open(t, dir)
	sealed := mustSeal(t, r, "plain")
	o := seal.Options{Credentials: credentials}
	if _, created, err := seal.OpenOrCreate(dir, o); err != nil || created { // no credential of ours: the file counts
		t.Errorf("created %v, %v", created, err)
	}
	identity := filepath.Join(dir, seal.IdentityFile)
	text, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(credentials, seal.IdentityCredential), text, 0o440); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(identity); err != nil {
		t.Fatal(err)
	}
	again, created, err := seal.OpenOrCreate(dir, o)
	if err != nil || created {
		t.Fatalf("created %v, %v", created, err)
	}
	if plain, err := again.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
	fresh := t.TempDir()
	if _, created, err := seal.OpenOrCreate(fresh, o); err != nil || !created {
		t.Errorf("created %v, %v", created, err)
	}
	if _, err := os.Stat(filepath.Join(fresh, seal.IdentityFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an identity was written though one was given")
	}
}

func TestPassphraseFromSystemd(t *testing.T) {
	dir, credentials := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(credentials, seal.PassphraseCredential), []byte("correct horse\n"), 0o440); err != nil {
		t.Fatal(err)
	}
	if _, _, err := seal.OpenOrCreate(dir, seal.Options{Passphrase: secret.New([]byte("correct horse"))}); err != nil {
		t.Fatal(err)
	}
	if _, created, err := seal.OpenOrCreate(dir, seal.Options{Credentials: credentials}); err != nil || created {
		t.Errorf("created %v, %v", created, err)
	}
}

func TestReadPassphrase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passphrase")
	for content, want := range map[string]string{"correct horse\n": "correct horse", "no line end": "no line end", " spaces \r\n": " spaces "} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := seal.ReadPassphrase(path); err != nil || string(p.Reveal()) != want {
			t.Errorf("%q is read as %q, %v", content, p.Reveal(), err)
		}
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.ReadPassphrase(path); !errors.Is(err, seal.ErrPassphrase) {
		t.Errorf("an empty passphrase: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.ReadPassphrase(path); !errors.Is(err, seal.ErrExposed) {
		t.Errorf("a passphrase for everybody: %v", err)
	}
}
