package recovery_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// counted counts how often packs are read.
func counted(b objects.Bucket) *objectstest.Faulty {
	return &objectstest.Faulty{Bucket: b, Only: func(op, name string) bool {
		return op == "get" && strings.HasPrefix(name, "packs/")
	}}
}

func TestCachedIndex(t *testing.T) {
	b, o := newBucket(t), options(newClock())
	o.Cache = t.TempDir()
	data := noise(1, 20*mib)
	s := create(t, b, o)
	backup(t, s, "first", &image{data: data}, recovery.DiskOptions{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := func(id string, wantReads bool) {
		t.Helper()
		reads := counted(b)
		s := open(t, reads, o)
		_, c := backup(t, s, id, &image{data: data}, recovery.DiskOptions{})
		if c.New != 0 || c.Reused != c.Size {
			t.Errorf("%s: %+v", id, c)
		}
		if n := reads.Operations(); (n > 0) != wantReads {
			t.Errorf("%s: packs were read %d times", id, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again("known", false)

	files, err := filepath.Glob(filepath.Join(o.Cache, "*", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("files of the index: %v, %v", files, err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)-20] ^= 4 // in the tag of the whole
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	again("damaged", true)
	again("mended", false)
	if err := os.RemoveAll(o.Cache); err != nil {
		t.Fatal(err)
	}
	again("lost", true)

	s = open(t, b, o)
	var done, total int64
	if err := s.RebuildIndex(t.Context(), func(d, n int64) { done, total = d, n }); err != nil {
		t.Fatal(err)
	}
	if packs, _ := stat(t, b, "packs/"); done != int64(packs) || total != done {
		t.Errorf("rebuilt from %d of %d packs, there are %d", done, total, packs)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again("rebuilt", false)
}

// An index that was kept from before a collection names packs that are gone.
func TestCachedIndexOfThePast(t *testing.T) {
	b, c := newBucket(t), newClock()
	o := options(c)
	o.Cache = t.TempDir()
	data := noise(1, 5*mib)
	s := create(t, b, o)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	past := t.TempDir()
	if err := os.CopyFS(past, os.DirFS(o.Cache)); err != nil {
		t.Fatal(err)
	}
	s = open(t, b, o)
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.advance(3 * day)
		if _, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, _ := stat(t, b, "packs/"); n != 0 {
		t.Fatalf("%d packs are left", n)
	}
	o.Cache = past
	s = open(t, b, o)
	if _, c := backup(t, s, "2", &image{data: data}, recovery.DiskOptions{}); c.New != 5*mib {
		t.Errorf("%+v", c)
	}
	wantRestored(t, s, "2", data)
}
