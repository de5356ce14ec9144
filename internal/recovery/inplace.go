package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kluis/internal/recovery/chunk"
)

// tally counts what becomes of the target's bytes.
type tally struct{ read, same, written, zeroed atomic.Int64 }

func (r *restorer) counters() Restored {
	return Restored{
		Size: r.d.info.Size, Read: r.tally.read.Load(), Same: r.tally.same.Load(),
		Written: r.tally.written.Load(), Zeroed: r.tally.zeroed.Load(),
	}
}

// different returns the chunks that the target does not hold where they belong. It tells by their ids,
// so nothing is read from the store for those that are right.
func (r *restorer) different(ctx context.Context, chunks []wanted) ([]wanted, error) {
	differs := make([]bool, len(chunks))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers())
	for first := 0; first < len(chunks); {
		end := first + 1
		for end < len(chunks) && chunks[end].index == chunks[end-1].index+1 && int64(end+1-first)*r.d.info.ChunkSize <= unitSize {
			end++
		}
		part, into := chunks[first:end], differs[first:end]
		group.Go(func() error { return r.compare(ctx, part, into) })
		first = end
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	rest := chunks[:0]
	for i, w := range chunks {
		if differs[i] {
			rest = append(rest, w)
		}
	}
	return rest, nil
}

// compare reads a piece of the target and tells which of its chunks are others.
func (r *restorer) compare(ctx context.Context, chunks []wanted, differs []bool) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	off := chunks[0].index * r.d.info.ChunkSize
	last := chunks[len(chunks)-1].index
	length := last*r.d.info.ChunkSize + r.d.chunkLen(last) - off
	start, n, err := r.used.NextData(off)
	if err != nil {
		return fmt.Errorf("look at the target at %d: %w", off, err)
	}
	if n == 0 || start >= off+length { // a hole, and a chunk is never all zeros
		for i := range differs {
			differs[i] = true
		}
		return nil
	}
	buf := units.Get().(*[]byte)
	defer units.Put(buf)
	there, err := r.readTarget(*buf, off, length)
	if err != nil {
		return err
	}
	for i, w := range chunks {
		n := r.d.chunkLen(w.index)
		if r.s.keys.hasher.ID(chunk.Data, there[:n]) == w.ref.ID {
			r.tally.same.Add(n)
			r.progress.add(n)
		} else {
			differs[i] = true
		}
		there = there[n:]
	}
	return nil
}

// readTarget reads what the target holds at a place.
func (r *restorer) readTarget(buf []byte, off, length int64) ([]byte, error) {
	there := buf[:length]
	if n, err := r.used.ReadAt(there, off); n < len(there) {
		return nil, fmt.Errorf("read %d bytes of the target at %d: %w", length, off, err)
	}
	r.tally.read.Add(length)
	return there, nil
}

// zero makes holes read as zeros where the target may hold something else.
func (r *restorer) zero(ctx context.Context, holes []Extent) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers())
	for _, hole := range holes {
		for off, end := hole.Offset, hole.Offset+hole.Length; off < end && ctx.Err() == nil; {
			piece, err := r.nextPiece(off, end)
			if err != nil {
				return errors.Join(err, group.Wait())
			}
			if piece.Length > 0 {
				group.Go(func() error { return r.zeroPiece(ctx, piece) })
			}
			off = piece.Offset + piece.Length
		}
	}
	return group.Wait()
}

// nextPiece returns the next range to be zeroed between off and end; it is empty, at end, if there is none.
func (r *restorer) nextPiece(off, end int64) (Extent, error) {
	start, n, err := r.used.NextData(off)
	if err != nil {
		return Extent{}, fmt.Errorf("look at the target at %d: %w", off, err)
	}
	if n <= 0 || start >= end {
		return Extent{end, 0}, nil
	}
	start, end = max(start, off), min(start+n, end)
	return Extent{start, min(end-start, r.zeroStep())}, nil
}

// zeroStep is how much is zeroed at once: what is read and looked at first, or as much as even a device
// that has to write all the zeros does in an instant.
func (r *restorer) zeroStep() int64 {
	if r.inPlace {
		return unitSize
	}
	return 32 * unitSize
}

func (r *restorer) zeroPiece(ctx context.Context, e Extent) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if r.inPlace {
		buf := units.Get().(*[]byte)
		defer units.Put(buf)
		there, err := r.readTarget(*buf, e.Offset, e.Length)
		if err != nil {
			return err
		}
		if bytes.Equal(there, zeros[:len(there)]) {
			r.tally.same.Add(e.Length)
			return nil
		}
	}
	if err := r.used.WriteZeroes(e.Offset, e.Length); err != nil {
		return fmt.Errorf("zero %d bytes at %d: %w", e.Length, e.Offset, err)
	}
	r.tally.zeroed.Add(e.Length)
	return nil
}

var units = sync.Pool{New: func() any { b := make([]byte, unitSize); return &b }}
