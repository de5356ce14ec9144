package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// compact moves what is alive in packs with much dead in them to new packs, and condemns the old ones.
// Manifests are not touched: their references still say the old place, and readers find the chunk by its
// id. Opening each chunk on the way is a free check: a pack with a damaged one is left as it is.
func (c *collection) compact(ctx context.Context) error {
	if c.o.Budget < 0 {
		return nil
	}
	groups, total := c.group()
	progress := newReport(c.o.Progress, total)
	for i, g := range groups {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if c.room > 0 && g.live >= c.room {
			continue // no more room than for one that did not fit
		}
		err := c.move(ctx, g)
		if isNoSpace(err) && !c.scarce {
			c.scarce = true
			if err = c.s.releaseReserve(ctx); err == nil {
				err = c.move(ctx, g)
			}
		}
		if isNoSpace(err) {
			c.room = g.live
			continue
		} else if err != nil {
			return err
		}
		progress.add(g.live)
		if i%settleEvery == settleEvery-1 || c.scarce || c.o.NoGrace {
			if err := c.settle(ctx); err != nil {
				return err
			}
		}
	}
	return c.settle(ctx)
}

// settleEvery is after how many new packs the journal is written.
const settleEvery = 16

// group is some packs whose live chunks go into one new pack.
type group struct {
	sources []pack.ID
	live    int64 // bytes of the records that are alive
	slots   int
	meta    bool
}

// group chooses the packs to compact, those with the most dead bytes first, as far as the budget
// reaches, and puts them together.
func (c *collection) group() (groups []*group, total int64) {
	ids := c.candidates()
	slices.SortFunc(ids, func(a, b pack.ID) int {
		x, y := c.marker.packs[a], c.marker.packs[b]
		return cmp.Or(cmp.Compare(y.dead, x.dead), slices.Compare(a[:], b[:]))
	})
	open := map[bool]*group{}
	for _, id := range ids {
		st := c.marker.packs[id]
		live, slots := st.records-st.dead, st.live.count()
		if c.o.Budget > 0 && total+live > c.o.Budget {
			continue
		}
		total += live
		g := open[st.meta]
		if g == nil || g.live+live > c.s.opts.PackSize || g.slots+slots > pack.MaxSlots {
			g = &group{meta: st.meta}
			open[st.meta] = g
			groups = append(groups, g)
		}
		g.sources = append(g.sources, id)
		g.live += live
		g.slots += slots
	}
	return groups, total
}

// candidates returns the packs with much dead in them, and small ones, which increments leave, if there are
// many of a kind.
func (c *collection) candidates() (ids []pack.ID) {
	small := map[bool][]pack.ID{}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for id, st := range c.marker.packs {
		switch {
		case st.condemned, !st.readable, c.s.touched[id], c.spares(st), st.live.count() == 0:
		case float64(st.dead) > c.o.MinDead*float64(st.records):
			ids = append(ids, id)
		case st.size < c.s.opts.PackSize/smallShare:
			small[st.meta] = append(small[st.meta], id)
		}
	}
	for _, some := range small {
		if len(some) >= manySmall {
			ids = append(ids, some...)
		}
	}
	return ids
}

// A pack is small if it is less than this part of a full one, and so many of them are put together.
const (
	smallShare = 8
	manySmall  = 16
)

