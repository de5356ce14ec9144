package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPathsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	inside, outside := filepath.Join(h.allowed, "disk"), filepath.Join(h.other, "secret")
	write(t, inside, make([]byte, 4096))
	write(t, outside, make([]byte, 4096))
	link := func(target, name string) string {
		path := filepath.Join(h.allowed, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := syscall.Mkfifo(filepath.Join(h.allowed, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.allowed+"-not", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, h.allowed+"-not/disk", make([]byte, 4096))
	for _, test := range []struct {
		name, path string
		kind       fabric.Kind
	}{
		{"missing", filepath.Join(h.allowed, "none"), fabric.Missing},
		{"below a file", inside + "/disk", fabric.Missing},
		{"elsewhere", outside, fabric.NotAllowed},
		{"missing elsewhere", outside + "-none", fabric.NotAllowed},
		{"dots", h.allowed + "/../other/secret", fabric.NotAllowed},
		{"dots to what is missing", h.allowed + "/../other/none", fabric.NotAllowed},
		{"a folder whose name begins alike", h.allowed + "-not/disk", fabric.NotAllowed},
		{"a link that leaves", link(outside, "leaves"), fabric.NotAllowed},
		{"a link to a folder elsewhere", filepath.Join(link(h.other, "folder"), "secret"), fabric.NotAllowed},
		{"a relative link that leaves", link("../other/secret", "up"), fabric.NotAllowed},
		{"a link in a circle", link(filepath.Join(h.allowed, "circle"), "circle"), fabric.Unreadable},
		{"a device", link("/dev/zero", "zero"), fabric.NotAllowed},
		{"the folder itself", h.allowed, fabric.NotAllowed},
		{"a pipe", filepath.Join(h.allowed, "pipe"), fabric.NotRegular},
		{"not absolute", "disk", fabric.NotAllowed},
		{"empty", "", fabric.NotAllowed},
		{"with a zero byte", inside + "\x00", fabric.NotAllowed},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := h.Inspect(t.Context(), test.path)
			if test.path == "" {
				if _, ok := errors.AsType[*fabric.ImageError](err); !ok {
					t.Errorf("error %v", err)
				}
			} else {
				wantKind(t, err, test.kind)
			}
			if _, err := h.snapshot(test.path, Raw, 0); err == nil {
				t.Error("a snapshot was taken")
			}
		})
	}
	// Links that stay inside are followed.
	image, err := h.Inspect(t.Context(), link(inside, "stays"))
	if err != nil || image.Path != inside {
		t.Errorf("inspected %+v, %v", image, err)
	}
}

func TestImagesThatAreRefused(t *testing.T) {
	tooltest.Need(t, "qemu-img")
	h := newHouse(t)
	raw, _ := h.sparse("disk", 16*mib)
	base := h.convert(raw, "qcow2")
	create := func(name string, args ...string) string {
		path := filepath.Join(h.allowed, name)
		run(t, "qemu-img", append(append([]string{"create", "-q"}, args...), path)...)
		return path
	}
	sized := func(name string, args ...string) string {
		path := filepath.Join(h.allowed, name)
		run(t, "qemu-img", append(append([]string{"create", "-q"}, args...), path, "16M")...)
		return path
	}
	vhd := h.convert(raw, "vpc", "-o", "force_size=on")
	changeFooters := func(name string, change func(footer []byte)) string {
		b, err := os.ReadFile(vhd)
		if err != nil {
			t.Fatal(err)
		}
		for _, footer := range [][]byte{b[:vhdFooterSize], b[len(b)-vhdFooterSize:]} {
			change(footer)
			be.PutUint32(footer[64:], vhdSum(footer))
		}
		path := filepath.Join(h.allowed, name)
		write(t, path, b)
		return path
	}
	badSum := changeFooters("sum.vhd", func([]byte) {})
	if b, err := os.ReadFile(badSum); err == nil {
		b[20] ^= 1
		write(t, badSum, b)
	}
	for _, test := range []struct {
		name, path string
		kind       fabric.Kind
	}{
		{"qcow2 with backing file", create("overlay", "-f", "qcow2", "-b", base, "-F", "qcow2"), fabric.HasBackingFile},
		{"qcow2 with external data", sized("external", "-f", "qcow2", "-o", "data_file="+filepath.Join(h.other, "data")), fabric.HasBackingFile},
		{"qcow2 encrypted by QEMU", sized("encrypted", "--object", "secret,id=s,data=x", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"), fabric.UnknownFormat},
		{"qcow1", sized("one", "-f", "qcow"), fabric.UnknownFormat},
		{"vmdk", sized("vmdk", "-f", "vmdk"), fabric.UnknownFormat},
		{"vdi", sized("vdi", "-f", "vdi"), fabric.UnknownFormat},
		{"qed", sized("qed", "-f", "qed"), fabric.UnknownFormat},
		{"parallels", sized("parallels", "-f", "parallels"), fabric.UnknownFormat},
		{"differencing vhd", changeFooters("child.vhd", func(f []byte) { be.PutUint32(f[60:], vhdDifferencing) }), fabric.HasBackingFile},
		{"vhd of an odd type", changeFooters("odd.vhd", func(f []byte) { be.PutUint32(f[60:], 9) }), fabric.UnknownFormat},
		{"vhd with a wrong checksum", badSum, fabric.Unreadable},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := h.Inspect(t.Context(), test.path)
			wantKind(t, err, test.kind)
		})
	}
}

