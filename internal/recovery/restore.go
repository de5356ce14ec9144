package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"

	"kluis/internal/recovery/manifest"
)

// Used is a Target that holds something already: an image that is rolled back, a block device, what an
// interrupted restore has left. Restore zeroes there what is a hole in the disk. All methods are called
// from several goroutines.
type Used interface {
	Target
	io.ReaderAt
	// WriteZeroes makes a range read as zeros, and gives its space back where that is possible.
	WriteZeroes(off, n int64) error
	// NextData returns the first range at or after off that may hold anything but zeros; n is 0 if there
	// is none.
	NextData(off int64) (start, n int64, err error)
}

// RestoreOptions say how to restore a disk.
type RestoreOptions struct {
	// InPlace reads what the target holds, which must be Used, and writes only what differs. It is also
	// how an interrupted restore goes on: what the target really holds is right after a power cut too,
	// while a list of what was written could tell of bytes that never reached the disk.
	InPlace  bool
	NoSync   bool  // leaves it to the caller to make the target durable
	Rate     *Rate // of what is written; nil means no bound
	Progress Progress
}

// Restored says what a restore has done, in bytes of the disk. What is not counted was left as a hole.
type Restored struct {
	Size    int64 `json:"size"`
	Read    int64 `json:"read"`    // from the target, to be compared
	Same    int64 `json:"same"`    // of it, what was right already
	Written int64 `json:"written"` // with data
	Zeroed  int64 `json:"zeroed"`  // because it is a hole in the disk and was none in the target
}

// Restore writes a disk to dst: its size is set, and what is not a hole is written, so that a file
// becomes a sparse one. What dst held before is cut off first, unless it is Used. The order is the order
// of the packs, read by several workers:
//
//	for each window of leaves
//	    in place: read the target, and forget the chunks that are there already
//	    look up where each chunk is, group by pack, sort by offset
//	    for each run of neighbours: read once, open, write pieces of the disk
//
// Bytes that don't authenticate are never written: Restore then stops with a DamageError.
func (s *Store) Restore(ctx context.Context, d *Disk, dst Target, o RestoreOptions) (Restored, error) {
	defer d.Hold()()
	r := &restorer{s: s, d: d, dst: dst, inPlace: o.InPlace, rate: o.Rate, progress: newReport(o.Progress, d.info.Data)}
	r.used, _ = dst.(Used)
	err := r.restore(ctx)
	if err == nil && !o.NoSync {
		if err = dst.Sync(); err != nil {
			err = fmt.Errorf("sync the target: %w", err)
		}
	}
	if err != nil {
		return r.counters(), fmt.Errorf("restore disk %q: %w", d.info.Name, err)
	}
	return r.counters(), nil
}

// restorer restores window by window.
type restorer struct {
	s        *Store
	d        *Disk
	dst      Target
	used     Used // dst, if it is that
	inPlace  bool
	rate     *Rate
	progress *report
	tally    tally

	leaves int
	chunks []wanted // of this window, in the order of the disk
	holes  []Extent // before and between them
	end    int64    // up to which the disk was looked at
}

// wanted is a chunk of the disk to be restored.
type wanted struct {
	ref   manifest.Ref
	index int64
}

// window is how many leaves are planned at once: 4 GiB of a disk, which bounds the plan's memory.
const window = 64

func (r *restorer) restore(ctx context.Context) error {
	if r.inPlace && r.used == nil {
		return errors.New("the target cannot be read, so it cannot be restored in place")
	}
	if err := r.prepare(); err != nil {
		return err
	}
	err := r.d.walk(ctx, visitor{leaf: func(n *manifest.Node, index int64) error {
		for i, ref := range n.Refs {
			if !ref.IsHole() {
				r.want(ref, index*manifest.Fanout+int64(i))
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
	r.skipTo(r.d.info.Size)
	return r.flush(ctx)
}

// prepare gives the target its size, and empties it if it is not one that keeps what it holds.
func (r *restorer) prepare() error {
	if r.used == nil {
		if err := r.dst.Truncate(0); err != nil {
			return fmt.Errorf("empty the target: %w", err)
		}
	}
	if err := r.dst.Truncate(r.d.info.Size); err != nil {
		return fmt.Errorf("size the target: %w", err)
	}
	return nil
}

// want notes a chunk, and the hole before it.
func (r *restorer) want(ref manifest.Ref, index int64) {
	off := index * r.d.info.ChunkSize
	r.skipTo(off)
	r.chunks = append(r.chunks, wanted{ref, index})
	r.end = off + r.d.chunkLen(index)
}

// skipTo notes that everything up to off is a hole.
func (r *restorer) skipTo(off int64) {
	if off > r.end && r.used != nil {
		r.holes = append(r.holes, Extent{r.end, off - r.end})
	}
	r.end = off
}

// flush restores what was noted.
func (r *restorer) flush(ctx context.Context) error {
	chunks, holes := r.chunks, r.holes
	r.leaves, r.chunks, r.holes = 0, r.chunks[:0], r.holes[:0]
	if err := r.zero(ctx, holes); err != nil {
		return err
	}
	if r.inPlace {
		var err error
		if chunks, err = r.different(ctx, chunks); err != nil {
			return err
		}
	}
	plans, err := r.d.plan(ctx, chunks)
	if err != nil {
		return err
	}
	return r.carryOut(ctx, plans)
}
