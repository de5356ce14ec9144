package nbd

import (
	"context"
	"iter"
)

// Source is an export as a backup reads it: which ranges, and their bytes.
type Source struct {
	*Client
	bitmap string // the context of the bitmap; empty without one
}

// Source returns the export as a source. With the name of a dirty bitmap that the server granted, its
// extents are what changed since the bitmap began; otherwise they are all that may hold something. A
// bitmap has to be asked for when connecting, as ContextDirtyPrefix and its name.
func (c *Client) Source(bitmap string) *Source {
	s := &Source{Client: c}
	if context := ContextDirtyPrefix + bitmap; bitmap != "" && c.Has(context) {
		s.bitmap = context
	}
	return s
}

// Changed reports whether the extents are only what changed.
func (s *Source) Changed() bool { return s.bitmap != "" }

// Extents yields what must be read, ascending and apart from each other. What changed may read as zeros
// now. A server that says nothing about allocation is read whole. An error is the last thing it yields.
func (s *Source) Extents(ctx context.Context) iter.Seq2[Extent, error] {
	switch {
	case s.Changed():
		return s.with(ctx, s.bitmap, func(flags uint32) bool { return flags&StateDirty != 0 })
	case s.Has(ContextAllocation):
		return s.with(ctx, ContextAllocation, func(flags uint32) bool { return flags&StateZero == 0 })
	}
	return func(yield func(Extent, error) bool) {
		if s.Size() > 0 {
			yield(Extent{Length: s.Size()}, nil)
		}
	}
}

// with yields the extents whose flags are wanted; neighbours come as one.
func (s *Source) with(ctx context.Context, context string, wanted func(flags uint32) bool) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var last Extent
		for e, err := range s.BlockStatus(ctx, context, 0, s.Size()) {
			switch {
			case err != nil:
				yield(Extent{}, err)
				return
			case !wanted(e.Flags):
				continue
			case last.Length > 0 && last.Offset+last.Length == e.Offset:
				last.Length += e.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = Extent{Offset: e.Offset, Length: e.Length}
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}
