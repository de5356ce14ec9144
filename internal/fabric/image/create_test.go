package image

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

// pattern is a disk with pieces of data, also at its very end, and holes between.
func pattern(size int64) []byte {
	b := make([]byte, size)
	random := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	for off := int64(0); off < size; off += 3 * mib {
		_, _ = random.Read(b[off:min(off+mib, size)])
	}
	_, _ = random.Read(b[max(0, size-700):])
	return b
}

// fill writes what is not zero, from several goroutines.
func fill(t *testing.T, to NewImage, content []byte) {
	t.Helper()
	var wg sync.WaitGroup
	for off := 0; off < len(content); off += mib {
		part := content[off:min(off+mib, len(content))]
		if bytes.Count(part, []byte{0}) == len(part) {
			continue
		}
		wg.Go(func() {
			if n, err := to.WriteAt(part, int64(off)); n != len(part) || err != nil {
				t.Errorf("write %d at %d: %d, %v", len(part), off, n, err)
			}
		})
	}
	wg.Wait()
}

func mustCreate(t *testing.T, path, format string, size int64) NewImage {
	t.Helper()
	n, err := CreateFile(t.Context(), path, format, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Abort() })
	return n
}

// mustHold opens an image as a tool does and compares it.
func mustHold(t *testing.T, path, format string, want []byte) {
	t.Helper()
	d, err := OpenFile(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Format() != format || d.Size() != int64(len(want)) {
		t.Errorf("%s of %d bytes, want %s of %d", d.Format(), d.Size(), format, len(want))
	}
	got, _, err := content(t.Context(), d)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image's content is not what was written: %v", err)
	}
	if err := d.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCreateFileInEveryFormat(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	for _, format := range []string{Raw, Qcow2, VHD, VHDX} {
		for _, size := range []int64{512, 64<<10 + 512, 7*mib - 1536, 40 * mib} {
			t.Run(format, func(t *testing.T) {
				dir := t.TempDir()
				path, want := filepath.Join(dir, "disk"), pattern(size)
				n := mustCreate(t, path, format, size)
				if n.Path() != path || n.Resumed() {
					t.Errorf("%s, resumed %v", n.Path(), n.Resumed())
				}
				if err := errors.Join(n.Truncate(0), n.Truncate(size)); err != nil {
					t.Error(err)
				}
				fill(t, n, want)
				if err := n.Sync(); err != nil {
					t.Error(err)
				}
				if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("it has its name before it is committed: %v", err)
				}
				if err := n.Commit(); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(n.Abort(), n.Keep()); err != nil {
					t.Errorf("after the commit: %v", err)
				}
				if left := files(t, dir); len(left) != 1 {
					t.Errorf("files %v", left)
				}
				mustHold(t, path, format, want)

				raw := filepath.Join(t.TempDir(), "raw")
				write(t, raw, want)
				run(t, "qemu-img", "compare", "-f", "raw", "-F", drivers[format][0], raw, path)
				if len(children(t)) > 0 {
					t.Errorf("left running: %q", children(t))
				}

				_, err := CreateFile(t.Context(), path, format, size)
				wantKind(t, err, fabric.Exists)
			})
		}
	}
}

func TestCommitSoon(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	for _, format := range []string{Raw, VHDX} {
		path, want := filepath.Join(t.TempDir(), "disk"), pattern(3*mib)
		n := mustCreate(t, path, format, 3*mib)
		fill(t, n, want)
		if err := n.CommitSoon(); err != nil {
			t.Fatal(err)
		}
		mustHold(t, path, format, want)
		if err := n.CommitSoon(); err == nil {
			t.Errorf("%s was committed twice", format)
		}
	}
}

func TestCreateFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name, path, format string
		size               int64
		kind               fabric.Kind
	}{
		{"a format that is none", "disk", "vmdk", mib, fabric.UnknownFormat},
		{"half a sector in qcow2", "disk", Qcow2, mib + 1, fabric.Unreadable},
		{"half a sector in vhd", "disk", VHD, mib + 256, fabric.Unreadable},
		{"half a sector in vhdx", "disk", VHDX, 100, fabric.Unreadable},
		{"less than nothing", "disk", Raw, -1, fabric.Unreadable},
		{"a folder that is not there", "none/disk", Raw, mib, fabric.Missing},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := CreateFile(t.Context(), filepath.Join(dir, test.path), test.format, test.size)
			wantKind(t, err, test.kind)
		})
	}
	if n, err := CreateFile(t.Context(), filepath.Join(dir, "odd"), Raw, 1001); err != nil {
		t.Errorf("a raw image takes any size: %v", err)
	} else if err := n.Abort(); err != nil {
		t.Error(err)
	}
	t.Run("more than the format holds", func(t *testing.T) {
		tooltest.Need(t, "qemu-img")
		if _, err := CreateFile(t.Context(), filepath.Join(dir, "disk"), VHD, 4<<40); err == nil {
			t.Error("a VHD of 4 TiB was made")
		}
	})
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCreateFileGoesOn(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	path := filepath.Join(t.TempDir(), "disk")
	want := pattern(5 * mib)
	for _, format := range []string{Raw, Qcow2} {
		n := mustCreate(t, path, format, 5*mib)
		if n.Resumed() {
			t.Errorf("%s goes on with something that is not there", format)
		}
		if _, err := n.WriteAt(want[:1000], 0); err != nil {
			t.Fatal(err)
		}
		if err := n.Keep(); err != nil {
			t.Fatal(err)
		}
		n = mustCreate(t, path, format, 5*mib)
		if n.Resumed() != (format == Raw) {
			t.Errorf("%s: resumed %v", format, n.Resumed())
		}
		if used, ok := n.(*resumedImage); ok {
			got := make([]byte, 1000)
			if _, err := used.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[:1000]) {
				t.Errorf("what was written before is gone: %v", err)
			}
		}
		fill(t, n, want)
		if err := n.Commit(); err != nil {
			t.Fatal(err)
		}
		mustHold(t, path, format, want)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenFileRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "text"), []byte("text"))
	write(t, filepath.Join(dir, "vmdk"), append([]byte("KDMV"), make([]byte, 2000)...))
	for _, test := range []struct {
		path, format string
		kind         fabric.Kind
	}{
		{"none", "", fabric.Missing}, {"", "", fabric.NotRegular}, {"vmdk", "", fabric.UnknownFormat},
		{"text", "vmdk", fabric.UnknownFormat}, {"text", Qcow2, fabric.Changed},
	} {
		_, err := OpenFile(t.Context(), filepath.Join(dir, test.path), test.format)
		wantKind(t, err, test.kind)
	}
	_, err := OpenFile(t.Context(), "/dev/null", "")
	wantKind(t, err, fabric.NotRegular)
}
