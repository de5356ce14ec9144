package image

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"kluis/internal/fabric"
)

// FixedVHD is a disk as a fixed VHD, which nobody has to write first: the disk's bytes, up to a whole sector, and a
// footer. It may be read from many goroutines, as the disk may.
type FixedVHD struct {
	disk   fabric.Disk
	data   int64 // where the footer begins
	footer [vhdFooterSize]byte
}

// AsFixedVHD shows a disk so. The id and the time are those of the disk: the same disk has the same bytes whenever
// it is shown.
func AsFixedVHD(disk fabric.Disk, id [16]byte, created time.Time) *FixedVHD {
	data := (disk.Size() + sector - 1) / sector * sector
	return &FixedVHD{disk, data, fixedFooter(data, id, created)}
}

// sector is what a VHD counts in.
const sector = 512

// Size is the length of the image.
func (v *FixedVHD) Size() int64 { return v.data + vhdFooterSize }

// ReadAt reads the image.
func (v *FixedVHD) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	for n < len(p) {
		var got int
		switch at := off + int64(n); {
		case at >= v.Size():
			return n, io.EOF
		case at >= v.data:
			got = copy(p[n:], v.footer[at-v.data:])
		case at >= v.disk.Size():
			got = int(min(int64(len(p)-n), v.data-at))
			clear(p[n : n+got])
		default:
			want := min(int64(len(p)-n), v.disk.Size()-at)
			got, err = v.disk.ReadAt(p[n:n+int(want)], at)
			if int64(got) == want {
				err = nil // a disk may say with its last bytes that they are the last
			}
		}
		n += got
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Extents yields the sectors that hold something, ascending and apart from each other. The last is the footer's.
func (v *FixedVHD) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		var start, end int64 // not yielded yet, because the next may touch it
		for e, err := range v.disk.Extents(ctx) {
			if err != nil {
				yield(fabric.Extent{}, err)
				return
			}
			from, to := e.Offset/sector*sector, (e.Offset+e.Length+sector-1)/sector*sector
			if from <= end && end > 0 {
				end = max(end, to)
				continue
			}
			if end > start && !yield(fabric.Extent{Offset: start, Length: end - start}, nil) {
				return
			}
			start, end = from, to
		}
		if end == v.data {
			yield(fabric.Extent{Offset: start, Length: v.Size() - start}, nil)
			return
		}
		if end > start && !yield(fabric.Extent{Offset: start, Length: end - start}, nil) {
			return
		}
		yield(fabric.Extent{Offset: v.data, Length: vhdFooterSize}, nil)
	}
}

// vhdEpoch is where a VHD begins to count seconds.
var vhdEpoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// fixedFooter is the footer of a fixed VHD of size bytes (the specification's "Hard Disk Footer Format"). It names
// Windows as its maker: readers take the size of the disk from the footer if that made it, and from the geometry,
// which is rounded, if anybody did whom they don't know.
func fixedFooter(size int64, id [16]byte, created time.Time) (footer [vhdFooterSize]byte) {
	f := footer[:]
	copy(f, vhdMagic)
	be.PutUint32(f[8:], 2)           // features: one bit that is always set
	be.PutUint32(f[12:], 0x00010000) // version of the format
	be.PutUint64(f[16:], ^uint64(0)) // no further structure
	be.PutUint32(f[24:], uint32(max(0, created.Sub(vhdEpoch)/time.Second)))
	copy(f[28:], "win ")
	be.PutUint32(f[32:], 0x00060001) // its version
	copy(f[36:], "Wi2k")
	be.PutUint64(f[40:], uint64(size))
	be.PutUint64(f[48:], uint64(size))
	be.PutUint32(f[56:], geometry(size/sector))
	be.PutUint32(f[60:], vhdFixed)
	copy(f[68:], id[:])
	be.PutUint32(f[64:], vhdSum(f))
	return footer
}

// geometry is the largest of cylinders (16 bits), heads and sectors (8 bits each) with no more sectors than the disk
// has (the specification's appendix "CHS Calculation").
func geometry(sectors int64) uint32 {
	sectors = min(sectors, 65535*16*255)
	if sectors >= 65535*16*63 {
		return chs(sectors, 16, 255)
	}
	tracks := sectors / 17
	if heads := max(4, (tracks+1023)/1024); heads <= 16 && tracks < heads*1024 {
		return chs(sectors, heads, 17)
	}
	if sectors/31 < 16*1024 {
		return chs(sectors, 16, 31)
	}
	return chs(sectors, 16, 63)
}

func chs(sectors, heads, perTrack int64) uint32 {
	return uint32(sectors/perTrack/heads)<<16 | uint32(heads)<<8 | uint32(perTrack)
}
