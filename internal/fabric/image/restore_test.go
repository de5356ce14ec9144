package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

func (h *house) mustNewDisk(dir, name string, size int64) *NewDisk {
	h.t.Helper()
	d, err := h.NewDisk(h.t.Context(), dir, name, size)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = d.Abort() })
	return d
}

// files lists everything below a folder.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNewDisk(t *testing.T) {
	h := newHouse(t)
	const size = 64 * mib
	d := h.mustNewDisk("group/job", "os disk", size)
	if want := filepath.Join(h.restore, "group/job/os disk"); d.Path() != want {
		t.Errorf("path %s, want %s", d.Path(), want)
	}
	want := make([]byte, size)
	var wg sync.WaitGroup
	for i := range 8 {
		part := want[i*8*mib:][:100_000]
		copy(part, bytes.Repeat([]byte{byte(i + 1)}, len(part)))
		wg.Go(func() {
			if _, err := d.WriteAt(part, int64(i)*8*mib); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the disk has its name before it is committed: %v", err)
	}
	p := make([]byte, 10)
	if _, err := d.ReadAt(p, 8*mib); err != nil || p[0] != 2 {
		t.Errorf("read back %v, %v", p, err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := d.Abort(); err != nil {
		t.Errorf("abort after commit: %v", err)
	}
	if left := files(t, h.restore); len(left) != 1 || left[0] != d.Path() {
		t.Errorf("files %v", left)
	}
	image, err := h.Inspect(t.Context(), d.Path())
	if err != nil || image.Size != size || image.Format != Raw || image.Allocated > 2*mib {
		t.Errorf("restored disk %+v, %v", image, err)
	}
	got, _, err := content(t.Context(), h.mustSnapshot(d.Path(), Raw, size))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("content of the restored disk: %v", err)
	}

	_, err = h.NewDisk(t.Context(), "group/job", "os disk", size)
	wantKind(t, err, fabric.Exists)
	if _, err := d.WriteAt(p, 0); err == nil {
		t.Error("a committed disk can be written")
	}
	if err := d.Commit(); err == nil {
		t.Error("a disk can be committed twice")
	}
}

func TestNewDiskAborted(t *testing.T) {
	h := newHouse(t)
	d := h.mustNewDisk("", "disk", mib)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left := files(t, h.restore); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNewDiskTakesOverFromTheDead(t *testing.T) {
	h := newHouse(t)
	d := h.mustNewDisk("group", "disk", mib)
	if _, err := d.WriteAt([]byte("of the first"), 100); err != nil {
		t.Fatal(err)
	}
	_, err := h.NewDisk(t.Context(), "group", "disk", mib)
	wantKind(t, err, fabric.InUse)
	// What a process leaves that is killed: the file, without its lock.
	if err := errors.Join(d.file.Close(), d.root.Close()); err != nil {
		t.Fatal(err)
	}
	d.file = nil

	second := h.mustNewDisk("group", "disk", mib)
	if err := second.Commit(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(second.Path())
	if err != nil || !bytes.Equal(got, make([]byte, mib)) {
		t.Errorf("the second disk holds what the first wrote, %v", err)
	}
	if left := files(t, h.restore); len(left) != 1 {
		t.Errorf("files %v", left)
	}
}

func TestNewDiskDoesNotReplace(t *testing.T) {
	h := newHouse(t)
	d := h.mustNewDisk("group", "disk", mib)
	write(t, d.Path(), []byte("somebody else's"))
	wantKind(t, d.Commit(), fabric.Exists)
	if got, err := os.ReadFile(d.Path()); err != nil || string(got) != "somebody else's" {
		t.Errorf("the other's file holds %q, %v", got, err)
	}
	if left := files(t, h.restore); len(left) != 1 {
		t.Errorf("files %v", left)
	}
}

func TestNewDiskWithoutRoom(t *testing.T) {
	h := newHouse(t)
	_, err := h.NewDisk(t.Context(), "group", "disk", 1<<60)
	wantKind(t, err, fabric.NoSpace)
	if left := files(t, h.restore); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	// A sparse disk needs room only for its data.
	d, err := h.NewSparseDisk(t.Context(), "group", "disk", 1<<40, mib)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort()

	t.Run("full while it is written", func(t *testing.T) {
		small := t.TempDir()
		if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
			tooltest.Missing(t, "a small file system cannot be mounted: %v", err)
		}
		defer func() { _ = unix.Unmount(small, 0) }()
		f, err := New(Options{RestoreDir: small})
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.NewSparseDisk(t.Context(), "group", "disk", 4*mib, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.WriteAt(make([]byte, 2*mib), 0)
		wantKind(t, err, fabric.NoSpace)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the cause is not kept: %v", err)
		}
		if err := d.Abort(); err != nil {
			t.Error(err)
		}
	})
}

func TestNewDiskElsewhere(t *testing.T) {
	h := newHouse(t)
	if err := os.Symlink(h.other, filepath.Join(h.restore, "link")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, name string }{
		{"..", "disk"}, {"a/../..", "disk"}, {h.other, "disk"}, {"group", "../disk"}, {"group", "a/b"}, {"group", ""}, {"group", "."},
		{"group", ".."}, {"group", ".hidden"}, {"group", "a\x00"}, {"a\x00", "disk"},
	} {
		_, err := h.NewDisk(t.Context(), test.dir, test.name, mib)
		if err == nil {
			t.Errorf("a disk %q in %q", test.name, test.dir)
			continue
		}
		wantKind(t, err, fabric.NotAllowed)
	}
	if _, err := h.NewDisk(t.Context(), "link", "disk", mib); err == nil {
		t.Error("a disk was begun behind a link")
	}
	if left := files(t, h.other); len(left) != 0 {
		t.Errorf("written elsewhere: %v", left)
	}
	if d, err := h.NewDisk(t.Context(), filepath.Join(h.restore, "group"), "disk", mib); err != nil {
		t.Errorf("a folder given in full: %v", err)
	} else if err := d.Abort(); err != nil {
		t.Error(err)
	}
	f, err := New(Options{Allow: []string{h.allowed}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.NewDisk(t.Context(), "group", "disk", mib)
	wantKind(t, err, fabric.NotAllowed)
}

func TestRemove(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	for _, name := range []string{"one", "two"} {
		if err := h.mustNewDisk("group", name, mib).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	one, two := filepath.Join(h.restore, "group/one"), filepath.Join(h.restore, "group/two")
	for range 2 { // what is gone is gone
		if err := h.Remove(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	if left := files(t, h.restore); len(left) != 1 || left[0] != two {
		t.Errorf("files %v", left)
	}
	if err := h.Remove(ctx, two); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(two)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder is left: %v", err)
	}

	imported, secret := filepath.Join(h.allowed, "disk"), filepath.Join(h.other, "secret")
	write(t, imported, []byte("x"))
	write(t, secret, []byte("x"))
	if err := os.Symlink(h.other, filepath.Join(h.restore, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{imported, secret, h.restore + "/../other/secret", filepath.Join(h.restore, "link/secret"), h.restore, "disk", ""} {
		if err := h.Remove(ctx, path); err == nil {
			t.Errorf("removed %q", path)
		}
	}
	for _, path := range []string{imported, secret} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := h.Remove(ctx, two); !errors.Is(err, context.Canceled) {
		t.Errorf("remove with a cancelled context: %v", err)
	}
}

func TestNewRefusesFolders(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), nil)
	for _, folder := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "file")} {
		if _, err := New(Options{Allow: []string{folder}}); err == nil {
			t.Errorf("the folder %s is allowed", folder)
		}
	}
}
