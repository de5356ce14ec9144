package compute

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/image"
)

// blank is a snapshot of one disk of zeros. It counts how often it was closed.
type blank struct {
	fabric.Snapshot
	fabric.Disk
	closed atomic.Int32
}

func (*blank) Verify(context.Context) error          { return nil }
func (*blank) Size() int64                           { return 1024 }
func (*blank) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }
func (b *blank) Close(context.Context) error         { b.closed.Add(1); return nil }
func (b *blank) open() (*openImage, error)           { return b.image(), nil }
func (b *blank) image() *openImage {
	return &openImage{snapshot: b, disk: b, vhd: image.AsFixedVHD(b, [16]byte{}, time.Time{})}
}
func mustUse(t *testing.T, h *shares, b *blank) *Shared {
	t.Helper()
	v, err := h.use(t.Context(), "a", b.open)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Readers share one open image, which is closed a while after the last of them.
func TestImageIsClosedWhenNobodyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h shares
		b := &blank{}
		first := mustUse(t, &h, b)
		second, err := h.use(t.Context(), "a", func() (*openImage, error) { return nil, errors.New("opened twice") })
		if err != nil {
			t.Fatal(err)
		}
		_ = first.Close()
		time.Sleep(2 * idleFor)
		if _, err := second.ReadAt(make([]byte, 10), 0); err != nil || b.closed.Load() != 0 {
			t.Errorf("closed %d times while it is read, %v", b.closed.Load(), err)
		}
		_ = second.Close()
		time.Sleep(idleFor - time.Second)
		_ = mustUse(t, &h, b).Close()
		time.Sleep(idleFor - time.Second)
		if b.closed.Load() != 0 {
			t.Error("closed too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if b.closed.Load() != 1 || len(h.open) != 0 {
			t.Errorf("closed %d times, and %d are open", b.closed.Load(), len(h.open))
		}
		_ = mustUse(t, &h, b).Close()
		if err := errors.Join(h.end(t.Context(), "a"), h.end(t.Context(), "a")); err != nil || b.closed.Load() != 2 {
			t.Errorf("closed %d times, %v", b.closed.Load(), err)
		}
		time.Sleep(2 * idleFor)
		if b.closed.Load() != 2 {
			t.Error("closed again")
		}
	})
}

// Where an image doesn't open, the next one tries again.
func TestImageThatDoesNotOpen(t *testing.T) {
	s := &Service{}
	h := &s.shares
	broken := errors.New("broken")
	if _, err := h.use(t.Context(), "a", func() (*openImage, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	b := &blank{}
	v := mustUse(t, h, b)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, errEnded) {
		t.Errorf("read after the end: %v", err)
	}
}
