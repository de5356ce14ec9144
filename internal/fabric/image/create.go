package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"kluis/internal/fabric"
)

// NewImage is an image that is being written: a target of a restore. It gets its name at Commit, and
// until then it is a file with a leading dot beside it. One of Commit, Abort and Keep must be called.
// WriteAt may be called from many goroutines.
type NewImage interface {
	io.WriterAt
	// Truncate accepts 0 while nothing is written, and the size that was given.
	Truncate(size int64) error
	Sync() error
	// Path is where the image will be.
	Path() string
	// Resumed reports that the image goes on with what an interrupted writer has left. It can be read
	// then, and what it holds is to be compared.
	Resumed() bool
	// Commit makes the image durable and gives it its name. It fails with Exists if the name is taken.
	// The image is closed afterwards, also after an error.
	Commit() error
	// InNoHurry leaves it to the system when what is written goes to the disk, for those who will CommitSoon.
	InNoHurry()
	// CommitSoon is Commit without waiting for the disk: as with cp, the image may not be whole if the
	// power fails within the next half minute.
	CommitSoon() error
	// Abort removes what was written. After Commit or Keep it does nothing.
	Abort() error
	// Keep ends the writing and leaves what was written, for a CreateFile that goes on with it.
	Keep() error
}

// CreateFile begins an image of size bytes at path, which must be free. A raw image that was begun
// before and not finished is taken over as it is; the other formats begin anew, because what a writer
// that died has left of their tables need not be whole. Those formats store sectors: the size must be a
// multiple of 512. Errors are *fabric.ImageError.
func CreateFile(ctx context.Context, path, format string, size int64) (NewImage, error) {
	i, err := createFile(ctx, path, format, size)
	if err != nil {
		return nil, named(path, err)
	}
	return i, nil
}

func createFile(ctx context.Context, path, format string, size int64) (NewImage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	driver, ok := drivers[format]
	switch {
	case !ok:
		return nil, faultf(fabric.UnknownFormat, "%q is none of raw, qcow2, vhd and vhdx", format)
	case size < 0, size == 0 && format != Raw:
		return nil, faultf(fabric.Unreadable, "a disk of %d bytes", size)
	case size%512 != 0 && format != Raw:
		return nil, faultf(fabric.Unreadable, "%s stores whole sectors of 512 bytes and the disk has %d bytes; write it raw", format, size)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(abs))
	if err != nil {
		return nil, err
	}
	d, err := beginIn(root, abs)
	if err != nil {
		return nil, err
	}
	if format == Raw {
		return beginRaw(d, size)
	}
	i, err := beginExported(ctx, d, header{format: format, size: size}, driver)
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	return i, nil
}

// drivers names the formats as qemu-img does, and how images of them are made.
var drivers = map[string][]string{
	Raw:   {"raw"},
	Qcow2: {"qcow2"},
	VHD:   {"vpc", "-o", "subformat=dynamic,force_size=on"}, // otherwise the size is rounded to a geometry
	VHDX:  {"vhdx", "-o", "subformat=dynamic"},
}

func beginRaw(d *NewDisk, size int64) (NewImage, error) {
	info, err := d.file.Stat()
	if err == nil {
		err = d.file.Truncate(size)
	}
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	if info.Size() > 0 {
		return &resumedImage{NewDisk: d, usedFile: usedFile{d.file, d.path, false}}, nil
	}
	return newRaw{d}, nil
}

// newRaw is a raw image that was begun just now.
type newRaw struct{ *NewDisk }

func (newRaw) Resumed() bool { return false }

// resumedImage is a raw image that somebody else has begun.
type resumedImage struct {
	*NewDisk
	usedFile
}

func (*resumedImage) Resumed() bool                              { return true }
func (r *resumedImage) WriteAt(p []byte, off int64) (int, error) { return r.usedFile.WriteAt(p, off) }
func (r *resumedImage) ReadAt(p []byte, off int64) (int, error)  { return r.usedFile.ReadAt(p, off) }
func (r *resumedImage) Truncate(size int64) error                { return r.usedFile.Truncate(size) }
func (r *resumedImage) Sync() error                              { return r.usedFile.Sync() }

// newExported is an image of a format that QEMU writes for us.
type newExported struct {
	*NewDisk
	export *export
}

func beginExported(ctx context.Context, d *NewDisk, h header, driver []string) (*newExported, error) {
	if err := d.file.Truncate(0); err != nil {
		return nil, err
	}
	args := append([]string{"create", "-q", "-f"}, driver...)
	create := exec.CommandContext(ctx, "qemu-img", append(args, "/proc/self/fd/3", strconv.FormatInt(h.size, 10))...)
	create.ExtraFiles = []*os.File{d.file}
	if out, err := create.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("qemu-img create: %w: %s", err, bytes.Join(bytes.Fields(out), []byte(" ")))
	}
	e, err := localQEMU.export(ctx, d.file, h, true)
	if err != nil {
		return nil, err
	}
	return &newExported{d, e}, nil
}

func (*newExported) Resumed() bool { return false }

// WriteAt writes a part of the disk.
func (n *newExported) WriteAt(p []byte, off int64) (int, error) {
	done, err := n.export.WriteAt(p, off)
	return done, n.explain(err)
}

// ReadAt reads back what was written, to check it.
func (n *newExported) ReadAt(p []byte, off int64) (int, error) {
	done, err := n.export.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return done, err
	}
	return done, n.explain(err)
}

// Truncate changes nothing: the size was chosen when the image was made.
func (n *newExported) Truncate(size int64) error {
	if size != 0 && size != n.export.Size() {
		return n.named(fmt.Errorf("it was made for %d bytes, not for %d", n.export.Size(), size))
	}
	return nil
}

// Sync makes durable what was written.
func (n *newExported) Sync() error { return n.explain(n.export.Flush()) }

func (n *newExported) explain(err error) error {
	if err == nil {
		return nil
	}
	return n.named(n.export.explain(err))
}

// Commit ends QEMU, which brings its tables in order, before the image gets its name.
func (n *newExported) Commit() error {
	if err := n.end(); err != nil {
		return errors.Join(err, n.NewDisk.Abort())
	}
	return n.NewDisk.Commit()
}

// CommitSoon is Commit without waiting for the disk.
func (n *newExported) CommitSoon() error {
	if err := n.end(); err != nil {
		return errors.Join(err, n.NewDisk.Abort())
	}
	return n.NewDisk.CommitSoon()
}

// Abort removes what was written.
func (n *newExported) Abort() error { return errors.Join(n.end(), n.NewDisk.Abort()) }

// Keep leaves what was written.
func (n *newExported) Keep() error { return errors.Join(n.end(), n.NewDisk.Keep()) }

// end ends QEMU and fails if it did not end well.
func (n *newExported) end() error {
	if n.export == nil {
		return nil
	}
	err := n.export.close(context.Background())
	if state := n.export.child.ProcessState; err == nil && !state.Success() {
		err = n.explain(fmt.Errorf("qemu-nbd ended with %s", state))
	}
	n.export = nil
	return err
}
