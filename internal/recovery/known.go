package recovery

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"kluis/internal/recovery/index"
	"kluis/internal/recovery/pack"
)

// openIndex opens the index that was left in the cache. Who only reads needs it rarely, and must not write
// to what the owner has open.
func (s *Store) openIndex() error {
	if s.opts.Cache == "" || s.readOnly() {
		return nil
	}
	x, err := index.Open(filepath.Join(s.opts.Cache, s.header.ID), s.keys.index.Reveal())
	if err != nil {
		return err
	}
	s.index = x
	return nil
}

// closeIndex leaves the index in the cache.
func (s *Store) closeIndex() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.readOnly() {
		_ = s.index.Flush() // what is not there next time is read from the packs again
	}
	return s.index.Close()
}

// RebuildIndex makes the index anew from the footers of all packs. progress counts packs. Backups that
// are written meanwhile may store again what they don't find.
func (s *Store) RebuildIndex(ctx context.Context, progress Progress) error {
	s.mu.Lock()
	s.index.Clear()
	s.indexed = false
	s.mu.Unlock()
	if err := s.fillIndex(ctx, progress); err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	return nil
}

// loadIndex makes sure that the index was filled once.
func (s *Store) loadIndex(ctx context.Context) error {
	s.mu.Lock()
	done := s.indexed
	s.mu.Unlock()
	if done {
		return nil
	}
	return s.refreshIndex(ctx)
}

// refreshIndex makes the index know the packs that there are.
func (s *Store) refreshIndex(ctx context.Context) error { return s.fillIndex(ctx, nil) }

// fillIndex forgets the packs that are gone and adds those that are missing. A pack whose footer is damaged
// is left out: what was in it counts as not stored, so that the next backup stores it again.
func (s *Store) fillIndex(ctx context.Context, progress Progress) error {
	if err := s.loadDamage(ctx); err != nil {
		return err
	}
	missing, err := s.missingPacks(ctx)
	if err != nil {
		return err
	}
	told := newReport(progress, int64(len(missing)))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, f := range missing {
		group.Go(func() error {
			footer, err := s.readFooter(groupCtx, f.id, f.size)
			if err == nil {
				s.addPack(f.id, f.size, footer.Entries)
			} else if !isDamage(err) {
				return fmt.Errorf("read footer of %s: %w", f.id.Name(), err)
			}
			told.add(1)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.indexed = true
	return nil
}

type sizedPack struct {
	id   pack.ID
	size int64
}

// missingPacks lists the packs and compares them with the index.
func (s *Store) missingPacks(ctx context.Context) ([]sizedPack, error) {
	s.mu.Lock()
	gone := map[pack.ID]bool{} // of what was known before the list, what is not in it
	for _, id := range s.index.Packs() {
		gone[id] = true
	}
	for _, at := range s.index.AllDamaged() {
		gone[at.Pack] = true
	}
	s.mu.Unlock()
	var listed []sizedPack
	for o, err := range s.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		if id, ok := pack.ParseName(o.Name); ok {
			listed = append(listed, sizedPack{id, o.Size})
			delete(gone, id)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.Remove(gone)
	return slices.DeleteFunc(listed, func(p sizedPack) bool {
		if s.index.Has(p.id) {
			s.sizes[p.id] = p.size
			return true
		}
		return s.condemned[p.id]
	}), nil
}

// addPack makes a complete pack known.
func (s *Store) addPack(id pack.ID, size int64, entries []pack.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.condemned[id] {
		return // Collect was faster than the list it was found in
	}
	s.sizes[id] = size
	s.index.Add(id, entries)
}
