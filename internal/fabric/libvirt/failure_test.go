package libvirt_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// One guest serves all that can go wrong, since a boot takes longer than anything that is tried on it. The
// cases are in an order in which each finds the guest as the one before it left it: running.
func TestFailures(t *testing.T) {
	var reserve int64 = 1
	h := newHost(t, func(o *libvirt.Options) {
		o.ScratchReserve, o.AgentTimeout, o.AgentWait = reserve, 2*time.Second, 4*time.Second
	})
	f := &failures{h: h, g: guest.New(t, "failures", "256M", "")}
	f.vm = machineOf(t, h, f.g)
	f.backUp(t, nil)
	for _, c := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"a guest whose disks are asked for all the time", f.asked},
		{"a checkpoint that was deleted by hand", f.checkpointDeleted},
		{"a guest that was shut down and started", f.restarted},
		{"a stopped guest", f.stopped},
		{"a killed QEMU", f.killed},
		{"an image that was replaced while the guest was stopped", f.replaced},
		{"a disk that grew", f.grew},
		{"a second backup of the same machine", f.twice},
		{"a job of another program", f.foreign},
		{"checkpoints of another program", f.foreignCheckpoint},
		{"a snapshot that was left behind", f.leftBehind},
		{"a hung agent", f.hung},
		{"a guest that shuts down", f.shutDown},
		{"no agent", f.silent},
	} {
		if !t.Run(c.name, c.try) {
			return // what follows would fail of the same
		}
	}
}

type failures struct {
	h     *libvirt.Host
	g     *guest.Guest
	vm    fabric.VM
	last  []byte
	since fabric.Checkpoint
}

