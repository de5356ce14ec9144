package recovery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"kluis/internal/recovery/pack"
)

// CollectOptions say how to collect. The zero value does what a store in use needs.
type CollectOptions struct {
	// Grace is used in place of the store's own, if it isn't 0.
	Grace time.Duration
	// NoGrace gives space back at once. It takes away what the grace is for: a backup that was killed finds
	// nothing to go on with, a deleted point can't be brought back, and another process that reads the
	// store may have to look up again, or miss, what it is reading.
	NoGrace bool
	// MinDead is the share of a pack's bytes that must be dead for it to be compacted; 0 means 0.3.
	MinDead float64
	// Budget bounds the bytes that compaction writes; 0 means no bound, less than 0 no compaction.
	Budget   int64
	Progress Progress // of the compaction
}

// Collected says what Collect has done.
type Collected struct {
	Points    int   `json:"points"`    // deleted points whose grace period is over
	Packs     int   `json:"packs"`     // removed
	Bytes     int64 `json:"bytes"`     // of the packs removed: the space given back
	Compacted int   `json:"compacted"` // packs whose live chunks were moved to new ones
	Rewritten int64 `json:"rewritten"` // bytes of the new packs
	Left      int   `json:"left"`      // packs that are condemned, and removed after the grace period
	LeftBytes int64 `json:"leftBytes"`

	// Damage is what could not be read on the way. As long as there is any, all that it may need is spared:
	// every pack that existed when it was first noticed.
	Damage []*DamageError `json:"-"`
}

// Collect gives back the space of what nothing needs: no point, no point deleted within the grace period,
// no open writer, no disk that is being restored. It goes in steps, and may be stopped after any:
//
//	mark      which slots of which packs are needed, by a walk through all manifests
//	condemn   packs without a needed slot: from now on no chunk is found in them
//	compact   packs with much dead in them, and many small ones: what is alive moves to new packs, then
//	          they are condemned
//	sweep     condemned packs are removed once the grace period has gone by, and a mark in a later
//	          collection has found again that nothing needs them
//
// Points may be written, read, checked and deleted meanwhile. A pack that is younger than the grace period
// is left alone, too: it may be what a backup left that was killed and will be tried again.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	if err := s.owns(ctx); err != nil {
		return Collected{}, fmt.Errorf("collect: %w", err)
	}
	if s.lease != nil && s.lease.contested && o.NoGrace {
		o.NoGrace, o.Grace = false, s.opts.Lease // a commit of the former owner may still arrive
	}
	c := &collection{s: s, o: o, limit: s.opts.Now().Add(-s.grace(o))}
	if c.o.MinDead == 0 {
		c.o.MinDead = defaultMinDead
	}
	held := s.watch()
	defer s.unwatch()
	if err := c.run(ctx, held); err != nil {
		return c.done, fmt.Errorf("collect: %w", err)
	}
	return c.done, nil
}

const defaultMinDead = 0.3

func (s *Store) grace(o CollectOptions) time.Duration {
	switch {
	case o.NoGrace:
		return 0
	case o.Grace > 0:
		return o.Grace
	}
	return s.opts.Grace
}

// watch begins to note what writers and readers count on, also if they end before the collection does. It
// returns the disks that are held now.
func (s *Store) watch() []*Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = map[pack.ID]bool{}
	for id := range s.pins {
		s.touched[id] = true
	}
	s.late = nil
	return slices.Collect(maps.Keys(s.held))
}

func (s *Store) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched, s.late = nil, nil
}

// collection is one run of Collect.
type collection struct {
	s     *Store
	o     CollectOptions
	limit time.Time // what is from after this is spared
	done  Collected

	journal *journal
	marker  *marker
	// spared is the time of the last damage that is not healed: what existed then is spared.
	spared time.Time
	scarce bool  // the storage was full, and the reserve is released
	room   int64 // if not 0, less than this may still fit
	// damaged is what compaction could not open.
	damaged []*DamageError
}

func (c *collection) run(ctx context.Context, held []*Disk) error {
	if err := c.takeStock(ctx); err != nil {
		return err
	}
	expired, err := c.marker.markAll(ctx, c.limit, held)
	if err != nil {
		return err
	}
	if err := c.decide(ctx, func() {}); err != nil { // so that what is held since counts in the weights
		return err
	}
	if err := c.marker.weigh(ctx); err != nil {
		return err
	}
	c.noteDamage()
	if err := c.rescue(ctx); err != nil {
		return err
	}
	for _, name := range expired {
		if err := c.s.bucket.Delete(ctx, name); err != nil {
			return err
		}
		c.done.Points++
	}
	if err := c.condemnDead(ctx); err != nil {
		return err
	}
	if err := c.settle(ctx); err != nil {
		return err
	}
	if err := c.compact(ctx); err != nil {
		return err
	}
	for _, at := range c.journal.Condemned {
		c.done.Left++
		c.done.LeftBytes += at.Size
	}
	if c.scarce {
		return nil
	}
	var stored int64
	for _, st := range c.marker.packs {
		stored += st.size
	}
	return c.s.keepReserve(ctx, stored)
}

