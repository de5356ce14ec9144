package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// blame walks through a point again and reports the ranges that bad nodes and bad chunks stand for.
func (c *checker) blame(ctx context.Context, p *Point) error {
	var all []*DamageError
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
					cause, bad := c.isBad(ctx, ref)
					if bad {
						at := index*manifest.Fanout + int64(i)
						found = append(found, c.damage(d, at*d.info.ChunkSize, d.chunkLen(at), ref, cause))
					}
				}
				return nil
			},
			fail: func(ref manifest.Ref, err error) error {
				var damage *DamageError
				if errors.As(err, &damage) {
					found = append(found, damage)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		all = append(all, merge(found)...)
	}
	if len(all) == 0 {
		return nil
	}
	return c.accuse(ctx, p, all...)
}

// accuse reports damage of a point, unless the point was deleted meanwhile: then what it needed may be gone.
func (c *checker) accuse(ctx context.Context, p *Point, found ...*DamageError) error {
	r, err := c.s.bucket.Get(ctx, pointPrefix+p.label, 0, 0)
	if errors.Is(err, objects.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look for recovery point: %w", err)
	}
	c.report.Damage = append(c.report.Damage, found...)
	return r.Close()
}

// isBad tells whether a chunk is bad, where it is or where it was found instead.
func (c *checker) isBad(ctx context.Context, ref manifest.Ref) (error, bool) {
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
	if p.id == ref.Pack || c.packs[p.id] == nil || !c.packs[p.id].bad.Load() {
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
