package libvirt_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// A guest with disks of all sorts is backed up as one moment, and each disk as well as its kind allows.
func TestDisksOfAllSorts(t *testing.T) {
	h := newHost(t, nil)
	a := &assorted{h: h, last: map[string][]byte{}}
	a.start(t)
	for _, c := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"one moment, and what is left out is told", a.moment},
		{"a raw disk beside others", a.raw},
		{"a disk that is attached", a.attach},
		{"a disk that is detached", a.detach},
		{"a snapshot on the host", a.snapshot},
	} {
		if !t.Run(c.name, c.try) {
			return
		}
	}
}

// assorted is a guest with disks of all sorts: vda it unlocks, with vdb; it counts on vdc and vdd; vde is a block
// device where one can be made.
type assorted struct {
	h     *libvirt.Host
	g     *guest.Guest
	lab   *guest.Lab
	vm    fabric.VM
	block string
	last  map[string][]byte
	since fabric.Checkpoint
}

func (a *assorted) start(t *testing.T) {
	t.Helper()
	a.lab = guest.Shared(t)
	name := guest.Name("disks")
	image := func(kind, format string) string {
		path, err := a.lab.Disk(t.Context(), name+"."+kind, format, "64M")
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	bek, err := a.lab.KeyVolume(t.Context(), name+".bek", "of many disks")
	if err != nil {
		t.Fatal(err)
	}
	disks := []guest.Disk{{Path: image("os", "qcow2"), Format: "qcow2"}, {Path: bek, Format: "raw", ReadOnly: true},
		{Path: image("one", "qcow2"), Format: "qcow2"}, {Path: image("other", "raw"), Format: "raw"}}
	if a.block = loop(t, image("block", "raw")); a.block != "" {
		disks = append(disks, guest.Disk{Path: a.block, Format: "raw", Block: true})
	}
	disks = append(disks, guest.Disk{Path: image("shared", "raw"), Format: "raw", Shareable: true}, guest.Disk{Format: "raw", CDROM: true, ReadOnly: true})
	if a.g, err = a.lab.Define(t.Context(), guest.Config{Name: name, Arguments: "guest.format=1 guest.files=1", Disks: disks}); err != nil {
		t.Fatal(err)
	}
	a.g.RemoveAfter(t)
	if err := a.g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.vm = machineOf(t, a.h, a.g)
	if _, err := a.g.Begin(t.Context(), `n=1; while :; do printf '%0512d' $n >/run/n; for d in vdc vdd; do dd if=/run/n of=/dev/$d conv=notrunc,fsync 2>/dev/null; done; n=$((n+1)); done`); err != nil {
		t.Fatal(err)
	}
}

// loop makes a block device of a file, and returns nothing where none can be made.
func loop(t *testing.T, path string) string {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), "losetup", "-f", "--show", path).CombinedOutput()
	device := strings.TrimSpace(string(said))
	if err != nil {
		t.Logf("no block device among the disks, for no loop device can be made here: %s", device)
		return ""
	}
	t.Cleanup(func() {
		if said, err := exec.CommandContext(context.WithoutCancel(t.Context()), "losetup", "-d", device).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v: %s", err, said)
		}
	})
	return device
}

// backUp takes a backup of all disks, checks each, and returns why those were read as a whole that were.
func (a *assorted) backUp(t *testing.T) (whys map[string]string, notes []string) {
	t.Helper()
	s, err := a.h.Snapshot(t.Context(), a.vm, a.since)
	if err != nil {
		t.Fatal(err)
	}
	whys = map[string]string{}
	for _, d := range s.Disks() {
		now, _ := copied(t, d, a.last[d.ID()])
		whole, why := d.Whole()
		if all, _ := copied(t, whole, nil); !bytes.Equal(now, all) {
			t.Errorf("what was read of %s is not the disk of that moment", d.ID())
		}
		if !d.Changed() {
			whys[d.ID()] = why
		}
		a.last[d.ID()] = now
	}
	end(t, s, s.Checkpoint())
	a.since = s.Checkpoint()
	clean(t, a.g, 1)
	return whys, s.Notes()
}

// count is what the guest had last written on a disk.
func (a *assorted) count(t *testing.T, disk string) int {
	t.Helper()
	n, err := strconv.Atoi(string(a.last[disk][:512]))
	if err != nil {
		t.Fatalf("no count on %s: %v", disk, err)
	}
	return n
}

