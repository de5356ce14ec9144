// Package index remembers which chunks the store has, and where.
//
// It is a cache: everything in it was read from the footers of packs and can be read again. It answers
// one question, "is this chunk stored already?", for the writer. Readers don't need it, because
// manifests say where their chunks are, unless a pack has gone from there.
//
// It lives in memory, at about 50 bytes a chunk (0.8 GiB for each TiB of stored data).
package index

import (
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

// Location is where a chunk's record is.
type Location struct {
	Pack pack.ID
	Slot uint32
}

// Index is not safe for concurrent use: its owner has a lock that covers more than the index.
type Index struct {
	numbers map[pack.ID]uint32
	packs   []pack.ID // by number
	chunks  map[chunk.ID]entry
}

type entry struct{ pack, slot uint32 }

// New makes an empty index.
func New() *Index {
	return &Index{numbers: map[pack.ID]uint32{}, chunks: map[chunk.ID]entry{}}
}

// Has tells whether the pack was added.
func (x *Index) Has(id pack.ID) bool {
	_, ok := x.numbers[id]
	return ok
}

// Add adds what a pack holds. A chunk that is known already keeps its place.
func (x *Index) Add(id pack.ID, entries []pack.Entry) {
	if x.Has(id) {
		return
	}
	n := uint32(len(x.packs))
	x.packs = append(x.packs, id)
	x.numbers[id] = n
	for slot, e := range entries {
		if _, ok := x.chunks[e.ID]; !ok {
			x.chunks[e.ID] = entry{n, uint32(slot)}
		}
	}
}

// Find looks a chunk up.
func (x *Index) Find(id chunk.ID) (Location, bool) {
	e, ok := x.chunks[id]
	if !ok {
		return Location{}, false
	}
	return Location{x.packs[e.pack], e.slot}, true
}

// Remove forgets packs and what was found in them. A second copy of a chunk in a pack that stays is
// forgotten too, at the price of storing it once more.
func (x *Index) Remove(ids map[pack.ID]bool) {
	gone := map[uint32]bool{}
	for id := range ids {
		if n, ok := x.numbers[id]; ok {
			gone[n] = true
			delete(x.numbers, id)
		}
	}
	if len(gone) == 0 {
		return
	}
	for id, e := range x.chunks {
		if gone[e.pack] {
			delete(x.chunks, id)
		}
	}
}
