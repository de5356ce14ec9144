package compute

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"kluis/internal/fabric"
)

// shares are the images that are open because somebody reads a disk by its URL. A client reads a disk in many
// requests, some at once, and they share the open image; it stays open for a while after the last of them.
type shares struct {
	mu   sync.Mutex
	open map[string]*share // by the id of the access
}

// share is an image that is open, or being opened, for one grant.
type share struct {
	access string
	users  int         // under shares.mu
	idle   *time.Timer // runs while there are no users

	mu    sync.RWMutex // held by who reads; and alone by who opens and who closes
	image *openImage   // nil before and after
	ended bool         // nothing is read any more
}

// idleFor is how long an image stays open that nobody reads.
const idleFor = time.Minute

// errEnded is what a reader finds whose grant was revoked.
var errEnded = errors.New("access to the disk was revoked")

// use returns the image of a grant, which it opens if it isn't.
func (h *shares) use(ctx context.Context, access string, open func() (*openImage, error)) (*Shared, error) {
	h.mu.Lock()
	sh := h.open[access]
	if sh == nil {
		if h.open == nil {
			h.open = map[string]*share{}
		}
		sh = &share{access: access}
		h.open[access] = sh
	}
	sh.users++
	if sh.idle != nil {
		sh.idle.Stop()
		sh.idle = nil
	}
	h.mu.Unlock()
	v, err := sh.view(ctx, open)
	if err != nil {
		h.release(sh)
		return nil, err
	}
	v.release = sync.OnceFunc(func() { h.release(sh) })
	return v, nil
}

func (sh *share) view(ctx context.Context, open func() (*openImage, error)) (*Shared, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.ended {
		return nil, errEnded
	}
	if sh.image == nil {
		i, err := open()
		if err != nil {
			return nil, err
		}
		sh.image = i
	}
	// An image that was written to since it was opened, by somebody who heeds no locks, is not what the client reads.
	if err := sh.image.disk.Verify(ctx); err != nil {
		return nil, errors.Join(err, sh.close(context.WithoutCancel(ctx)))
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", sh.access, sh.image.modified.UnixNano(), sh.image.vhd.Size()))
	return &Shared{share: sh, Size: sh.image.vhd.Size(), Modified: sh.image.modified, ETag: fmt.Sprintf("0x%X", sum[:8])}, nil
}

// close closes the image. The caller holds the lock alone.
func (sh *share) close(ctx context.Context) error {
	if sh.image == nil {
		return nil
	}
	err := sh.image.snapshot.Close(ctx)
	sh.image = nil
	return err
}

// release ends one use. The last one leaves the image open for a while.
func (h *shares) release(sh *share) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if sh.users--; sh.users == 0 && h.open[sh.access] == sh {
		sh.idle = time.AfterFunc(idleFor, func() { h.retire(sh) })
	}
}

// retire closes an image that nobody has come back for.
func (h *shares) retire(sh *share) {
	h.mu.Lock()
	idle := sh.users == 0 && h.open[sh.access] == sh
	if idle {
		delete(h.open, sh.access)
	}
	h.mu.Unlock()
	if idle {
		_ = sh.end(context.Background()) // it was only read
	}
}

// end closes the image of a grant, whoever reads it.
func (h *shares) end(ctx context.Context, access string) error {
	h.mu.Lock()
	sh := h.open[access]
	delete(h.open, access)
	if sh != nil && sh.idle != nil {
		sh.idle.Stop()
	}
	h.mu.Unlock()
	if sh == nil {
		return nil
	}
	return sh.end(ctx)
}

func (sh *share) end(ctx context.Context) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.ended = true
	return sh.close(ctx)
}

// Close closes all images that are read by their URLs.
func (s *Service) Close(ctx context.Context) error {
	s.shares.mu.Lock()
	var all []string
	for access := range s.shares.open {
		all = append(all, access)
	}
	s.shares.mu.Unlock()
	var errs []error
	for _, access := range all {
		errs = append(errs, s.shares.end(ctx, access))
	}
	return errors.Join(errs...)
}

// Shared is a disk as whoever has its URL reads it: a fixed VHD. It must be closed. It may be read from many
// goroutines, and reading fails once the grant is revoked.
type Shared struct {
	Size     int64
	Modified time.Time
	ETag     string // the same as long as grant and image are

	share   *share
	release func()
}

// ReadAt implements io.ReaderAt.
func (d *Shared) ReadAt(p []byte, off int64) (int, error) {
	d.share.mu.RLock()
	defer d.share.mu.RUnlock()
	if d.share.image == nil {
		return 0, errEnded
	}
	return d.share.image.vhd.ReadAt(p, off)
}

// Extents yields what holds something, in whole sectors; what lies between reads as zeros.
func (d *Shared) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		d.share.mu.RLock()
		defer d.share.mu.RUnlock()
		if d.share.image == nil {
			yield(fabric.Extent{}, errEnded)
			return
		}
		d.share.image.vhd.Extents(ctx)(yield)
	}
}

// Close ends the reading.
func (d *Shared) Close() error { d.release(); return nil }

var _ io.ReaderAt = (*Shared)(nil)
