package objectstest

import (
	"context"
	"io"
	"iter"
	"maps"
	"sync"
	"time"

	"kluis/internal/objects"
)

// Stale is a Bucket whose lists lag behind: they miss objects that are younger than Lag. Reading an object
// by its name is never stale.
type Stale struct {
	objects.Bucket
	Lag time.Duration
	Now func() time.Time
	// Only limits which lists lag behind; nil means all.
	Only func(prefix string) bool

	mu  sync.Mutex
	put map[string]time.Time
}

// Put stores an object.
func (s *Stale) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	err := s.Bucket.Put(ctx, name, size, r)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.put == nil {
			s.put = map[string]time.Time{}
		}
		s.put[name] = s.Now()
	}
	return err
}

// List lists the objects that are old enough.
func (s *Stale) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	if s.Only != nil && !s.Only(prefix) {
		return s.Bucket.List(ctx, prefix)
	}
	s.mu.Lock()
	put, limit := maps.Clone(s.put), s.Now().Add(-s.Lag)
	s.mu.Unlock()
	return func(yield func(objects.Object, error) bool) {
		for o, err := range s.Bucket.List(ctx, prefix) {
			if err == nil && put[o.Name].After(limit) {
				continue
			}
			if !yield(o, err) {
				return
			}
		}
	}
}
