package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	lv "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"kluis/internal/fabric"
)

// snapshot is a backup job of a machine.
type snapshot struct {
	h    *Host
	d    lv.Domain
	uuid string
	live string // the folder of its socket and scratch files
	from server // where it is read from

	domain *libvirtxml.Domain
	peek   bool      // no checkpoint is made, and none is touched
	halted bool      // the machine was stopped, and was started only to be read
	begun  bool      // the job is there
	at     time.Time // when it was asked for
	level  fabric.Consistency
	notes  []string
	next   token // the checkpoint that the job makes
	disks  []*disk
	warden *warden

	closing sync.Once
	closed  error
}

// Snapshot begins a backup job of a machine: one moment of all its disks. With a checkpoint its disks say
// only what changed since then, where that can be believed.
func (h *Host) Snapshot(ctx context.Context, vm fabric.VM, since fabric.Checkpoint) (_ fabric.Snapshot, err error) {
	if err := h.claim(vm); err != nil {
		return nil, err
	}
	s := &snapshot{h: h, uuid: vm.UUID, at: h.o.Now(), peek: vm.Peek, level: fabric.Consistency{Level: fabric.CrashConsistent}}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(s.h.told(vm.Name, err), s.Close(ctx), s.Settle(ctx, since))
		}
	}()
	if s.d, err = h.domain(ctx, vm.UUID); err != nil {
		return nil, err
	}
	last := decodeToken(since)
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := s.plan(ctx, vm, last); err != nil {
		return nil, err
	}
	if err := s.begin(ctx, last); err != nil {
		return nil, err
	}
	if err := s.openDisks(ctx); err != nil {
		return nil, err
	}
	s.warden = s.watch(context.WithoutCancel(ctx))
	return s, nil
}

// told makes what libvirt says no with an error of this host.
func (h *Host) told(machine string, err error) error {
	if _, is := errors.AsType[*fabric.HostError](err); !is && isRefusal(err) {
		return h.fault(machine, fabric.Refused, err)
	}
	return err
}

// claim makes sure that this process has one snapshot of a machine at most. Settle gives the claim back.
func (h *Host) claim(vm fabric.VM) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live[vm.UUID] {
		return h.fault(vm.Name, fabric.Busy, errors.New("it is being backed up"))
	}
	h.live[vm.UUID] = true
	return nil
}

// isLive reports whether this process has a snapshot of a machine.
func (h *Host) isLive(uuid string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live[uuid]
}

// prepare brings the machine to where a job can begin: nothing of an earlier process is left, it runs or is
// held for reading, and its agent has had time to come.
func (s *snapshot) prepare(ctx context.Context) (err error) {
	if err := s.h.endLeftOver(ctx, s.d); err != nil {
		return err
	}
	state, err := s.h.settled(ctx, s.d)
	if err != nil {
		return err
	}
	if state == fabric.Stopped || state == fabric.Crashed {
		if err := s.hold(ctx); err != nil {
			return err
		}
	}
	if err := s.h.alone(ctx, s.d); err != nil {
		return err
	}
	text, err := s.h.xml(ctx, s.d, 0)
	if err != nil {
		return err
	}
	s.domain, err = parseDomain(text)
	return err
}

// settleTime is how long a machine that is shutting down is waited for.
const settleTime = time.Minute

// settled waits until a machine is no longer on its way down, and returns what it is then.
func (h *Host) settled(ctx context.Context, d lv.Domain) (fabric.PowerState, error) {
	late := time.NewTimer(settleTime)
	defer late.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		state, err := h.state(ctx, d)
		if err != nil || state != fabric.ShuttingDown {
			return state, err
		}
		select {
		case <-ctx.Done():
			return state, context.Cause(ctx)
		case <-late.C:
			return state, h.fault(d.Name, fabric.Busy, errors.New("it is shutting down"))
		case <-tick.C:
		}
	}
}

