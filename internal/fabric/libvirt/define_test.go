package libvirt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/internal/tooltest"
	"kluis/test/guest"
)

// firmwareMachine defines a machine with UEFI, Secure Boot's firmware, a TPM and two disks.
func firmwareMachine(t *testing.T, name, dir string) (uuid string) {
	t.Helper()
	for _, disk := range []string{"vda", "vdb", "shared"} {
		if err := os.WriteFile(filepath.Join(dir, disk), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`<domain type='qemu'><name>%[1]s</name><title>pay roll</title>
		<metadata><kluis:vm xmlns:kluis="urn:kluis:vm:1" group="old"/><other:note xmlns:other="urn:other">kept</other:note></metadata>
		<memory unit='MiB'>64</memory><vcpu>1</vcpu>
		<os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
			<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>%[2]s/old_VARS.fd</nvram></os>
		<features><acpi/></features>
		<devices>
			<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='%[2]s/vda'/><target dev='vda' bus='virtio'/><serial>first</serial></disk>
			<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%[2]s/shared'/><target dev='vdc' bus='virtio'/><shareable/></disk>
			<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%[2]s/vdb'/><target dev='vdb' bus='virtio'/></disk>
			<disk type='file' device='cdrom'><source file='%[2]s/cd'/><target dev='sda' bus='sata'/><readonly/></disk>
			<interface type='network'><mac address='52:54:00:12:34:56'/><source network='nowhere'/><model type='virtio'/></interface>
			<interface type='bridge'><mac address='52:54:00:12:34:57'/><source bridge='br7'/><model type='virtio'/></interface>
			<serial type='file'><source path='%[2]s/serial'/><target port='0'/></serial>
			<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
			<controller type='usb' model='none'/><memballoon model='none'/><video><model type='none'/></video>
		</devices></domain>`, name, dir)
	path := filepath.Join(t.TempDir(), "xml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
	t.Cleanup(func() { removeMachine(name) })
	return virsh(t, "domuuid", name)
}

// What a machine is beside its disks is read, and a machine that is made of it has all of it: firmware and its variables,
// TPM, and what others noted; with an identity, disks and addresses of its own.
func TestGuestStateComesBack(t *testing.T) {
	guest.Need(t)
	tooltest.Need(t, "swtpm", "swtpm_setup")
	if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
		tooltest.Missing(t, "UEFI firmware: %v", err)
	}
	ctx, dir := t.Context(), t.TempDir()
	guest.Open(t, dir)
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: filepath.Join(dir, "live"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	name := guest.Name("uefi")
	old := firmwareMachine(t, name, dir)
	state, err := h.GuestState(ctx, old)
	if err != nil || state.NVRAM != nil || state.TPM != nil || len(state.Notes) != 0 {
		t.Fatalf("of a machine that never ran: %+v, %v", state, err)
	}
	virsh(t, "detach-disk", name, "sda", "--config") // its medium is no file
	virsh(t, "detach-interface", name, "network", "--config")
	virsh(t, "detach-interface", name, "bridge", "--config")
	virsh(t, "start", name)
	variables := filepath.Join(dir, "old_VARS.fd")
	if err := os.Rename(variables, variables+"-away"); err != nil {
		t.Fatal(err)
	}
	if state, err := h.GuestState(ctx, old); err != nil || len(state.TPM) == 0 || len(state.Notes) != 1 || !strings.Contains(state.Notes[0], "UEFI variables") {
		t.Errorf("without the file of its variables: TPM of %d bytes, notes %v, %v", len(state.TPM), state.Notes, err)
	}
	if err := os.Rename(variables+"-away", variables); err != nil {
		t.Fatal(err)
	}
	virsh(t, "destroy", name)
	full := state.Definition
	if state, err = h.GuestState(ctx, old); err != nil || len(state.NVRAM) == 0 || len(state.TPM) == 0 || len(state.Notes) != 0 {
		t.Fatalf("NVRAM of %d bytes, TPM of %d, notes %v, %v", len(state.NVRAM), len(state.TPM), state.Notes, err)
	}
	copy(state.NVRAM[len(state.NVRAM)-8:], "variable")
	state.Definition = full

	spec := fabric.MachineSpec{UUID: uuid.NewString(), Name: name + "-again", Group: "restored", State: &state, Networks: []string{"", libvirt.NoNetwork},
		Disks: []fabric.DiskSpec{{Path: filepath.Join(dir, "new-a"), Format: "raw", Target: "vda"}, {Path: filepath.Join(dir, "new-b"), Format: "qcow2", Target: "vdb"},
			{Path: filepath.Join(dir, "new-x"), Format: "raw"}}}
	m, err := h.Define(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeMachine(spec.Name) })
	if m.UUID != spec.UUID || m.Name != spec.Name || m.Group != "restored" || m.State != fabric.Stopped {
		t.Errorf("machine %+v", m)
	}
	var disks []string
	for _, d := range m.Disks {
		disks = append(disks, d.Target+" "+filepath.Base(d.Path)+" "+d.Format+" "+d.Serial)
	}
	if got := strings.Join(disks, ", "); got != "vda new-a raw first, vdb new-b qcow2 , vdc new-x raw , sda . raw " {
		t.Errorf("disks %s", got)
	}
	text := string(m.Definition)
	for what, there := range map[string]bool{"pay roll": true, "kept": true, "cache='none'": true, "OVMF_CODE_4M.fd": true, dir + "/serial": true, "tpm-crb": true,
		"52:54:00:12:34:56": false, "old_VARS": false, "shareable": false, "<interface": false, old: false} {
		if strings.Contains(text, what) != there {
			t.Errorf("%q in the definition: %t, want %t: %s", what, !there, there, text)
		}
	}
	if again, err := h.GuestState(ctx, spec.UUID); err != nil || !bytes.Equal(again.NVRAM, state.NVRAM) || !bytes.Equal(again.TPM, state.TPM) {
		t.Errorf("NVRAM the same: %t, TPM the same: %t, %v", bytes.Equal(again.NVRAM, state.NVRAM), bytes.Equal(again.TPM, state.TPM), err)
	}
	// It runs with all of it: firmware takes the variables, and a TPM its state, or the machine does not start.
	for _, d := range spec.Disks {
		if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", d.Format, d.Path, "1M").CombinedOutput(); err != nil {
			t.Fatalf("qemu-img: %v: %s", err, out)
		}
	}
	if err := h.Start(ctx, spec.UUID, nil); err != nil {
		t.Errorf("start with what was saved: %v", err)
	}
	if is, err := h.Machine(ctx, spec.UUID); err != nil || is.State != fabric.Running {
		t.Errorf("it is %s, %v", is.State, err)
	}
	if err := h.Destroy(ctx, spec.UUID); err != nil {
		t.Error(err)
	}
	if _, err := h.Define(ctx, fabric.MachineSpec{UUID: uuid.NewString(), Name: spec.Name, Disks: spec.Disks}); !fabric.IsHostKind(err, fabric.Refused) {
		t.Errorf("a second machine of the name: %v", err)
	}
	if err := h.Undefine(ctx, spec.UUID); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "live", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := h.Undefine(ctx, spec.UUID); err != nil {
		t.Errorf("undefine what is gone: %v", err)
	}
}

