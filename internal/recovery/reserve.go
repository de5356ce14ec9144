package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"kluis/internal/objects"
)

// reserveName is an object that holds nothing but room: on a full disk it is given up, so that points can be
// deleted and collected there. Its bytes are random, because some file systems store no others.
//
// It is a sixteenth of what is stored, so that where there is much to compact there is room for a new pack.
const (
	reserveName  = "reserve"
	reserveShare = 16
	minReserve   = 1 << 20
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// keepReserve puts the reserve, unless it is there and large enough for a store of so many bytes. Where
// there is no room for it the store has to do without, so that is no error.
func (s *Store) keepReserve(ctx context.Context, stored int64) error {
	want := s.opts.Reserve
	switch {
	case want < 0:
		return nil
	case want == 0:
		want = min(max(stored/reserveShare, minReserve), s.opts.PackSize)
	}
	s.reserve.Lock()
	defer s.reserve.Unlock()
	for o, err := range s.bucket.List(ctx, reserveName) {
		if err != nil {
			return fmt.Errorf("keep a reserve: %w", err)
		}
		if o.Name != reserveName {
			continue
		}
		if o.Size >= want/2 {
			return nil
		}
		if err := s.bucket.Delete(ctx, reserveName); err != nil {
			return fmt.Errorf("keep a reserve: %w", err)
		}
	}
	err := s.bucket.Put(ctx, reserveName, want, io.LimitReader(&s.random, want))
	if err != nil && !isNoSpace(err) && !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("keep a reserve: %w", err)
	}
	return nil
}

func (s *Store) releaseReserve(ctx context.Context) error {
	s.reserve.Lock()
	defer s.reserve.Unlock()
	if err := s.bucket.Delete(ctx, reserveName); err != nil {
		return fmt.Errorf("release the reserve: %w", err)
	}
	return nil
}

// putReserved puts a small object that is needed to give space back. If there is no room, the reserve makes
// some.
func (s *Store) putReserved(ctx context.Context, name string, content []byte) error {
	put := func() error { return s.bucket.Put(ctx, name, int64(len(content)), bytes.NewReader(content)) }
	err := put()
	if !isNoSpace(err) {
		return err
	}
	if err := s.releaseReserve(ctx); err != nil {
		return err
	}
	return put()
}
