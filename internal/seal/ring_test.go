package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"filippo.io/age"

	"kluis/internal/seal"
	"kluis/internal/secret"
)

func mustSeal(t *testing.T, r *seal.Root, plain string) []byte {
	t.Helper()
	sealed, err := r.Seal("c", []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// What was sealed under any earlier root opens, now and after a restart.
func TestEveryRootOpensWhatItHasSealed(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	var all [][]byte
	for range 5 {
		sealed := mustSeal(t, r, "plain")
		if !bytes.HasPrefix(sealed, r.Mark()) {
			t.Errorf("%x is not marked %x", sealed[:8], r.Mark())
		}
		all = append(all, sealed)
		before := r.Mark()
		if err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(before, r.Mark()) {
			t.Error("the rotation changed nothing")
		}
		again, created := open(t, dir)
		if created || !bytes.Equal(again.Mark(), r.Mark()) {
			t.Errorf("after the restart the mark is %x, want %x", again.Mark(), r.Mark())
		}
		for i, sealed := range all {
			for _, root := range []*seal.Root{r, again} {
				if plain, err := root.Open("c", sealed); err != nil || string(plain) != "plain" {
					t.Errorf("sealed before rotation %d: %v", i, err)
				}
			}
		}
	}
}

// A root.age from before there were several roots is read, and becomes one of now with the first rotation.
func TestRootOfTheFirstFormat(t *testing.T) {
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(seal.IdentityFile, []byte(id.String()+"\n"))
	write(seal.RootFile, wrapped.Bytes())
	r, created := open(t, dir)
	sealed := mustSeal(t, r, "plain")
	if err := r.Rotate(); err != nil || created {
		t.Fatalf("created %v, %v", created, err)
	}
	again, _ := open(t, dir)
	if plain, err := again.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Error(err)
	}
}

func TestRecipients(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	sealed := mustSeal(t, r, "plain")
	own := r.Recipients()
	offline, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	offlineFile := filepath.Join(t.TempDir(), "offline.txt")
	if err := os.WriteFile(offlineFile, []byte(offline.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	openOffline := func() (*seal.Root, error) {
		wrapped, err := os.ReadFile(filepath.Join(dir, seal.RootFile))
		if err != nil {
			t.Fatal(err)
		}
		return seal.OpenWith(offlineFile, secret.Bytes{}, wrapped, rand.Reader)
	}
	if _, err := openOffline(); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("a stranger opens the root: %v", err)
	}
	for range 2 { // twice is the same as once
		if err := r.AddRecipient(offline.Recipient().String()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Recipients(); !slices.Equal(got, append(own, offline.Recipient().String())) {
		t.Errorf("recipients are %v", got)
	}
	theirs, err := openOffline()
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := theirs.Open("c", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("the added recipient opens: %v", err)
	}
	if err := theirs.Rotate(); !errors.Is(err, seal.ErrReadOnly) {
		t.Errorf("a root without its file is rotated: %v", err)
	}
	wrapped, err := r.Wrap([]byte("store key"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := seal.UnwrapWith(offlineFile, wrapped); err != nil || string(plain) != "store key" {
		t.Errorf("what is wrapped now: %v", err)
	}

	if err := r.RemoveRecipient(own[0]); !errors.Is(err, seal.ErrOwnRecipient) {
		t.Errorf("the server locks itself out: %v", err)
	}
	if err := r.RemoveRecipient(offline.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveRecipient(offline.Recipient().String()); !errors.Is(err, seal.ErrNoRecipient) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := openOffline(); !errors.Is(err, seal.ErrSealed) {
		t.Errorf("the removed recipient opens the root: %v", err)
	}
	for _, bad := range []string{"", "age1", "AGE-SECRET-KEY-1", "ssh-ed25519 AAAA", own[0] + " "} {
		if err := r.AddRecipient(bad); !errors.Is(err, seal.ErrNotRecipient) {
			t.Errorf("%q is taken for a recipient: %v", bad, err)
		}
	}
	again, _ := open(t, dir)
	if !slices.Equal(again.Recipients(), own) {
		t.Errorf("after the restart recipients are %v", again.Recipients())
	}
}

// Whatever moment a rotation is killed at: what it leaves is an unfinished file beside a whole one.
func TestKilledRotationHasHappenedOrNot(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	sealed := mustSeal(t, r, "plain")
	before, err := os.ReadFile(filepath.Join(dir, seal.RootFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, seal.RootFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range [][]byte{before, after} {
		for _, n := range []int{0, 1, len(after) / 2, len(after)} {
			if err := os.WriteFile(filepath.Join(dir, seal.RootFile), root, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, seal.RootFile+".new"), after[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			again, created := open(t, dir)
			if plain, err := again.Open("c", sealed); err != nil || string(plain) != "plain" || created {
				t.Errorf("killed after %d bytes: %v", n, err)
			}
			if err := again.Rotate(); err != nil {
				t.Errorf("killed after %d bytes, rotated again: %v", n, err)
			}
		}
	}
}

// A rotation that can't be written changes nothing: what is sealed then must open after the restart.
func TestRotationThatCantBeWrittenDoesntHappen(t *testing.T) {
	dir := t.TempDir()
	r, _ := open(t, dir)
	before := r.Mark()
	if err := os.MkdirAll(filepath.Join(dir, seal.RootFile+".new", "in-the-way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(); err == nil || !bytes.Equal(r.Mark(), before) {
		t.Errorf("rotated to %x: %v", r.Mark(), err)
	}
}

func TestSealingGoesOnWhileRootsChange(t *testing.T) {
	r, _ := open(t, t.TempDir())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				sealed, err := r.Seal("c", []byte("x"))
				if err != nil {
					t.Error(err)
				}
				if _, err := r.Open("c", sealed); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		if err := r.Rotate(); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}
