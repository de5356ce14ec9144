package image

import (
	"context"
	"io"
	"math"

	"kluis/internal/fabric"
)

// VHD, from Microsoft's Virtual Hard Disk Image Format Specification 1.0. A footer of 512 bytes stands
// at the end of every image, and a copy at the beginning of those that grow.
const (
	vhdMagic      = "conectix"
	vhdFooterSize = 512

	vhdFixed        = 2
	vhdDynamic      = 3
	vhdDifferencing = 4
)

// identifyVHD reads the footer at off.
func identifyVHD(r io.ReaderAt, off, size int64) (header, error) {
	footer, err := readAll(r, off, vhdFooterSize, size)
	if err != nil {
		return header{}, err
	}
	sum := be.Uint32(footer[64:])
	if vhdSum(footer) != sum {
		return header{}, faultf(fabric.Unreadable, "the checksum of its VHD footer is wrong")
	}
	virtual, kind := be.Uint64(footer[48:]), be.Uint32(footer[60:])
	if virtual > math.MaxInt64 || virtual%512 != 0 {
		return header{}, faultf(fabric.Unreadable, "it has %d bytes for its guest", virtual)
	}
	h := header{format: VHD, size: int64(virtual)}
	switch kind {
	case vhdFixed:
		if off != size-vhdFooterSize || int64(virtual) > off {
			return header{}, faultf(fabric.Truncated, "its footer says %d bytes and there are %d", virtual, size-vhdFooterSize)
		}
	case vhdDynamic:
		h.tables = checkVHD
	case vhdDifferencing:
		return header{}, faultf(fabric.HasBackingFile, "it is a differencing VHD")
	default:
		return header{}, faultf(fabric.UnknownFormat, "it is a VHD of type %d", kind)
	}
	return h, nil
}

// vhdSum is the complement of the sum of all bytes but the sum's own.
func vhdSum(footer []byte) uint32 {
	var sum uint32
	for i, b := range footer {
		if i < 64 || i >= 68 {
			sum += uint32(b)
		}
	}
	return ^sum
}

// checkVHD looks for the footer at the end: whoever adds a block writes it again behind it.
func checkVHD(_ context.Context, r io.ReaderAt, size int64) error {
	end, err := readAll(r, size-vhdFooterSize, len(vhdMagic), size)
	if err != nil {
		return err
	}
	if string(end) != vhdMagic {
		return faultf(fabric.Truncated, "it does not end in a VHD footer")
	}
	return nil
}
