package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"kluis/internal/client"
	"kluis/test/guest"
)

// A machine moves to another host while it runs, with its disk where both reach it. While it moves it is not backed up, and
// the reason is told. Then it is the same VM on the other host, and goes on being backed up in increments: its bitmap was in
// the image, and nothing of it is left behind.
func TestMachineThatMoves(t *testing.T) {
	there := guest.NewDaemon(t, guest.Elsewhere())
	w := newWorldOn(t, "move", guest.URI, guest.Config{}, there.URI())
	w.point(w.begin())
	w.write(t)
	moved := w.move(t, there)
	w.refusedAsBusy(t, w.begin())
	if _, err := w.g.Virsh(t.Context(), "migrate-setspeed", w.g.Name, "1000"); err != nil {
		t.Fatal(err)
	}
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	if left, err := w.g.Virsh(t.Context(), "dominfo", w.g.Name); err == nil {
		t.Errorf("left behind: %s", left)
	}
	w.g = guest.Shared(t).On(there.URI()).Guest(w.g.Name)
	w.awaitHost(t, w.group+"-there")
	w.write(t)
	p := w.point(w.begin())
	if d := p.Properties.Disks[0]; !d.Incremental || p.Properties.Type != "FileSystemConsistent" {
		t.Errorf("after it has moved it is backed up %s (%s), incremental %t (%s)", p.Properties.Type, p.Properties.Reason, d.Incremental, d.Rescanned)
	}
	w.clean()
	w.same()
	if names := bitmapsOf(t, w.image); len(names) != 1 {
		t.Errorf("the image has the bitmaps %q, want that of the last checkpoint", names)
	}
}

// move begins to move the guest, so slowly that it does not end before it is told to be faster.
func (w *world) move(t *testing.T, to *guest.Daemon) <-chan error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	moved := make(chan error, 1)
	g := w.g
	guest.Shared(t).On(to.URI()).Guest(g.Name).RemoveAfter(t)
	go func() {
		// libvirt takes no folder of one machine for one that two share.
		_, err := g.Virsh(ctx, "migrate", "--live", "--persistent", "--undefinesource", "--unsafe", "--bandwidth", "1", g.Name, to.URI())
		moved <- err
	}()
	if err := guest.Eventually(ctx, func() (bool, error) {
		job, err := g.Virsh(ctx, "domjobinfo", g.Name)
		return strings.Contains(job, "Outgoing migration") && strings.Contains(job, "Data remaining"), err // a speed that is set earlier is set back
	}); err != nil {
		t.Fatalf("the guest does not begin to move: %v", err)
	}
	return moved
}

// refusedAsBusy fails unless a backup ends because its machine is at something else.
func (w *world) refusedAsBusy(t *testing.T, job string) {
	t.Helper()
	_, err := w.WaitJob(t.Context(), w.vault, job, nil)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "UserErrorVmNotInDesirableState" {
		t.Errorf("a backup while it moves says %v", err)
	}
}

// awaitHost waits until the VM is known to be on a host.
func (w *world) awaitHost(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var vm client.VM
	err := guest.Eventually(ctx, func() (is bool, err error) {
		vm, err = w.VM(ctx, w.vm)
		return err == nil && vm.Properties.Host != nil && vm.Properties.Host.ID == w.HostID(name).String(), err
	})
	if err != nil {
		t.Fatalf("the VM is not known to have moved: %v: %+v", err, vm.Properties.Host)
	}
}

// write has the guest write something else than it has.
func (w *world) write(t *testing.T) {
	t.Helper()
	if _, err := w.g.Run(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=2048; sync"); err != nil {
		t.Fatal(err)
	}
}

// bitmapsOf are the names of the bitmaps in an image that nobody uses.
func bitmapsOf(t *testing.T, image string) (names []string) {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "qemu-img", "info", "--output=json", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Format struct {
			Data struct{ Bitmaps []struct{ Name string } }
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(said, &info); err != nil {
		t.Fatal(err)
	}
	for _, b := range info.Format.Data.Bitmaps {
		names = append(names, b.Name)
	}
	return names
}
