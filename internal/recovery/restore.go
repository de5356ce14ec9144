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

// window is how many leaves are planned at once: 4 GiB of a disk, which bounds the plan's memory.
const window = 64

// wanted is a chunk of the disk to be restored.
type wanted struct {
	slot  uint32
	index int64 // of the chunk
}

// Restore writes a disk to dst: its size is set, and what is not a hole is written, so that dst becomes a
// sparse file. The order is the order of the packs, read by several workers:
//
//	for each window of leaves
//	    look up where each chunk is, group by pack, sort by offset
//	    for each run of neighbours: read once, open, write pieces of the disk
//
// Holes are never written; what dst held before is cut off first. Bytes that don't authenticate are never
// written: Restore then stops with a DamageError.
func (s *Store) Restore(ctx context.Context, d *Disk, dst Target, progress Progress) error {
	s.mu.Lock()
	s.hold(d)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.release(d)
	}()
	if err := s.restore(ctx, d, dst, newReport(progress, d.info.Data)); err != nil {
		return fmt.Errorf("restore disk %q: %w", d.info.Name, err)
	}
	return nil
}

func (s *Store) restore(ctx context.Context, d *Disk, dst Target, progress *report) error {
	if err := dst.Truncate(0); err != nil {
		return fmt.Errorf("empty the target: %w", err)
	}
	if err := dst.Truncate(d.info.Size); err != nil {
		return fmt.Errorf("size the target: %w", err)
	}
	r := &restorer{s: s, d: d, dst: dst, progress: progress}
	err := d.walk(ctx, visitor{leaf: func(n *manifest.Node, index int64) error {
		for i, ref := range n.Refs {
			if ref.IsHole() {
				continue
			}
			if err := r.want(ctx, ref, index*manifest.Fanout+int64(i)); err != nil {
				return err
			}
		}
		if r.leaves++; r.leaves == window {
			return r.flush(ctx)
		}
		return nil
	}})
	if err != nil {
		return err
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return fmt.Errorf("sync the target: %w", err)
	}
	return nil
}

// restorer restores window by window.
type restorer struct {
	s        *Store
	d        *Disk
	dst      Target
	progress *report

	leaves int
	order  []pack.ID // in the order in which they appear on the disk
	packs  map[pack.ID]*plan
}

// plan is what a window needs from one pack.
type plan struct {
	pack   *openPack
	wanted []wanted
}

// want plans a chunk.
func (r *restorer) want(ctx context.Context, ref manifest.Ref, index int64) error {
	p, slot, err := r.s.locate(ctx, ref, chunk.Data)
	if err == nil && int64(p.Entries[slot].Plain) != r.d.chunkLen(index) {
		err = fmt.Errorf("chunk of %d bytes: %w", p.Entries[slot].Plain, chunk.ErrDamaged)
	}
	if err != nil {
		return r.d.damage(index*r.d.info.ChunkSize, r.d.chunkLen(index), ref, err)
	}
	if r.packs == nil {
		r.packs = map[pack.ID]*plan{}
	}
	at := r.packs[p.id]
	if at == nil {
		at = &plan{pack: p}
		r.packs[p.id] = at
		r.order = append(r.order, p.id)
	}
	at.wanted = append(at.wanted, wanted{slot, index})
	return nil
}

// flush restores what was planned.
func (r *restorer) flush(ctx context.Context) error {
	type job struct {
		plan  *plan
		slots []uint32
		run   run
	}
	jobs := make(chan job)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(jobs)
		for _, id := range r.order {
			pl := r.packs[id]
			pl.sort()
			slots := make([]uint32, len(pl.wanted))
			for i, w := range pl.wanted {
				slots[i] = w.slot
			}
			for _, one := range pl.pack.runs(slots) {
				select {
				case jobs <- job{pl, slots, one}:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			b := newRestoreBuffers(r)
			for j := range jobs {
				if err := ctx.Err(); err != nil {
					return context.Cause(ctx)
				}
				if err := b.run(ctx, j.plan, j.slots, j.run); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	r.leaves, r.order, r.packs = 0, nil, nil
	return err
}

// sort puts the wanted chunks in the order of their records.
func (pl *plan) sort() {
	slices.SortFunc(pl.wanted, func(a, b wanted) int {
		if a.slot == b.slot {
			return int(a.index - b.index)
		}
		return int(int64(pl.pack.Entries[a.slot].Offset) - int64(pl.pack.Entries[b.slot].Offset))
	})
}

// restoreBuffers belong to one worker.
type restoreBuffers struct {
	r      *restorer
	sealed []byte
	plain  []byte
	// out collects chunks that are neighbours on the disk, from chunk first on.
	out   []byte
	first int64
	next  int64
}

func newRestoreBuffers(r *restorer) *restoreBuffers {
	return &restoreBuffers{r: r, sealed: make([]byte, runSize), plain: make([]byte, 0, r.d.info.ChunkSize), out: make([]byte, 0, unitSize)}
}

func (b *restoreBuffers) run(ctx context.Context, pl *plan, slots []uint32, one run) error {
	d := b.r.d
	err := b.r.s.readRun(ctx, pl.pack, slots, one, b.sealed, b.plain, func(i int, plain []byte, err error) error {
		index := pl.wanted[i].index
		if err != nil {
			plain, err = b.r.s.readElsewhere(ctx, pl.pack.ref(slots[i]), chunk.Data, err)
		}
		if err != nil {
			return d.damage(index*d.info.ChunkSize, d.chunkLen(index), manifest.Ref{Pack: pl.pack.id}, err)
		}
		if len(b.out) > 0 && (index != b.next || len(b.out)+len(plain) > cap(b.out)) {
			if err := b.write(); err != nil {
				return err
			}
		}
		if len(b.out) == 0 {
			b.first = index
		}
		b.out, b.next = append(b.out, plain...), index+1
		return nil
	})
	if err != nil {
		return err
	}
	return b.write()
}

// write writes what was collected.
func (b *restoreBuffers) write() error {
	if len(b.out) == 0 {
		return nil
	}
	off := b.first * b.r.d.info.ChunkSize
	if _, err := b.r.dst.WriteAt(b.out, off); err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b.out), off, err)
	}
	b.r.progress.add(int64(len(b.out)))
	b.out = b.out[:0]
	return nil
}