// hold starts a machine that is stopped with its processors halted, so that QEMU offers its disks. It ends
// with our connection, whatever happens to this process.
func (s *snapshot) hold(ctx context.Context) error {
	saved, err := ask(ctx, s.h, callTimeout, func(c *lv.Libvirt) (int32, error) { return c.DomainHasManagedSaveImage(s.d, 0) })
	if err == nil && saved != 0 { // libvirt would start it from there, and what was saved would be gone
		err = errors.New("its memory was saved (virsh managedsave), and would be lost: start it, and it is backed up while it runs")
	}
	if err != nil {
		return s.h.fault(s.d.Name, fabric.Refused, err)
	}
	started, err := ask(ctx, s.h, callTimeout, func(c *lv.Libvirt) (lv.Domain, error) {
		return c.DomainCreateWithFlags(s.d, uint32(lv.DomainStartPaused|lv.DomainStartAutodestroy))
	})
	if err != nil {
		return fmt.Errorf("hold the stopped machine %s for reading: %w", s.d.Name, err)
	}
	s.d, s.halted = started, true
	return nil
}

// plan says for each disk how it is read: what changed since the last checkpoint, or all.
func (s *snapshot) plan(ctx context.Context, vm fabric.VM, last token) error {
	listed, err := s.h.checkpoints(ctx, s.d)
	if err != nil {
		return err
	}
	if listed, err = s.recall(ctx, last, listed); err != nil {
		return err
	}
	// The name need not be guessed at by anybody, only be new: a bitmap of that name may be in the image
	// when libvirt knows nothing of it any more.
	s.next = token{Name: fmt.Sprintf("%s%d", checkpointPrefix, s.at.UnixNano()), Host: s.h.o.Name, Disks: map[string]tokenDisk{}}
	there := map[string]fabric.MachineDisk{}
	for _, d := range disksOf(s.domain) {
		there[d.Target] = d
		if d.Left != "" {
			s.notes = append(s.notes, fmt.Sprintf("Disk %s of the machine was left out: %s", d.Target, d.Left))
		}
	}
	var size int64
	for _, spec := range vm.Disks {
		now, ok := there[spec.Target]
		if !ok {
			return &fabric.ImageError{Path: spec.Path, Kind: fabric.Missing, Err: fmt.Errorf("machine %s has no disk %s", vm.Name, spec.Target)}
		}
		now.Size = s.h.sizeOf(ctx, s.d, now)
		size += now.Size
		d := &disk{s: s, id: spec.ID, target: spec.Target, size: now.Size}
		is := tokenDisk{Path: now.Path, File: s.h.fileID(now.Path), Size: now.Size}
		switch {
		case now.Format != "qcow2":
			d.why = "images of format " + now.Format + " cannot note what changes"
		case last.Name != "":
			d.why = last.distrust(s.h.o.Name, is, spec.Target, listed)
		}
		if now.Format == "qcow2" && !s.peek {
			s.next.Disks[spec.Target] = is
		}
		d.incremental = last.Name != "" && d.why == ""
		s.disks = append(s.disks, d)
	}
	if len(s.next.Disks) == 0 {
		s.next.Name = ""
	}
	if s.live, err = s.h.makeLive(s.uuid); err != nil {
		return err
	}
	if s.from, err = s.h.serverFor(ctx, s.live); err != nil {
		return err
	}
	if err := s.h.roomFor(ctx, size); err != nil {
		return err
	}
	return s.makeScratch(ctx)
}

// begin brings the guest to rest, begins the job, and lets the guest go on.
func (s *snapshot) begin(ctx context.Context, last token) error {
	calm, err := s.quiesce(ctx)
	if err != nil {
		return err
	}
	err = s.beginJob(ctx, last)
	if err != nil && ctx.Err() == nil && s.anyIncremental() {
		// libvirt looks at the bitmap itself now, and says no before anything has begun. The guest is frozen
		// a moment longer; that is still one freeze and not two.
		refusal := err
		for _, d := range s.disks {
			if d.incremental {
				d.incremental, d.why = false, "the host refuses the last checkpoint: "+refusal.Error()
			}
		}
		if err = s.beginAfresh(ctx); err != nil {
			err = errors.Join(refusal, err)
		}
	}
	level, thawErr := calm.end(context.WithoutCancel(ctx))
	s.level = level
	if err != nil {
		return errors.Join(fmt.Errorf("begin backup of machine %s: %w", s.d.Name, err), thawErr)
	}
	return thawErr
}

