package recovery

import (
	"context"
	"fmt"
	"slices"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// tailSize is what is read of the end of a pack at first: enough for trailer, sums and the footer of a pack
// of 64 MiB full of chunks that don't compress.
const tailSize = 48 << 10

// Reading goes by coalesced runs: neighbouring records are read in one piece, and so are gaps that are
// cheaper to read than to skip.
const (
	runSize = 1<<20 + 64<<10
	gapSize = 64 << 10
)

// openPack is what is needed to read the records of a pack.
type openPack struct {
	pack.Footer
	id  pack.ID
	box *chunk.Box
}

// openPack returns the pack with its footer read.
func (s *Store) openPack(ctx context.Context, id pack.ID) (*openPack, error) {
	if p, ok := s.packs.get(id); ok {
		return p, nil
	}
	size, err := s.packSize(ctx, id)
	if err != nil {
		return nil, err
	}
	footer, err := s.readFooter(ctx, id, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id.Name(), err)
	}
	box, err := s.keys.box(id)
	if err != nil {
		return nil, err
	}
	p := &openPack{footer, id, box}
	s.packs.put(id, p, 32*len(footer.Entries)+2048)
	return p, nil
}

// packSize returns the size of a pack's object.
func (s *Store) packSize(ctx context.Context, id pack.ID) (int64, error) {
	s.mu.Lock()
	size, ok := s.sizes[id]
	s.mu.Unlock()
	if ok {
		return size, nil
	}
	for o, err := range s.bucket.List(ctx, id.Name()) {
		if err != nil {
			return 0, err
		}
		if o.Name == id.Name() {
			return o.Size, nil
		}
	}
	return 0, fmt.Errorf("%s: %w", id.Name(), objects.ErrNotExist)
}

func (s *Store) readFooter(ctx context.Context, id pack.ID, size int64) (pack.Footer, error) {
	tail := make([]byte, min(size, tailSize))
	tailOff := size - int64(len(tail))
	if err := readRange(ctx, s.bucket, id.Name(), tailOff, tail); err != nil {
		return pack.Footer{}, err
	}
	trailer, err := pack.ParseTrailer(tail[max(0, len(tail)-pack.TrailerSize):], size)
	if err != nil {
		return pack.Footer{}, err
	}
	sealed := make([]byte, trailer.FooterLen)
	if trailer.FooterOff >= tailOff {
		copy(sealed, tail[trailer.FooterOff-tailOff:])
	} else if err := readRange(ctx, s.bucket, id.Name(), trailer.FooterOff, sealed); err != nil {
		return pack.Footer{}, err
	}
	key, err := expand(s.keys.footers, id[:])
	if err != nil {
		return pack.Footer{}, err
	}
	return pack.OpenFooter(sealed, key, id, trailer)
}

// locate finds the record of a chunk: where the reference says, or where the index knows it.
func (s *Store) locate(ctx context.Context, ref manifest.Ref, kind chunk.Kind) (*openPack, uint32, error) {
	p, err := s.openPack(ctx, ref.Pack)
	if err == nil && p.holds(ref, kind) {
		if s.isDamaged(ref) {
			if other, slot, err := s.relocate(ctx, ref, kind, errMarked); err == nil {
				return other, slot, nil
			}
		}
		return p, ref.Slot, nil // also if it is damaged: there is no other place to try
	}
	if err != nil && !isDamage(err) {
		return nil, 0, err
	}
	if err == nil {
		err = fmt.Errorf("%s: no chunk %s in slot %d: %w", ref.Pack.Name(), ref.ID, ref.Slot, chunk.ErrDamaged)
	}
	return s.relocate(ctx, ref, kind, err)
}

func (p *openPack) holds(ref manifest.Ref, kind chunk.Kind) bool {
	return int64(ref.Slot) < int64(len(p.Entries)) && p.Entries[ref.Slot].ID == ref.ID && p.Entries[ref.Slot].Kind == kind
}

