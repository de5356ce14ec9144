package recovery

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// verify reads the packs that points need, those that were not for the longest time first.
func (c *checker) verify(ctx context.Context, o CheckOptions, sizes map[pack.ID]int64) error {
	record, _, err := readVerified(ctx, c.s.bucket)
	if err != nil {
		return err
	}
	size := func(id pack.ID) int64 { return sizes[id] }
	if o.Level == LevelContent {
		size = func(id pack.ID) int64 { return c.packs[id].bytes }
	}
	var ids []pack.ID
	for id, needed := range c.packs {
		if o.Level == LevelScrub || len(needed.slotSet) > 0 {
			ids = append(ids, id)
		}
	}
	chosen, left := record.choose(ids, o.Level, o.Budget, size)
	c.report.Left = left
	c.notes = notebook{bucket: c.s.bucket, readOnly: c.s.readOnly(), exists: func(id pack.ID) bool { _, ok := sizes[id]; return ok }}
	var total int64
	for _, id := range chosen {
		total += size(id)
	}
	progress := newReport(o.Progress, total)
	err = c.each(ctx, chosen, func(ctx context.Context, id pack.ID, b *checkBuffers) error {
		if err := c.pack(ctx, o.Level, id, sizes[id], b); err != nil {
			return err
		}
		progress.add(size(id))
		return c.note(ctx, o.Level, id, size(id))
	})
	if err := errors.Join(err, c.notes.save(ctx)); err != nil {
		return err
	}
	if left == 0 {
		oldest := c.s.opts.Now().UnixMicro()
		for _, id := range ids {
			oldest = min(oldest, max(record[id].at(o.Level), c.packs[id].at))
		}
		c.report.Oldest = timeOrZero(oldest)
	} else {
		c.report.Oldest = timeOrZero(record[ids[len(chosen)]].at(o.Level))
	}
	return nil
}

// note takes note of a pack that was verified.
func (c *checker) note(ctx context.Context, l Level, id pack.ID, size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Verified++
	c.report.Read += size
	n := c.packs[id]
	n.at = c.s.opts.Now().UnixMicro()
	v := verdict{content: n.at, bad: n.bad.Load()}
	if l == LevelScrub {
		v = verdict{scrubbed: n.at, bad: n.bad.Load()}
	}
	return c.notes.add(ctx, id, v, size)
}

// checkBuffers belong to one worker.
type checkBuffers struct{ sealed, plain []byte }

// each calls f for every pack, from several goroutines.
func (c *checker) each(ctx context.Context, ids []pack.ID, f func(ctx context.Context, id pack.ID, b *checkBuffers) error) error {
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan pack.ID)
	group.Go(func() error {
		defer close(jobs)
		for _, id := range ids {
			select {
			case jobs <- id:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			b := &checkBuffers{make([]byte, runSize), make([]byte, 0, chunk.MaxSize)}
			for id := range jobs {
				if err := f(ctx, id, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// pack verifies what is needed of a pack. A scrub opens only what is where the checksums are wrong.
func (c *checker) pack(ctx context.Context, l Level, id pack.ID, size int64, b *checkBuffers) error {
	slots := c.packs[id].slots()
	var bad []pack.Range
	if l == LevelScrub {
		var err error
		bad, err = scrubPack(ctx, c.s.bucket, id, size)
		if errors.Is(err, objects.ErrNotExist) {
			c.moved.Store(true)
			return nil
		} else if err != nil || len(bad) == 0 {
			return err
		}
		c.packs[id].bad.Store(true)
	}
	p, err := c.s.openPack(ctx, id)
	switch {
	case isDamage(err): // since the structure was looked at: what that means is found out when it is blamed
		c.packs[id].bad.Store(!errors.Is(err, objects.ErrNotExist))
		c.moved.Store(true)
		return nil
	case err != nil:
		return err
	}
	if l == LevelScrub {
		slots = p.within(slots, bad)
	}
	return c.open(ctx, p, slots, b)
}

// within returns those of the slots whose records touch one of the ranges.
func (p *openPack) within(slots []uint32, ranges []pack.Range) []uint32 {
	var hit []uint32
	for _, slot := range slots {
		off, end := int64(p.Entries[slot].Offset), int64(p.Entries[slot].Offset)+int64(p.Entries[slot].Length)
		for _, r := range ranges {
			if off < r.Offset+r.Length && r.Offset < end {
				hit = append(hit, slot)
				break
			}
		}
	}
	return hit
}

// open opens chunks of a pack and compares them with their ids.
func (c *checker) open(ctx context.Context, p *openPack, slots []uint32, b *checkBuffers) error {
	p.sortByOffset(slots)
	for _, one := range p.runs(slots) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := c.s.readRun(ctx, p, slots, one, b.sealed, b.plain, func(i int, plain []byte, err error) error {
			e := p.Entries[slots[i]]
			if err == nil && c.s.keys.hasher.ID(e.Kind, plain) != e.ID {
				err = fmt.Errorf("%s: chunk %s has other content: %w", p.id.Name(), e.ID, chunk.ErrDamaged)
			}
			if err == nil {
				return nil
			}
			return c.bad(ctx, p.ref(slots[i]), e.Kind, err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// bad takes note of a chunk that can't be read from its place. If it can be read from another, nothing is
// lost.
func (c *checker) bad(ctx context.Context, ref manifest.Ref, kind chunk.Kind, cause error) error {
	if errors.Is(cause, objects.ErrNotExist) {
		c.moved.Store(true)
	} else {
		c.packs[ref.Pack].bad.Store(true)
		c.s.markDamaged(ref)
	}
	_, err := c.s.readElsewhere(ctx, ref, kind, cause)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && !errors.Is(cause, objects.ErrNotExist):
		c.report.Healed++
	case err != nil:
		c.badChunks[ref] = cause
	}
	return nil
}
