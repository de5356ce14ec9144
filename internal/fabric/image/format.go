package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"kluis/internal/fabric"
)

// header is what an image says of itself.
type header struct {
	format string
	size   int64 // what the guest sees
	// tables checks that whatever the image's tables point to lies inside the file; nil where nothing does.
	tables func(ctx context.Context, r io.ReaderAt, size int64) error
	// extents yields what is allocated, for a format whose driver in QEMU does not say; nil for the others.
	extents func(ctx context.Context, r io.ReaderAt, size int64) iter.Seq2[fabric.Extent, error]
}

// driver returns the options by which QEMU opens the format.
func (h header) driver() string {
	switch h.format {
	case VHD:
		// QEMU's vpc driver otherwise believes the geometry of some makers' disks, and cuts their ends off.
		return "driver=vpc,force_size_calc=current_size"
	case VHDX:
		return "driver=vhdx"
	}
	return "driver=qcow2"
}

// complete fails with Truncated if the file is shorter than its tables say. QEMU returns zeros for what
// lies beyond the end of an image, without an error: nobody would notice before the restore.
func (h header) complete(ctx context.Context, r io.ReaderAt, size int64) error {
	if h.tables == nil {
		return nil
	}
	return h.tables(ctx, r, size)
}

// foreign are the magic numbers of formats that cannot be backed up. What has no magic number is raw.
var foreign = []struct {
	off   int64
	magic string
	name  string
}{
	{0, "KDMV", "VMDK"}, {0, "COWD", "VMDK"}, {0, "# Disk DescriptorFile", "VMDK"}, {0x40, "\x7f\x10\xda\xbe", "VDI"},
	{0, "QED\x00", "QED"}, {0, "WithoutFreeSpace", "Parallels"}, {0, "WithouFreSpacExt", "Parallels"},
}

// identify recognises the format of an image of size bytes.
func identify(r io.ReaderAt, size int64) (header, error) {
	head, err := readUpTo(r, 0, 128, size)
	if err != nil {
		return header{}, err
	}
	switch {
	case bytes.HasPrefix(head, []byte(qcow2Magic)):
		return identifyQcow2(head)
	case bytes.HasPrefix(head, []byte(vhdxMagic)):
		return identifyVHDX(r, size)
	case bytes.HasPrefix(head, []byte(vhdMagic)):
		return identifyVHD(r, 0, size)
	}
	for _, f := range foreign {
		if int64(len(head)) > f.off && bytes.HasPrefix(head[f.off:], []byte(f.magic)) {
			return header{}, faultf(fabric.UnknownFormat, "it is a %s image", f.name)
		}
	}
	if size >= vhdFooterSize {
		end, err := readUpTo(r, size-vhdFooterSize, len(vhdMagic), size)
		if err != nil {
			return header{}, err
		}
		if string(end) == vhdMagic {
			return identifyVHD(r, size-vhdFooterSize, size)
		}
	}
	return header{format: Raw, size: size}, nil
}

// identifyAs reads an image as what it was when it was taken in. A raw image is raw whatever its guest
// has written into it; another that lost its header has lost more.
func identifyAs(r io.ReaderAt, size int64, format string, expected int64) (header, error) {
	switch format {
	case Raw:
		return header{format: Raw, size: size}, nil
	case Qcow2, VHD, VHDX:
	default:
		return header{}, faultf(fabric.UnknownFormat, "%q is none of raw, qcow2, vhd and vhdx", format)
	}
	h, err := identify(r, size)
	if err != nil {
		return header{}, err
	}
	if h.format != format {
		if size == 0 || format == VHD && size < expected+vhdFooterSize {
			return header{}, faultf(fabric.Truncated, "it has %d bytes and no %s header", size, format)
		}
		return header{}, faultf(fabric.Changed, "it was %s and is %s", format, h.format)
	}
	return h, nil
}

// readUpTo reads n bytes, or fewer where the file ends.
func readUpTo(r io.ReaderAt, off int64, n int, size int64) ([]byte, error) {
	b := make([]byte, max(0, min(int64(n), size-off)))
	if got, err := r.ReadAt(b, off); got < len(b) {
		if errors.Is(err, io.EOF) {
			err = faultf(fabric.Truncated, "it ends at %d and had %d bytes", off+int64(got), size)
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// readAll reads n bytes of an image's tables, which must be there.
func readAll(r io.ReaderAt, off int64, n int, size int64) ([]byte, error) {
	if off < 0 || off > size-int64(n) {
		return nil, faultf(fabric.Truncated, "its tables go to %d and it has %d bytes", off+int64(n), size)
	}
	return readUpTo(r, off, n, size)
}

// inside checks one reference of a table.
func inside(off, n uint64, size int64) error {
	if end := off + n; end < off || end > uint64(size) {
		return faultf(fabric.Truncated, "its tables point to %d bytes at %d and it has %d", n, off, size)
	}
	return nil
}

var (
	be = binary.BigEndian
	le = binary.LittleEndian
)