// oneMoment fails unless the disks are of one moment: the guest writes to the one just before the other.
func (a *assorted) oneMoment(t *testing.T) {
	t.Helper()
	if one, other := a.count(t, "vdc"), a.count(t, "vdd"); one != other && one != other+1 {
		t.Errorf("the one disk is of moment %d, the other of %d", one, other)
	}
}

func (a *assorted) moment(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := guest.Eventually(ctx, func() (bool, error) { // it counts
		said, err := a.g.Run(ctx, "cat /run/n")
		return err == nil && strings.TrimLeft(said, "0") > "1", nil
	}); err != nil {
		t.Fatal(err)
	}
	_, notes := a.backUp(t)
	a.oneMoment(t)
	for _, want := range []string{": it is read-only", ": other machines write to it too", ": it is a cdrom"} {
		if !slices.ContainsFunc(notes, func(n string) bool { return strings.HasSuffix(n, want) }) {
			t.Errorf("notes are %q, want one that ends with %q", notes, want)
		}
	}
}

func (a *assorted) raw(t *testing.T) {
	before := a.count(t, "vdc")
	whys, _ := a.backUp(t)
	a.oneMoment(t)
	if a.count(t, "vdc") <= before {
		t.Error("the guest does not count on")
	}
	wholes := []string{"vdd"}
	if a.block != "" {
		wholes = append(wholes, "vde")
	}
	for _, target := range wholes {
		if whys[target] != "images of format raw cannot note what changes" {
			t.Errorf("%s is read as a whole because %q", target, whys[target])
		}
	}
	if len(whys) != len(wholes) {
		t.Errorf("read as a whole: %q", whys)
	}
}

func (a *assorted) attach(t *testing.T) {
	image, err := a.lab.Disk(t.Context(), a.g.Name+".attached", "qcow2", "64M")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Virsh(t.Context(), "attach-disk", a.g.Name, image, "vdh", "--driver", "qemu", "--subdriver", "qcow2", "--live"); err != nil {
		t.Fatal(err)
	}
	a.vm = machineOf(t, a.h, a.g)
	whys, _ := a.backUp(t)
	if why := whys["vdh"]; why != "the disk is not part of the last checkpoint" {
		t.Errorf("the new disk is read as a whole because %q", why)
	}
	a.onlyRaw(t, whys, "vdh")
	whys, _ = a.backUp(t)
	a.onlyRaw(t, whys)
}

// onlyRaw fails if a disk was read as a whole that can note what changes.
func (a *assorted) onlyRaw(t *testing.T, whys map[string]string, except ...string) {
	t.Helper()
	for target, why := range whys {
		if !strings.Contains(why, "format raw") && !slices.Contains(except, target) {
			t.Errorf("%s is read as a whole because %q", target, why)
		}
	}
}

func (a *assorted) detach(t *testing.T) {
	if _, err := guest.Virsh(t.Context(), "detach-disk", a.g.Name, "vdh", "--live"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := guest.Eventually(ctx, func() (bool, error) { // the guest must agree
		said, err := guest.Virsh(ctx, "domblklist", a.g.Name)
		return !strings.Contains(said, "vdh"), err
	}); err != nil {
		t.Fatal(err)
	}
	// The VM has it until the next look at the host: that is told, and harms nobody.
	if _, err := a.h.Snapshot(t.Context(), a.vm, a.since); err == nil || !strings.Contains(err.Error(), "has no disk vdh") {
		t.Errorf("a backup of a disk that is gone says %v", err)
	}
	a.vm = machineOf(t, a.h, a.g)
	whys, _ := a.backUp(t)
	a.onlyRaw(t, whys)
}

func (a *assorted) snapshot(t *testing.T) {
	overlay := filepath.Join(a.lab.Dir, a.g.Name+".overlay")
	t.Cleanup(func() { _ = os.Remove(overlay) })
	args := []string{"snapshot-create-as", a.g.Name, "outside", "--disk-only", "--no-metadata", "--diskspec", "vdc,snapshot=external,file=" + overlay}
	for _, target := range []string{"vda", "vdb", "vdd", "vde", "vdf"} {
		if a.block != "" || target != "vdf" {
			args = append(args, "--diskspec", target+",snapshot=no")
		}
	}
	if _, err := guest.Virsh(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	whys, _ := a.backUp(t)
	if why := whys["vdc"]; !strings.HasPrefix(why, "its image is "+overlay+" now and was ") {
		t.Errorf("after a snapshot the disk is read as a whole because %q", why)
	}
	a.onlyRaw(t, whys, "vdc")
	a.oneMoment(t)
	whys, _ = a.backUp(t)
	a.onlyRaw(t, whys)
	a.oneMoment(t)
}
