package compute_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
	"kluis/internal/problem"
)

const (
	uuidOne = "1fa85f64-5717-4562-b3fc-2c963f66afa6"
	uuidTwo = "2fa85f64-5717-4562-b3fc-2c963f66afa6"
)

func onHost(group, name string) armid.ID {
	return subscription.Group(group).Resource(compute.VMType, name)
}

// machine is a running machine whose disks are the targets.
func machine(uuid, name string, targets ...string) fabric.Machine {
	m := fabric.Machine{UUID: uuid, Name: name, State: fabric.Running, Agent: fabric.AgentReady, OS: "Linux", CPUs: 2, Memory: 4 << 30, Definition: []byte("<domain/>")}
	for _, target := range targets {
		m.Disks = append(m.Disks, fabric.MachineDisk{Target: target, Path: "/images/" + name + "-" + target, Format: "qcow2", Size: 3<<30 + 512})
	}
	return m
}

func (h *host) discover(name string, machines ...fabric.Machine) {
	h.t.Helper()
	if err := h.Discover(h.t.Context(), name, machines); err != nil {
		h.t.Fatal(err)
	}
}

// names are the VMs and disks that there are, without their resource group's path.
func (h *host) names() []string {
	h.t.Helper()
	vms, err := h.VMs(h.t.Context(), subscription)
	if err != nil {
		h.t.Fatal(err)
	}
	disks, err := h.Disks(h.t.Context(), subscription)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, vm := range vms {
		names = append(names, vm.ID.ResourceGroup+"/"+vm.ID.Name())
	}
	for _, d := range disks {
		names = append(names, d.ID.ResourceGroup+"/"+d.ID.Name())
	}
	return names
}

func (h *host) mustVM(id armid.ID) compute.VM {
	h.t.Helper()
	vm, err := h.VM(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return vm
}

func (h *host) mustView(id armid.ID) compute.InstanceView {
	h.t.Helper()
	view, err := h.InstanceView(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return view
}

// What a host runs is a VM with disks, in documents as Azure writes them, and jobs find what they need.
func TestDiscover(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		m := machine(uuidOne, "web", "vda", "vdb")
		m.Disks = append(m.Disks, fabric.MachineDisk{Target: "sda", Left: "it is a cdrom"})
		h.discover("lab", m)
		id := onHost("lab", "web")
		disk := func(name string) string {
			return subscription.Group("lab").Resource(compute.DiskType, name).String()
		}
		const hostID = "/providers/Microsoft.Compute/hostGroups/kluis/hosts/lab"
		want := map[string]any{
			"id": id.String(), "name": "web", "type": "Microsoft.Compute/virtualMachines", "location": "northeurope",
			"properties": map[string]any{
				"vmId": uuidOne, "provisioningState": "Succeeded", "timeCreated": "2026-03-01T12:00:00Z",
				"hardwareProfile": map[string]any{"vmSize": "custom-2-4096"},
				"networkProfile":  map[string]any{"networkInterfaces": []any{}},
				"host":            map[string]any{"id": subscription.Group("lab").String() + hostID},
				"storageProfile": map[string]any{
					"osDisk":    map[string]any{"osType": "Linux", "name": "web-vda", "createOption": "Attach", "managedDisk": map[string]any{"id": disk("web-vda")}},
					"dataDisks": []any{map[string]any{"lun": 0.0, "name": "web-vdb", "createOption": "Attach", "managedDisk": map[string]any{"id": disk("web-vdb")}}},
				},
			},
		}
		if diff := cmp.Diff(want, wire(t, h.mustVM(id))); diff != "" {
			t.Errorf("VM (-want +got):\n%s", diff)
		}
		d, err := h.Disk(ctx, armid.Must(disk("web-vdb")))
		if err != nil || d.ManagedBy != id.String() || d.Properties.DiskState != "Attached" || d.Properties.SizeGB != 4 || d.Properties.CreationData.CreateOption != "Attach" {
			t.Errorf("disk %+v, %v", d, err)
		}
		spec, err := h.ImageOf(ctx, d.ID)
		if want := (fabric.DiskSpec{ID: "web-vdb", Path: "/images/web-vdb", Format: "qcow2", ExpectedSize: 3<<30 + 512, Target: "vdb"}); err != nil || spec != want {
			t.Errorf("image %+v, %v", spec, err)
		}
		host, uuid, definition, err := h.Placement(ctx, id)
		if err != nil || host != "lab" || uuid != uuidOne || string(definition) != "<domain/>" {
			t.Errorf("placement %s %s %s, %v", host, uuid, definition, err)
		}
		_, err = h.BeginAccess(ctx, d.ID, compute.AccessRequest{Access: "Read", Seconds: 60})
		wantProblem(t, err, problem.Unsupported, "OperationNotSupported")
		view := h.mustView(id)
		if left := view.Disks[2]; left.Name != "sda" || !strings.Contains(left.Statuses[0].Message, "it is a cdrom") {
			t.Errorf("a disk that is left out: %+v", left)
		}
		one, err := h.Host(ctx, armid.Must(subscription.Group("lab").String()+hostID))
		if err != nil || !one.Answers || len(one.VMs) != 1 || !one.VMs[0].Equal(id) {
			t.Errorf("host %+v, %v", one, err)
		}
		if groups, err := h.HostGroups(ctx, subscription); err != nil || len(groups) != 2 {
			t.Errorf("host groups %+v, %v", groups, err)
		}
		_, err = h.Host(ctx, armid.Must(subscription.Group("lab").String()+"/providers/Microsoft.Compute/hostGroups/kluis/hosts/none"))
		wantProblem(t, err, problem.NotFound, "ResourceNotFound")
	})
}

