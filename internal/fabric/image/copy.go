package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// CopyPath is where a copy of that name in the folder dir, below the one for restored disks, lies.
func (f *Fabric) CopyPath(dir, name string) (string, error) {
	path, _, err := f.restorePath(dir, name)
	if err != nil {
		return "", named(path, err)
	}
	return path, nil
}

// Copy copies the file of an image as it is, in its format, to where CopyPath says. Nobody who heeds locks writes to
// the image meanwhile. Where the file system can, both share their blocks until one is written to, and the copy takes
// neither time nor room; elsewhere the kernel copies what is no hole. progress is told how many bytes of the file are
// done. The copy appears when it is whole and durable. Errors are *fabric.ImageError, of kind NoSpace where the file
// system is too full for it.
func (f *Fabric) Copy(ctx context.Context, spec fabric.DiskSpec, dir, name string, progress func(done, total int64)) error {
	from, err := f.open(spec.Path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	if err := f.checkSource(ctx, from, spec); err != nil {
		return named(from.path, err)
	}
	to, err := f.NewSparseDisk(ctx, dir, name, from.size, 0)
	if err != nil {
		return err
	}
	if err := copyFile(ctx, from, to, progress); err != nil {
		return errors.Join(err, to.Abort())
	}
	if err := from.verify(ctx); err != nil {
		return errors.Join(err, to.Abort())
	}
	return to.Commit()
}

// checkSource makes sure that an image is whole, and nobody's to write to.
func (f *Fabric) checkSource(ctx context.Context, from *file, spec fabric.DiskSpec) error {
	if err := from.lock(f.log); err != nil {
		return err
	}
	h, err := identifyAs(from, from.size, spec.Format, spec.ExpectedSize)
	if err == nil && h.size < spec.ExpectedSize {
		err = faultf(fabric.Truncated, "it has %d bytes and had %d", h.size, spec.ExpectedSize)
	}
	if err == nil {
		err = h.complete(ctx, from, from.size)
	}
	return err
}

func copyFile(ctx context.Context, from *file, to *NewDisk, progress func(done, total int64)) error {
	if unix.IoctlFileClone(int(to.file.Fd()), int(from.Fd())) == nil {
		progress(from.size, from.size)
		return nil
	}
	if err := to.reserve(from.size, min(from.allocated, from.size)); err != nil {
		return named(to.path, err)
	}
	disk := &rawDisk{file: from} // whatever the format, what the file has is what is copied
	for e, err := range disk.Extents(ctx) {
		if err != nil {
			return err
		}
		for off, end := e.Offset, e.Offset+e.Length; off < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := copyRange(to.file, from.File, off, min(copyAtOnce, end-off))
			if err != nil {
				return named(to.path, err)
			}
			off += n
			progress(off, from.size)
		}
	}
	return nil
}

// copyAtOnce is what is copied between two looks whether somebody wants it stopped.
const copyAtOnce = 16 << 20

// copyRange copies up to n bytes to the same place of another file: in the kernel, or where it doesn't, by hand.
func copyRange(to, from *os.File, off, n int64) (int64, error) {
	in, out := off, off
	done, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(n), 0)
	switch {
	case err == nil && done > 0:
		return int64(done), nil
	case err == nil:
		return 0, fmt.Errorf("copy at %d: %w", off, io.ErrUnexpectedEOF)
	case !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS):
		return 0, fmt.Errorf("copy at %d: %w", off, err)
	}
	return io.Copy(io.NewOffsetWriter(to, off), io.NewSectionReader(from, off, n))
}
