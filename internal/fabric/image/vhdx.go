package image

import (
	"context"
	"io"
	"iter"
	"math/bits"

	"kluis/internal/fabric"
)

// VHDX, from Microsoft's [MS-VHDX]. All numbers are little-endian; GUIDs are written here as they stand in a file.
const (
	vhdxMagic = "vhdxfile"

	vhdxRegions   = 192 << 10 // the table of regions; a copy stands 64 KiB behind it
	vhdxTableSize = 64 << 10
	vhdxMaxSize   = 64 << 40
	vhdxHasParent = 1 << 1

	vhdxBAT      = "\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08"
	vhdxMetadata = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"

	vhdxFileParameters = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"
	vhdxVirtualSize    = "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"
	vhdxSectorSize     = "\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"
)

// vhdx is what is needed to walk the block allocation table.
type vhdx struct {
	bat, block, virtual, sector uint64
}

func identifyVHDX(r io.ReaderAt, size int64) (header, error) {
	table, err := readAll(r, vhdxRegions, vhdxTableSize, size)
	if err != nil {
		return header{}, err
	}
	if string(table[:4]) != "regi" {
		return header{}, faultf(fabric.Unreadable, "it has no table of regions")
	}
	regions := map[string]uint64{}
	for i := range min(le.Uint32(table[8:]), (vhdxTableSize-16)/32) {
		e := table[16+32*i:]
		regions[string(e[:16])] = le.Uint64(e[16:])
	}
	v := vhdx{bat: regions[vhdxBAT]}
	if v.bat == 0 || regions[vhdxMetadata] == 0 || regions[vhdxMetadata] > uint64(size) {
		return header{}, faultf(fabric.Unreadable, "its table of regions is not complete")
	}
	if err := v.readMetadata(r, int64(regions[vhdxMetadata]), size); err != nil {
		return header{}, err
	}
	return header{VHDX, int64(v.virtual), v.check, v.extents}, nil
}

func (v *vhdx) readMetadata(r io.ReaderAt, off, size int64) error {
	table, err := readAll(r, off, vhdxTableSize, size)
	if err != nil {
		return err
	}
	if string(table[:8]) != "metadata" {
		return faultf(fabric.Unreadable, "it has no metadata")
	}
	var flags uint32
	for i := range min(le.Uint16(table[10:]), (vhdxTableSize-32)/32) {
		e := table[32+32*int(i):]
		item, err := readAll(r, off+int64(le.Uint32(e[16:])), 8, size)
		if err != nil {
			return err
		}
		switch string(e[:16]) {
		case vhdxFileParameters:
			v.block, flags = uint64(le.Uint32(item)), le.Uint32(item[4:])
		case vhdxVirtualSize:
			v.virtual = le.Uint64(item)
		case vhdxSectorSize:
			v.sector = uint64(le.Uint32(item))
		}
	}
	switch {
	case flags&vhdxHasParent != 0:
		return faultf(fabric.HasBackingFile, "it is a differencing VHDX")
	case v.virtual > vhdxMaxSize, v.sector != 512 && v.sector != 4096, v.block < 1<<20 || v.block > 256<<20 || bits.OnesCount64(v.block) != 1:
		return faultf(fabric.Unreadable, "its metadata make no sense (%d bytes in blocks of %d, sectors of %d)", v.virtual, v.block, v.sector)
	}
	return nil
}

// check fails if a block lies beyond the end of the file.
func (v vhdx) check(ctx context.Context, r io.ReaderAt, size int64) error {
	for b, err := range v.blocks(ctx, r, size) {
		if err != nil {
			return err
		}
		if err := inside(b.at, v.block, size); err != nil {
			return err
		}
	}
	return nil
}

// extents yields the blocks that hold something, for which QEMU's driver has no answer.
func (v vhdx) extents(ctx context.Context, r io.ReaderAt, size int64) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		for b, err := range v.blocks(ctx, r, size) {
			off := int64(b.number * v.block)
			if !yield(fabric.Extent{Offset: off, Length: min(int64(v.block), int64(v.virtual)-off)}, err) || err != nil {
				return
			}
		}
	}
}

// vhdxBlock is a block that is present: its number, and where it is in the file.
type vhdxBlock struct{ number, at uint64 }

// blocks walks the table: an entry a block and, after each so many of them, one for a bitmap that only
// differencing images have. An entry says its state in the low bits and where the block is in the high.
func (v vhdx) blocks(ctx context.Context, r io.ReaderAt, size int64) iter.Seq2[vhdxBlock, error] {
	const present, partial, window = 6, 7, 8 << 10
	return func(yield func(vhdxBlock, error) bool) {
		ratio := v.sector << 23 / v.block
		blocks := (v.virtual + v.block - 1) / v.block
		if blocks == 0 {
			return
		}
		entries := blocks + (blocks-1)/ratio
		if err := inside(v.bat, entries*8, size); err != nil {
			yield(vhdxBlock{}, err)
			return
		}
		for i := uint64(0); i < entries; i += window {
			n := min(window, entries-i)
			table, err := readAll(r, int64(v.bat+i*8), int(n*8), size)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(vhdxBlock{}, err)
				return
			}
			for j := range n {
				entry, group := le.Uint64(table[j*8:]), (i+j)/(ratio+1)
				if (i+j)%(ratio+1) == ratio || entry&7 != present && entry&7 != partial {
					continue
				}
				if number := i + j - group; number < blocks && !yield(vhdxBlock{number, entry >> 20 << 20}, nil) {
					return
				}
			}
		}
	}
}
