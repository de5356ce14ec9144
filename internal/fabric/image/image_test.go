package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

const mib = 1 << 20

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if bytes.Contains(out, []byte("Unable to get accurate CPU usage")) {
		return run(t, name, args...) // QEMU's stop-watch for key derivation was disturbed by other work
	}
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// house is a fabric with one allowed folder.
type house struct {
	*Fabric
	t                       *testing.T
	allowed, restore, other string
	sockets                 string
}

func newHouse(t *testing.T) *house {
	dir := t.TempDir()
	h := &house{t: t, allowed: filepath.Join(dir, "allowed"), restore: filepath.Join(dir, "restore"), other: filepath.Join(dir, "other"), sockets: filepath.Join(dir, "sockets")}
	for _, d := range []string{h.allowed, h.other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.Fabric, err = New(Options{Allow: []string{h.allowed}, RestoreDir: h.restore, SocketDir: h.sockets})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.checkNothingLeft)
	return h
}

// checkNothingLeft fails the test if a child of ours still runs or a socket is left.
func (h *house) checkNothingLeft() {
	h.t.Helper()
	if left, err := os.ReadDir(h.sockets); err != nil || len(left) > 0 {
		h.t.Errorf("left in the folder for sockets: %v, %v", left, err)
	}
	if left := children(h.t); len(left) > 0 {
		h.t.Errorf("left running: %q", left)
	}
}

// children returns the command lines of this process's children.
func children(t *testing.T) (all []string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		stat, err := os.ReadFile(p)
		if err != nil {
			continue // ended since
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if fields[1] == strconv.Itoa(os.Getpid()) {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
			all = append(all, strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return all
}

// sparse writes a raw image with three pieces of data and holes between them.
func (h *house) sparse(name string, size int64) (path string, content []byte) {
	h.t.Helper()
	path = filepath.Join(h.allowed, name)
	file, err := os.Create(path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		h.t.Fatal(err)
	}
	content = make([]byte, size)
	random := rand.NewChaCha8(sha256.Sum256([]byte(name)))
	for _, r := range [][2]int64{{0, 2 * mib}, {7*mib + 4096, 8 * mib}, {size - 300_000, size}} {
		_, _ = random.Read(content[r[0]:r[1]])
		if _, err := file.WriteAt(content[r[0]:r[1]], r[0]); err != nil {
			h.t.Fatal(err)
		}
	}
	return path, content
}

func (h *house) convert(raw, format string, args ...string) string {
	h.t.Helper()
	path := raw + "." + format
	run(h.t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", format}, args...), raw, path)...)
	return path
}

// snapshot takes one of a VM with one disk.
func (h *house) snapshot(path, format string, expected int64) (fabric.Snapshot, error) {
	vm := fabric.VM{ID: "vm", Name: "vm", Disks: []fabric.DiskSpec{{ID: "disk", Path: path, Format: format, ExpectedSize: expected}}}
	return h.Snapshot(h.t.Context(), vm, "")
}

func (h *house) mustSnapshot(path, format string, expected int64) fabric.Disk {
	h.t.Helper()
	s, err := h.snapshot(path, format, expected)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			h.t.Errorf("close: %v", err)
		}
	})
	return s.Disks()[0]
}

// content reads a disk as a backup does: extents, in units, zeros between.
func content(ctx context.Context, d fabric.Disk) (all []byte, read int64, err error) {
	all = make([]byte, d.Size())
	var end int64
	for e, err := range d.Extents(ctx) {
		if err != nil {
			return nil, 0, err
		}
		if e.Offset < end || e.Length <= 0 {
			return nil, 0, errors.New("extents overlap or are empty")
		}
		for off := e.Offset; off < e.Offset+e.Length; off += mib {
			n := min(mib, e.Offset+e.Length-off)
			if _, err := d.ReadAt(all[off:off+n], off); err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, err
			}
			read += n
		}
		end = e.Offset + e.Length
	}
	return all, read, nil
}

func wantKind(t *testing.T, err error, kind fabric.Kind) {
	t.Helper()
	i, ok := errors.AsType[*fabric.ImageError](err)
	if !ok || i.Kind != kind {
		t.Errorf("error %v, want an image error: %v", err, kind)
	} else if i.Path == "" {
		t.Errorf("error %v names no path", err)
	}
}

func TestSnapshotReadsEveryFormat(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	const size = 40 * mib
	for _, test := range []struct {
		name, driver, format string
		args                 []string
	}{
		{"raw", "", Raw, nil},
		{"qcow2", "qcow2", Qcow2, nil},
		{"qcow2 of version 2", "qcow2", Qcow2, []string{"-o", "compat=0.10"}},
		{"qcow2 compressed", "qcow2", Qcow2, []string{"-c"}},
		{"qcow2 with subclusters", "qcow2", Qcow2, []string{"-o", "extended_l2=on,cluster_size=128k"}},
		{"qcow2 with small clusters", "qcow2", Qcow2, []string{"-o", "cluster_size=512"}},
		{"qcow2 preallocated", "qcow2", Qcow2, []string{"-o", "preallocation=metadata"}},
		{"vhd dynamic", "vpc", VHD, []string{"-o", "subformat=dynamic,force_size=on"}},
		{"vhd fixed", "vpc", VHD, []string{"-o", "subformat=fixed,force_size=on"}},
		{"vhdx dynamic", "vhdx", VHDX, []string{"-o", "subformat=dynamic"}},
		{"vhdx fixed", "vhdx", VHDX, []string{"-o", "subformat=fixed"}},
		{"vhdx with small blocks", "vhdx", VHDX, []string{"-o", "block_size=1M"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			path, want := h.sparse("disk", size)
			if test.driver != "" {
				path = h.convert(path, test.driver, test.args...)
			}
			image, err := h.Inspect(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			if image.Format != test.format || image.Size != size || image.Path != path || image.Allocated <= 0 {
				t.Errorf("inspected %+v", image)
			}
			d := h.mustSnapshot(path, image.Format, image.Size)
			got, read, err := content(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the disk's content is not what was written")
			}
			if strings.Contains(test.name, "fixed") || strings.Contains(test.name, "prealloc") {
				read = 0 // holes or not: the format decides
			}
			if read > 16*mib { // two blocks of the coarsest format
				t.Errorf("%d bytes were read of about 4 MiB", read)
			}
			if d.Changed() {
				t.Error("extents claim to be changes")
			}
			// Out of order, across the end, and beyond.
			p := make([]byte, 5000)
			if n, err := d.ReadAt(p, 7*mib+4000); n != len(p) || err != nil || !bytes.Equal(p, want[7*mib+4000:][:5000]) {
				t.Errorf("read in the middle: %d, %v", n, err)
			}
			if n, err := d.ReadAt(p, size-100); n != 100 || !errors.Is(err, io.EOF) || !bytes.Equal(p[:100], want[size-100:]) {
				t.Errorf("read across the end: %d, %v", n, err)
			}
			if n, err := d.ReadAt(p, size); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("read at the end: %d, %v", n, err)
			}
			if err := d.Verify(t.Context()); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}
