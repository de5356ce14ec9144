package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/seal"
)

func open(t *testing.T, dir string) (*seal.Root, bool) {
	t.Helper()
	r, created, err := seal.OpenOrCreate(dir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, created
}

func TestSealedBytesOpenAfterRestart(t *testing.T) {
	dir := t.TempDir()
	first, created := open(t, dir)
	if !created {
		t.Error("the first open does not say that it created the root")
	}
	sealed, err := first.Seal("a/b", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := first.Wrap([]byte("document"))
	if err != nil {
		t.Fatal(err)
	}
	second, created := open(t, dir)
	if created {
		t.Error("the second open says that it created the root")
	}
	if plain, err := second.Open("a/b", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if plain, err := second.Unwrap(wrapped); err != nil || string(plain) != "document" {
		t.Errorf("Unwrap = %q, %v", plain, err)
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v), want 0600", e.Name(), info.Mode(), err)
		}
	}
	if got := strings.Join(names, " "); got != "root.age seal-identity.txt" {
		t.Errorf("folder holds %s", got)
	}
}

func TestRefusesAnIdentityThatOthersCanRead(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o601} {
		dir := t.TempDir()
		open(t, dir)
		path := filepath.Join(dir, seal.IdentityFile)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := seal.OpenOrCreate(dir, seal.Options{})
		if !errors.Is(err, seal.ErrExposed) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestNeverReplacesALostIdentity(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	before, _ := os.ReadFile(filepath.Join(dir, seal.RootFile))
	if err := os.Remove(filepath.Join(dir, seal.IdentityFile)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := seal.OpenOrCreate(dir, seal.Options{}); !errors.Is(err, seal.ErrNoIdentity) {
		t.Errorf("with the identity gone: %v, want ErrNoIdentity", err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, seal.RootFile))
	if !bytes.Equal(before, after) {
		t.Error("the wrapped root changed")
	}
}

func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	root, identity := filepath.Join(dir, seal.RootFile), filepath.Join(dir, seal.IdentityFile)
	wrapped, _ := os.ReadFile(root)
	text, _ := os.ReadFile(identity)
	for _, at := range []int{0, len(wrapped) / 2, len(wrapped) - 1} {
		damaged := bytes.Clone(wrapped)
		damaged[at] ^= 1
		if err := os.WriteFile(root, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := seal.OpenOrCreate(dir, seal.Options{}); !errors.Is(err, seal.ErrSealed) {
			t.Errorf("root.age damaged at byte %d: %v, want ErrSealed", at, err)
		}
	}
	secretLine := strings.Replace(string(text), "AGE-SECRET-KEY-1", "AGE-SECRET-KEY-2", 1)
	if err := os.WriteFile(identity, []byte(secretLine), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := seal.OpenOrCreate(dir, seal.Options{})
	if err == nil || strings.Contains(err.Error(), "SECRET-KEY-2") {
		t.Errorf("a malformed identity: %v; want an error that doesn't quote it", err)
	}
}

// A start that died after the identity was written, or in the middle of writing, goes on at the next start.
func TestStartThatWasKilledIsContinued(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	identity, _ := os.ReadFile(filepath.Join(dir, seal.IdentityFile))
	if err := os.Remove(filepath.Join(dir, seal.RootFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, seal.RootFile+".new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, created := open(t, dir)
	if !created {
		t.Error("the root was made anew, but created is false")
	}
	kept, _ := os.ReadFile(filepath.Join(dir, seal.IdentityFile))
	if !bytes.Equal(identity, kept) {
		t.Error("the identity was replaced")
	}
	if _, err := os.Stat(filepath.Join(dir, seal.RootFile+".new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the unfinished file is still there: %v", err)
	}
	sealed, _ := r.Seal("c", []byte("x"))
	if _, err := again.Open("c", sealed); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("another root opens it: %v", err)
	}
}

func TestRandThatFailsSealsNothing(t *testing.T) {
	dir := t.TempDir()
	broken := bytes.NewReader(make([]byte, 32)) // enough for the root key, not for a nonce
	r, _, err := seal.OpenOrCreate(dir, seal.Options{Rand: broken})
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := r.Seal("c", []byte("x")); err == nil {
		t.Errorf("sealed %x without randomness", sealed)
	}
}

func TestSealIsBoundToContentAndContext(t *testing.T) {
	r, _ := open(t, t.TempDir())
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		context := rapid.String().Draw(t, "context")
		sealed, err := r.Seal(context, plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Open(context, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("Open = %x, %v", got, err)
		}
		if len(plain) >= 8 && bytes.Contains(sealed, plain) {
			t.Fatal("the plain bytes stand in the sealed ones")
		}
		again, _ := r.Seal(context, plain)
		if bytes.Equal(again, sealed) {
			t.Fatal("sealing twice gives the same bytes")
		}
		other := rapid.String().Filter(func(s string) bool { return s != context }).Draw(t, "other")
		if _, err := r.Open(other, sealed); !errors.Is(err, seal.ErrSealed) {
			t.Fatalf("opens under another context: %v", err)
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		sealed[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := r.Open(context, sealed); !errors.Is(err, seal.ErrSealed) {
			t.Fatalf("opens with byte %d changed: %v", at, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	r, _, err := seal.OpenOrCreate(f.TempDir(), seal.Options{})
	if err != nil {
		f.Fatal(err)
	}
	sealed, _ := r.Seal("c", []byte("plain"))
	f.Add(sealed)
	f.Add(sealed[:10])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := r.Open("c", b); err == nil && !bytes.Equal(b, sealed) {
			t.Fatalf("forged bytes open to %q", plain)
		}
		if plain, err := r.Unwrap(b); err == nil {
			t.Fatalf("forged bytes unwrap to %q", plain)
		}
	})
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.key")
	made, err := seal.CreateKeyFile(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	read, err := seal.ReadKeyFile(path)
	if err != nil || !bytes.Equal(read.Reveal(), made.Reveal()) {
		t.Fatalf("read another key than was made: %v", err)
	}
	if _, err := seal.CreateKeyFile(path, rand.Reader); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made again: %v, want fs.ErrExist", err)
	}
	if again, err := seal.ReadKeyFile(path); err != nil || !bytes.Equal(again.Reveal(), made.Reveal()) {
		t.Errorf("the refused attempt changed the key: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.ReadKeyFile(path); !errors.Is(err, seal.ErrExposed) {
		t.Errorf("readable by others: %v, want ErrExposed", err)
	}
	for name, text := range map[string]string{
		"empty": "", "short": strings.Repeat("a", 62), "long": strings.Repeat("a", 66), "not hex": strings.Repeat("x", 64), "odd": strings.Repeat("a", 63),
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.ReadKeyFile(bad); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was wrapped is opened with the identity file alone.
func TestUnwrapWith(t *testing.T) {
	dir := t.TempDir()
	r, _, err := seal.OpenOrCreate(dir, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := r.Wrap([]byte("a store's key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, seal.RootFile)); err != nil {
		t.Fatal(err)
	}
	got, err := seal.UnwrapWith(filepath.Join(dir, seal.IdentityFile), wrapped)
	if err != nil || string(got) != "a store's key" {
		t.Errorf("got %q, %v", got, err)
	}
	other := t.TempDir()
	if _, _, err := seal.OpenOrCreate(other, seal.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.UnwrapWith(filepath.Join(other, seal.IdentityFile), wrapped); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("another identity: %v, want ErrSealed", err)
	}
}
