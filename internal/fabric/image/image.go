// Package image is the fabric of VMs at rest: their disks are image files under folders that the
// operator allows.
//
// For tools that a person runs with his own rights there are OpenFile, which reads any image, CreateFile,
// which makes one of any format, and OpenUsed, which puts a disk in the place of what a raw image or a
// block device holds. The rules about folders do not hold for them, all others do.
//
// A snapshot opens each image once and keeps it open, so that what is read is one file even if another
// takes its name. Raw images are read here, with their holes; qcow2, VHD and VHDX are opened by a
// qemu-nbd child process and read over NBD. While it is open an image carries the locks that a reading
// QEMU would take: an image that a VM writes to is refused, and a VM that is started meanwhile is told
// that its disk is in use.
//
// Written is the same way round: raw images by us, the others by a qemu-nbd child, into a file that gets
// its name when it is whole and durable.
//
// Invariants. A path of a Fabric is followed to the end, symbolic links too, and what it leads to must lie inside an
// allowed folder; the file is then opened without following anything that changed meanwhile. Images
// that refer to other files (backing files, external data, parents) are refused, since whoever writes
// an image's header would otherwise choose what we read. Formats are recognised when an image is taken
// in, never again afterwards: a guest that writes a qcow2 header into its raw disk changes nothing.
// An image whose tables point beyond its end is refused, because QEMU would read zeros there.
// A child process lives no longer than its connection: when Kluis dies, at whatever instant, the child
// sees its only client leave and exits; it leaves no socket because the socket has no name any more.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"kluis/internal/fabric"
)

// The formats of images.
const (
	Raw   = "raw"
	Qcow2 = "qcow2"
	VHD   = "vhd"
	VHDX  = "vhdx"
)

// Options are what a Fabric needs to know.
type Options struct {
	Allow      []string // folders whose images may be read
	RestoreDir string   // where restored disks are written; it is made if missing and always allowed
	QemuNBD    string   // the program; "qemu-nbd" if empty
	SocketDir  string   // for sockets that exist for an instant, made if missing; the system's temporary folder if empty
	Logger     *slog.Logger
}

// Fabric is a VM host whose VMs are at rest. It is safe for concurrent use.
type Fabric struct {
	allow      []string // absolute, without symbolic links
	restoreDir string   // the same; empty if there is none
	qemu
	log *slog.Logger
}

// qemu says how QEMU is called.
type qemu struct {
	qemuNBD   string // the program
	socketDir string // for sockets that exist for an instant
}

// localQEMU is what tools use, who have no Fabric.
var localQEMU = qemu{qemuNBD: "qemu-nbd"}

// New checks the folders. Those to read from must exist, the others are made.
func New(o Options) (*Fabric, error) {
	f := &Fabric{qemu: qemu{o.QemuNBD, o.SocketDir}, log: o.Logger}
	if f.qemuNBD == "" {
		f.qemuNBD = "qemu-nbd"
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	for _, folder := range []string{o.RestoreDir, o.SocketDir} {
		if folder == "" {
			continue
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("make image folder: %w", err)
		}
	}
	folders := o.Allow
	if o.RestoreDir != "" {
		folders = append([]string{o.RestoreDir}, folders...)
	}
	for _, folder := range folders {
		real, err := realFolder(folder)
		if err != nil {
			return nil, fmt.Errorf("image folder: %w", err)
		}
		f.allow = append(f.allow, real)
	}
	if o.RestoreDir != "" {
		f.restoreDir = f.allow[0]
	}
	if _, err := exec.LookPath(f.qemuNBD); err != nil {
		f.log.Warn("qemu-nbd was not found; only raw images can be read", "program", f.qemuNBD)
	}
	return f, nil
}

func realFolder(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(real)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", path)
	}
	return real, err
}

// Image is what Inspect finds.
type Image struct {
	Path      string // without symbolic links
	Format    string
	Size      int64 // what the guest sees
	Allocated int64 // what the file takes on its file system
}