// takeStock learns which packs there are, and which of them are condemned. The packs are listed before the
// points: a pack that a point needs is older than the point.
func (c *collection) takeStock(ctx context.Context) error {
	if err := c.s.refreshIndex(ctx); err != nil {
		return err
	}
	var err error
	if c.journal, err = c.s.readJournal(ctx); err != nil {
		return err
	}
	packs, err := c.s.stock(ctx)
	if err != nil {
		return err
	}
	c.s.condemnAll(c.journal)
	c.journal.Condemned = slices.DeleteFunc(c.journal.Condemned, func(at condemned) bool {
		st := packs[at.Pack]
		if st == nil {
			c.journal.changed = true // removed, and then we died
			return true
		}
		st.condemned = true
		return false
	})
	c.marker = &marker{s: c.s, packs: packs}
	return nil
}

// noteDamage remembers since when the damage that was found is known.
func (c *collection) noteDamage() {
	c.done.Damage = slices.Concat(c.marker.damage, c.damaged)
	c.spared = c.journal.notice(c.marker.damage, c.s.opts.Now())
}

// spares tells whether a pack must be left alone, whatever is alive in it.
func (c *collection) spares(st *packState) bool {
	created := time.UnixMicro(st.created)
	switch {
	case !st.readable: // it does not say its age, nor what is in it
		return !c.spared.IsZero()
	case created.After(c.limit):
		return true
	}
	return !c.spared.IsZero() && !created.After(c.spared)
}

// rescue takes packs back that were condemned and are needed: a point was committed behind our back that
// counts on them.
func (c *collection) rescue(ctx context.Context) error {
	back := map[pack.ID]bool{}
	for _, at := range c.journal.Condemned {
		if st := c.marker.packs[at.Pack]; st.live.count() > 0 {
			back[at.Pack], st.condemned = true, false
		}
	}
	if len(back) == 0 {
		return nil
	}
	c.journal.remove(back)
	c.s.mu.Lock()
	for id := range back {
		delete(c.s.condemned, id)
	}
	c.s.mu.Unlock()
	return c.s.refreshIndex(ctx)
}

// condemnDead condemns the packs in which nothing is alive.
func (c *collection) condemnDead(ctx context.Context) error {
	return c.decide(ctx, func() {
		var dead []pack.ID
		for id, st := range c.marker.packs {
			if !st.condemned && st.live.count() == 0 && !c.spares(st) && !c.s.touched[id] {
				dead = append(dead, id)
			}
		}
		c.condemn(dead)
	})
}

// decide calls f, which decides what to condemn, in one step with regard to writers and readers: all that
// they count on is marked or in s.touched. f is called with s.mu held.
func (c *collection) decide(ctx context.Context, f func()) error {
	for {
		c.s.mu.Lock()
		late := c.s.late
		c.s.late = nil
		if len(late) == 0 {
			f()
			c.s.mu.Unlock()
			return nil
		}
		c.s.mu.Unlock()
		for _, d := range late {
			if err := c.marker.disk(ctx, d); err != nil {
				return err
			}
		}
		c.noteDamage()
	}
}

// condemn sees to it that no chunk is found in the packs from now on. s.mu is held.
func (c *collection) condemn(ids []pack.ID) {
	gone := map[pack.ID]bool{}
	now := c.s.opts.Now().UnixMicro()
	for _, id := range ids {
		st := c.marker.packs[id]
		gone[id], c.s.condemned[id], st.condemned = true, true, true
		c.journal.add(condemned{Pack: id, At: now, Size: st.size})
	}
	c.s.index.Remove(gone)
}

// settle makes the list of the condemned packs durable and removes those whose grace period is over.
func (c *collection) settle(ctx context.Context) error {
	if err := c.journal.save(ctx, c); err != nil {
		return err
	}
	if err := c.s.owns(ctx); err != nil {
		return err
	}
	removed := map[pack.ID]bool{}
	for _, at := range c.journal.Condemned {
		if time.UnixMicro(at.At).After(c.limit) && !c.o.NoGrace {
			continue
		}
		if err := c.s.mayWrite(); err != nil {
			return err
		}
		if err := c.s.bucket.Delete(ctx, at.Pack.Name()); err != nil {
			return err
		}
		c.s.dropPack(at.Pack)
		delete(c.marker.packs, at.Pack)
		removed[at.Pack] = true
		c.done.Packs++
		c.done.Bytes += at.Size
		c.room = 0
	}
	c.journal.remove(removed)
	return c.journal.save(ctx, c)
}

// stock lists the packs.
func (s *Store) stock(ctx context.Context) (map[pack.ID]*packState, error) {
	packs := map[pack.ID]*packState{}
	for o, err := range s.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		if id, ok := pack.ParseName(o.Name); ok {
			packs[id] = &packState{size: o.Size}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, st := range packs {
		st.readable = s.index.Has(id)
	}
	return packs, nil
}