// A machine is where it was found first, whatever it is called later; names that Azure does not take are mended.
func TestDiscoveredNames(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHost(t, db)
		payroll := machine("3fa85f64-0", "db", "vda")
		payroll.Group = "pay roll."
		odd := machine("4fa85f64-0", "__", "vda")
		h.discover("lab", machine(uuidOne, "my web/1.", "vda"), machine(uuidTwo, "my web 1", "vda"), payroll, odd)
		h.discover("dc2", machine("5fa85f64-0", "my web/1.", "vda")) // the same name and the same path, on another host
		want := []string{"dc2/my-web-1", "lab/my-web-1", "lab/my-web-1-2fa85f64", "lab/vm-4fa85f64", "pay-roll/db",
			"dc2/my-web-1-vda", "lab/my-web-1-2fa85f64-vda", "lab/my-web-1-vda", "lab/vm-4fa85f64-vda", "pay-roll/db-vda"}
		if diff := cmp.Diff(want, h.names()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		payroll.Name, payroll.Group = "other", "elsewhere"
		h.discover("lab", machine(uuidTwo, "renamed", "vda"), machine(uuidOne, "renamed", "vda"), payroll, odd)
		if diff := cmp.Diff(want, h.names()); diff != "" {
			t.Errorf("after they were renamed (-want +got):\n%s", diff)
		}
	})
}

// What people have set stays; what the host knows better follows the host.
func TestDiscoverAgain(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		m := machine(uuidOne, "web", "vda", "vdb", "vdc")
		h.discover("lab", m)
		id := onHost("lab", "web")
		dataID := subscription.Group("lab").Resource(compute.DiskType, "web-vdc")
		settings := `{"tags":{"who":"me"},"properties":{"encryptionSettingsCollection":{"enabled":true,"encryptionSettings":[{"diskEncryptionKey":{
			"secretUrl":"https://kv.vault.localhost/secrets/s/1","sourceVault":{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/kv"}}}]}}}`
		if _, err := h.ChangeDisk(ctx, dataID, json.RawMessage(settings)); err != nil {
			t.Fatal(err)
		}
		if _, err := h.ChangeVM(ctx, id, json.RawMessage(`{"tags":{"who":"me"},"properties":{"licenseType":"RHEL_BYOS"}}`)); err != nil {
			t.Fatal(err)
		}
		// vdb goes, vdd comes; a snapshot on the host moves vdc's image and it grows; the size of vda cannot be had.
		m = machine(uuidOne, "web", "vda", "vdc", "vdd")
		m.Disks[0].Size, m.Disks[1].Path, m.Disks[1].Size = 0, "/images/overlay", 5<<30
		m.State, m.CPUs = fabric.Stopped, 8
		h.discover("lab", m)
		vm := h.mustVM(id)
		if doc := wire(t, vm); vm.Tags["who"] != "me" || doc["properties"].(map[string]any)["licenseType"] != "RHEL_BYOS" || vm.Properties.HardwareProfile.VMSize != "custom-8-4096" {
			t.Errorf("VM %v", doc)
		}
		luns := map[string]int{}
		for _, d := range vm.DiskIDs() {
			luns[d.Name()] = vm.LunOf(d)
		}
		if diff := cmp.Diff(map[string]int{"web-vda": -1, "web-vdd": 0, "web-vdc": 1}, luns); diff != "" {
			t.Errorf("LUNs (-want +got):\n%s", diff)
		}
		encrypted, err := h.Encryption(ctx, id)
		if err != nil || len(encrypted) != 1 || encrypted[0].Name != "web-vdc" || encrypted[0].Lun != 1 {
			t.Errorf("encryption %+v, %v", encrypted, err)
		}
		spec, err := h.ImageOf(ctx, dataID)
		if err != nil || spec.Path != "/images/overlay" || spec.ExpectedSize != 5<<30 {
			t.Errorf("image %+v, %v", spec, err)
		}
		if spec, err = h.ImageOf(ctx, subscription.Group("lab").Resource(compute.DiskType, "web-vda")); err != nil || spec.ExpectedSize != 3<<30+512 {
			t.Errorf("image whose size is not known now %+v, %v", spec, err)
		}
		h.discover("lab")
		if names := h.names(); len(names) != 0 {
			t.Errorf("after the machine went there are %v", names)
		}
	})
}

