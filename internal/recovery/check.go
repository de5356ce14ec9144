package recovery

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// Report is what Check has found.
type Report struct {
	Points   int            `json:"points"`
	Disks    int            `json:"disks"`
	Packs    int            `json:"packs"`    // that points need
	Unneeded int            `json:"unneeded"` // packs that no point needs
	Chunks   int64          `json:"chunks"`   // different chunks of disks that points need
	Bytes    int64          `json:"bytes"`    // of these, as they are stored
	Damage   []*DamageError `json:"-"`        // by point and disk, neighbouring ranges as one
}

// Check looks whether every point can be restored: that all nodes can be read and every chunk is where it
// should be, and with readData that every chunk opens and is what its id says. Each chunk
// is read once, in the order of the packs, however many points share it.
//
// Damage is not an error of Check: it is in the report, with every point and range that it hits.
func (s *Store) Check(ctx context.Context, readData bool, progress Progress) (Report, error) {
	c := &checker{
		s: s, badNodes: map[manifest.Ref]error{}, badChunks: map[manifest.Ref]error{},
		seen: map[manifest.Ref]bool{}, packs: map[pack.ID]*neededPack{},
	}
	if err := c.check(ctx, readData, progress); err != nil {
		return c.report, fmt.Errorf("check recovery store: %w", err)
	}
	return c.report, nil
}

type checker struct {
	s      *Store
	report Report
	points []*Point

	seen     map[manifest.Ref]bool
	badNodes map[manifest.Ref]error
	packs    map[pack.ID]*neededPack // what is needed, and where it really is

	mu        sync.Mutex
	badChunks map[manifest.Ref]error
}

// neededPack is what disks need of a pack.
type neededPack struct {
	slotSet
	bad atomic.Bool
}