// read returns one chunk.
func (s *Store) read(ctx context.Context, ref manifest.Ref, kind chunk.Kind) ([]byte, error) {
	p, slot, err := s.locate(ctx, ref, kind)
	if err != nil {
		return nil, err
	}
	plain, err := s.readAt(ctx, p, slot)
	if err != nil {
		return s.readElsewhere(ctx, manifest.Ref{ID: ref.ID, Pack: p.id, Slot: slot}, kind, err)
	}
	return plain, nil
}

func (p *openPack) place(slot uint32) chunk.Place { return chunk.Place{Pack: p.id, Slot: slot} }

func (p *openPack) ref(slot uint32) manifest.Ref {
	return manifest.Ref{ID: p.Entries[slot].ID, Pack: p.id, Slot: slot}
}

// node returns a node of a manifest. It is shared and must not be changed.
func (s *Store) node(ctx context.Context, ref manifest.Ref, level int) (*manifest.Node, error) {
	if n, ok := s.nodes.get(ref); ok && n.Level == level {
		return n, nil
	}
	plain, err := s.read(ctx, ref, chunk.Node)
	if err != nil {
		return nil, err
	}
	n, err := manifest.ParseNode(plain, level)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref.Pack.Name(), err)
	}
	s.nodes.put(ref, n, 1)
	return n, nil
}

// run is a range of a pack that is read in one piece.
type run struct {
	first, last int // of the slots that were asked for
	off, end    int64
}

// runs cuts slots, which are sorted by offset, into runs.
func (p *openPack) runs(slots []uint32) []run {
	var all []run
	for i, slot := range slots {
		e := p.Entries[slot]
		off, end := int64(e.Offset), int64(e.Offset)+int64(e.Length)
		if n := len(all); n > 0 && off-all[n-1].end <= gapSize && max(end, all[n-1].end)-all[n-1].off <= runSize {
			all[n-1].last, all[n-1].end = i, max(end, all[n-1].end)
			continue
		}
		all = append(all, run{i, i, off, end})
	}
	return all
}

// sortByOffset sorts slots in the order of their records.
func (p *openPack) sortByOffset(slots []uint32) {
	slices.SortFunc(slots, func(a, b uint32) int { return int(int64(p.Entries[a].Offset) - int64(p.Entries[b].Offset)) })
}

// readRun gives each the chunks of a run. buf is of runSize at least, or nil for one that is too long;
// plain is valid only during the call. A damaged record comes with its error, and the others still come.
func (s *Store) readRun(ctx context.Context, p *openPack, slots []uint32, r run, buf, plainBuf []byte, each func(i int, plain []byte, err error) error) error {
	if int64(len(buf)) < r.end-r.off {
		buf = make([]byte, r.end-r.off)
	}
	sealed := buf[:r.end-r.off]
	if err := readRange(ctx, s.bucket, p.id.Name(), r.off, sealed); err != nil {
		if !isDamage(err) {
			return err
		}
		if r.first == r.last {
			return each(r.first, nil, err)
		}
		for i := r.first; i <= r.last; i++ { // one by one, to tell the good from the bad
			e := p.Entries[slots[i]]
			one := run{i, i, int64(e.Offset), int64(e.Offset) + int64(e.Length)}
			if err := s.readRun(ctx, p, slots, one, buf, plainBuf, each); err != nil {
				return err
			}
		}
		return nil
	}
	for i := r.first; i <= r.last; i++ {
		e := p.Entries[slots[i]]
		record := sealed[int64(e.Offset)-r.off:][:e.Length]
		plain, err := s.codec.Open(plainBuf[:0], record, p.box, p.place(slots[i]), e.Info)
		if err != nil {
			err = fmt.Errorf("%s: %w", p.id.Name(), err)
		}
		if err := each(i, plain, err); err != nil {
			return err
		}
	}
	return nil
}
