// Package index remembers which chunks the store has, and where.
//
// It is a cache: everything in it was read from the footers of packs and can be read again. It answers
// one question, "is this chunk stored already?", for the writer. Readers don't need it, because
// manifests say where their chunks are, unless a pack has gone from there or a record is damaged.
//
// The words. What was added last is in a small table in memory. When that is full it becomes a segment
// (segment.go): an immutable, sorted file with a filter in front of it, which tells of nearly all chunks
// that are not in it without a look at the file. Segments of like size are merged, so that there are few.
// Of a segment, only the filter and a sparse list of ids are in memory: 1.3 bytes a chunk, 21 MiB
// for each TiB that is stored, while 24 bytes a chunk are on disk.
//
// What always holds:
//
//   - A pack has one home: the table or a segment. What any other segment says about it counts for nothing;
//     so a pack is forgotten by forgetting its home, and a merge that was interrupted leaves no trouble.
//   - Segments are authenticated with a key of the store, piece by piece, as they are read. A segment that is
//     not what was written loses its packs, which are then missing (Has) and may be added again.
//     So a lost, old or damaged segment costs time, and never makes a backup refer to what isn't there.
//   - Without a folder, segments are in memory, and the index is as large there as on disk.
package index

import (
	"maps"
	"math"
	"os"
	"slices"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

// tableLimit is how many chunks the table holds: 4 GiB of a disk.
const tableLimit = 1 << 16

// Location is where a chunk's record is.
type Location struct {
	Pack pack.ID
	Slot uint32
}

// AllSlots in a Location given to Damage means every record of the pack.
const AllSlots = math.MaxUint32

// Index is not safe for concurrent use: its owner has a lock that covers more than the index.
type Index struct {
	folder *os.Root // nil: segments are in memory
	mac    *mac
	limit  int

	home     map[pack.ID]*segment // nil is the table
	packs    []pack.ID            // of the table, by number
	table    map[chunk.ID]entry
	segments []*segment // the older first
	junk     []string   // files that are no good, to be removed when something is written
	damaged  map[Location]bool
}

// entry is a location with the pack as a number.
type entry struct{ pack, slot uint32 }

// New makes an empty index in memory.
func New() *Index { return empty(nil, make([]byte, chunk.KeySize)) }

// Open opens the index in a folder, which is made if it is missing. Files that are no segments of this
// key count as absent. The index must be closed.
func Open(dir string, key []byte) (*Index, error) {
	folder, err := openFolder(dir)
	if err != nil {
		return nil, err
	}
	x := empty(folder, key)
	if err := x.load(); err != nil {
		_ = x.Close()
		return nil, err
	}
	return x, nil
}

func empty(folder *os.Root, key []byte) *Index {
	return &Index{
		folder: folder, mac: newMAC(key), limit: tableLimit,
		home: map[pack.ID]*segment{}, table: map[chunk.ID]entry{}, damaged: map[Location]bool{},
	}
}

// Has tells whether the pack was added.
func (x *Index) Has(id pack.ID) bool {
	_, ok := x.home[id]
	return ok
}

// Packs returns the packs that were added.
func (x *Index) Packs() []pack.ID { return slices.Collect(maps.Keys(x.home)) }

// Add adds what a pack holds. A chunk that is known already keeps its place.
func (x *Index) Add(id pack.ID, entries []pack.Entry) {
	if x.Has(id) {
		return
	}
	n := uint32(len(x.packs))
	x.packs = append(x.packs, id)
	x.home[id] = nil
	for slot, e := range entries {
		if old, ok := x.table[e.ID]; !ok || !x.counts(nil, Location{x.packs[old.pack], old.slot}) {
			x.table[e.ID] = entry{n, uint32(slot)}
		}
	}
	if len(x.table) < x.limit || x.Flush() == nil {
		return
	}
	if len(x.table) >= 4*x.limit { // several packs have tried: memory is more precious than what it knows
		x.forgetTable()
	}
}

// forgetTable makes the packs of the table missing.
func (x *Index) forgetTable() {
	maps.DeleteFunc(x.home, func(_ pack.ID, home *segment) bool { return home == nil })
	x.packs = nil
	clear(x.table)
}

// Find looks a chunk up. A record that is damaged is not found.
func (x *Index) Find(id chunk.ID) (Location, bool) {
	if e, ok := x.table[id]; ok {
		if at := (Location{x.packs[e.pack], e.slot}); x.counts(nil, at) {
			return at, true
		}
	}
	for _, s := range x.segments {
		for at, err := range s.find(x.mac, id) {
			if err != nil {
				x.lose(s)
				return x.Find(id)
			}
			if x.counts(s, at) {
				return at, true
			}
		}
	}
	return Location{}, false
}

// counts tells whether what s says about a place counts.
func (x *Index) counts(s *segment, at Location) bool {
	home, ok := x.home[at.Pack]
	return ok && home == s && !x.Damaged(at)
}

// Remove forgets packs and what was found in them. A second copy of a chunk in a pack that stays may be
// forgotten too, at the price of storing it once more.
func (x *Index) Remove(ids map[pack.ID]bool) {
	for id := range ids {
		delete(x.home, id)
	}
	maps.DeleteFunc(x.damaged, func(at Location, _ bool) bool { return ids[at.Pack] })
}

// Damage notes that a record can't be read, so that Find does not name it any more. It is remembered as
// long as the index is open.
func (x *Index) Damage(at Location) { x.damaged[at] = true }

// Damaged tells whether a record was named by Damage.
func (x *Index) Damaged(at Location) bool {
	return len(x.damaged) > 0 && (x.damaged[at] || x.damaged[Location{at.Pack, AllSlots}])
}

// AllDamaged returns what was named by Damage and not removed since.
func (x *Index) AllDamaged() []Location { return slices.Collect(maps.Keys(x.damaged)) }

// Clear forgets everything but the damage, files included.
func (x *Index) Clear() {
	x.forgetTable()
	for _, s := range slices.Clone(x.segments) {
		x.lose(s)
	}
	x.sweep()
}

// Flush makes a segment of the table, so that the next Open finds it.
func (x *Index) Flush() error {
	if len(x.packs) == 0 {
		return nil
	}
	s, err := x.write([]source{x.tableSource()})
	if err != nil {
		return err
	}
	x.adopt(s, nil)
	x.segments = append(x.segments, s)
	x.packs = nil
	clear(x.table)
	x.sweep()
	return x.merge()
}

// merge merges the last segments as long as they are of like size. So their number is logarithmic, and so
// is how often a chunk is written again.
func (x *Index) merge() error {
	for {
		n := len(x.segments)
		if n < 2 || x.segments[n-2].entries > 2*x.segments[n-1].entries {
			return nil
		}
		a, b := x.segments[n-2], x.segments[n-1]
		s, err := x.write([]source{x.segmentSource(a), x.segmentSource(b)})
		if err != nil {
			return err
		}
		x.adopt(s, a)
		x.adopt(s, b)
		x.segments = append(x.segments[:n-2], s)
		x.drop(a)
		x.drop(b)
	}
}

// adopt makes s the home of those of its packs that lived in old.
func (x *Index) adopt(s, old *segment) {
	for _, id := range s.packs {
		if home, ok := x.home[id]; ok && home == old {
			x.home[id] = s
		}
	}
}

// lose forgets a segment that is no good, and with it what it was the home of.
func (x *Index) lose(s *segment) {
	maps.DeleteFunc(x.home, func(_ pack.ID, home *segment) bool { return home == s })
	x.segments = slices.DeleteFunc(x.segments, func(other *segment) bool { return other == s })
	x.drop(s)
}
