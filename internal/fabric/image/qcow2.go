package image

import (
	"context"
	"io"
	"math"

	"kluis/internal/fabric"
)

// qcow2, from docs/interop/qcow2.txt of QEMU.
const (
	qcow2Magic = "QFI\xfb"

	qcow2DataFile    = 1 << 2 // incompatible feature: data is in another file
	qcow2ExtendedL2  = 1 << 4 // incompatible feature: entries of 16 bytes
	qcow2Known       = 1<<5 - 1
	qcow2OffsetMask  = 0x00fffffffffffe00
	qcow2Compressed  = 1 << 62
	qcow2Zero        = 1 << 0       // reads as zeros, whatever the offset is
	maxQcow2L1       = 32 << 20 / 8 // entries; QEMU's limit
	qcow2TableWindow = 64 << 10
)

func identifyQcow2(head []byte) (header, error) {
	if len(head) < 72 {
		return header{}, faultf(fabric.Truncated, "it has %d bytes, which is no qcow2 header", len(head))
	}
	version, size := be.Uint32(head[4:]), be.Uint64(head[24:])
	q := qcow2{
		clusterBits: be.Uint32(head[20:]), entrySize: 8, virtual: size,
		l1Count: be.Uint32(head[36:]), l1Offset: be.Uint64(head[40:]),
	}
	switch {
	case version != 2 && version != 3:
		return header{}, faultf(fabric.UnknownFormat, "it is qcow of version %d", version)
	case be.Uint64(head[8:]) != 0:
		return header{}, faultf(fabric.HasBackingFile, "its header names a backing file")
	case be.Uint32(head[32:]) != 0:
		return header{}, faultf(fabric.UnknownFormat, "it is encrypted by QEMU, not by its guest")
	case q.clusterBits < 9 || q.clusterBits > 21:
		return header{}, faultf(fabric.Unreadable, "its clusters have 2^%d bytes", q.clusterBits)
	case size > math.MaxInt64-1<<21:
		return header{}, faultf(fabric.Unreadable, "it has %d bytes for its guest", size)
	case q.l1Count > maxQcow2L1:
		return header{}, faultf(fabric.Unreadable, "its first table has %d entries", q.l1Count)
	}
	if version == 3 {
		if len(head) < 104 {
			return header{}, faultf(fabric.Truncated, "it has %d bytes, which is no qcow2 header", len(head))
		}
		features := be.Uint64(head[72:])
		if features&qcow2DataFile != 0 {
			return header{}, faultf(fabric.HasBackingFile, "its data is in another file")
		}
		if features&^qcow2Known != 0 {
			return header{}, faultf(fabric.UnknownFormat, "it uses features that are not known (%#x)", features)
		}
		if features&qcow2ExtendedL2 != 0 {
			q.entrySize = 16
		}
	}
	// QEMU shows whole sectors.
	return header{format: Qcow2, size: int64(size+511) &^ 511, tables: q.check}, nil
}

// qcow2 is what is needed to walk the tables: one entry a cluster, in tables of a cluster each.
type qcow2 struct {
	clusterBits, l1Count uint32
	entrySize            uint64
	virtual, l1Offset    uint64
}

// check walks all tables. They are read in windows, so memory does not depend on what the header says.
func (q qcow2) check(ctx context.Context, r io.ReaderAt, size int64) error {
	if err := inside(q.l1Offset, uint64(q.l1Count)*8, size); err != nil {
		return err
	}
	cluster := uint64(1) << q.clusterBits
	perTable := cluster / q.entrySize
	table := make([]byte, cluster)
	tables := uint64(size) >> q.clusterBits // no two entries share a table, so there is room for so many
	for i := uint64(0); i < uint64(q.l1Count); i += qcow2TableWindow / 8 {
		window := min(qcow2TableWindow/8, uint64(q.l1Count)-i)
		l1, err := readAll(r, int64(q.l1Offset+i*8), int(window*8), size)
		if err != nil {
			return err
		}
		for j := range window {
			off := be.Uint64(l1[j*8:]) & qcow2OffsetMask
			first := (i + j) * perTable // the cluster of the guest that the table begins with
			if off == 0 || first > q.virtual>>q.clusterBits {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := inside(off, cluster, size); err != nil {
				return err
			}
			if tables == 0 {
				return faultf(fabric.Unreadable, "it has more tables than room for them")
			}
			tables--
			if _, err := r.ReadAt(table, int64(off)); err != nil {
				return err
			}
			if err := q.checkTable(table, first, size); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q qcow2) checkTable(table []byte, first uint64, size int64) error {
	cluster := uint64(1) << q.clusterBits
	for k := uint64(0); k*q.entrySize < cluster; k++ {
		entry := be.Uint64(table[k*q.entrySize:])
		start := (first + k) << q.clusterBits
		if entry == 0 || start >= q.virtual {
			continue
		}
		if entry&qcow2Compressed != 0 {
			bits := 62 - (q.clusterBits - 8)
			off, sectors := entry&(1<<bits-1), entry&(1<<62-1)>>bits
			// Of the last sector only the beginning has to be there: how far the data goes in it is not noted.
			if err := inside(off&^511, sectors*512+1, size); err != nil {
				return err
			}
			continue
		}
		if off := entry & qcow2OffsetMask; off != 0 && entry&qcow2Zero == 0 {
			// The cluster at the guest's end is written as far as the guest goes.
			if err := inside(off, min(cluster, (q.virtual-start+511)&^511), size); err != nil {
				return err
			}
		}
	}
	return nil
}