// A VM's power and agent are told as the host tells them, and are unknown while it is away; nothing goes with it.
func TestInstanceViewOfAMachine(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHost(t, db)
		id := onHost("lab", "web")
		m := machine(uuidOne, "web", "vda")
		for _, test := range []struct {
			power       fabric.PowerState
			agent       fabric.AgentState
			code, ready string
		}{
			{fabric.Running, fabric.AgentReady, "PowerState/running", "Ready"},
			{fabric.Running, fabric.AgentNotReady, "PowerState/running", "Not Ready"},
			{fabric.Running, fabric.AgentNone, "PowerState/running", "Not Ready"},
			{fabric.Paused, fabric.AgentReady, "PowerState/paused", "Not Ready"},
			{fabric.ShuttingDown, fabric.AgentNotReady, "PowerState/stopping", "Not Ready"},
			{fabric.Crashed, fabric.AgentNone, "PowerState/stopped", "Not Ready"},
			{fabric.Stopped, fabric.AgentNotReady, "PowerState/stopped", "Not Ready"},
		} {
			m.State, m.Agent = test.power, test.agent
			h.discover("lab", m)
			view := h.mustView(id)
			if got := view.Statuses[1].Code; got != test.code || view.VMAgent.Statuses[0].DisplayStatus != test.ready {
				t.Errorf("%s, agent %s: %s and %+v", test.power, test.agent, got, view.VMAgent)
			}
		}
		h.HostAway("lab", errors.New("connection refused"))
		view := h.mustView(id)
		if view.Statuses[1].Code != "PowerState/unknown" || !strings.Contains(view.VMAgent.Statuses[0].Message, "lab does not answer") {
			t.Errorf("host away: %+v", view)
		}
		h.discover("lab", m)
		if view := h.mustView(id); view.Statuses[1].Code != "PowerState/stopped" {
			t.Errorf("host back: %+v", view)
		}
	})
}

// A VM's document can be put back as it was got. Its disks and its host are not a client's to change.
func TestChangeOfADiscoveredVM(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.discover("lab", machine(uuidOne, "web", "vda", "vdb"))
		id := onHost("lab", "web")
		put := func(change func(vm *compute.VM)) error {
			b, err := json.Marshal(h.mustVM(id))
			if err != nil {
				t.Fatal(err)
			}
			vm := document[compute.VM](t, "%s", b)
			change(&vm)
			_, _, err = h.PutVM(ctx, vm)
			return err
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(put(func(*compute.VM) {}))
		must(put(func(vm *compute.VM) { vm.Properties.Host = nil }))
		if vm := h.mustVM(id); vm.Properties.Host == nil {
			t.Error("the host was forgotten")
		}
		wantProblem(t, put(func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].Lun = 7 }), problem.Conflict, "OperationNotAllowed")
		wantProblem(t, put(func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks = nil }), problem.Conflict, "OperationNotAllowed")
		wantProblem(t, put(func(vm *compute.VM) { vm.Properties.Host.ID = vm.ID }), problem.Conflict, "PropertyChangeNotAllowed")
		_, err := h.DeleteVM(ctx, id)
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		_, err = h.DeleteDisk(ctx, subscription.Group("lab").Resource(compute.DiskType, "web-vdb"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
	})
}

// Whatever disks come and go, one that stays keeps its LUN, the OS disk stays the OS disk, and no LUN is used twice.
func TestDiskKeepsItsLun(t *testing.T) {
	h := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"))
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		uuid := fmt.Sprintf("%08d-0", run)
		old := map[string]int{}
		for range rapid.IntRange(1, 5).Draw(r, "discoveries") {
			targets := rapid.Permutation([]string{"vda", "vdb", "vdc", "vdd"}).Draw(r, "order")[:rapid.IntRange(1, 4).Draw(r, "disks")]
			h.discover("lab", machine(uuid, "m", targets...))
			vm := h.mustVM(onHost("lab", "m"))
			now, used := map[string]int{}, map[int]bool{}
			for _, id := range vm.DiskIDs() {
				now[strings.TrimPrefix(id.Name(), "m-")] = vm.LunOf(id)
				used[vm.LunOf(id)] = true
			}
			osStays := slices.ContainsFunc(targets, func(t string) bool { return old[t] == -1 })
			for target, lun := range now {
				if was, there := old[target]; there && was != lun && (osStays || lun != -1) {
					r.Fatalf("%s had LUN %d and has %d", target, was, lun)
				}
			}
			if len(used) != len(targets) || !used[-1] || len(now) != len(targets) {
				r.Fatalf("disks %v have LUNs %v", targets, slices.Sorted(maps.Keys(used)))
			}
			old = now
		}
	})
}
