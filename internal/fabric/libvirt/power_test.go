package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	uuids "github.com/google/uuid"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/internal/secret"
	"kluis/test/guest"
)

func keyFiles(passphrase string) []fabric.KeyFile {
	return []fabric.KeyFile{{Name: "LinuxPassPhraseFileName", Key: secret.New([]byte(passphrase))}}
}

// A real guest gets its key when it starts, and again when it boots again by itself; the key is nowhere else, and is
// gone once the guest is up. With a wrong key it does not come up. It is shut down by its agent.
func TestGuestGetsItsKey(t *testing.T) {
	lab, ctx := guest.Shared(t), t.Context()
	keys, err := os.MkdirTemp("/dev/shm", "kluis-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(keys) })
	if err := os.Chmod(keys, 0o711); err != nil {
		t.Fatal(err)
	}
	name, passphrase := guest.Name("key"), "the passphrase of a guest"
	data, err := lab.Disk(ctx, name+".qcow2", "qcow2", "64M")
	if err != nil {
		t.Fatal(err)
	}
	g, err := lab.Define(ctx, guest.Config{Name: name, Arguments: "guest.format=1 guest.files=1", Disks: []guest.Disk{{Path: data, Format: "qcow2"}}})
	if err != nil {
		t.Fatal(err)
	}
	g.RemoveAfter(t)
	uuid := virsh(t, "domuuid", name)
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: t.TempDir(), KeyDir: keys, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	follow(t, h, func(ctx context.Context, again string) {
		if again == uuid {
			if err := h.Rekey(ctx, uuid, keyFiles(passphrase)); err != nil {
				t.Error(err)
			}
		}
	})
	volume := filepath.Join(keys, "lab", uuid+".bek")
	wiped := func() (bool, error) {
		b, err := os.ReadFile(volume)
		return err == nil && len(b) > 0 && !bytes.Contains(b, []byte(passphrase)), err
	}

	if err := h.Start(ctx, uuid, keyFiles(passphrase)); err != nil {
		t.Fatal(err)
	}
	if text := virsh(t, "dumpxml", "--inactive", "--security-info", name); strings.Contains(text, ".bek") {
		t.Errorf("the volume is in the definition: %s", text)
	}
	if text := virsh(t, "dumpxml", "--security-info", name); !strings.Contains(text, ".bek") || strings.Contains(text, passphrase) {
		t.Errorf("the machine that runs: %s", text)
	}
	if err := g.Await(ctx); err != nil {
		t.Fatal(err)
	}
	if err := guest.Eventually(ctx, wiped); err != nil {
		t.Error(err)
	}
	if err := h.Start(ctx, uuid, keyFiles(passphrase)); err != nil {
		t.Errorf("start of what runs: %v", err)
	}

	if err := os.Truncate(g.Serial, 0); err != nil {
		t.Fatal(err)
	}
	virsh(t, "reset", name)
	if err := g.Await(ctx); err != nil {
		t.Fatalf("after it booted again: %v", err)
	}
	if err := guest.Eventually(ctx, wiped); err != nil {
		t.Error(err)
	}
	files, err := g.Run(ctx, "cd /data && sha256sum f*")
	if err != nil || files == "" {
		t.Fatalf("files %q, %v", files, err)
	}
	if err := h.Stop(ctx, uuid); err != nil {
		t.Fatal(err)
	}
	if state := virsh(t, "domstate", "--reason", name); state != "shut off (shutdown)" {
		t.Errorf("the guest is %s, and was to shut down by itself", state)
	}
	if _, err := os.Stat(volume); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the volume of a machine that is off: %v", err)
	}

	if err := os.Truncate(g.Serial, 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(ctx, uuid, keyFiles("another passphrase")); err != nil {
		t.Fatal(err)
	}
	if err := g.Await(ctx); err == nil || !strings.Contains(err.Error(), "unlock") {
		t.Errorf("with a wrong key: %v", err)
	}
	if err := h.Destroy(ctx, uuid); err != nil {
		t.Error(err)
	}

	// Another machine is made of what this one was and a copy of its disk.
	state, err := h.GuestState(ctx, uuid)
	if err != nil {
		t.Fatal(err)
	}
	again := fabric.MachineSpec{UUID: uuids.NewString(), Name: name + "-again", Group: "restored", State: &state,
		Disks: []fabric.DiskSpec{{Path: filepath.Join(lab.Dir, name+"-again.raw"), Format: "raw", Target: "vda"}}}
	if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-O", "raw", data, again.Disks[0].Path).CombinedOutput(); err != nil {
		t.Fatalf("copy the disk: %v: %s", err, out)
	}
	if _, err := h.Define(ctx, again); err != nil {
		t.Fatal(err)
	}
	copied := &guest.Guest{Name: again.Name, Serial: g.Serial} // its console writes into the same file
	copied.RemoveAfter(t)
	if err := os.Truncate(g.Serial, 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(ctx, again.UUID, keyFiles(passphrase)); err != nil {
		t.Fatal(err)
	}
	if err := copied.Await(ctx); err != nil {
		t.Fatal(err)
	}
	if same, err := copied.Run(ctx, "cd /data && sha256sum f*"); err != nil || same != files {
		t.Errorf("the copy holds %q, %v, want %q", same, err, files)
	}
	if err := h.Destroy(ctx, again.UUID); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(keys, "lab", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// follow watches a host for what boots again.
func follow(t *testing.T, h *libvirt.Host, rebooted func(ctx context.Context, uuid string)) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		h.Watch(ctx, libvirt.Watcher{Machines: func(context.Context, []fabric.Machine) error { return nil }, Away: func(err error) { t.Error(err) }, Rebooted: rebooted})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
}

// A machine that cannot start leaves nothing, and is none the worse.
func TestStartThatFails(t *testing.T) {
	guest.Need(t)
	keys, err := os.MkdirTemp("/dev/shm", "kluis-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(keys) })
	name := guest.Name("bad")
	path := filepath.Join(t.TempDir(), "xml")
	text := `<domain type='qemu'><name>` + name + `</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
		<devices><disk type='file' device='disk'><source file='/nowhere/image'/><target dev='vda' bus='virtio'/></disk></devices></domain>`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
	t.Cleanup(func() { removeMachine(name) })
	uuid := virsh(t, "domuuid", name)
	newOn := func(uri string) *libvirt.Host {
		h, err := libvirt.New(libvirt.Options{Name: "lab", URI: uri, LiveDir: t.TempDir(), KeyDir: keys, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	h := newOn(guest.URI)
	if err := h.Start(t.Context(), uuid, keyFiles("secret")); !fabric.IsHostKind(err, fabric.Refused) || strings.Contains(err.Error(), "secret") {
		t.Errorf("start: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(keys, "lab", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := h.Destroy(t.Context(), uuid); err != nil {
		t.Errorf("switch off what is off: %v", err)
	}
	if text := virsh(t, "dumpxml", name); strings.Contains(text, ".bek") {
		t.Errorf("definition: %s", text)
	}
}
