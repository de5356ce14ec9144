package image

import (
	"context"
	"errors"
	"io"
	"iter"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kluis/internal/fabric"
)

// rawDisk is an image whose bytes are the disk's.
type rawDisk struct {
	file *file
	id   string
}

func (d *rawDisk) ID() string                       { return d.id }
func (d *rawDisk) Size() int64                      { return d.file.size }
func (*rawDisk) Changed() bool                      { return false }
func (d *rawDisk) Whole() (fabric.Disk, string)     { return d, "" }
func (d *rawDisk) Verify(ctx context.Context) error { return d.file.verify(ctx) }
func (d *rawDisk) Modified() time.Time              { return d.file.modified }
func (d *rawDisk) close(context.Context) error      { return d.file.Close() }

// ReadAt reads what the file has. A file that has become shorter is an error, never a short disk.
func (d *rawDisk) ReadAt(p []byte, off int64) (int, error) {
	var eof error
	switch {
	case off < 0:
		return 0, errors.New("negative offset")
	case off > d.file.size || off == d.file.size && len(p) > 0:
		return 0, io.EOF
	case int64(len(p)) > d.file.size-off:
		p, eof = p[:d.file.size-off], io.EOF
	}
	n, err := d.file.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, eof
	case errors.Is(err, io.EOF):
		err = faultf(fabric.Truncated, "it ends at %d and had %d bytes", off+int64(n), d.file.size)
	}
	return n, named(d.file.path, err)
}

// Extents yields what is not a hole. Where the file system knows no holes it is one extent.
func (d *rawDisk) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		for off := int64(0); off < d.file.size; {
			err := ctx.Err()
			var e fabric.Extent
			if err == nil {
				e, err = d.next(off)
			}
			if err != nil {
				yield(fabric.Extent{}, named(d.file.path, err))
				return
			}
			if e.Length == 0 || !yield(e, nil) {
				return
			}
			off = e.Offset + e.Length
		}
	}
}

// next returns the first extent of data at or after off; one without length if there is none.
func (d *rawDisk) next(off int64) (fabric.Extent, error) {
	fd := int(d.file.Fd())
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return fabric.Extent{}, nil
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOPNOTSUPP) {
		return fabric.Extent{Offset: off, Length: d.file.size - off}, nil
	}
	if err != nil {
		return fabric.Extent{}, err
	}
	end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
	if errors.Is(err, syscall.ENXIO) {
		return fabric.Extent{}, faultf(fabric.Truncated, "it ended while its holes were looked for")
	}
	if err != nil {
		return fabric.Extent{}, err
	}
	start, end = min(start, d.file.size), min(end, d.file.size)
	return fabric.Extent{Offset: start, Length: end - start}, nil
}
