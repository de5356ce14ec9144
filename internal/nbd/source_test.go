package nbd

import (
	"bytes"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"kluis/internal/tooltest"
)

func extentsOf(t *testing.T, s *Source) (all []Extent) {
	t.Helper()
	for e, err := range s.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestSourceOfDirtyBitmap(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-io")
	image := filepath.Join(t.TempDir(), "image")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "40M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 10M", image)
	run(t, "qemu-img", "bitmap", "--add", "--enable", "-g", "64k", image, "since")
	for _, write := range []string{"write -P 2 3M 64k", "write -P 3 20M 100k", "write -z 5M 1M"} {
		run(t, "qemu-io", "-f", "qcow2", "-c", write, image)
	}
	sock := serveWith(t, image, "qcow2", "--read-only", "--bitmap=since")
	c, err := Dial(t.Context(), "unix", sock, "disk", ContextAllocation, ContextDirtyPrefix+"since", ContextDirtyPrefix+"other")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	changed := c.Source("since")
	want := []Extent{{3 << 20, 64 << 10, 0}, {5 << 20, 1 << 20, 0}, {20 << 20, 128 << 10, 0}}
	if got := extentsOf(t, changed); !changed.Changed() || !slices.Equal(got, want) {
		t.Errorf("changed %v, want %v", got, want)
	}
	got := make([]byte, 100<<10)
	if _, err := changed.ReadAt(got, 20<<20); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{3}, len(got))) {
		t.Errorf("what changed: %v", err)
	}
	for _, name := range []string{"", "other"} {
		all := c.Source(name)
		want := []Extent{{0, 5 << 20, 0}, {6 << 20, 4 << 20, 0}, {20 << 20, 128 << 10, 0}}
		if got := extentsOf(t, all); all.Changed() || !slices.Equal(got, want) {
			t.Errorf("without the bitmap %q: %v, want %v", name, got, want)
		}
	}
	for range changed.Extents(t.Context()) {
		break // stopping early is allowed
	}
}

func TestSourceWithoutContexts(t *testing.T) {
	disk := patched(1 << 20)
	_, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk}, Export{Name: "empty", Disk: &memory{}})
	c, err := Dial(t.Context(), "unix", sock, "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := c.Source("")
	if got := extentsOf(t, s); !slices.Equal(got, []Extent{{0, 1 << 20, 0}}) {
		t.Errorf("extents %v", got)
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || !bytes.Equal(got, disk.data) {
		t.Errorf("another disk: %v", err)
	}
	if got := extentsOf(t, mustDial(t, sock, "empty").Source("")); len(got) != 0 {
		t.Errorf("extents of nothing: %v", got)
	}
}
