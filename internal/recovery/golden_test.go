package recovery_test

import (
	"bytes"
	"context"
	"flag"
	"path/filepath"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
)

var update = flag.Bool("update", false, "write golden stores that are missing")

// goldenDir holds a store of version 1.
var goldenDir = filepath.Join("testdata", "store-v1")

// goldenDisks returns what is in the golden store: by point and disk. The disk "data" has two levels.
func goldenDisks() map[string]map[string][]byte {
	os1 := smallDisk()
	os2 := bytes.Clone(os1)
	copy(os2[cs:], "no hole any more")
	data1 := make([]byte, 70*mib+100)
	copy(data1[5*mib:], bytes.Repeat([]byte("ab"), cs))
	copy(data1[69*mib:], noise(42, cs))
	copy(data1[70*mib:], "the end")
	data2 := bytes.Clone(data1)
	clear(data2[5*mib : 5*mib+cs])
	return map[string]map[string][]byte{
		"first":  {"os": os1, "data": data1, "hole": make([]byte, 3*cs)},
		"second": {"os": os2, "data": data2},
	}
}

func writeGolden(t *testing.T, b objects.Bucket) {
	t.Helper()
	s := create(t, b, options(newClock()))
	if err := s.PutDocument(t.Context(), "key", []byte("not a key")); err != nil {
		t.Fatal(err)
	}
	disks := goldenDisks()
	write := func(id, name string, o recovery.DiskOptions, w *recovery.Writer, extents []recovery.Extent) {
		if _, err := w.WriteDisk(t.Context(), name, &image{data: disks[id][name], extents: extents}, o); err != nil {
			t.Fatal(err)
		}
	}
	w, err := s.Begin(t.Context(), "first")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"os", "data", "hole"} {
		write("first", name, recovery.DiskOptions{}, w, nil)
	}
	if err := w.Attach("vm.json", []byte(`{"name":"web1"}`)); err != nil {
		t.Fatal(err)
	}
	p, err := w.Commit(t.Context(), map[string]string{"vm": "web1"})
	if err != nil {
		t.Fatal(err)
	}
	if w, err = s.Begin(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	write("second", "os", recovery.DiskOptions{}, w, nil)
	parent, err := p.Disk("data")
	if err != nil {
		t.Fatal(err)
	}
	write("second", "data", recovery.DiskOptions{Parent: parent, Changed: true}, w, []recovery.Extent{{Offset: 5 * mib, Length: cs}})
	if _, err := w.Commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenStore(t *testing.T) {
	writeMissing(t, goldenDir, writeGolden)
	wantGolden(t, goldenDir)
}

// What is written today is read by the independent reader, too.
func TestIndependentReader(t *testing.T) {
	dir := t.TempDir()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	writeGolden(t, f)
	wantGolden(t, dir)
	if _, err := openReader(dir, make([]byte, 32)); err == nil {
		t.Error("the reader took a wrong key")
	}
}

func wantGolden(t *testing.T, dir string) {
	t.Helper()
	r, err := openReader(dir, testKey().Reveal())
	if err != nil {
		t.Fatal(err)
	}
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s := open(t, f, options(newClock()))
	for id, disks := range goldenDisks() {
		p, err := s.Point(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		rp, err := r.point(id)
		if err != nil {
			t.Fatalf("reader: point %s: %v", id, err)
		}
		if rp.ID != id || rp.Created != p.Time.UnixMicro() || rp.Labels["vm"] != p.Labels["vm"] || len(rp.Disks) != len(disks) {
			t.Errorf("reader: point %+v", rp)
		}
		for name, want := range disks {
			d, err := p.Disk(name)
			if err != nil {
				t.Fatal(err)
			}
			var got target
			if _, err := s.Restore(context.Background(), d, &got, recovery.RestoreOptions{}); err != nil || !bytes.Equal(got.data, want) {
				t.Errorf("restore %s of %s: %v, or bytes differ", name, id, err)
			}
			read, err := r.disk(rp, name)
			if err != nil || !bytes.Equal(read, want) {
				t.Errorf("reader: %s of %s: %v, or bytes differ", name, id, err)
			}
		}
		if id == "first" {
			if got, err := r.attachment(rp, "vm.json"); err != nil || string(got) != `{"name":"web1"}` {
				t.Errorf("reader: attachment %q, %v", got, err)
			}
		}
	}
	if got, err := recovery.ReadDocument(t.Context(), f, "key"); err != nil || string(got) != "not a key" {
		t.Errorf("document %q, %v", got, err)
	}
}