func TestFormatIsThatOfAdoption(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	raw, _ := h.sparse("disk", 16*mib)
	qcow := h.convert(raw, "qcow2")

	// A guest that writes a qcow2 header into its raw disk still has a raw disk.
	want, err := os.ReadFile(qcow)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := content(t.Context(), h.mustSnapshot(qcow, Raw, 0))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the raw bytes of a qcow2 image: %v", err)
	}
	// A qcow2 image that is something else now is not the disk that was taken in.
	_, err = h.snapshot(raw, Qcow2, 16*mib)
	wantKind(t, err, fabric.Changed)
	_, err = h.snapshot(raw, "vmdk", 16*mib)
	wantKind(t, err, fabric.UnknownFormat)
}

func TestTruncatedImages(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	const size = 40 * mib
	for _, test := range []struct {
		name, driver, format string
		args                 []string
		cut                  int64
	}{
		{"raw", "", Raw, nil, 1},
		{"qcow2 by a cluster", "qcow2", Qcow2, nil, 64 << 10},
		{"qcow2 by half", "qcow2", Qcow2, nil, 2 * mib},
		{"qcow2 of version 2", "qcow2", Qcow2, []string{"-o", "compat=0.10"}, 64 << 10},
		{"qcow2 compressed", "qcow2", Qcow2, []string{"-c"}, 300 << 10},
		{"qcow2 with subclusters", "qcow2", Qcow2, []string{"-o", "extended_l2=on,cluster_size=128k"}, 128 << 10},
		{"vhd dynamic", "vpc", VHD, []string{"-o", "subformat=dynamic,force_size=on"}, 1},
		{"vhd fixed", "vpc", VHD, []string{"-o", "subformat=fixed,force_size=on"}, 512},
		{"vhdx", "vhdx", VHDX, nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			path, _ := h.sparse("disk", size)
			if test.driver != "" {
				path = h.convert(path, test.driver, test.args...)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()-test.cut); err != nil {
				t.Fatal(err)
			}
			_, err = h.snapshot(path, test.format, size)
			wantKind(t, err, fabric.Truncated)
			if test.format != Raw && test.name != "vhd fixed" { // those can't be told from a shorter raw disk
				_, err = h.Inspect(t.Context(), path)
				wantKind(t, err, fabric.Truncated)
			}
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			_, err = h.snapshot(path, test.format, size)
			wantKind(t, err, fabric.Truncated)
		})
	}
}

func TestImageChangesDuringSnapshot(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	const size = 16 * mib
	for _, format := range []string{Raw, Qcow2} {
		for _, test := range []struct {
			name   string
			change func(path string) error
			kind   fabric.Kind
		}{
			{"cut", func(path string) error { return os.Truncate(path, 1*mib) }, fabric.Truncated},
			{"grown", func(path string) error { return os.Truncate(path, 64*mib) }, fabric.Changed},
			{"written", func(path string) error {
				file, err := os.OpenFile(path, os.O_RDWR, 0)
				if err != nil {
					return err
				}
				defer file.Close()
				if _, err := file.WriteAt([]byte("x"), mib); err != nil {
					return err
				}
				return os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)) // the clock may not have moved since
			}, fabric.Changed},
			{"removed", os.Remove, fabric.Missing},
			{"replaced", func(path string) error {
				b, err := os.ReadFile(path)
				if err == nil {
					err = os.Remove(path)
				}
				if err == nil {
					err = os.WriteFile(path, b, 0o600)
				}
				return err
			}, fabric.Changed},
		} {
			t.Run(format+" "+test.name, func(t *testing.T) {
				h := newHouse(t)
				path, _ := h.sparse("disk", size)
				if format == Qcow2 {
					path = h.convert(path, "qcow2")
				}
				d := h.mustSnapshot(path, format, size)
				if err := d.Verify(t.Context()); err != nil {
					t.Fatalf("verify before anything happened: %v", err)
				}
				if err := test.change(path); err != nil {
					t.Fatal(err)
				}
				wantKind(t, d.Verify(t.Context()), test.kind)
				if test.name == "cut" && format == Raw {
					_, err := d.ReadAt(make([]byte, mib), size-mib)
					wantKind(t, err, fabric.Truncated)
					n, err := d.ReadAt(make([]byte, mib), mib/2)
					wantKind(t, err, fabric.Truncated)
					if n != mib/2 {
						t.Errorf("%d bytes were there", n)
					}
				}
			})
		}
	}
}

