package recovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// The sealing of the master key is changed again and again, and each time the process is killed at some
// operation: at every instant the store can be opened, with the old sealing or the new one.
func TestRotationOfTheSealing(t *testing.T) {
	b, c := objectstest.NewMemory(), newClock()
	s := create(t, b, options(c))
	data := mixed(1, mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	// A sealing that is short enough for a test: the key, added to a pad of the version.
	seal := func(version int) []byte {
		sealed := fmt.Appendf(nil, "%d:", version)
		for _, k := range testKey().Reveal() {
			sealed = append(sealed, k+byte(version))
		}
		return sealed
	}
	if err := s.PutDocument(t.Context(), "key", seal(0)); err != nil {
		t.Fatal(err)
	}
	before, size := stat(t, b, "packs/")
	current, version := 0, 0
	for round := range 3 {
		for _, mode := range []objectstest.Mode{objectstest.Before, objectstest.After, objectstest.Tear} {
			finished := false
			for k := int64(1); !finished; k++ {
				version++
				faulty := &objectstest.Faulty{Bucket: b}
				s := open(t, faulty, options(c))
				faulty.FailAt, faulty.Mode = faulty.Operations()+k, mode
				err := s.PutDocument(t.Context(), "key", seal(version))
				finished = !faulty.Failed()
				got, readErr := recovery.ReadDocument(t.Context(), b, "key")
				switch {
				case readErr != nil:
					t.Fatalf("round %d, operation %d: %v", round, k, readErr)
				case bytes.Equal(got, seal(version)):
					current = version
				case err == nil || !bytes.Equal(got, seal(current)):
					t.Fatalf("round %d, operation %d: %v; sealed as %q, which is neither old nor new", round, k, err, got)
				}
			}
		}
	}
	if version < 20 {
		t.Errorf("only %d sealings", version)
	}
	wantRestored(t, open(t, b, options(c)), "1", data)
	if after, bytes := stat(t, b, "packs/"); after != before || bytes != size {
		t.Error("packs have changed")
	}
	if err := s.PutDocument(t.Context(), "key", seal(0)); err != nil {
		t.Fatal(err)
	}
	if n, _ := stat(t, b, "documents/"); n != 1 {
		t.Errorf("%d documents", n)
	}
}

// Erasing is stopped at every operation, and gone on with.
func TestErase(t *testing.T) {
	clean, c := objectstest.NewMemory(), newClock()
	s, _, _ := halfDead(t, clean, c, mib)
	if err := s.PutDocument(t.Context(), "key", []byte("wrapped")); err != nil {
		t.Fatal(err)
	}
	if err := clean.Put(t.Context(), "reserve", 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all, _ := stat(t, clean, "")
	for _, mode := range []objectstest.Mode{objectstest.Before, objectstest.After, objectstest.Tear} {
		for k := int64(1); ; k++ {
			b := clean.Clone()
			faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: mode}
			err := recovery.Erase(t.Context(), faulty)
			if (err != nil) != faulty.Failed() {
				t.Fatalf("operation %d: %v", k, err)
			}
			_, keyErr := recovery.ReadDocument(t.Context(), b, "key")
			_, openErr := recovery.Open(t.Context(), b, options(c))
			if openErr == nil { // nothing has happened yet
				if n, _ := stat(t, b, ""); keyErr != nil || n != all {
					t.Fatalf("operation %d: half erased, and it can be opened", k)
				}
			} else if !errors.Is(openErr, recovery.ErrErased) && !errors.Is(openErr, recovery.ErrNoStore) {
				t.Fatalf("operation %d: %v", k, openErr)
			}
			if points, _ := stat(t, b, "points/"); points < 1 && keyErr == nil {
				t.Fatalf("operation %d: the point went before the key", k)
			}
			if err := recovery.Erase(t.Context(), b); err != nil && !errors.Is(err, recovery.ErrNoStore) {
				t.Fatalf("operation %d: going on: %v", k, err)
			}
			if n, _ := stat(t, b, ""); n != 0 {
				t.Fatalf("operation %d: %d objects are left", k, n)
			}
			if !faulty.Failed() {
				break
			}
		}
	}
	if err := recovery.Erase(t.Context(), objectstest.NewMemory()); !errors.Is(err, recovery.ErrNoStore) {
		t.Errorf("erase nothing: %v", err)
	}
	// What is being erased is not written to, and no new store comes in its place too early.
	b := clean.Clone()
	s = open(t, b, options(c))
	if err := b.Put(t.Context(), "erased", 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDocument(t.Context(), "key", []byte("again")); !errors.Is(err, recovery.ErrErased) {
		t.Errorf("put a document: %v", err)
	}
	b.Replace("store.json", nil)
	if _, err := recovery.Create(t.Context(), b, options(c)); !errors.Is(err, recovery.ErrErased) {
		t.Errorf("create: %v", err)
	}
	if _, err := b.Get(t.Context(), "store.json", 0, 0); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("a header: %v", err)
	}
}
