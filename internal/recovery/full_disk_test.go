package recovery_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
)

// A real file system that is full: points can be deleted and collected, and then there is room again.
func TestCollectOnAFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	b, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	c := newClock()
	o := options(c)
	o.Reserve = 2 * mib
	s := create(t, b, o)
	one := noise(1, 8*mib)
	two := everyOther(one, 100)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: two}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	// Another fills what is left, to the last byte.
	rest, err := os.Create(dir + "/.rest")
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = rest.Write(make([]byte, 4096))
	}
	if cause := rest.Close(); !errors.Is(err, syscall.ENOSPC) || cause != nil {
		t.Fatal(err, cause)
	}
	if _, _, err := tryBackup(s, "3", &image{data: noise(7, 3*mib)}, recovery.DiskOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("backup on a full disk: %v", err)
	}
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || got.Compacted < 8 || got.Bytes < 8*mib {
		t.Errorf("%+v, %v", got, err)
	}
	wantRestored(t, s, "2", two)
	three := noise(7, 2*mib)
	backup(t, s, "3", &image{data: three}, recovery.DiskOptions{})
	wantRestored(t, open(t, b, options(c)), "3", three)
	if n, _ := stat(t, b, "reserve"); n != 1 {
		t.Errorf("%d reserves", n)
	}
}
