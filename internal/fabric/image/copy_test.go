package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

func nobody(int64, int64) {}

// A copy is the file, byte for byte, with its holes, whatever the format, and the same disk.
func TestCopy(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	raw, _ := h.sparse("disk", 64*mib)
	for format, path := range map[string]string{Raw: raw, Qcow2: h.convert(raw, "qcow2"), VHDX: h.convert(raw, "vhdx")} {
		var done, total int64
		want := mustPath(t, h, "copies", format)
		spec := fabric.DiskSpec{Path: path, Format: format, ExpectedSize: 64 * mib}
		if err := h.Copy(t.Context(), spec, "copies", format, func(d, of int64) { done, total = d, of }); err != nil {
			t.Fatal(err)
		}
		from, to := mustRead(t, path), mustRead(t, want)
		if !bytes.Equal(from, to) {
			t.Errorf("%s: the copy is not the file", format)
		}
		if total != int64(len(from)) || done > total || done == 0 {
			t.Errorf("%s: progress %d of %d", format, done, total)
		}
		if a, b := blocks(t, path), blocks(t, want); b > a+64 {
			t.Errorf("%s: the file takes %d blocks and the copy %d", format, a, b)
		}
		copied := h.mustSnapshot(want, format, 64*mib)
		if copied.Size() != 64*mib {
			t.Errorf("%s: the copied disk has %d bytes", format, copied.Size())
		}
		wantKind(t, h.Copy(t.Context(), spec, "copies", format, nobody), fabric.Exists)
	}
}

func mustPath(t *testing.T, h *house, dir, name string) string {
	t.Helper()
	path, err := h.CopyPath(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks
}

func TestCopyRefused(t *testing.T) {
	h := newHouse(t)
	path, _ := h.sparse("disk", 8*mib)
	spec := fabric.DiskSpec{Path: path, Format: Raw, ExpectedSize: 8 * mib}
	for name, test := range map[string]struct {
		spec fabric.DiskSpec
		dir  string
		kind fabric.Kind
	}{
		"gone":        {fabric.DiskSpec{Path: path + "2", Format: Raw}, "copies", fabric.Missing},
		"elsewhere":   {fabric.DiskSpec{Path: "/etc/passwd", Format: Raw}, "copies", fabric.NotAllowed},
		"shorter":     {fabric.DiskSpec{Path: path, Format: Raw, ExpectedSize: 9 * mib}, "copies", fabric.Truncated},
		"to anywhere": {spec, "../..", fabric.NotAllowed},
	} {
		t.Run(name, func(t *testing.T) { wantKind(t, h.Copy(t.Context(), test.spec, test.dir, "copy", nobody), test.kind) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := h.Copy(ctx, spec, "copies", "copy", func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that was stopped: %v", err)
	}
	ctx, written := t.Context(), false
	err := h.Copy(ctx, spec, "copies", "copy", func(int64, int64) {
		if !written {
			write(t, path, []byte("another disk"))
			written = true
		}
	})
	if i, ok := errors.AsType[*fabric.ImageError](err); !ok || i.Kind != fabric.Truncated && i.Kind != fabric.Changed {
		t.Errorf("a copy of what was written to: %v", err)
	}
	if left := files(t, h.restore); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// mounted makes a file system and mounts it.
func mounted(t *testing.T, kind, options string, size int64) string {
	t.Helper()
	dir, device := t.TempDir(), kind
	if size > 0 {
		tooltest.Need(t, "mkfs."+kind)
		file := filepath.Join(t.TempDir(), "fs")
		write(t, file, nil)
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		device = loop(t, file)
		if out, err := exec.CommandContext(t.Context(), "mkfs."+kind, device).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := unix.Mount(device, dir, kind, 0, options); err != nil {
		t.Skipf("this machine does not mount %s: %v", kind, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

func TestCopyWithoutRoom(t *testing.T) {
	small := mounted(t, "tmpfs", "size=1m", 0)
	h := newHouse(t)
	path, _ := h.sparse("disk", 8*mib)
	f, err := New(Options{Allow: []string{h.allowed}, RestoreDir: small})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, f.Copy(t.Context(), fabric.DiskSpec{Path: path, Format: Raw}, "copies", "copy", nobody), fabric.NoSpace)
	if left := files(t, small); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// On a file system that shares blocks a copy takes no room, and what is written to one is not in the other.
func TestCopySharesBlocks(t *testing.T) {
	dir := mounted(t, "btrfs", "", 256*mib)
	f, err := New(Options{Allow: []string{dir}, RestoreDir: filepath.Join(dir, "restored")})
	if err != nil {
		t.Fatal(err)
	}
	path, content := filepath.Join(dir, "disk"), pattern(100*mib)
	write(t, path, content)
	for _, name := range []string{"one", "two", "three"} { // four of them would not fit
		if err := f.Copy(t.Context(), fabric.DiskSpec{Path: path, Format: Raw}, "copies", name, nobody); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, []byte("changed"))
	if got := mustRead(t, filepath.Join(dir, "restored", "copies", "two")); !bytes.Equal(got, content) {
		t.Error("the copy has changed with the disk")
	}
}
