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
const (
	reserveName    = "reserve"
	defaultReserve = 16 << 20
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// keepReserve puts the reserve, unless it is there. Where there is no room for it the store has to do
// without, so that is no error.
func (s *Store) keepReserve(ctx context.Context) error {
	if s.opts.Reserve < 0 {
		return nil
	}
	s.reserve.Lock()
	defer s.reserve.Unlock()
	r, err := s.bucket.Get(ctx, reserveName, 0, 0)
	if err == nil {
		return r.Close()
	}
	if errors.Is(err, objects.ErrNotExist) {
		err = s.bucket.Put(ctx, reserveName, s.opts.Reserve, io.LimitReader(&s.random, s.opts.Reserve))
	}
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
