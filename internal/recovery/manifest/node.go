// Package manifest knows which chunks make a disk, and which disks make a recovery point.
//
// A disk's manifest is a tree. A leaf (level 0) covers Fanout chunks of the disk, a node of level n covers
// Fanout nodes of level n-1. A place without a reference is a hole: zeros, whatever its size.
// Nodes are stored as chunks, so a node that did not change since the last recovery point is
// the same chunk, and all that is below it is shared: an increment costs what changed, and
// still every recovery point is a full one.
//
// A reference names a chunk by id and says where it was stored (pack and slot). The id is what counts;
// the place is a hint that is right until a pack is rewritten.
//
// A Point (point.go) is the small document that holds the roots of its disks' trees. Storing it is the
// commit.
package manifest

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

const (
	// Fanout is the number of places of a node.
	Fanout = 1024
	// MaxNode bounds an encoded node.
	MaxNode = 256 << 10
	// MaxLevels bounds the height of a tree.
	MaxLevels = 5

	nodeVersion = 1
)

// Ref refers to a chunk. The zero Ref is a hole.
type Ref struct {
	ID   chunk.ID
	Pack pack.ID
	Slot uint32
}

// IsHole tells whether r refers to nothing.
func (r Ref) IsHole() bool { return r == Ref{} }

// Digest identifies the content below a node, wherever it is stored.
type Digest [32]byte

// Sum is what a node says about each node below it.
type Sum struct {
	Digest Digest
	Data   int64 // bytes below it that are not in holes
}

// Node is one node of the tree.
type Node struct {
	Level int
	Refs  [Fanout]Ref
	Sums  []Sum // one for each ref; nil in a leaf
}

// NewNode makes a node full of holes.
func NewNode(level int) *Node {
	n := &Node{Level: level}
	if level > 0 {
		n.Sums = make([]Sum, Fanout)
	}
	return n
}

// IsEmpty tells whether the node holds nothing but holes.
func (n *Node) IsEmpty() bool { return n.Refs == [Fanout]Ref{} }

// Equal tells whether two nodes are the same, places of chunks included.
func (n *Node) Equal(m *Node) bool { return n.Level == m.Level && n.Refs == m.Refs }

// Digest returns the digest of what is below the node: BLAKE3 of the level and, for each place that is no
// hole, its number and the chunk's id or the node's digest.
func (n *Node) Digest() Digest {
	h := blake3.New()
	_, _ = h.Write([]byte{byte(n.Level)})
	for i, r := range n.Refs {
		if r.IsHole() {
			continue
		}
		place := binary.BigEndian.AppendUint16(nil, uint16(i))
		if n.Level == 0 {
			place = append(place, r.ID[:]...)
		} else {
			place = append(place, n.Sums[i].Digest[:]...)
		}
		_, _ = h.Write(place)
	}
	var d Digest
	h.Sum(d[:0])
	return d
}

// Data returns the bytes below an inner node that are not in holes.
func (n *Node) Data() int64 {
	var sum int64
	for _, s := range n.Sums {
		sum += s.Data
	}
	return sum
}

// Append appends the encoded node to dst: version, level, the packs that are referred to, and runs of
// (holes, references).
func (n *Node) Append(dst []byte) []byte {
	dst = append(dst, nodeVersion, byte(n.Level))
	numbers := map[pack.ID]uint64{}
	var packs []pack.ID
	for _, r := range n.Refs {
		if _, ok := numbers[r.Pack]; !ok && !r.IsHole() {
			numbers[r.Pack] = uint64(len(packs))
			packs = append(packs, r.Pack)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(packs)))
	for _, p := range packs {
		dst = append(dst, p[:]...)
	}
	for i := 0; i < Fanout; {
		holes := i
		for i < Fanout && n.Refs[i].IsHole() {
			i++
		}
		first := i
		for i < Fanout && !n.Refs[i].IsHole() {
			i++
		}
		if first == i {
			break
		}
		dst = binary.AppendUvarint(dst, uint64(first-holes))
		dst = binary.AppendUvarint(dst, uint64(i-first))
		for j := first; j < i; j++ {
			r := n.Refs[j]
			dst = append(dst, r.ID[:]...)
			dst = binary.AppendUvarint(dst, numbers[r.Pack])
			dst = binary.AppendUvarint(dst, uint64(r.Slot))
			if n.Level > 0 {
				dst = append(dst, n.Sums[j].Digest[:]...)
				dst = binary.AppendUvarint(dst, uint64(n.Sums[j].Data))
			}
		}
	}
	return dst
}

// ParseNode reads what Append has written, and refuses everything else.
func ParseNode(b []byte, level int) (*Node, error) {
	p := parser{b: b}
	if len(b) > MaxNode || p.byte() != nodeVersion || int(p.byte()) != level {
		return nil, fmt.Errorf("node is not a node of level %d: %w", level, chunk.ErrDamaged)
	}
	count := p.uvarint(Fanout)
	packs := make([]pack.ID, 0, Fanout)
	for range count {
		packs = append(packs, pack.ID(p.bytes(16)))
	}
	n := NewNode(level)
	for i := 0; len(p.b) > 0 && !p.bad; {
		i += int(p.uvarint(Fanout))
		run := int(p.uvarint(Fanout))
		if run == 0 || i+run > Fanout {
			p.bad = true
			break
		}
		for ; run > 0 && !p.bad; run-- {
			r := Ref{ID: chunk.ID(p.bytes(16))}
			number := p.uvarint(Fanout)
			if number >= uint64(len(packs)) {
				p.bad = true
				break
			}
			r.Pack = packs[number]
			r.Slot = uint32(p.uvarint(pack.MaxSlots - 1))
			if level > 0 {
				n.Sums[i] = Sum{Digest(p.bytes(32)), int64(p.uvarint(1 << 62))}
			}
			n.Refs[i] = r
			p.bad = p.bad || r.IsHole()
			i++
		}
	}
	if p.bad {
		return nil, fmt.Errorf("node does not parse: %w", chunk.ErrDamaged)
	}
	return n, nil
}

// parser takes a node apart. After the first thing that does not fit it is bad and gives zeros.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) byte() byte { return p.bytes(1)[0] }

func (p *parser) bytes(n int) []byte {
	if p.bad || len(p.b) < n {
		p.bad = true
		return make([]byte, n)
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) uvarint(limit uint64) uint64 {
	if p.bad {
		return 0
	}
	v, n := binary.Uvarint(p.b)
	if n <= 0 || v > limit {
		p.bad = true
		return 0
	}
	p.b = p.b[n:]
	return v
}
