package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"

	"kluis/internal/fabric"
)

// watchEvery is how often a job is looked at. The guest may write a disk full in less, and is stopped then
// by QEMU; that is seen too, and mended.
const watchEvery = 500 * time.Millisecond

// warden looks after a machine while a job of ours runs in it.
type warden struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu  sync.Mutex
	why error // why the job was ended
}

// watch ends the job before it does the guest harm: when the scratch space runs out, when the guest was
// stopped for want of it, and when the guest wants to shut down, which it cannot while the job is there.
func (s *snapshot) watch(ctx context.Context) *warden {
	ctx, cancel := context.WithCancel(ctx)
	w := &warden{cancel: cancel}
	w.done.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if why := s.harm(ctx); why != nil && ctx.Err() == nil {
				w.end(s, why)
				return
			}
		}
	})
	return w
}

// harm says why the job must end; nil if it need not.
func (s *snapshot) harm(ctx context.Context) error {
	state, reason, err := s.h.stateAndReason(ctx, s.d)
	if err != nil {
		return err
	}
	switch {
	case state == fabric.Paused && !s.halted && lv.DomainPausedReason(reason) == lv.DomainPausedIoerror:
		return s.h.fault(s.d.Name, fabric.NoRoom, fmt.Errorf("the folder %s is full, and the guest was stopped for it", s.h.o.LiveDir))
	case state == fabric.ShuttingDown, state == fabric.Stopped, state == fabric.Crashed:
		return s.h.fault(s.d.Name, fabric.Halted, errors.New("it was shut down while it was backed up"))
	}
	free, known, err := s.h.free(ctx)
	if err == nil && known && free < s.h.o.ScratchReserve {
		return s.h.tight(free, s.h.o.ScratchReserve)
	}
	return nil
}

// end ends the job and lets a guest go on that was stopped by it. Reads of the disks fail from then on, with why.
func (w *warden) end(s *snapshot, why error) {
	w.mu.Lock()
	w.why = why
	w.mu.Unlock()
	s.h.o.Log.Warn("backup job is ended for the guest's sake", "machine", s.d.Name, "why", why)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.h.abort(ctx, s.d); err != nil {
		s.h.o.Log.Error("end backup job", "machine", s.d.Name, "error", err)
	}
	if err := s.h.resumeStopped(ctx, s.d); err != nil {
		s.h.o.Log.Error("resume machine", "machine", s.d.Name, "error", err)
	}
}

// lost says what stands behind a connection to QEMU that broke: QEMU and with it the machine is gone, or libvirt, or only
// the job. libvirt learns of a QEMU that died a moment later than we.
func (s *snapshot) lost(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, lostTime)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		job, jobErr := s.h.job(ctx, s.d)
		if why := s.harm(ctx); why != nil && ctx.Err() == nil {
			return why
		}
		if jobErr == nil && job == "" {
			return s.h.fault(s.d.Name, fabric.Refused, fmt.Errorf("the backup job ended before its time: %w", cause))
		}
		select {
		case <-ctx.Done():
			return cause
		case <-tick.C:
		}
	}
}

// lostTime is how long libvirt has to learn of it.
const lostTime = 5 * time.Second

// reason is why the job was ended; nil if it was not.
func (w *warden) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.why
}

func (w *warden) stop() {
	w.cancel()
	w.done.Wait()
}

// resumeStopped lets a machine go on that an error of its disks has stopped. QEMU repeats the write, and
// the guest sees nothing of it.
func (h *Host) resumeStopped(ctx context.Context, d lv.Domain) error {
	state, reason, err := h.stateAndReason(ctx, d)
	if err != nil || state != fabric.Paused || lv.DomainPausedReason(reason) != lv.DomainPausedIoerror {
		return err
	}
	h.o.Log.Warn("the guest was stopped for want of scratch space; it goes on", "machine", d.Name)
	return h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainResume(d) })
}
