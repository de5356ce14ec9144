package recovery_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
)

// collectedDir holds a store of version 1 that has seen all that a store can see: an owner, a point in the
// trash, packs that were compacted and are gone, one that is condemned, verification, a reserve.
var collectedDir = filepath.Join("testdata", "store-v1-collected")

// collectedDisks returns what is in it, by point; "gone" is in the trash.
func collectedDisks() map[string][]byte {
	one := make([]byte, 9*cs)
	for off := 0; off < len(one); off += 64 {
		copy(one[off:], fmt.Sprintf("chunk %d, line %d of what compresses well. ", off/cs, off))
	}
	kept := bytes.Clone(one)
	for off := 0; off < len(kept); off += 2 * cs {
		copy(kept[off:], fmt.Sprintf("changed at %d", off))
	}
	gone := bytes.Clone(kept)
	copy(gone[cs:], "this will not stay")
	last := bytes.Clone(kept)
	copy(last[3*cs:], noise(5, 100))
	return map[string][]byte{"one": one, "kept": kept, "gone": gone, "last": last}
}

func writeCollected(t *testing.T, b objects.Bucket) {
	t.Helper()
	c := newClock()
	o := options(c)
	o.Owner, o.Reserve, o.Lease = "golden", 64, 240*time.Hour
	s := create(t, b, o)
	disks := collectedDisks()
	step := func(id, parent string) {
		var o recovery.DiskOptions
		if parent != "" {
			o.Parent = disk(t, s, parent)
		}
		backup(t, s, id, &image{data: disks[id]}, o)
		c.advance(time.Hour)
	}
	if err := s.PutDocument(t.Context(), "key", []byte("not a key")); err != nil {
		t.Fatal(err)
	}
	step("one", "")
	step("kept", "one")
	if err := s.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.advance(2 * day)
		collect(t, s)
	}
	step("gone", "kept")
	c.advance(2 * day)
	w, err := s.Begin(t.Context(), "never-committed")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteDisk(t.Context(), "os", &image{data: noise(9, 200)}, recovery.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	c.advance(2 * time.Hour)
	if err := s.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	step("last", "kept")
	c.advance(22 * time.Hour)
	if got := collect(t, s); got.Left == 0 || got.Points > 0 {
		t.Fatalf("%+v", got)
	}
	if _, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil {
		t.Fatal(err)
	}
	if _, err := recovery.Scrub(t.Context(), b, recovery.ScrubOptions{Now: c.Now}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenCollectedStore(t *testing.T) {
	writeMissing(t, collectedDir, writeCollected)
	wantCollected(t, collectedDir)
}

// What is written today is read by the independent reader, too.
func TestIndependentReaderOfACollectedStore(t *testing.T) {
	dir := t.TempDir()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	writeCollected(t, f)
	wantCollected(t, dir)
}

func wantCollected(t *testing.T, dir string) {
	t.Helper()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, prefix := range []string{"collect/", "documents/", "owner/", "reserve", "trash/", "verified/"} {
		if n, _ := stat(t, f, prefix); n != 1 {
			t.Errorf("%d objects in %s", n, prefix)
		}
	}
	r, err := openReader(dir, testKey().Reveal())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, f, readOnly(newClock()))
	for _, id := range []string{"kept", "last"} {
		want := collectedDisks()[id]
		wantRestored(t, s, id, want)
		p, err := r.point(id)
		if err != nil {
			t.Fatalf("reader: point %s: %v", id, err)
		}
		if p.Epoch != 1 {
			t.Errorf("reader: point of epoch %d", p.Epoch)
		}
		if read, err := r.disk(p, "os"); err != nil || !bytes.Equal(read, want) {
			t.Errorf("reader: %s: %v, or bytes differ", id, err)
		}
		if got, err := r.attachment(p, "vm.json"); err != nil || string(got) != `{"id":"`+id+`"}` {
			t.Errorf("reader: attachment %q, %v", got, err)
		}
	}
	if r.places == nil {
		t.Error("no chunk has moved")
	}
	stats, err := s.Stat(t.Context())
	if err != nil || stats.Points != 2 || stats.Trash != 1 || stats.Condemned == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil || len(report.Damage) > 0 || report.Unneeded == 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if v, err := s.LastVerified(t.Context(), "last"); err != nil || v.Content.IsZero() || v.Scrubbed.Before(v.Content) || v.Damaged {
		t.Errorf("%+v, %v", v, err)
	}
}

// writeMissing writes a golden store when asked to, and only if there is none: one that was released must be
// readable for ever, as it is.
func writeMissing(t *testing.T, dir string, write func(*testing.T, objects.Bucket)) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil || !*update {
		return
	}
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".tmp", ".owner.lock"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
