package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"kluis/internal/fabric"
	"kluis/internal/nbd"
)

// connections is how many connections a disk is read over: one is enough for one reader, a second keeps the
// other processor busy.
const connections = 2

// disk is a disk of a machine, as its backup job shows it.
type disk struct {
	s      *snapshot
	id     string
	target string
	size   int64 // before the job; 0 if the host does not know

	incremental bool
	why         string // why all of it is read although there was a checkpoint

	clients []*nbd.Client
	turn    atomic.Uint32
}

// openDisks connects to the NBD server that QEMU has become.
func (s *snapshot) openDisks(ctx context.Context) error {
	for _, d := range s.disks {
		contexts := []string{nbd.ContextAllocation}
		if d.incremental {
			contexts = append(contexts, nbd.ContextDirtyPrefix+bitmapOf(d.target))
		}
		for range connections {
			c, err := s.from.dial(ctx, d.target, contexts...)
			if err != nil {
				return fmt.Errorf("read disk %s of machine %s: %w", d.target, s.d.Name, s.lost(ctx, err))
			}
			d.clients = append(d.clients, c)
		}
		if d.incremental && !d.clients[0].Has(nbd.ContextDirtyPrefix+bitmapOf(d.target)) {
			d.incremental, d.why = false, "the host does not offer what changed"
		}
	}
	return nil
}

// ID implements fabric.Disk.
func (d *disk) ID() string { return d.id }

// Size implements fabric.Disk.
func (d *disk) Size() int64 { return d.clients[0].Size() }

// Changed implements fabric.Disk.
func (d *disk) Changed() bool { return d.incremental }

// Whole implements fabric.Disk.
func (d *disk) Whole() (fabric.Disk, string) { return whole{d}, d.why }

// Extents implements fabric.Disk.
func (d *disk) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	if !d.incremental {
		return d.extents(ctx, "")
	}
	return d.extents(ctx, bitmapOf(d.target))
}

func (d *disk) extents(ctx context.Context, bitmap string) iter.Seq2[fabric.Extent, error] {
	return func(yield func(fabric.Extent, error) bool) {
		for e, err := range d.clients[0].Source(bitmap).Extents(ctx) {
			if !yield(fabric.Extent{Offset: e.Offset, Length: e.Length}, d.told(ctx, err)) || err != nil {
				return
			}
		}
	}
}

// ReadAt implements fabric.Disk.
func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.clients[int(d.turn.Add(1))%len(d.clients)].ReadAt(p, off)
	return n, d.told(context.Background(), err)
}

// told puts why the job was ended in the place of the lost connection that it looks like.
func (d *disk) told(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) || d.s.warden == nil {
		return err
	}
	if why := d.s.warden.reason(); why != nil {
		return why
	}
	for _, c := range d.clients {
		select {
		case <-c.Done():
			return d.s.lost(ctx, err)
		default:
		}
	}
	return err
}

// Verify implements fabric.Disk: what was read is one moment as long as the job has not ended.
func (d *disk) Verify(context.Context) error {
	if d.s.warden == nil {
		return nil
	}
	return d.s.warden.reason()
}

func (d *disk) close() error {
	for _, c := range d.clients {
		_ = c.Close() // QEMU ends with the job
	}
	return nil
}

// whole is a disk that is read as a whole.
type whole struct{ *disk }

func (whole) Changed() bool { return false }

func (w whole) Extents(ctx context.Context) iter.Seq2[fabric.Extent, error] {
	return w.extents(ctx, "")
}
