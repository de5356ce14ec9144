package pack

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"kluis/internal/recovery/chunk"
)

// Range is a part of a pack.
type Range struct{ Offset, Length int64 }

// SumsSize returns how many bytes at the end of a pack are sums and trailer.
func (t Trailer) SumsSize() int64 {
	return 4*((t.FooterOff+t.FooterLen+sumBlock-1)/sumBlock) + TrailerSize
}

// Scrub compares the bytes of a pack with its checksums, for which no key is needed. r gives everything
// before the sums, and sums are the last t.SumsSize bytes of the pack. It returns the ranges that are
// not what was written, neighbours as one. Checksums find decay; they prove nothing.
func Scrub(r io.Reader, t Trailer, sums []byte) ([]Range, error) {
	if int64(len(sums)) != t.SumsSize() {
		return nil, fmt.Errorf("pack with a senseless trailer: %w", chunk.ErrDamaged)
	}
	end := t.FooterOff + t.FooterLen
	if crc32.Checksum(sums[:len(sums)-12], castagnoli) != binary.BigEndian.Uint32(sums[len(sums)-12:]) {
		return []Range{{end, int64(len(sums))}}, nil
	}
	var bad []Range
	block := make([]byte, sumBlock)
	for off := int64(0); off < end; off += sumBlock {
		part := block[:min(sumBlock, end-off)]
		if _, err := io.ReadFull(r, part); err != nil {
			return bad, err
		}
		if crc32.Checksum(part, castagnoli) == binary.BigEndian.Uint32(sums[off/sumBlock*4:]) {
			continue
		}
		if n := len(bad); n > 0 && bad[n-1].Offset+bad[n-1].Length == off {
			bad[n-1].Length += int64(len(part))
			continue
		}
		bad = append(bad, Range{off, int64(len(part))})
	}
	return bad, nil
}