func (c *checker) check(ctx context.Context, readData bool, progress Progress) error {
	if err := c.listPoints(ctx); err != nil {
		return err
	}
	for _, p := range c.points {
		if err := c.structure(ctx, p); err != nil {
			return err
		}
	}
	if readData {
		if err := c.content(ctx, newReport(progress, c.report.Bytes)); err != nil {
			return err
		}
	}
	if err := c.countPacks(ctx); err != nil {
		return err
	}
	if len(c.badNodes) == 0 && len(c.badChunks) == 0 {
		return nil
	}
	for _, p := range c.points {
		if err := c.blame(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) listPoints(ctx context.Context) error {
	for o, err := range c.s.bucket.List(ctx, pointPrefix) {
		if err != nil {
			return fmt.Errorf("list recovery points: %w", err)
		}
		p, err := c.s.readPoint(ctx, o.Name, strings.TrimPrefix(o.Name, pointPrefix))
		var damage *DamageError
		switch {
		case errors.Is(err, objects.ErrNotExist): // deleted meanwhile
		case errors.As(err, &damage):
			c.report.Damage = append(c.report.Damage, damage)
		case err != nil:
			return err
		default:
			c.points = append(c.points, p)
			c.report.Points++
			c.report.Disks += len(p.manifest.Disks)
		}
	}
	return nil
}

// structure visits every node of a point that was not visited yet and marks what it refers to.
func (c *checker) structure(ctx context.Context, p *Point) error {
	for _, a := range p.manifest.Attachments {
		_, err := c.s.readAttachment(ctx, p.ID, a)
		var damage *DamageError
		if errors.As(err, &damage) {
			c.report.Damage = append(c.report.Damage, damage)
		} else if err != nil {
			return err
		}
		if ref, err := a.Ref.Ref(); err == nil {
			c.needed(ref.Pack)
		}
	}
	for _, info := range p.manifest.Disks {
		d, err := newDisk(c.s, p.ID, p.label, info)
		if err != nil {
			return err
		}
		err = d.walk(ctx, visitor{
			enter: func(ref manifest.Ref, _ int, _ int64) bool {
				seen := c.seen[ref]
				c.seen[ref] = true
				c.needed(ref.Pack)
				return !seen
			},
			leaf: func(n *manifest.Node, index int64) error { return c.leaf(ctx, d, n, index) },
			fail: func(ref manifest.Ref, err error) error { c.badNodes[ref] = err; return nil },
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) leaf(ctx context.Context, d *Disk, n *manifest.Node, index int64) error {
	for i, ref := range n.Refs {
		if ref.IsHole() {
			continue
		}
		at, slot, err := c.s.locate(ctx, ref, chunk.Data)
		if err == nil && int64(at.Entries[slot].Plain) != d.chunkLen(index*manifest.Fanout+int64(i)) {
			err = fmt.Errorf("chunk of %d bytes: %w", at.Entries[slot].Plain, chunk.ErrDamaged)
		}
		if err != nil {
			if !isDamage(err) {
				return err
			}
			c.badChunks[ref] = err
			continue
		}
		if c.needed(at.id).add(slot) {
			c.report.Chunks++
			c.report.Bytes += int64(at.Entries[slot].Length)
		}
	}
	return nil
}

func (c *checker) needed(id pack.ID) *neededPack {
	set := c.packs[id]
	if set == nil {
		set = &neededPack{}
		c.packs[id] = set
	}
	return set
}

// content reads every chunk that was marked.
func (c *checker) content(ctx context.Context, progress *report) error {
	group, ctx := errgroup.WithContext(ctx)
	jobs := make(chan pack.ID)
	group.Go(func() error {
		defer close(jobs)
		for id := range c.packs {
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
			sealed, plain := make([]byte, runSize), make([]byte, 0, chunk.MaxSize)
			for id := range jobs {
				if err := c.pack(ctx, id, sealed, plain, progress); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *checker) pack(ctx context.Context, id pack.ID, sealed, plainBuf []byte, progress *report) error {
	slots := c.packs[id].slots()
	if len(slots) == 0 {
		return nil
	}
	p, err := c.s.openPack(ctx, id)
	if err != nil {
		return err // a moment ago it could be opened
	}
	p.sortByOffset(slots)
	for _, one := range p.runs(slots) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := c.s.readRun(ctx, p, slots, one, sealed, plainBuf, func(i int, plain []byte, err error) error {
			e := p.Entries[slots[i]]
			if err == nil && c.s.keys.hasher.ID(chunk.Data, plain) != e.ID {
				err = fmt.Errorf("%s: chunk %s has other content: %w", id.Name(), e.ID, chunk.ErrDamaged)
			}
			progress.add(int64(e.Length))
			if err != nil {
				c.packs[id].bad.Store(true)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.badChunks[manifest.Ref{ID: e.ID, Pack: id, Slot: slots[i]}] = err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// countPacks counts the packs that exist by whether they are needed.
func (c *checker) countPacks(ctx context.Context) error {
	for o, err := range c.s.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		id, ok := pack.ParseName(o.Name)
		switch {
		case !ok:
		case c.packs[id] == nil:
			c.report.Unneeded++
		default:
			c.report.Packs++
		}
	}
	return nil
}

// blame walks through a point again and reports the ranges that bad nodes and bad chunks stand for.
func (c *checker) blame(ctx context.Context, p *Point) error {
	for _, info := range p.manifest.Disks {
		d, err := newDisk(c.s, p.ID, p.label, info)
		if err != nil {
			return err
		}
		var found []*DamageError
		err = d.walk(ctx, visitor{
			enter: func(ref manifest.Ref, level int, index int64) bool {
				cause, bad := c.badNodes[ref]
				if bad {
					off, length := d.span(level, index)
					found = append(found, c.damage(d, off, length, ref, cause))
				}
				return !bad
			},
			leaf: func(n *manifest.Node, index int64) error {
				for i, ref := range n.Refs {
					cause, bad := c.bad(ctx, ref)
					if bad {
						at := index*manifest.Fanout + int64(i)
						found = append(found, c.damage(d, at*d.info.ChunkSize, d.chunkLen(at), ref, cause))
					}
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		c.report.Damage = append(c.report.Damage, merge(found)...)
	}
	return nil
}

// bad tells whether a chunk is bad, where it is or where it was found instead.
func (c *checker) bad(ctx context.Context, ref manifest.Ref) (error, bool) {
	if ref.IsHole() {
		return nil, false
	}
	if err, ok := c.badChunks[ref]; ok {
		return err, true
	}
	p, slot, err := c.s.locate(ctx, ref, chunk.Data)
	if err != nil {
		return err, true
	}
	if p.id == ref.Pack || !c.needed(p.id).bad.Load() {
		return nil, false
	}
	err, ok := c.badChunks[manifest.Ref{ID: ref.ID, Pack: p.id, Slot: slot}]
	return err, ok
}

func (c *checker) damage(d *Disk, off, length int64, ref manifest.Ref, err error) *DamageError {
	var inner *DamageError
	if errors.As(err, &inner) {
		err = inner.Err // it named the range on the disk where it was found first
	}
	return &DamageError{Point: d.point, Disk: d.info.Name, Offset: off, Length: length, Object: ref.Pack.Name(), Err: err}
}

// merge joins ranges of one disk that follow each other and are damaged by the same object.
func merge(found []*DamageError) []*DamageError {
	slices.SortFunc(found, func(a, b *DamageError) int { return int(a.Offset - b.Offset) })
	var all []*DamageError
	for _, e := range found {
		if n := len(all); n > 0 && all[n-1].Offset+all[n-1].Length == e.Offset && all[n-1].Object == e.Object {
			all[n-1].Length += e.Length
			continue
		}
		all = append(all, e)
	}
	return all
}