// move writes the new pack of a group and condemns the old ones. A pack that turns out to be damaged is
// taken out of the group.
func (c *collection) move(ctx context.Context, g *group) error {
	for {
		r, err := newRepack(ctx, c, g)
		if err != nil {
			return err
		}
		err = c.s.bucket.Put(ctx, r.id.Name(), -1, r)
		var bad *badSource
		switch {
		case errors.As(r.err, &bad):
			c.s.markDamaged(bad.ref)
			c.damaged = append(c.damaged, &DamageError{Object: bad.ref.Pack.Name(), Err: bad.err})
			c.done.Damage = slices.Concat(c.marker.damage, c.damaged)
			g.sources = slices.DeleteFunc(g.sources, func(id pack.ID) bool { return id == bad.ref.Pack })
			if len(g.sources) == 0 {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("write %s: %w", r.id.Name(), err)
		}
		return c.replace(ctx, r)
	}
}

// replace makes the new pack known in the place of the old ones, but for those that somebody has come to
// count on meanwhile: they stay, and what was copied of them is dead.
func (c *collection) replace(ctx context.Context, r *repack) error {
	return c.decide(ctx, func() {
		var old []pack.ID
		for _, src := range r.sources {
			if !c.s.touched[src.id] && !c.spares(c.marker.packs[src.id]) && c.marker.packs[src.id].live.count() == len(src.slots) {
				old = append(old, src.id)
			}
		}
		c.condemn(old)
		c.s.sizes[r.id] = r.size
		c.s.index.Add(r.id, r.entries)
		st := &packState{size: r.size, created: r.created, readable: true}
		c.marker.packs[r.id] = st
		for _, e := range r.entries {
			// This is where readers find it from now on, which need not be the new pack: another may have had
			// a copy that nothing needed until now.
			if at, ok := c.s.index.Find(e.ID); ok && c.marker.packs[at.Pack] != nil {
				c.marker.packs[at.Pack].live.add(at.Slot)
			}
		}
		c.done.Compacted += len(old)
		c.done.Rewritten += r.size
	})
}

// badSource is a chunk that could not be moved.
type badSource struct {
	ref manifest.Ref
	err error
}

func (b *badSource) Error() string { return b.err.Error() }
func (b *badSource) Unwrap() error { return b.err }

// repack is a new pack, read from front to back while the old ones are opened: Bucket.Put pulls it, and
// no more than one run is in memory.
type repack struct {
	ctx context.Context
	s   *Store

	id      pack.ID
	box     *chunk.Box
	sources []source
	created int64
	size    int64
	entries []pack.Entry
	sums    pack.Sums

	rest []byte // bytes that are ready to be read
	buf  []byte // where they are
	in   []byte // for a run of the old pack
	out  []byte // for one opened chunk
	end  bool
	err  error
}

// source is an old pack, and what is left to be moved of it.
type source struct {
	id    pack.ID
	slots []uint32 // by offset
	open  *openPack
	runs  []run
	next  int // of the runs
}

func newRepack(ctx context.Context, c *collection, g *group) (*repack, error) {
	r := &repack{ctx: ctx, s: c.s, in: make([]byte, runSize), out: make([]byte, 0, chunk.MaxSize)}
	if err := c.s.random.fill(r.id[:]); err != nil {
		return nil, fmt.Errorf("make pack: %w", err)
	}
	var err error
	if r.box, err = c.s.keys.box(r.id); err != nil {
		return nil, fmt.Errorf("make pack: %w", err)
	}
	for _, id := range g.sources {
		r.sources = append(r.sources, source{id: id, slots: c.marker.packs[id].live.slots()})
	}
	r.ready(pack.AppendHeader(nil, r.id))
	return r, nil
}

// Read implements io.Reader.
func (r *repack) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.end {
			return 0, io.EOF
		}
		if r.err = r.advance(); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// ready gives b to the reader.
func (r *repack) ready(b []byte) {
	r.rest = b
	r.size += int64(len(b))
	if !r.end {
		r.sums.Add(b)
	}
}

// advance moves one run, or ends the pack.
func (r *repack) advance() error {
	for i := range r.sources {
		src := &r.sources[i]
		if src.open == nil {
			var err error
			if src.open, err = r.s.openPack(r.ctx, src.id); isDamage(err) {
				return &badSource{manifest.Ref{Pack: src.id}, err}
			} else if err != nil {
				return err
			}
			src.open.sortByOffset(src.slots)
			src.runs = src.open.runs(src.slots)
		}
		if src.next < len(src.runs) {
			src.next++
			return r.moveRun(src, src.runs[src.next-1])
		}
	}
	return r.finish()
}

// moveRun opens the chunks of a run, and seals them for their new place.
func (r *repack) moveRun(src *source, one run) error {
	buf, off := r.buf[:0], r.size
	err := r.s.readRun(r.ctx, src.open, src.slots, one, r.in, r.out, func(i int, plain []byte, err error) error {
		e := src.open.Entries[src.slots[i]]
		if err == nil && r.s.keys.hasher.ID(e.Kind, plain) != e.ID {
			err = fmt.Errorf("%s: chunk %s has other content: %w", src.id.Name(), e.ID, chunk.ErrDamaged)
		}
		if err != nil {
			return &badSource{src.open.ref(src.slots[i]), err}
		}
		slot := uint32(len(r.entries))
		start := len(buf)
		var info chunk.Info
		buf, info = r.s.codec.Seal(buf, plain, r.box, chunk.Place{Pack: r.id, Slot: slot}, chunk.Info{ID: e.ID, Kind: e.Kind})
		r.entries = append(r.entries, pack.Entry{Info: info, Offset: uint32(off + int64(start)), Length: uint32(len(buf) - start)})
		return nil
	})
	if err != nil {
		return err
	}
	r.buf = buf
	r.ready(buf)
	return nil
}

func (r *repack) finish() error {
	key, err := expand(r.s.keys.footers, r.id[:])
	if err != nil {
		return err
	}
	r.created = r.s.opts.Now().UnixMicro()
	end, err := pack.AppendEnd(nil, key, r.id, pack.Footer{Created: r.created, Entries: r.entries}, r.size, &r.sums)
	if err != nil {
		return err
	}
	r.end = true
	r.ready(end)
	return nil
}
