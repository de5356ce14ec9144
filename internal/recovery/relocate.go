package recovery

import (
	"context"
	"errors"
	"fmt"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/index"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

const dataKind = chunk.Data

// find looks a chunk up in the index.
func (s *Store) find(id chunk.ID) (index.Location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index.Find(id)
}

// forget forgets packs that are gone.
func (s *Store) forget(ids map[pack.ID]bool) {
	s.mu.Lock()
	s.index.Remove(ids)
	s.mu.Unlock()
	for id := range ids {
		s.dropPack(id)
	}
}

// dropPack forgets how to read a pack.
func (s *Store) dropPack(id pack.ID) {
	s.mu.Lock()
	delete(s.sizes, id)
	s.mu.Unlock()
	s.packs.drop(id)
}

// relocate finds a chunk that is not where its reference says, or not whole there: compaction has moved
// it, maybe that of another process, after this one has read the footers. cause is what is wrong with
// the place, and what is returned if there is no other.
func (s *Store) relocate(ctx context.Context, ref manifest.Ref, kind chunk.Kind, cause error) (*openPack, uint32, error) {
	if err := s.loadIndex(ctx); err != nil {
		return nil, 0, err
	}
	from := ref.Pack
	for {
		if err := s.lookAgain(ctx, from, cause); err != nil {
			return nil, 0, err
		}
		at, ok := s.find(ref.ID)
		if !ok && s.lacksPacks() {
			if err := s.refreshIndex(ctx); err != nil {
				return nil, 0, err
			}
			at, ok = s.find(ref.ID)
		}
		if !ok || at.Pack == ref.Pack || at.Pack == from {
			return nil, 0, cause
		}
		p, err := s.openPack(ctx, at.Pack)
		if err == nil && p.holds(manifest.Ref{ID: ref.ID, Slot: at.Slot}, kind) {
			return p, at.Slot, nil
		}
		if err == nil || !errors.Is(err, objects.ErrNotExist) {
			return nil, 0, cause
		}
		from, cause = at.Pack, err // it has moved once more
	}
}

// lacksPacks tells whether the index has lost packs that are there: it is a cache, and may.
func (s *Store) lacksPacks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.sizes {
		if !s.index.Has(id) && !s.condemned[id] {
			return true
		}
	}
	return false
}

// lookAgain brings the index up to date, once for each pack that is found gone.
//
// In the process that collects, the index is never behind: compaction changes it in one step with
// condemning. In another one it may know only the former place of a chunk, so it is made anew.
func (s *Store) lookAgain(ctx context.Context, id pack.ID, cause error) error {
	if !errors.Is(cause, objects.ErrNotExist) {
		return nil
	}
	s.looking.Lock() // whoever comes second waits for the index to be whole
	defer s.looking.Unlock()
	s.mu.Lock()
	known, stale := s.missed[id], s.index.Has(id)
	s.missed[id] = true
	if stale && s.readOnly() {
		s.index = index.New()
		clear(s.sizes)
	}
	s.mu.Unlock()
	if known && !stale {
		return nil
	}
	s.forget(map[pack.ID]bool{id: true})
	return s.refreshIndex(ctx)
}

// readElsewhere returns a chunk that can't be read from where it should be, for the reason cause. Where
// there is no other place, cause is returned.
func (s *Store) readElsewhere(ctx context.Context, ref manifest.Ref, kind chunk.Kind, cause error) ([]byte, error) {
	if !isDamage(cause) {
		return nil, cause
	}
	for {
		if !errors.Is(cause, objects.ErrNotExist) {
			s.markDamaged(ref) // and so it is not the place that is found
		}
		p, slot, err := s.relocate(ctx, ref, kind, cause)
		if err != nil {
			return nil, err
		}
		plain, err := s.readAt(ctx, p, slot)
		if err == nil || !isDamage(err) {
			return plain, err
		}
		ref.Pack, ref.Slot, cause = p.id, slot, err
	}
}

// readAt reads the chunk in a slot of a pack.
func (s *Store) readAt(ctx context.Context, p *openPack, slot uint32) ([]byte, error) {
	e := p.Entries[slot]
	sealed := make([]byte, e.Length)
	if err := readRange(ctx, s.bucket, p.id.Name(), int64(e.Offset), sealed); err != nil {
		return nil, err
	}
	plain, err := s.codec.Open(make([]byte, 0, e.Plain), sealed, p.box, p.place(slot), e.Info)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.id.Name(), err)
	}
	return plain, nil
}
