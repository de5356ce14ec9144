package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "guard" {
		if err := libvirt.RunGuard(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 3 && os.Args[1] == "dying" {
		fmt.Println(die(context.Background(), os.Args[2], fabric.Checkpoint(os.Args[3])))
		os.Exit(1)
	}
	if len(os.Args) > 3 && os.Args[1] == "dying-guarded" {
		fmt.Println(dieGuarded(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	code := m.Run()
	guest.End()
	os.Exit(code)
}

// die is killed where a backup is at its worst: the job has begun and the guest is still frozen.
func die(ctx context.Context, name string, since fabric.Checkpoint) error {
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: os.Getenv("KLUIS_DYING_LIVE"), MarkDir: os.Getenv("KLUIS_DYING_MARK"), Now: time.Now, ScratchReserve: 1})
	if err != nil {
		return err
	}
	machines, err := h.Machines(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(machines, func(m fabric.Machine) bool { return m.Name == name })
	vm := fabric.VM{Name: name, UUID: machines[i].UUID, Disks: []fabric.DiskSpec{{ID: "vda", Target: "vda"}}}
	if _, err := h.Snapshot(ctx, vm, since); err != nil {
		return err
	}
	if _, err := guest.Virsh(ctx, "domfsfreeze", name); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(h.MarkDir(), vm.UUID), nil, 0o600); err != nil {
		return err
	}
	fmt.Println("frozen")
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// dieGuarded is killed while a guard watches over a frozen guest.
func dieGuarded(uuid, mark string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := libvirt.StartGuard(self, "guard")(libvirt.GuardRequest{URI: guest.URI, Machine: uuid, Limit: time.Hour, Agent: 5 * time.Second, Mark: mark}); err != nil {
		return err
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// newHost is the libvirt daemon of this machine.
func newHost(t *testing.T, adjust func(*libvirt.Options)) *libvirt.Host {
	t.Helper()
	guest.Need(t)
	live, err := os.MkdirTemp("", "kluis-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(live) })
	if err := os.Chmod(live, 0o711); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: live, MarkDir: t.TempDir(), Guard: libvirt.StartGuard(self, "guard"), Now: time.Now}
	if adjust != nil {
		adjust(&o)
	}
	h, err := libvirt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// machineOf is a guest as a backup asks for it.
func machineOf(t *testing.T, h *libvirt.Host, g *guest.Guest) fabric.VM {
	t.Helper()
	machines, err := h.Machines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		if m.Name != g.Name {
			continue
		}
		vm := fabric.VM{ID: m.Name, Name: m.Name, Host: h.Name(), UUID: m.UUID}
		for _, d := range m.Disks {
			if d.Left == "" {
				vm.Disks = append(vm.Disks, fabric.DiskSpec{ID: d.Target, Path: d.Path, Format: d.Format, ExpectedSize: d.Size, Target: d.Target})
			}
		}
		return vm
	}
	t.Fatalf("the host does not list %s", g.Name)
	return fabric.VM{}
}

// copied is a disk as a backup keeps it: what changed, over what was there.
func copied(t *testing.T, d fabric.Disk, last []byte) (now []byte, read int64) {
	t.Helper()
	now = make([]byte, d.Size())
	if d.Changed() {
		copy(now, last)
	}
	for e, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadAt(now[e.Offset:e.Offset+e.Length], e.Offset); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		read += e.Length
	}
	return now, read
}

// A guest writes while it is backed up: each increment over the one before it is the disk at its moment, as a whole
// read of the same moment shows, and it is small.
func TestIncrementsOfARunningGuest(t *testing.T) {
	h := newHost(t, nil)
	g := guest.New(t, "increments", "256M", "")
	vm := machineOf(t, h, g)
	if len(vm.Disks) != 1 || vm.Disks[0].Target != "vda" {
		t.Fatalf("disks are %+v, want vda and no key volume", vm.Disks)
	}
	var last []byte
	var since fabric.Checkpoint
	for round := range 4 {
		if _, err := g.Begin(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=2048; dd if=/dev/urandom of=/data/f001 bs=1024 count=64 conv=notrunc; sync"); err != nil {
			t.Fatal(err)
		}
		s, err := h.Snapshot(t.Context(), vm, since)
		if err != nil {
			t.Fatal(err)
		}
		level := s.Consistency()
		if level.Level != fabric.FileSystemConsistent || level.Reason != "" || level.Frozen <= 0 {
			t.Errorf("round %d is %+v", round, level)
		}
		d := s.Disks()[0]
		if d.Changed() != (round > 0) {
			t.Errorf("round %d: changed extents only: %t", round, d.Changed())
		}
		now, read := copied(t, d, last)
		all, why := d.Whole()
		if why != "" {
			t.Errorf("round %d reads all: %s", round, why)
		}
		whole, used := copied(t, all, nil)
		if !bytes.Equal(now, whole) {
			t.Errorf("round %d: the changed extents leave something out", round)
		}
		if round > 0 && read > used/2 {
			t.Errorf("round %d read %d of %d bytes", round, read, used)
		}
		next := s.Checkpoint()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.Settle(t.Context(), next); err != nil {
			t.Error(err)
		}
		last, since = now, next
		clean(t, g, 1)
	}
}

// clean fails if a backup left a job behind, or other than a number of checkpoints, or the guest frozen.
func clean(t *testing.T, g *guest.Guest, checkpoints int) {
	t.Helper()
	names, err := guest.Virsh(t.Context(), "checkpoint-list", "--name", g.Name)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(names)); n != checkpoints {
		t.Errorf("the host has the checkpoints %q, want %d", strings.Fields(names), checkpoints)
	}
	if state, err := g.State(t.Context()); err != nil || state != "running" {
		return
	}
	job, err := guest.Virsh(t.Context(), "domjobinfo", g.Name)
	if err != nil || !strings.Contains(job, "None") {
		t.Errorf("a job is left: %s %v", job, err)
	}
	status, err := g.Agent(t.Context(), "guest-fsfreeze-status", nil)
	if err != nil || string(status) != `"thawed"` {
		t.Errorf("the guest is %s %v", status, err)
	}
}
