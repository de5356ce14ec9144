package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

// noteEvery is after how many bytes a run notes what it has verified.
const noteEvery = 4 << 30

// ScrubOptions say how to scrub.
type ScrubOptions struct {
	Now      func() time.Time // required
	Budget   int64            // bytes to read; 0 means all
	ReadOnly bool             // leaves no note of what was scrubbed
	Progress Progress
}

// Scrubbed is what Scrub has found.
type Scrubbed struct {
	Packs  int         `json:"packs"`
	Bytes  int64       `json:"bytes"`
	Left   int         `json:"left"`   // packs that the budget did not reach
	Damage []PackRange `json:"damage"` // what is not as it was written
}

// PackRange is a part of a pack.
type PackRange struct {
	Object         string `json:"object"`
	Offset, Length int64
}

// Scrub reads the packs of the store in b and compares them with their checksums. It needs no key, so
// whoever keeps the bytes can do it. The pack that was not scrubbed for the longest time comes first; a run that
// ends early, by its budget or otherwise, is gone on with by the next.
//
// It finds bytes that have decayed. That they mean what they should is proved by Check.
func Scrub(ctx context.Context, b objects.Bucket, o ScrubOptions) (Scrubbed, error) {
	var done Scrubbed
	record, _, err := readVerified(ctx, b)
	if err != nil {
		return done, fmt.Errorf("scrub: %w", err)
	}
	sizes := map[pack.ID]int64{}
	var ids []pack.ID
	for o, err := range b.List(ctx, pack.Prefix) {
		if err != nil {
			return done, fmt.Errorf("scrub: list packs: %w", err)
		}
		if id, ok := pack.ParseName(o.Name); ok {
			sizes[id] = o.Size
			ids = append(ids, id)
		}
	}
	ids, done.Left = record.choose(ids, LevelScrub, o.Budget, func(id pack.ID) int64 { return sizes[id] })
	var total int64
	for _, id := range ids {
		total += sizes[id]
	}
	progress := newReport(o.Progress, total)
	notes := notebook{bucket: b, readOnly: o.ReadOnly, exists: func(id pack.ID) bool { _, ok := sizes[id]; return ok }}
	for _, id := range ids {
		if err = ctx.Err(); err != nil {
			break
		}
		var bad []pack.Range
		bad, err = scrubPack(ctx, b, id, sizes[id])
		if errors.Is(err, objects.ErrNotExist) {
			err = nil // collected meanwhile
			continue
		} else if err != nil {
			break
		}
		for _, r := range bad {
			done.Damage = append(done.Damage, PackRange{id.Name(), r.Offset, r.Length})
		}
		done.Packs++
		done.Bytes += sizes[id]
		progress.add(sizes[id])
		if err = notes.add(ctx, id, verdict{scrubbed: o.Now().UnixMicro(), bad: len(bad) > 0}, sizes[id]); err != nil {
			break
		}
	}
	if err := errors.Join(err, notes.save(ctx)); err != nil {
		return done, fmt.Errorf("scrub: %w", err)
	}
	return done, nil
}

// choose returns the packs to verify, those that were not for the longest time first, as far as the budget
// reaches, which is always for one.
func (v verified) choose(ids []pack.ID, l Level, budget int64, size func(pack.ID) int64) (chosen []pack.ID, left int) {
	slices.SortFunc(ids, func(a, b pack.ID) int {
		if x, y := v[a].at(l), v[b].at(l); x != y {
			return int(max(-1, min(1, x-y)))
		}
		return slices.Compare(a[:], b[:])
	})
	if budget <= 0 {
		return ids, 0
	}
	for n, id := range ids {
		if budget -= size(id); budget < 0 && n > 0 {
			return ids[:n], len(ids) - n
		}
	}
	return ids, 0
}

// notebook collects what a run has verified.
type notebook struct {
	bucket   objects.Bucket
	exists   func(pack.ID) bool
	readOnly bool

	found verified
	bytes int64
}

func (n *notebook) add(ctx context.Context, id pack.ID, v verdict, size int64) error {
	if n.found == nil {
		n.found = verified{}
	}
	n.found[id] = v
	if n.bytes += size; n.bytes < noteEvery {
		return nil
	}
	return n.save(ctx)
}

// save stores the notes, also of a run that was cancelled.
func (n *notebook) save(ctx context.Context) error {
	if n.readOnly || len(n.found) == 0 {
		return nil
	}
	err := noteVerified(context.WithoutCancel(ctx), n.bucket, n.found, n.exists)
	n.found, n.bytes = nil, 0
	return err
}

// scrubPack compares a pack with its checksums. What can't be read at all is damaged as a whole.
func scrubPack(ctx context.Context, b objects.Bucket, id pack.ID, size int64) ([]pack.Range, error) {
	whole := []pack.Range{{Offset: 0, Length: size}}
	end := make([]byte, pack.TrailerSize)
	if size < pack.TrailerSize {
		return whole, nil
	}
	if err := readRange(ctx, b, id.Name(), size-pack.TrailerSize, end); err != nil {
		return ifDecayed(whole, err)
	}
	trailer, err := pack.ParseTrailer(end, size)
	if err != nil {
		return ifDecayed(whole, err)
	}
	sums := make([]byte, trailer.SumsSize())
	if err := readRange(ctx, b, id.Name(), size-int64(len(sums)), sums); err != nil {
		return ifDecayed(whole, err)
	}
	r, err := b.Get(ctx, id.Name(), 0, size-int64(len(sums)))
	if err != nil {
		return ifDecayed(whole, err)
	}
	bad, err := pack.Scrub(r, trailer, sums)
	_ = r.Close()
	if err != nil && !errors.Is(err, chunk.ErrDamaged) {
		return ifDecayed(whole, noEOF(err))
	}
	return bad, nil
}

// ifDecayed tells what is damaged from what can't be read now, or was collected.
func ifDecayed(whole []pack.Range, err error) ([]pack.Range, error) {
	if isDamage(err) && !errors.Is(err, objects.ErrNotExist) {
		return whole, nil
	}
	return nil, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return objects.ErrTruncated
	}
	return err
}
