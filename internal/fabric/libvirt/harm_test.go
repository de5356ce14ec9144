package libvirt_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// smallFolder is a folder on a file system of its own, for scratch files that have no room.
func smallFolder(t *testing.T, size string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kluis-small-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "mode=0711,size="+size, "none", dir).CombinedOutput(); err != nil {
		t.Skipf("a small file system cannot be mounted here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// What the guest must never feel of a backup: a full scratch file system, a freeze that lasts, a process that dies
// while the guest is frozen.
func TestTheGuestIsSpared(t *testing.T) {
	guest.Need(t)
	small := smallFolder(t, "64M")
	g := guest.New(t, "harm", "256M", "")
	roomy := newHost(t, func(o *libvirt.Options) { o.LiveDir = small })
	vm := machineOf(t, roomy, g)

	t.Run("no room before", func(t *testing.T) {
		if _, err := roomy.Snapshot(t.Context(), vm, ""); !fabric.IsHostKind(err, fabric.NoRoom) {
			t.Errorf("without room a backup says %v", err)
		}
		clean(t, g, 0)
	})
	t.Run("the reserve is reached", func(t *testing.T) {
		h := newHost(t, func(o *libvirt.Options) { o.LiveDir, o.ScratchReserve = small, 24<<20 })
		overwriteUntilEnded(t, h, g, vm)
	})
	t.Run("the scratch file system is full", func(t *testing.T) {
		// Nothing is kept in reserve, so QEMU runs into the wall and stops the guest.
		h := newHost(t, func(o *libvirt.Options) { o.LiveDir, o.ScratchReserve = small, 1 })
		overwriteUntilEnded(t, h, g, vm)
	})
	t.Run("the freeze lasts", func(t *testing.T) {
		h := newHost(t, func(o *libvirt.Options) {
			guard := o.Guard
			o.FreezeLimit = 200 * time.Millisecond
			o.Guard = func(r libvirt.GuardRequest) (libvirt.Guard, error) {
				g, err := guard(r)
				return lateGuard{g}, err
			}
		})
		s, err := h.Snapshot(t.Context(), vm, "")
		if err != nil {
			t.Fatal(err)
		}
		if level := s.Consistency(); level.Level != fabric.CrashConsistent || !strings.Contains(level.Reason, "were thawed after 200ms") {
			t.Errorf("a guest that was thawed too early is %+v", level)
		}
		end(t, s, "")
		clean(t, g, 0)
	})
	t.Run("the process dies while the guest is frozen", func(t *testing.T) {
		h := newHost(t, nil)
		wantScripts(t, g, 0, false)
		mark := filepath.Join(h.MarkDir(), vm.UUID)
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := guest.Virsh(t.Context(), "domfsfreeze", g.Name); err != nil {
			t.Fatal(err)
		}
		dying := exec.CommandContext(t.Context(), os.Args[0], "dying-guarded", vm.UUID, mark)
		if out, err := dying.CombinedOutput(); err == nil {
			t.Fatalf("it lives: %s", out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := guest.Eventually(ctx, func() (bool, error) {
			_, err := os.Stat(mark)
			return os.IsNotExist(err), nil
		}); err != nil {
			t.Error("the guard leaves the mark")
		}
		ran(t, g, "after")
		clean(t, g, 0)
	})
}

// lateGuard waits until the guard has acted on its own.
type lateGuard struct{ libvirt.Guard }

func (l lateGuard) Stand() (bool, error) { return libvirt.AwaitGuard(l.Guard) }

// overwriteUntilEnded has the guest overwrite what a backup must keep, until the backup is ended; the guest goes on.
func overwriteUntilEnded(t *testing.T, h *libvirt.Host, g *guest.Guest, vm fabric.VM) {
	t.Helper()
	if _, err := g.Run(t.Context(), "dd if=/dev/zero of=/data/big bs=1048576 count=100; sync"); err != nil {
		t.Fatal(err)
	}
	s, err := h.Snapshot(t.Context(), vm, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Begin(t.Context(), "dd if=/dev/zero of=/data/big bs=1048576 count=100 conv=notrunc; sync; touch /data/overwritten"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d := s.Disks()[0]
	if err := guest.Eventually(ctx, func() (bool, error) { return d.Verify(ctx) != nil, nil }); err != nil {
		t.Fatal("the backup is never ended")
	}
	if err := d.Verify(ctx); !fabric.IsHostKind(err, fabric.NoRoom) {
		t.Errorf("the backup is ended with %v", err)
	}
	end(t, s, "")
	// The write that had no room was repeated: the guest has seen no error.
	if err := guest.Eventually(ctx, func() (bool, error) {
		_, err := g.Run(ctx, "test -e /data/overwritten && rm /data/overwritten")
		return err == nil, nil
	}); err != nil {
		t.Error("the guest does not go on")
	}
	clean(t, g, 0)
}

func end(t *testing.T, s fabric.Snapshot, keep fabric.Checkpoint) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Settle(t.Context(), keep); err != nil {
		t.Error(err)
	}
}
