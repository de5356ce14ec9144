package recovery_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	files "kluis/internal/fabric/image"
	"kluis/internal/nbd"
	"kluis/internal/recovery"
	"kluis/internal/tooltest"
)

// opened is an image file as a source.
type opened struct{ *files.OpenDisk }

func (o opened) Extents(ctx context.Context) iterExtents {
	return func(yield func(recovery.Extent, error) bool) {
		for e, err := range o.OpenDisk.Extents(ctx) {
			if !yield(recovery.Extent(e), err) {
				return
			}
		}
	}
}

// remote is an export as a source.
type remote struct{ *nbd.Source }

func (r remote) Extents(ctx context.Context) iterExtents {
	return func(yield func(recovery.Extent, error) bool) {
		for e, err := range r.Source.Extents(ctx) {
			if !yield(recovery.Extent{Offset: e.Offset, Length: e.Length}, err) {
				return
			}
		}
	}
}

func mustOpenImage(t *testing.T, path, format string) opened {
	t.Helper()
	d, err := files.OpenFile(t.Context(), path, format)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return opened{d}
}

// rawOf returns what QEMU says that an image holds.
func rawOf(t *testing.T, path, driver string) []byte {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	tool(t, "qemu-img", "convert", "-f", driver, "-O", "raw", path, raw)
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSourcesOfEveryFormat(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	s := create(t, newBucket(t), options(newClock()))
	data := islands(40 * mib)
	raw := filepath.Join(t.TempDir(), "raw")
	file, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(data); off += cs { // with its holes
		if string(data[off:off+cs]) != string(make([]byte, cs)) {
			if _, err := file.WriteAt(data[off:off+cs], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	digests := map[string]bool{}
	for id, test := range map[string]struct {
		format string
		args   []string
	}{
		"raw": {files.Raw, nil}, "qcow2": {files.Qcow2, []string{"-O", "qcow2"}}, "vhdx": {files.VHDX, []string{"-O", "vhdx"}},
		"vhd-dynamic": {files.VHD, []string{"-O", "vpc", "-o", "subformat=dynamic,force_size=on"}},
		"vhd-fixed":   {files.VHD, []string{"-O", "vpc", "-o", "subformat=fixed,force_size=on"}},
	} {
		path := raw
		if test.args != nil {
			path = raw + "." + id
			tool(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, test.args...), raw, path)...)
		}
		p, c := backup(t, s, id, mustOpenImage(t, path, test.format), recovery.DiskOptions{})
		wantRestored(t, s, id, data)
		if c.Read > 30*mib && id != "vhd-fixed" { // of some 10 MiB, in blocks of up to 8 MiB
			t.Errorf("%s: %d bytes were read", id, c.Read)
		}
		digests[p.Disks()[0].Digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("the same disk has %d digests", len(digests))
	}
}

// A full backup of an image, then what its dirty bitmap says.
func TestIncrementByDirtyBitmap(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd", "qemu-io")
	s := create(t, newBucket(t), options(newClock()))
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "64M")
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 20M", path)
	tool(t, "qemu-img", "bitmap", "--add", "--enable", "-g", "64k", path, "since")
	full := mustOpenImage(t, path, files.Qcow2)
	backup(t, s, "full", full, recovery.DiskOptions{})
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	for _, write := range []string{"write -P 2 1M 64k", "write -P 3 40M 200k", "write -z 10M 1M"} {
		tool(t, "qemu-io", "-f", "qcow2", "-c", write, path)
	}
	c, err := nbd.Dial(t.Context(), "unix", exportBitmap(t, path, "since"), "disk", nbd.ContextAllocation, nbd.ContextDirtyPrefix+"since")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	src := remote{c.Source("since")}
	if !src.Changed() {
		t.Fatal("the server did not grant the bitmap")
	}
	_, counters := backup(t, s, "increment", src, recovery.DiskOptions{Parent: disk(t, s, "full"), Changed: true})
	if changed := int64(cs + 4*cs + mib); counters.Read != changed {
		t.Errorf("%d bytes were read, %d changed", counters.Read, changed)
	}
	wantRestored(t, s, "increment", rawOf(t, path, "qcow2"))
}

// exportBitmap starts qemu-nbd on an image with a bitmap, and returns its socket.
func exportBitmap(t *testing.T, path, bitmap string) (sock string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	sock, pidFile := filepath.Join(dir, "s"), filepath.Join(dir, "pid")
	tool(t, "qemu-nbd", "--fork", "--persistent", "--read-only", "--format=qcow2", "--bitmap="+bitmap, "--socket="+sock, "--pid-file="+pidFile, "--export-name=disk", path)
	t.Cleanup(func() {
		if b, err := os.ReadFile(pidFile); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = os.RemoveAll(dir)
	})
	return sock
}
