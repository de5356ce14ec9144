package store_test

import (
	"bytes"
	"testing"
	"time"

	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
	"kluis/internal/seal"
	"kluis/internal/secret"
)

// makeServerStore makes a store as a server does: under a key of its own that is in the store, wrapped.
func makeServerStore(t *testing.T, dir string, root *seal.Root) {
	t.Helper()
	b, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	key := bytes.Repeat([]byte{9}, 32)
	wrapped, err := root.Wrap(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := recovery.Create(t.Context(), b, recovery.Options{Key: secret.New(key), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutDocument(t.Context(), "key.age", wrapped); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