// backUp takes a backup as the service does, checks that it is the moment that it says it is, and returns
// why it was no increment. Between, if given, is done while the job is there.
func (f *failures) backUp(t *testing.T, between func(fabric.Snapshot)) (why string, level fabric.Consistency) {
	t.Helper()
	s, err := f.h.Snapshot(t.Context(), f.vm, f.since)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Disks()[0]
	whole, why := d.Whole()
	if d.Changed() == (why != "") && f.since != "" {
		t.Errorf("changed extents only: %t, and the reason for all is %q", d.Changed(), why)
	}
	now, _ := copied(t, d, f.last)
	if all, _ := copied(t, whole, nil); !bytes.Equal(now, all) {
		t.Error("what was read is not the disk of that moment")
	}
	if between != nil {
		between(s)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Settle(t.Context(), s.Checkpoint()); err != nil {
		t.Error(err)
	}
	f.last, f.since = now, s.Checkpoint()
	return why, s.Consistency()
}

// ours is the checkpoint that our last backup left.
func (f *failures) ours(t *testing.T) string {
	t.Helper()
	for _, name := range strings.Fields(f.virsh(t, "checkpoint-list", "--name", f.g.Name)) {
		if strings.HasPrefix(name, "kluis-") {
			return name
		}
	}
	t.Fatal("there is no checkpoint of ours")
	return ""
}

func (f *failures) virsh(t *testing.T, args ...string) string {
	t.Helper()
	said, err := guest.Virsh(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// start starts the guest, which was stopped.
func (f *failures) start(t *testing.T) {
	t.Helper()
	if err := f.g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// path is the image of the guest's disk.
func (f *failures) path() string { return f.vm.Disks[0].Path }

func (f *failures) awaitState(t *testing.T, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := guest.Eventually(ctx, func() (bool, error) {
		is, err := f.g.State(ctx)
		return is == want, err
	}); err != nil {
		t.Fatalf("guest is never %s: %v", want, err)
	}
}

// rescanned fails unless the next backup reads all, and says why.
func (f *failures) rescanned(t *testing.T, reason string) {
	t.Helper()
	why, _ := f.backUp(t, nil)
	if !strings.Contains(why, reason) {
		t.Errorf("reads all because %q, want %q", why, reason)
	}
	clean(t, f.g, 1)
	f.incremental(t)
}

// incremental fails unless the next backup reads only what changed.
func (f *failures) incremental(t *testing.T) {
	t.Helper()
	if why, _ := f.backUp(t, nil); why != "" {
		t.Errorf("reads all because %q, want an increment", why)
	}
	clean(t, f.g, 1)
}

// asked takes backups while others look at the guest's disks, as programs do that watch over machines: a QEMU that makes
// scratch files itself does not survive that.
func (f *failures) asked(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var askers sync.WaitGroup
	for range 3 {
		askers.Go(func() {
			for ctx.Err() == nil {
				_, _ = guest.Virsh(ctx, "domblkinfo", f.g.Name, "vda") // it says no once the guest is gone, which is seen below
			}
		})
	}
	defer askers.Wait()
	defer cancel()
	for range 12 {
		s, err := f.h.Snapshot(t.Context(), f.vm, f.since)
		if err != nil {
			t.Fatal(err)
		}
		end(t, s, f.since) // as if it had been for nothing
	}
}

func (f *failures) checkpointDeleted(t *testing.T) {
	f.virsh(t, "checkpoint-delete", f.g.Name, f.ours(t))
	f.rescanned(t, "the host no longer has the checkpoint")
}

func (f *failures) restarted(t *testing.T) {
	f.virsh(t, "shutdown", "--mode", "agent", f.g.Name)
	f.awaitState(t, "shut off")
	f.start(t)
	f.incremental(t)
}

func (f *failures) stopped(t *testing.T) {
	f.virsh(t, "shutdown", "--mode", "agent", f.g.Name)
	f.awaitState(t, "shut off")
	why, level := f.backUp(t, func(fabric.Snapshot) {
		if err := f.h.Start(t.Context(), f.vm.UUID, nil); !fabric.IsHostKind(err, fabric.Busy) {
			t.Errorf("a machine that is only held is started: %v", err)
		}
	})
	if why != "" || level.Level != fabric.CrashConsistent || level.Reason == "" {
		t.Errorf("an increment of a stopped machine is %+v, %q", level, why)
	}
	f.awaitState(t, "shut off")
	clean(t, f.g, 1)
	f.start(t)
	f.incremental(t)
}

func (f *failures) killed(t *testing.T) {
	s, err := f.h.Snapshot(t.Context(), f.vm, f.since)
	if err != nil {
		t.Fatal(err)
	}
	f.killQEMU(t)
	if _, err := s.Disks()[0].ReadAt(make([]byte, 4096), 0); err == nil {
		t.Error("a dead QEMU is read from")
	}
	_ = s.Close(t.Context())
	if err := s.Settle(t.Context(), f.since); err != nil {
		t.Log(err)
	}
	f.awaitState(t, "shut off")
	f.start(t)
	f.rescanned(t, "the host refuses the last checkpoint")
}

// killQEMU kills the QEMU of the guest, and no other.
func (f *failures) killQEMU(t *testing.T) {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join("/run/libvirt/qemu", f.g.Name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	f.awaitState(t, "shut off")
}

func (f *failures) replaced(t *testing.T) {
	f.virsh(t, "shutdown", "--mode", "agent", f.g.Name)
	f.awaitState(t, "shut off")
	// The copy has the same bitmap of the same name in it: only the file is another.
	for _, step := range [][]string{{"cp", f.path(), f.path() + ".copy"}, {"mv", f.path() + ".copy", f.path()}} {
		if out, err := exec.CommandContext(t.Context(), step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", step, err, out)
		}
	}
	f.start(t)
	f.rescanned(t, "is another file than at the last checkpoint")
}

func (f *failures) grew(t *testing.T) {
	f.virsh(t, "blockresize", f.g.Name, "vda", "320M")
	f.last = append(f.last, make([]byte, 64<<20)...)
	f.rescanned(t, "it has 335544320 bytes now and had 268435456")
}

func (f *failures) twice(t *testing.T) {
	f.backUp(t, func(fabric.Snapshot) {
		if _, err := f.h.Snapshot(t.Context(), f.vm, f.since); !fabric.IsHostKind(err, fabric.Busy) {
			t.Errorf("a second backup says %v", err)
		}
	})
	f.incremental(t)
}

func (f *failures) foreign(t *testing.T) {
	dir, err := os.MkdirTemp("", "foreign-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	xml := filepath.Join(dir, "job.xml")
	text := fmt.Sprintf("<domainbackup mode='pull'><server transport='unix' socket='%[1]s/nbd'/><disks><disk name='vda' backup='yes' type='file'><scratch file='%[1]s/s'/></disk><disk name='vdb' backup='no'/></disks></domainbackup>", dir)
	if err := os.WriteFile(xml, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f.virsh(t, "backup-begin", f.g.Name, xml)
	_, err = f.h.Snapshot(t.Context(), f.vm, f.since)
	if !fabric.IsHostKind(err, fabric.Busy) || !strings.Contains(err.Error(), "another job") {
		t.Errorf("beside another job a backup says %v", err)
	}
	if job := f.virsh(t, "domjobinfo", f.g.Name); strings.Contains(job, "None") {
		t.Error("the other program's job was ended")
	}
	f.virsh(t, "domjobabort", f.g.Name)
	f.incremental(t)
}

func (f *failures) foreignCheckpoint(t *testing.T) {
	xml := filepath.Join(t.TempDir(), "cp.xml")
	if err := os.WriteFile(xml, []byte("<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/><disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.virsh(t, "checkpoint-create", f.g.Name, xml)
	if why, _ := f.backUp(t, nil); why != "" {
		t.Errorf("reads all because %q", why)
	}
	clean(t, f.g, 2)
	f.virsh(t, "checkpoint-delete", f.g.Name, "theirs")
}

// leftBehind is a snapshot whose process dies: the next start finds a job, two checkpoints, a folder and,
// at the worst, a frozen guest with a mark.
func (f *failures) leftBehind(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0], "dying", f.g.Name, string(f.since))
	child.Env = append(os.Environ(), "KLUIS_DYING_LIVE="+f.h.LiveDir(), "KLUIS_DYING_MARK="+f.h.MarkDir())
	if out, err := child.CombinedOutput(); err == nil || !strings.Contains(string(out), "frozen") {
		t.Fatalf("the dying process says %v: %s", err, out)
	}
	if job := f.virsh(t, "domjobinfo", f.g.Name); strings.Contains(job, "None") {
		t.Fatal("no job was left behind")
	}
	f.incremental(t)
	left, err := filepath.Glob(filepath.Join(f.h.LiveDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the live folder: %s %v", left, err)
	}
}

func (f *failures) hung(t *testing.T) {
	if _, err := f.g.Begin(t.Context(), "kill -STOP $(pidof qemu-ga)"); err != nil {
		t.Log(err) // it may have stopped before it said so
	}
	f.awaitSilence(t)
	why, level := f.backUp(t, nil)
	if why != "" || level.Level != fabric.CrashConsistent || !strings.Contains(level.Reason, "does not answer") {
		t.Errorf("with a hung agent a backup is %+v, %q", level, why)
	}
	f.virsh(t, "destroy", f.g.Name)
	f.start(t)
	f.incremental(t)
}

func (f *failures) shutDown(t *testing.T) {
	s, err := f.h.Snapshot(t.Context(), f.vm, f.since)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.g.Begin(t.Context(), "poweroff -f"); err != nil {
		t.Log(err)
	}
	d := s.Disks()[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = guest.Eventually(ctx, func() (bool, error) { return d.Verify(ctx) != nil, nil })
	if err != nil || !fabric.IsHostKind(d.Verify(ctx), fabric.Halted) {
		t.Errorf("a guest that shuts down ends the backup with %v, %v", d.Verify(ctx), err)
	}
	if _, err := d.ReadAt(make([]byte, 4096), 0); !fabric.IsHostKind(err, fabric.Halted) {
		t.Errorf("a read says %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Settle(t.Context(), f.since); err != nil {
		t.Error(err)
	}
	f.awaitState(t, "shut off")
	f.start(t)
	f.incremental(t)
}

func (f *failures) silent(t *testing.T) {
	if _, err := f.g.Begin(t.Context(), "mv /usr/sbin/qemu-ga /usr/sbin/gone; kill $(pidof qemu-ga)"); err != nil {
		t.Fatal(err)
	}
	f.awaitSilence(t)
	_, level := f.backUp(t, nil)
	if level.Level != fabric.CrashConsistent || level.Reason == "" {
		t.Errorf("without an agent a backup is %+v", level)
	}
}

// awaitSilence waits until the agent no longer answers.
func (f *failures) awaitSilence(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := guest.Eventually(ctx, func() (bool, error) {
		_, err := f.g.Agent(ctx, "guest-ping", nil)
		return err != nil, nil
	}); err != nil {
		t.Fatal(err)
	}
}
