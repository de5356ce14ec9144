package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"

	"kluis/internal/fabric/image"
	"kluis/internal/recovery"
)

// source is an image as the recovery store reads it.
type source struct {
	*image.OpenDisk
	changed []recovery.Extent // what changed, where that is known
}

// openSource opens an image; with changes, a file that lists the extents that changed since the last point.
func openSource(ctx context.Context, path, format, changes string) (*source, error) {
	d, err := image.OpenFile(ctx, path, format)
	if err != nil {
		return nil, err
	}
	s := &source{OpenDisk: d}
	if changes != "" {
		if s.changed, err = readExtents(changes, d.Size()); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return s, nil
}

// Extents implements recovery.Source.
func (s *source) Extents(ctx context.Context) iter.Seq2[recovery.Extent, error] {
	return func(yield func(recovery.Extent, error) bool) {
		if s.changed != nil {
			for _, e := range s.changed {
				if !yield(e, nil) {
					return
				}
			}
			return
		}
		for e, err := range s.OpenDisk.Extents(ctx) {
			if !yield(recovery.Extent(e), err) {
				return
			}
		}
	}
}

// bytes is how much of the disk changed, where that is known.
func (s *source) bytes() (total int64) {
	for _, e := range s.changed {
		total += e.Length
	}
	return total
}

const maxExtentsFile = 1 << 30

// readExtents reads a list of changed extents: a JSON array of {"offset": N, "length": N}, in any order, on
// a disk of size bytes. It returns them ascending, those that touch or overlap as one.
func readExtents(path string, size int64) ([]recovery.Extent, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read changed extents: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	d := json.NewDecoder(io.LimitReader(f, maxExtentsFile))
	d.DisallowUnknownFields()
	var listed []struct {
		Offset *int64 `json:"offset"`
		Length *int64 `json:"length"`
	}
	if err := d.Decode(&listed); err != nil {
		return nil, fmt.Errorf("read changed extents: %s is not a JSON array of {\"offset\": N, \"length\": N}: %w", path, err)
	}
	if d.More() {
		return nil, fmt.Errorf("read changed extents: %s goes on after the array", path)
	}
	extents := make([]recovery.Extent, 0, len(listed))
	for i, e := range listed {
		if e.Offset == nil || e.Length == nil || *e.Offset < 0 || *e.Length < 0 || *e.Length > size-*e.Offset {
			return nil, fmt.Errorf("read changed extents: %s: extent %d has no place on a disk of %d bytes", path, i, size)
		}
		extents = append(extents, recovery.Extent{Offset: *e.Offset, Length: *e.Length})
	}
	return union(extents), nil
}

func union(extents []recovery.Extent) []recovery.Extent {
	slices.SortFunc(extents, func(a, b recovery.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	all := extents[:0]
	for _, e := range extents {
		if n := len(all); n > 0 && e.Offset <= all[n-1].Offset+all[n-1].Length {
			all[n-1].Length = max(all[n-1].Length, e.Offset+e.Length-all[n-1].Offset)
			continue
		}
		all = append(all, e)
	}
	return all
}

var _ recovery.Source = (*source)(nil)

// formatsHelp says what --format takes.
const formatsHelp = "format of the image: raw, qcow2, vhd or vhdx"