func TestUnreadableHalfway(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	path, _ := h.sparse("disk", 16*mib)
	d := h.mustSnapshot(h.convert(path, "qcow2"), Qcow2, 0)
	exported, ok := d.(*exportedDisk)
	if !ok {
		t.Fatalf("the disk is a %T", d)
	}
	if err := syscall.Kill(exported.export.child.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exported.export.exited
	_, err := d.ReadAt(make([]byte, 4096), 0)
	wantKind(t, err, fabric.Unreadable)
	_, _, err = content(t.Context(), d)
	wantKind(t, err, fabric.Unreadable)
}

func TestReadErrorOfTheDevice(t *testing.T) {
	// The kernel refuses to read a process's memory at an address that is not mapped: a file whose reads fail with EIO.
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Skipf("no /proc/self/mem: %v", err)
	}
	defer memory.Close()
	d := &rawDisk{file: &file{File: memory, path: memory.Name(), size: 1 << 20}}
	_, err = d.ReadAt(make([]byte, 4096), 4096)
	wantKind(t, err, fabric.Unreadable)
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("the cause is not kept: %v", err)
	}
}

func TestSnapshotWithoutQemuNBD(t *testing.T) {
	tooltest.Need(t, "qemu-img")
	h := newHouse(t)
	path, _ := h.sparse("disk", 16*mib)
	qcow := h.convert(path, "qcow2")
	h.qemuNBD = filepath.Join(h.other, "no-such-program")
	_, err := h.snapshot(qcow, Qcow2, 0)
	wantKind(t, err, fabric.Unreadable)
	h.mustSnapshot(path, Raw, 0)
}

func TestSnapshotOfSeveralDisksIsAllOrNothing(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	path, _ := h.sparse("disk", 16*mib)
	qcow := h.convert(path, "qcow2")
	vm := fabric.VM{Disks: []fabric.DiskSpec{{ID: "os", Path: path, Format: Raw}, {ID: "data", Path: qcow, Format: Qcow2}, {ID: "more", Path: path + "-none", Format: Raw}}}
	_, err := h.Snapshot(t.Context(), vm, "")
	wantKind(t, err, fabric.Missing)
	h.checkNothingLeft()

	vm.Disks = vm.Disks[:2]
	s, err := h.Snapshot(t.Context(), vm, "of another time")
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Disks(); len(d) != 2 || d[0].ID() != "os" || d[1].ID() != "data" {
		t.Errorf("disks %v", d)
	}
	if c := s.Consistency(); c.Level != fabric.CrashConsistent || c.Reason == "" || s.Checkpoint() != "" {
		t.Errorf("consistency %+v, checkpoint %q", c, s.Checkpoint())
	}
	for range 2 {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Snapshot(ctx, vm, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("snapshot with a cancelled context: %v", err)
	}
}

// FuzzIdentify reads headers and tables that say anything. It must not panic, nor take memory or time
// that depend on more than the image's length.
func FuzzIdentify(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte("just a disk"))
	f.Add([]byte(qcow2Magic + "\x00\x00\x00\x03"))
	footer := make([]byte, vhdFooterSize)
	copy(footer, vhdMagic)
	be.PutUint32(footer[60:], vhdDynamic)
	be.PutUint32(footer[64:], vhdSum(footer))
	f.Add(append(footer, footer...))
	for _, format := range []string{"qcow2", "vpc", "vhdx"} {
		path := filepath.Join(dir, format)
		if b, err := imageBytes(path, format); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, size := bytes.NewReader(b), int64(len(b))
		h, err := identify(r, size)
		if err != nil {
			return
		}
		if h.size < 0 {
			t.Errorf("a disk of %d bytes", h.size)
		}
		if err := h.complete(t.Context(), r, size); err != nil || h.extents == nil {
			return
		}
		var end int64
		for e, err := range h.extents(t.Context(), r, size) {
			if err != nil {
				break
			}
			if e.Offset < end || e.Length <= 0 || e.Offset+e.Length > h.size {
				t.Fatalf("extent %v of a disk of %d", e, h.size)
			}
			end = e.Offset + e.Length
		}
	})
}