// UEFI variables are found in whatever words a definition says where they are, or does not.
func TestWhereVariablesAre(t *testing.T) {
	for of, want := range map[string]string{
		`<os><type>hvm</type></os>`: "",
		`<os><type>hvm</type><loader type='pflash'>/code</loader><nvram template='/template'>/named</nvram></os>`:  "/named",
		`<os firmware='efi'><type>hvm</type><nvram template='/template' format='qcow2'>/named</nvram></os>`:        "/named",
		`<os firmware='efi'><type>hvm</type><nvram type='file'><source file='/source'/></nvram></os>`:              "/source",
		`<os firmware='efi'><type>hvm</type><firmware><feature enabled='yes' name='secure-boot'/></firmware></os>`: "/var/lib/libvirt/qemu/nvram/web_VARS.fd",
		`<os firmware='bios'><type>hvm</type></os>`:                                                                "",
	} {
		if is, err := libvirt.VariablesOf("<domain type='qemu'><name>web</name>" + of + "</domain>"); is != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", of, is, err, want)
		}
	}
}

// A machine that never was gets an agent's channel and the firmware that it wants, and runs.
func TestDefineFresh(t *testing.T) {
	guest.Need(t)
	dir := t.TempDir()
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: dir, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	spec := fabric.MachineSpec{UUID: uuid.NewString(), Name: guest.Name("fresh"), Group: "g", CPUs: 2, Memory: 64 << 20, UEFI: true}
	m, err := h.Define(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeMachine(spec.Name) })
	if m.Agent != fabric.AgentNotReady || m.CPUs != 2 || m.Memory != 64<<20 {
		t.Errorf("machine %+v", m)
	}
	if err := h.Start(t.Context(), spec.UUID, nil); err != nil {
		t.Error(err)
	}
	if err := h.Destroy(t.Context(), spec.UUID); err != nil {
		t.Error(err)
	}
	far, err := libvirt.New(libvirt.Options{Name: "far", URI: "qemu+tls://far.invalid/system", LiveDir: dir, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.Define(t.Context(), spec); !fabric.IsHostKind(err, fabric.Refused) || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("on a host elsewhere: %v", err)
	}
}

// A drill of a machine that never ran makes new variables and a new TPM, and leaves neither on the host.
func TestDrillLeavesNoFirmware(t *testing.T) {
	guest.Need(t)
	tooltest.Need(t, "swtpm", "swtpm_setup")
	dir := t.TempDir()
	guest.Open(t, dir)
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: guest.URI, LiveDir: filepath.Join(dir, "live"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	d := fabric.Drill{UUID: uuid.NewString(), Name: guest.Name("drill"), Limit: 2 * time.Minute, State: &fabric.GuestState{
		Definition: []byte(`<domain type='qemu'><name>old</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type></os>
			<features><acpi/></features><devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><memballoon model='none'/></devices></domain>`)}}
	ctx, stop := context.WithCancel(t.Context())
	runs := make(chan error, 1)
	go func() {
		defer stop()
		runs <- guest.Eventually(ctx, func() (bool, error) {
			state, err := guest.Virsh(ctx, "domstate", d.Name)
			return err == nil && state == "running", nil
		})
	}()
	r, err := h.Drill(ctx, d)
	stop()
	if ran := <-runs; ran != nil || err != nil || r.Passed {
		t.Errorf("the drill says %+v, %v; it ran: %v", r, err, ran)
	}
	for _, path := range []string{"/var/lib/libvirt/qemu/nvram/" + d.Name + "_VARS.fd", "/var/lib/libvirt/swtpm/" + d.UUID, filepath.Join(dir, "live", d.UUID)} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
