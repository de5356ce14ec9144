package compute_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
	"kluis/internal/problem"
)

func hostOf(name string) armid.ID {
	return subscription.Group(name).Resource(compute.HostGroupType, "kluis").Child("hosts", name)
}

// onLab is a VM of two encrypted disks that is to be made on the host lab.
func (h *host) onLab() compute.VM {
	h.t.Helper()
	for _, name := range []string{"os", "data"} {
		d := h.disk(name, h.file(name, 1<<20))
		if name == "os" {
			d.Properties.EncryptionSettings = document[*compute.SettingsCollection](h.t, `{"enabled":true,"encryptionSettings":[{"diskEncryptionKey":{
				"secretUrl":"https://kv.vault.localhost/secrets/bek/1","sourceVault":{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/kv"}}}]}`)
		} else {
			d.Properties.Target = "vdq"
		}
		if _, _, err := h.PutDisk(h.t.Context(), d); err != nil {
			h.t.Fatal(err)
		}
	}
	vm := document[compute.VM](h.t, `{"location":"westeurope","properties":{"hardwareProfile":{"vmSize":"custom-4-2048"},"host":{"id":%q},
		"storageProfile":{"osDisk":{"osType":"Linux","createOption":"Attach","managedDisk":{"id":%q}},"dataDisks":[{"lun":3,"createOption":"Attach","managedDisk":{"id":%q}}]},
		"networkProfile":{"networkInterfaces":[{"id":%q}]}}}`, hostOf("lab"), diskID("os"), diskID("data"), group.Resource("Microsoft.Network/networkInterfaces", "nic"))
	vm.ID = vmID("made")
	return vm
}

// A VM that names a host is defined there with its disks and started with its keys. What the host says of it later
// agrees with what is known; deleting it removes it there, and frees its disks.
func TestCreateOnHost(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.discover("lab")
		vm, created, err := h.PutVM(ctx, h.onLab())
		if err != nil || !created {
			t.Fatalf("created %t, %v", created, err)
		}
		spec := h.board.specs[0]
		short := spec.UUID[:4]
		h.board.did(t, "define lab/"+short, "start LinuxPassPhraseFileName=key-bek lab/"+short)
		if spec.Name != "made" || spec.Group != "rg" || spec.CPUs != 4 || spec.Memory != 2<<30 || !spec.UEFI || !slices.Equal(spec.Networks, []string{"net-of-nic"}) || spec.State != nil {
			t.Errorf("spec %+v", spec)
		}
		if len(spec.Disks) != 2 || spec.Disks[0].ID != "os" || spec.Disks[1].Target != "vdq" || spec.Disks[1].Format != "raw" {
			t.Errorf("disks %+v", spec.Disks)
		}
		if vm.Properties.VMID != spec.UUID || h.mustView(vm.ID).Statuses[1].Code != "PowerState/running" {
			t.Errorf("VM %+v", vm.Properties)
		}
		if d, err := h.ImageOf(ctx, diskID("data")); err != nil || d.Target != "vdb" {
			t.Errorf("the host's name of the data disk %+v, %v", d, err)
		}
		h.discover("lab") // a list from before it was made
		h.discover("lab", fabric.Machine{UUID: spec.UUID, Name: "made", State: fabric.Running, CPUs: 4, Memory: 2 << 30, Disks: []fabric.MachineDisk{
			{Target: "vda", Path: spec.Disks[0].Path, Format: "raw"}, {Target: "vdb", Path: spec.Disks[1].Path, Format: "raw"}}})
		if got := h.mustVM(vm.ID); got.LunOf(diskID("data")) != 3 || len(h.names()) != 3 {
			t.Errorf("after the host listed it: %v of %v", wire(t, got), h.names())
		}
		if _, _, err := h.PutVM(ctx, vm); err != nil {
			t.Errorf("put what was got: %v", err)
		}
		if existed, err := h.DeleteVM(ctx, vm.ID); err != nil || !existed {
			t.Errorf("delete: %t, %v", existed, err)
		}
		h.board.did(t, "destroy lab/"+short, "undefine lab/"+short)
		if d, err := h.Disk(ctx, diskID("data")); err != nil || d.Properties.DiskState != "Unattached" {
			t.Errorf("its disk %+v, %v", d, err)
		}
	})
}

// What cannot be made whole is not there afterwards, and its disks are free.
func TestCreateOnHostRefused(t *testing.T) {
	h, ctx := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")), t.Context()
	vm := h.onLab()
	wanted := func(what string, kind problem.Kind, code string, undone bool) {
		t.Helper()
		_, _, err := h.PutVM(ctx, vm)
		wantProblem(t, err, kind, code)
		if _, err := h.VM(ctx, vm.ID); problem.KindOf(err) != problem.NotFound {
			t.Errorf("%s: the VM is there: %v", what, err)
		}
		if d, err := h.Disk(ctx, diskID("os")); err != nil || d.Properties.DiskState != "Unattached" {
			t.Errorf("%s: its disk %+v, %v", what, d, err)
		}
		if last := len(h.board.asked) - 1; undone != (last >= 0 && strings.HasPrefix(h.board.asked[last], "undefine")) {
			t.Errorf("%s: asked of the host: %v", what, h.board.asked)
		}
		h.board.asked = nil
	}
	wanted("a host that does not answer", problem.Unavailable, "HostUnavailable", false)
	h.discover("lab")
	vm.Properties.Host.ID = hostOf("other")
	wanted("a host that is not there", problem.Invalid, "HostNotFound", false)
	vm.Properties.Host.ID = hostOf("lab")
	h.board.shut = problem.New(problem.NotFound, "SecretNotFound", "no secret").WithAdvice("Restore it.")
	wanted("no key", problem.Conflict, "SecretNotFound", false)
	h.board.shut = nil
	for _, call := range []string{"define", "start"} {
		h.board.stuck, h.board.fail = call, &fabric.HostError{Host: "lab", Kind: fabric.Refused, Err: errors.New("Could not open: Permission denied")}
		wanted(call, problem.Conflict, "HostRefused", true)
	}
	h.board.fail = nil
	h.discover("lab", machine(uuidOne, "web", "vda"))
	vm.Properties.StorageProfile.OSDisk.ManagedDisk.ID = subscription.Group("lab").Resource(compute.DiskType, "web-vda")
	_, _, err := h.PutVM(ctx, vm)
	wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
}

// What a machine was comes with its restored OS disk, is nowhere in plain, and goes with the disk.
func TestGuestState(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.discover("lab")
		state := &fabric.GuestState{Definition: []byte("<domain>was</domain>"), NVRAM: []byte{1, 2}, TPM: []byte("the state of a TPM")}
		if _, err := h.AdoptRestored(ctx, diskID("os"), "/restored/os", 1<<20, h.disk("was", "file:///was"), state); err != nil {
			t.Fatal(err)
		}
		vm := document[compute.VM](t, `{"location":"westeurope","properties":{"hardwareProfile":{"vmSize":"Standard_D2s_v3"},"host":{"id":%q},
			"storageProfile":{"osDisk":{"createOption":"Attach","managedDisk":{"id":%q}}}}}`, hostOf("lab"), diskID("os"))
		vm.ID = vmID("made")
		if _, _, err := h.PutVM(ctx, vm); err != nil {
			t.Fatal(err)
		}
		spec := h.board.specs[0]
		if got := string(spec.State.TPM); got != "the state of a TPM" || spec.CPUs != 0 || spec.Memory != 0 {
			t.Errorf("spec %+v", spec)
		}
	})
}
