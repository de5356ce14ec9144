package recovery

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kluis/internal/objects"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// packState is what a mark knows of a pack: some 100 bytes, and a bit for each of its slots (2 MiB for each
// TiB of ciphertext).
type packState struct {
	size      int64
	readable  bool // it has a footer that can be read
	condemned bool
	live      slotSet // slots that something needs

	// By weigh.
	created int64 // Unix microseconds
	records int64 // bytes of all records
	dead    int64 // bytes of the records that nothing needs
	meta    bool  // holds nodes and documents
}

// slotSet is a set of slots of a pack.
type slotSet []uint64

// add tells whether slot is new in the set.
func (s *slotSet) add(slot uint32) bool {
	for int(slot/64) >= len(*s) {
		*s = append(*s, 0)
	}
	word, bit := &(*s)[slot/64], uint64(1)<<(slot%64)
	isNew := *word&bit == 0
	*word |= bit
	return isNew
}

func (s slotSet) has(slot uint32) bool {
	return int(slot/64) < len(s) && s[slot/64]&(1<<(slot%64)) != 0
}

func (s slotSet) count() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// slots returns the members, ascending.
func (s slotSet) slots() []uint32 {
	all := make([]uint32, 0, s.count())
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			all = append(all, uint32(i*64+bits.TrailingZeros64(w)))
		}
	}
	return all
}

// marker marks the slots that are needed. Nodes are chunks as well, so a node that is marked already was
// visited already: shared parts of manifests are walked through once, and no list of nodes is kept.
type marker struct {
	s      *Store
	packs  map[pack.ID]*packState
	damage []*DamageError
	lost   map[pack.ID]bool // packs that are gone, with chunks that were found nowhere else

	points, disks, trash int
	logical, data        int64 // bytes of the disks of points, and of them what is not in holes
}

// mark marks where a chunk is: where the reference says, unless the pack is gone, or will be, or the record can't be
// read, and the index knows a better place. It tells whether the place is new.
func (m *marker) mark(ref manifest.Ref) bool {
	st := m.packs[ref.Pack]
	if st != nil && st.readable && !st.condemned && !m.s.isDamaged(ref) {
		return st.live.add(ref.Slot)
	}
	if at, ok := m.s.find(ref.ID); ok {
		if other := m.packs[at.Pack]; other != nil {
			return other.live.add(at.Slot)
		}
		return true // in a pack that was finished after they were listed: it is too young to be touched
	}
	if st == nil || !st.readable && !st.condemned {
		m.lose(ref.Pack)
	}
	return st == nil || st.live.add(ref.Slot)
}

// lose takes note that chunks of a pack were found nowhere. They may be in a pack that can't be read now,
// or that the index has lost.
func (m *marker) lose(id pack.ID) {
	if m.lost[id] {
		return
	}
	if m.lost == nil {
		m.lost = map[pack.ID]bool{}
	}
	m.lost[id] = true
	m.damage = append(m.damage, &DamageError{Object: id.Name(), Err: errLost})
}

var errLost = fmt.Errorf("chunks of it are needed and were not found: %w", objects.ErrNotExist)

// markAll marks what points, deleted points and held disks need. It returns the objects of the deleted
// points whose time is over: those deleted until limit.
func (m *marker) markAll(ctx context.Context, limit time.Time, held []*Disk) (expired []string, err error) {
	// The points before the trash: a point that is deleted meanwhile is found in one of them at least.
	for o, err := range m.s.bucket.List(ctx, pointPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list recovery points: %w", err)
		}
		p, err := m.point(ctx, o.Name, strings.TrimPrefix(o.Name, pointPrefix))
		if err != nil {
			return nil, err
		}
		m.count(p)
	}
	for o, err := range m.s.bucket.List(ctx, trashPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list deleted recovery points: %w", err)
		}
		label, deleted, ok := parseTrashName(o.Name)
		if !ok {
			return nil, fmt.Errorf("%s: not the name of a deleted recovery point", o.Name)
		}
		if !deleted.After(limit) {
			expired = append(expired, o.Name)
			continue
		}
		if _, err := m.point(ctx, o.Name, label); err != nil {
			return nil, err
		}
		m.trash++
	}
	for _, d := range held {
		if err := m.disk(ctx, d); err != nil {
			return nil, err
		}
	}
	return expired, nil
}

// point marks what a point needs. It returns nil if the point can't be read or is gone.
func (m *marker) point(ctx context.Context, name, label string) (*Point, error) {
	p, err := m.s.readPoint(ctx, name, label)
	if errors.Is(err, objects.ErrNotExist) {
		return nil, nil // deleted after it was listed; if it was a point, it is in the trash now
	} else if err != nil {
		return nil, m.noteDamage(err)
	}
	for _, a := range p.manifest.Attachments {
		ref, err := a.Ref.Ref()
		if err != nil {
			return nil, err
		}
		m.mark(ref)
	}
	for _, info := range p.manifest.Disks {
		d, err := newDisk(m.s, p.ID, label, info)
		if err != nil {
			return nil, err
		}
		if err := m.disk(ctx, d); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// count counts a point that is not deleted.
func (m *marker) count(p *Point) {
	if p == nil {
		return
	}
	m.points++
	for _, d := range p.manifest.Disks {
		m.disks++
		m.logical += d.Size
		m.data += d.Data
	}
}

func (m *marker) disk(ctx context.Context, d *Disk) error {
	return d.walk(ctx, visitor{
		enter: func(ref manifest.Ref, _ int, _ int64) bool { return m.mark(ref) },
		leaf: func(n *manifest.Node, _ int64) error {
			for _, ref := range n.Refs {
				if !ref.IsHole() {
					m.mark(ref)
				}
			}
			return nil
		},
		fail: func(_ manifest.Ref, err error) error { return m.noteDamage(err) },
	})
}

// noteDamage takes note of what can't be read, and returns every other error.
func (m *marker) noteDamage(err error) error {
	var damage *DamageError
	if errors.As(err, &damage) {
		m.damage = append(m.damage, damage)
		return nil
	}
	return err
}

// weigh reads the footers: how old each pack is, and how much of it is dead.
func (m *marker) weigh(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for id, st := range m.packs {
		if st.condemned {
			continue
		}
		group.Go(func() error {
			footer, err := m.s.readFooter(ctx, id, st.size)
			switch {
			case isDamage(err):
				st.readable = false
				return nil
			case err != nil:
				return fmt.Errorf("read footer of %s: %w", id.Name(), err)
			}
			st.weigh(footer)
			return nil
		})
	}
	return group.Wait()
}

func (st *packState) weigh(footer pack.Footer) {
	st.readable, st.created = true, footer.Created
	for slot, e := range footer.Entries {
		st.records += int64(e.Length)
		if !st.live.has(uint32(slot)) {
			st.dead += int64(e.Length)
		}
	}
	st.meta = len(footer.Entries) > 0 && footer.Entries[0].Kind != dataKind
}
