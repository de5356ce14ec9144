package recovery

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// plan is what a window needs from one pack, in the order of the records.
type plan struct {
	pack    *openPack
	slots   []uint32
	indexes []int64 // of the chunks in these slots
}

// plan looks up where chunks are. The packs are in the order in which they appear on the disk.
func (d *Disk) plan(ctx context.Context, chunks []wanted) ([]*plan, error) {
	var plans []*plan
	of := map[pack.ID]*plan{}
	for _, w := range chunks {
		p, slot, err := d.store.locate(ctx, w.ref, chunk.Data)
		if err == nil && int64(p.Entries[slot].Plain) != d.chunkLen(w.index) {
			err = fmt.Errorf("chunk of %d bytes: %w", p.Entries[slot].Plain, chunk.ErrDamaged)
		}
		if err != nil {
			return nil, d.damageOf(w.index, w.ref, err)
		}
		pl := of[p.id]
		if pl == nil {
			pl = &plan{pack: p}
			of[p.id] = pl
			plans = append(plans, pl)
		}
		pl.slots, pl.indexes = append(pl.slots, slot), append(pl.indexes, w.index)
	}
	for _, pl := range plans {
		pl.sort()
	}
	return plans, nil
}

// damageOf is damage of one chunk.
func (d *Disk) damageOf(index int64, ref manifest.Ref, err error) error {
	return d.damage(index*d.info.ChunkSize, d.chunkLen(index), ref, err)
}

// sort puts the chunks in the order of their records. Most packs are in order already.
func (pl *plan) sort() {
	type record struct {
		slot  uint32
		index int64
	}
	byPlace := func(a, b record) int {
		if a.slot == b.slot {
			return int(a.index - b.index)
		}
		return int(int64(pl.pack.Entries[a.slot].Offset) - int64(pl.pack.Entries[b.slot].Offset))
	}
	records := make([]record, len(pl.slots))
	for i := range records {
		records[i] = record{pl.slots[i], pl.indexes[i]}
	}
	if slices.IsSortedFunc(records, byPlace) {
		return
	}
	slices.SortFunc(records, byPlace)
	for i, at := range records {
		pl.slots[i], pl.indexes[i] = at.slot, at.index
	}
}

// carryOut reads, opens and writes what was planned.
func (r *restorer) carryOut(ctx context.Context, plans []*plan) error {
	type job struct {
		plan *plan
		run  run
	}
	jobs := make(chan job)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(jobs)
		for _, pl := range plans {
			for _, one := range pl.pack.runs(pl.slots) {
				select {
				case jobs <- job{pl, one}:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		return nil
	})
	for range workers() {
		group.Go(func() error {
			var p *paste
			for j := range jobs {
				if err := ctx.Err(); err != nil {
					return context.Cause(ctx)
				}
				if p == nil {
					p = &paste{r: r, sealed: make([]byte, runSize), out: make([]byte, 0, unitSize)}
				}
				if err := p.run(ctx, j.plan, j.run); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// workers is how many goroutines restore: while one waits for the target, another opens records.
func workers() int { return runtime.GOMAXPROCS(0) + 1 }

// paste is a worker's: it opens records right behind each other, so that chunks that are neighbours in a
// pack and on the disk are written in one piece.
type paste struct {
	r      *restorer
	sealed []byte
	out    []byte
	first  int64 // the chunk with which out begins
	next   int64 // the chunk that would be out's next
}

func (p *paste) run(ctx context.Context, pl *plan, one run) error {
	sealed := p.sealed[:one.end-one.off]
	if err := readRange(ctx, p.r.s.bucket, pl.pack.id.Name(), one.off, sealed); err != nil {
		return p.oneByOne(ctx, pl, one, err)
	}
	for i := one.first; i <= one.last; i++ {
		e, slot, index := pl.pack.Entries[pl.slots[i]], pl.slots[i], pl.indexes[i]
		if len(p.out) > 0 && (index != p.next || len(p.out)+int(e.Plain) > cap(p.out)) {
			if err := p.write(ctx); err != nil {
				return err
			}
		}
		if len(p.out) == 0 {
			p.first = index
		}
		record := sealed[int64(e.Offset)-one.off:][:e.Length]
		out, err := p.r.s.codec.Open(p.out, record, pl.pack.box, pl.pack.place(slot), e.Info)
		if err != nil {
			plain, err := p.elsewhere(ctx, pl, i, fmt.Errorf("%s: %w", pl.pack.id.Name(), err))
			if err != nil {
				return err
			}
			out = append(p.out, plain...)
		}
		p.out, p.next = out, index+1
	}
	return p.write(ctx)
}

// oneByOne finds the chunk because of which a run can't be read.
func (p *paste) oneByOne(ctx context.Context, pl *plan, one run, cause error) error {
	if !isDamage(cause) {
		return cause
	}
	return p.r.s.readRun(ctx, pl.pack, pl.slots, one, p.sealed, nil, func(i int, plain []byte, err error) error {
		if err != nil {
			plain, err = p.elsewhere(ctx, pl, i, err)
		}
		if err != nil {
			return err
		}
		p.out, p.first = append(p.out, plain...), pl.indexes[i]
		return p.write(ctx)
	})
}

// elsewhere returns a chunk of the plan from another pack that has it: it was moved, or stored anew.
func (p *paste) elsewhere(ctx context.Context, pl *plan, i int, cause error) ([]byte, error) {
	plain, err := p.r.s.readElsewhere(ctx, pl.pack.ref(pl.slots[i]), chunk.Data, cause)
	if err != nil {
		return nil, p.r.d.damageOf(pl.indexes[i], manifest.Ref{Pack: pl.pack.id}, err)
	}
	return plain, nil
}

// write writes what was collected.
func (p *paste) write(ctx context.Context) error {
	if len(p.out) == 0 {
		return nil
	}
	r := p.r
	if err := r.rate.wait(ctx, len(p.out)); err != nil {
		return err
	}
	off := p.first * r.d.info.ChunkSize
	if _, err := r.dst.WriteAt(p.out, off); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(p.out), off, err)
	}
	r.tally.written.Add(int64(len(p.out)))
	r.progress.add(int64(len(p.out)))
	p.out = p.out[:0]
	return nil
}