func (s *snapshot) anyIncremental() bool {
	for _, d := range s.disks {
		if d.incremental {
			return true
		}
	}
	return false
}

// beginAfresh forgets all our checkpoints, since a broken one is in the way of a new one, and begins a full job.
func (s *snapshot) beginAfresh(ctx context.Context) error {
	if err := s.h.keepOnly(ctx, s.d, ""); err != nil {
		return err
	}
	return s.beginJob(ctx, token{})
}

// Consistency implements fabric.Snapshot.
func (s *snapshot) Consistency() fabric.Consistency { return s.level }

// Notes implements fabric.Snapshot.
func (s *snapshot) Notes() []string { return s.notes }

// Checkpoint implements fabric.Snapshot.
func (s *snapshot) Checkpoint() fabric.Checkpoint { return s.next.encode() }

// Disks implements fabric.Snapshot.
func (s *snapshot) Disks() []fabric.Disk {
	all := make([]fabric.Disk, len(s.disks))
	for i, d := range s.disks {
		all[i] = d
	}
	return all
}

// Close ends the job. Aborting is how a job in pull mode ends, and no failure.
func (s *snapshot) Close(ctx context.Context) error {
	s.closing.Do(func() { s.closed = s.end(ctx) })
	return s.closed
}

func (s *snapshot) end(ctx context.Context) error {
	var errs []error
	if s.warden != nil {
		s.warden.stop()
	}
	for _, d := range s.disks {
		errs = append(errs, d.close())
	}
	if s.begun {
		errs = append(errs, s.h.abort(ctx, s.d))
	}
	if s.live != "" && s.h.local {
		errs = append(errs, os.RemoveAll(s.live))
	}
	return errors.Join(errs...)
}

// Settle implements fabric.Snapshot.
func (s *snapshot) Settle(ctx context.Context, keep fabric.Checkpoint) error {
	defer s.h.release(s.uuid)
	if s.d.Name == "" {
		return nil // the host has not even found it
	}
	var err error
	if !s.peek {
		err = s.h.keepOnly(ctx, s.d, decodeToken(keep).Name)
	}
	if state, stateErr := s.h.state(ctx, s.d); stateErr == nil && (state == fabric.Stopped || state == fabric.Crashed) {
		err = nil // it was shut down meanwhile; the next backup deletes them
	}
	if s.halted {
		err = errors.Join(err, s.letGo(ctx))
	}
	return err
}

// Settle ends what a backup that died has left of a machine, and leaves keep the one checkpoint of ours; none if it is
// empty. A machine that is stopped is held for it, since only QEMU can take a bitmap out of an image.
func (h *Host) Settle(ctx context.Context, vm fabric.VM, keep fabric.Checkpoint) (err error) {
	if err := h.claim(vm); err != nil {
		return err
	}
	s := &snapshot{h: h, uuid: vm.UUID}
	if s.d, err = h.domain(ctx, vm.UUID); err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		h.release(vm.UUID)
		return h.told(vm.Name, err)
	}
	return h.told(vm.Name, s.Settle(ctx, keep))
}

func (h *Host) release(uuid string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, uuid)
}

// letGo stops a machine that was held for reading, unless somebody let it run meanwhile.
func (s *snapshot) letGo(ctx context.Context) error {
	state, err := s.h.state(ctx, s.d)
	if err != nil || state != fabric.Paused {
		return err
	}
	if err := s.h.do(ctx, callTimeout, func(c *lv.Libvirt) error { return c.DomainDestroy(s.d) }); err != nil {
		return fmt.Errorf("let go of the machine %s: %w", s.d.Name, err)
	}
	return nil
}
