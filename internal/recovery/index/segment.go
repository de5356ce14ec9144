package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"sort"

	"github.com/zeebo/blake3"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

// A segment, all integers big-endian:
//
//	blocks   each up to 128 entries, sorted by chunk id, and a tag
//	         entry: chunk id (16) · number of the pack (4) · slot (2)
//	packs    their ids
//	fences   the first 8 bytes of the first id of each block
//	filter   a Bloom filter of 10 bits an entry, probed at 7 places
//	trailer  magic "KLUISIDX" · version · packs · entries · bytes of the filter · tag
//
// A tag is the first 16 bytes of keyed BLAKE3. That of a block covers the tag of the pack ids, the number
// of the block and its entries, because an entry means nothing without the packs; that of the trailer covers
// all after the blocks.
const (
	magic       = "KLUISIDX"
	version     = 1
	entrySize   = 22
	blockSlots  = 128
	tagSize     = 16
	blockSize   = blockSlots*entrySize + tagSize
	trailerSize = 8 + 4 + 4 + 8 + 8 + tagSize

	filterBits   = 10
	filterProbes = 7
)

var errSegment = errors.New("segment of the index is damaged")

type tag [tagSize]byte

// mac makes tags.
type mac struct{ h *blake3.Hasher }

func newMAC(key []byte) *mac {
	h, err := blake3.NewKeyed(key)
	if err != nil {
		panic(err) // the key is of another length than chunk.KeySize: a programmer's mistake
	}
	return &mac{h}
}

func (m *mac) tag(parts ...[]byte) (t tag) {
	m.h.Reset()
	for _, p := range parts {
		_, _ = m.h.Write(p)
	}
	var sum [32]byte
	copy(t[:], m.h.Sum(sum[:0]))
	return t
}

func (m *mac) block(packs tag, number int64, entries []byte) tag {
	return m.tag([]byte("block"), packs[:], binary.BigEndian.AppendUint64(nil, uint64(number)), entries)
}

// segment is an open segment.
type segment struct {
	name    string // of its file
	r       io.ReaderAt
	close   func() error
	entries int64
	packs   []pack.ID
	packTag tag
	fences  []byte
	filter  filter
	buf     [blockSize]byte
}

// openSegment reads everything but the blocks.
func openSegment(r io.ReaderAt, size int64, m *mac) (*segment, error) {
	var end [trailerSize]byte
	if size < trailerSize {
		return nil, errSegment
	}
	if _, err := r.ReadAt(end[:], size-trailerSize); err != nil {
		return nil, fmt.Errorf("read segment of the index: %w", err)
	}
	packs, entries := int64(binary.BigEndian.Uint32(end[12:])), binary.BigEndian.Uint64(end[16:])
	filterLen := binary.BigEndian.Uint64(end[24:])
	if string(end[:8]) != magic || binary.BigEndian.Uint32(end[8:]) != version ||
		entries > uint64(size)/entrySize || filterLen > uint64(size) || filterLen == 0 {
		return nil, errSegment
	}
	s := &segment{r: r, entries: int64(entries)}
	blocks := s.blocks()
	off := s.entries*entrySize + blocks*tagSize
	if off+packs*16+blocks*8+int64(filterLen)+trailerSize != size {
		return nil, errSegment
	}
	tail := make([]byte, size-trailerSize-off)
	if _, err := r.ReadAt(tail, off); err != nil {
		return nil, fmt.Errorf("read segment of the index: %w", err)
	}
	if m.tag([]byte("trailer"), tail, end[:trailerSize-tagSize]) != tag(end[trailerSize-tagSize:]) {
		return nil, errSegment
	}
	s.packTag = m.tag([]byte("packs"), tail[:packs*16])
	for ; packs > 0; packs-- {
		s.packs, tail = append(s.packs, pack.ID(tail[:16])), tail[16:]
	}
	s.fences, s.filter = tail[:blocks*8], tail[blocks*8:]
	return s, nil
}

// fence returns what the first id of a block begins with.
func (s *segment) fence(block int) uint64 { return binary.BigEndian.Uint64(s.fences[block*8:]) }

func (s *segment) blocks() int64 { return (s.entries + blockSlots - 1) / blockSlots }

// block reads the entries of a block. They are valid until the next call.
func (s *segment) block(m *mac, number int64) ([]byte, error) {
	n := min(blockSlots, s.entries-number*blockSlots) * entrySize
	b := s.buf[:n+tagSize]
	if _, err := s.r.ReadAt(b, number*blockSize); err != nil {
		return nil, fmt.Errorf("read segment of the index: %w", err)
	}
	if m.block(s.packTag, number, b[:n]) != tag(b[n:]) {
		return nil, errSegment
	}
	return b[:n], nil
}

// find yields the places of a chunk.
func (s *segment) find(m *mac, id chunk.ID) iter.Seq2[Location, error] {
	return func(yield func(Location, error) bool) {
		if !s.filter.has(id) {
			return
		}
		key := binary.BigEndian.Uint64(id[:])
		// The block before the first that begins with a greater key may hold the id, and so may all that
		// begin with an equal one.
		blocks := int(s.blocks())
		first := sort.Search(blocks, func(b int) bool { return s.fence(b) >= key })
		for b := max(0, first-1); b < blocks && s.fence(b) <= key; b++ {
			block, err := s.block(m, int64(b))
			if err != nil {
				yield(Location{}, err)
				return
			}
			n := len(block) / entrySize
			i := sort.Search(n, func(i int) bool { return bytes.Compare(block[i*entrySize:][:16], id[:]) >= 0 })
			for ; i < n && chunk.ID(block[i*entrySize:][:16]) == id; i++ {
				at, err := s.location(block[i*entrySize:])
				if !yield(at, err) || err != nil {
					return
				}
			}
		}
	}
}

func (s *segment) location(entry []byte) (Location, error) {
	number := binary.BigEndian.Uint32(entry[16:])
	if int64(number) >= int64(len(s.packs)) {
		return Location{}, errSegment
	}
	return Location{s.packs[number], uint32(binary.BigEndian.Uint16(entry[20:]))}, nil
}

// filter is a Bloom filter. Chunk ids are keyed hashes, so their own bytes are the probes.
type filter []byte

func newFilter(entries int64) filter { return make(filter, entries*filterBits/8+1) }

// places yields where to look: byte and bit.
func (f filter) places(id chunk.ID) iter.Seq2[uint64, byte] {
	return func(yield func(uint64, byte) bool) {
		h, step := binary.BigEndian.Uint64(id[8:]), binary.BigEndian.Uint64(id[:])|1
		for range filterProbes {
			place, _ := bits.Mul64(h, uint64(len(f))*8)
			if !yield(place/8, 1<<(place%8)) {
				return
			}
			h += step
		}
	}
}

func (f filter) add(id chunk.ID) {
	for at, bit := range f.places(id) {
		f[at] |= bit
	}
}

func (f filter) has(id chunk.ID) bool {
	for at, bit := range f.places(id) {
		if f[at]&bit == 0 {
			return false
		}
	}
	return true
}