// Inspect looks at an image that is to become a disk. Errors are *fabric.ImageError.
func (f *Fabric) Inspect(ctx context.Context, path string) (Image, error) {
	file, err := f.open(path)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = file.Close() }()
	h, err := identify(file, file.size)
	if err == nil {
		err = h.complete(ctx, file, file.size)
	}
	if err != nil {
		return Image{}, named(file.path, err)
	}
	return Image{file.path, h.format, h.size, file.allocated}, nil
}

// Snapshot opens all disks of a VM for reading. Files know nothing of what changed, so since is of no
// use here and every snapshot yields all that is allocated.
func (f *Fabric) Snapshot(ctx context.Context, vm fabric.VM, _ fabric.Checkpoint) (fabric.Snapshot, error) {
	s := &snapshot{}
	for _, spec := range vm.Disks {
		d, err := f.openDisk(ctx, spec)
		if err != nil {
			_ = s.Close(context.WithoutCancel(ctx))
			return nil, err
		}
		s.disks = append(s.disks, d)
	}
	return s, nil
}

// disk is a fabric.Disk that holds resources.
type disk interface {
	fabric.Disk
	close(ctx context.Context) error
}

func (f *Fabric) openDisk(ctx context.Context, spec fabric.DiskSpec) (disk, error) {
	file, err := f.open(spec.Path)
	if err != nil {
		return nil, err
	}
	d, err := f.lockDisk(ctx, file, spec)
	if err != nil {
		_ = file.Close()
		return nil, named(file.path, err)
	}
	return d, nil
}

// lockDisk makes a disk of an open file, which belongs to the disk from then on.
func (f *Fabric) lockDisk(ctx context.Context, file *file, spec fabric.DiskSpec) (disk, error) {
	if err := file.lock(f.log); err != nil {
		return nil, err
	}
	h, err := identifyAs(file, file.size, spec.Format, spec.ExpectedSize)
	if err != nil {
		return nil, err
	}
	if h.size < spec.ExpectedSize {
		return nil, faultf(fabric.Truncated, "it has %d bytes and had %d", h.size, spec.ExpectedSize)
	}
	return f.readDisk(ctx, file, h, spec.ID)
}

// readDisk makes a disk of a file whose header was read.
func (q qemu) readDisk(ctx context.Context, file *file, h header, id string) (disk, error) {
	if h.format == Raw {
		return &rawDisk{file: file, id: id}, nil
	}
	if err := h.complete(ctx, file, file.size); err != nil {
		return nil, err
	}
	e, err := q.export(ctx, file.File, h, false)
	if err != nil {
		return nil, err
	}
	return &exportedDisk{file: file, header: h, export: e, id: id}, nil
}

type snapshot struct{ disks []disk }

// Consistency of files at rest: nobody asked the guest to put its file systems in order.
func (*snapshot) Consistency() fabric.Consistency {
	return fabric.Consistency{Level: fabric.CrashConsistent, Reason: "The VM has no agent; its disks were read as they were left."}
}

func (s *snapshot) Disks() []fabric.Disk {
	disks := make([]fabric.Disk, len(s.disks))
	for i, d := range s.disks {
		disks[i] = d
	}
	return disks
}

// Notes implements fabric.Snapshot.
func (*snapshot) Notes() []string { return nil }

// Checkpoint implements fabric.Snapshot.
func (*snapshot) Checkpoint() fabric.Checkpoint { return "" }

// Settle implements fabric.Snapshot: nothing is left behind.
func (*snapshot) Settle(context.Context, fabric.Checkpoint) error { return nil }

// Close ends the children and closes the files.
func (s *snapshot) Close(ctx context.Context) error {
	var errs []error
	for _, d := range s.disks {
		errs = append(errs, d.close(ctx))
	}
	s.disks = nil
	return errors.Join(errs...)
}
