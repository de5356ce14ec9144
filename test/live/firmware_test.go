package live_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/tooltest"
	"kluis/test/guest"
)

// newSecureWorld is a world whose guest boots as a machine of today does: its firmware is UEFI, which lets nothing start that
// is not signed, and it has a TPM.
func newSecureWorld(t *testing.T, kind string) *world {
	t.Helper()
	guest.Need(t)
	tooltest.Need(t, "swtpm", "swtpm_setup", "sfdisk")
	if _, err := os.Stat("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"); err != nil {
		tooltest.Missing(t, "UEFI firmware: %v", err)
	}
	return newWorldOn(t, kind, guest.URI, guest.Config{SecureBoot: true})
}

// A machine is destroyed with all that its host kept for it, the variables of its firmware and the state of its TPM among
// it, and is made again of a recovery point that was taken while it ran. It boots with Secure Boot on, finds the words
// that it had left in variable and TPM, unlocks its disk, and has its files. So it does in a drill, meanwhile.
func TestFirmwareComesBack(t *testing.T) {
	w, ctx := newSecureWorld(t, "secure"), t.Context()
	const looks = "firmware show; cat /data/f* | sha256sum"
	was, err := w.g.Run(ctx, "firmware keep heirloom; "+looks)
	if err != nil {
		t.Fatal(err)
	}
	const firmware = "secure boot on, variable heirloom, TPM heirloom"
	if !strings.HasPrefix(was, firmware+"\n") {
		t.Fatalf("the guest says %q", was)
	}
	p := w.point(w.begin())
	w.destroy()
	restored, group := w.restoreDisks(p)
	check := []string{"/bin/sh", "-c", "is=$(" + looks + `); echo "$is"; [ "$is" = "` + was + `" ]`}
	drill, err := w.StartDrill(ctx, w.item.ARMID(), p.Name, client.DrillRequest{Check: check, Seconds: 600})
	if err != nil {
		t.Fatal(err)
	}
	w.deploy(restored, group)
	if is, err := w.g.Run(ctx, looks); err != nil || is != was {
		t.Errorf("the machine that came back says %q, %v; want %q", is, err, was)
	}
	if verdict := w.verdict(drill, p); verdict.State != client.DrillPassed || verdict.BootMS <= 0 {
		t.Errorf("the drill says %+v", verdict)
	}
}

// destroy removes the guest, its disks, and what its host kept for it.
func (w *world) destroy() {
	w.t.Helper()
	ctx := w.t.Context()
	uuid, err := w.g.Virsh(ctx, "domuuid", w.g.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(w.g.Remove(ctx), os.Remove(w.image), os.Remove(w.system), os.Remove(w.g.Serial)); err != nil {
		w.t.Fatal(err)
	}
	for _, path := range []string{filepath.Join("/var/lib/libvirt/swtpm", uuid), filepath.Join("/var/lib/libvirt/qemu/nvram", w.g.Name+"_VARS.fd")} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			w.t.Errorf("%s is left: %v", path, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = guest.Eventually(ctx, func() (bool, error) {
		_, err := w.VM(ctx, w.vm)
		if client.IsNotFound(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		w.t.Fatalf("the server does not see that the machine is gone: %v", err)
	}
}

// deploy makes a machine of the disks that a job has restored into a group, as the template says that it left, and waits
// until it is up.
func (w *world) deploy(restored client.Job, group armid.ID) {
	w.t.Helper()
	ctx := w.t.Context()
	template, err := w.Blob(ctx, restored.Properties.Bag("Template Blob Uri"))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Deploy(ctx, w.DeploymentID(group.ResourceGroup, "again"), template, map[string]any{"VirtualMachineName": w.g.Name}); err != nil {
		if e, ok := errors.AsType[*client.Error](err); ok {
			w.t.Log(e.Details)
		}
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := w.g.Await(ctx); err != nil {
		w.t.Fatal(err)
	}
}
