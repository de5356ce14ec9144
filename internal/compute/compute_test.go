package compute_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric/image"
	"kluis/internal/job"
	"kluis/internal/problem"
	"kluis/internal/seal"
)

var (
	subscription = armid.Subscription("00000000-0000-0000-0000-000000000000")
	group        = subscription.Group("rg")
	start        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// host is a compute service over real image files.
type host struct {
	*compute.Service
	t               *testing.T
	images, restore string
	denied          string // the action that is denied, if any
	board           *switchboard
	root            *seal.Root
	jobs            *job.Queue
	now             time.Time
	ids             int
}

func (h *host) Authorize(_ context.Context, action string, _ armid.ID) error {
	if action == h.denied {
		return problem.New(problem.Denied, "AuthorizationFailed", "denied")
	}
	return nil
}

func (h *host) GroupExists(_ context.Context, name string) error {
	if slices.Contains([]string{"rg", "other", "lab"}, strings.ToLower(name)) {
		return nil
	}
	return problem.New(problem.NotFound, "ResourceGroupNotFound", "no group %s", name)
}

func (h *host) EnsureGroup(context.Context, string) (string, error) { return "northeurope", nil }

type files struct{ *image.Fabric }

func (f files) Inspect(ctx context.Context, path string) (compute.Image, error) {
	i, err := f.Fabric.Inspect(ctx, path)
	return compute.Image{Path: i.Path, Format: i.Format, Size: i.Size}, err
}

func newHost(t *testing.T, db *database.DB) *host {
	dir := t.TempDir()
	root, _, err := seal.OpenOrCreate(filepath.Join(dir, "seal"), seal.Options{Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, board: &switchboard{}, root: root, now: start, images: filepath.Join(dir, "images"), restore: filepath.Join(dir, "restore")}
	if err := os.Mkdir(h.images, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := image.New(image.Options{Allow: []string{h.images}, RestoreDir: h.restore})
	if err != nil {
		t.Fatal(err)
	}
	h.jobs = job.NewQueue(db, time.Now, uuid.NewString)
	var ids sync.Mutex
	h.Service = compute.New(compute.Options{DB: db, Jobs: h.jobs, Authorizer: h, Groups: h, Images: files{f}, Seal: root, Rand: rand.Reader,
		BlobSuffix: "blob.localhost:8443", Now: func() time.Time { return h.now }, HostNames: []string{"lab", "dc2"}, Hosts: h.board, Networks: h.board, DiskKeys: h.board, HostGroups: h, Subscription: subscription,
		NewID: func() string {
			ids.Lock()
			defer ids.Unlock()
			h.ids++
			return fmt.Sprintf("00000000-0000-4000-8000-%012d", h.ids)
		}})
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// file makes an image and returns its URI.
func (h *host) file(name string, size int64) string {
	h.t.Helper()
	path := filepath.Join(h.images, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		h.t.Fatal(err)
	}
	return (&url.URL{Scheme: "file", Path: path}).String()
}

func diskID(name string) armid.ID { return group.Resource(compute.DiskType, name) }
func vmID(name string) armid.ID   { return group.Resource(compute.VMType, name) }

// document reads a resource as a client writes it.
func document[T any](t *testing.T, format string, args ...any) (v T) {
	t.Helper()
	if err := json.Unmarshal(fmt.Appendf(nil, format, args...), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (h *host) disk(name, uri string) compute.Disk {
	d := document[compute.Disk](h.t, `{"location":"westeurope","tags":{"a":"b"},"sku":{"name":"Premium_LRS"},
		"properties":{"osType":"Linux","creationData":{"createOption":"Import","sourceUri":%q},"hyperVGeneration":"V2"}}`, uri)
	d.ID = diskID(name)
	return d
}

func (h *host) mustPutDisk(name string) compute.Disk {
	h.t.Helper()
	d, created, err := h.PutDisk(h.t.Context(), h.disk(name, h.file(name, 3<<30+5)))
	if err != nil || !created {
		h.t.Fatalf("put disk %s: created %v, %v", name, created, err)
	}
	return d
}

func (h *host) vm(name, osDisk string, dataDisks ...string) compute.VM {
	var data []string
	for i, d := range dataDisks {
		data = append(data, fmt.Sprintf(`{"lun":%d,"name":%q,"createOption":"Attach","caching":"ReadOnly","managedDisk":{"id":%q}}`, i, d, diskID(d)))
	}
	vm := document[compute.VM](h.t, `{"location":"westeurope","properties":{"hardwareProfile":{"vmSize":"Standard_D2s_v3"},
		"storageProfile":{"osDisk":{"osType":"Linux","createOption":"Attach","managedDisk":{"id":%q,"storageAccountType":"Premium_LRS"}},"dataDisks":[%s]},
		"networkProfile":{"networkInterfaces":[{"id":"/subscriptions/s/nic"}]},"instanceView":{"stale":true}},"resources":[{"stale":true}]}`, diskID(osDisk), strings.Join(data, ","))
	vm.ID = vmID(name)
	return vm
}

func (h *host) mustPutVM(vm compute.VM) compute.VM {
	h.t.Helper()
	vm, _, err := h.PutVM(h.t.Context(), vm)
	if err != nil {
		h.t.Fatal(err)
	}
	return vm
}

// wire is a resource as a client sees it.
func wire(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return document[map[string]any](t, "%s", b)
}

func wantProblem(t *testing.T, err error, kind problem.Kind, code string) {
	t.Helper()
	p := problem.Of(err)
	if p == nil || p.Kind != kind || p.Code != code {
		t.Errorf("error %v, want kind %d and code %s", err, kind, code)
	} else if p.Advice == "" && code != "AuthorizationFailed" && code != "ResourceGroupNotFound" {
		t.Errorf("%s has no advice", code)
	}
}

func TestImportDisk(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		uri := h.file("with space", 3<<30+5)
		put, created, err := h.PutDisk(ctx, h.disk("OS", uri))
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		got, err := h.Disk(ctx, diskID("os"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"id": diskID("OS").String(), "name": "OS", "type": "Microsoft.Compute/disks", "location": "westeurope",
			"tags": map[string]any{"a": "b"}, "sku": map[string]any{"name": "Premium_LRS"},
			"properties": map[string]any{
				"osType": "Linux", "hyperVGeneration": "V2", "diskState": "Unattached", "provisioningState": "Succeeded",
				"creationData": map[string]any{"createOption": "Import", "sourceUri": uri},
				"diskSizeGB":   4.0, "diskSizeBytes": float64(3<<30 + 5), "uniqueId": "00000000-0000-4000-8000-000000000001", "timeCreated": "2026-03-01T12:00:00Z",
			},
		}
		for name, d := range map[string]compute.Disk{"put": put, "get": got} {
			if diff := cmp.Diff(want, wire(t, d)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		spec, err := h.ImageOf(ctx, diskID("OS"))
		if err != nil || spec.Path != filepath.Join(h.images, "with space") || spec.Format != "raw" || spec.ExpectedSize != 3<<30+5 || spec.ID != "OS" {
			t.Errorf("image %+v, %v", spec, err)
		}

		// A second PUT changes settings, keeps identity, and does not look at the file again.
		if err := os.Remove(spec.Path); err != nil {
			t.Fatal(err)
		}
		again := h.disk("OS", uri)
		again.Tags = map[string]string{"c": "d"}
		d, created, err := h.PutDisk(ctx, again)
		if err != nil || created || d.Tags["c"] != "d" || d.Properties.UniqueID != put.Properties.UniqueID {
			t.Errorf("second put: %+v, created %v, %v", d, created, err)
		}
		_, _, err = h.PutDisk(ctx, h.disk("OS", h.file("other", 1<<20)))
		wantProblem(t, err, problem.Conflict, "PropertyChangeNotAllowed")
		again.Location = "northeurope"
		_, _, err = h.PutDisk(ctx, again)
		wantProblem(t, err, problem.Conflict, "InvalidResourceLocation")

		// Deleting an imported disk leaves its file.
		h.mustPutDisk("data")
		if existed, err := h.DeleteDisk(ctx, diskID("DATA")); err != nil || !existed {
			t.Errorf("delete: %v, %v", existed, err)
		}
		if existed, err := h.DeleteDisk(ctx, diskID("data")); err != nil || existed {
			t.Errorf("delete again: %v, %v", existed, err)
		}
		if _, err := os.Stat(filepath.Join(h.images, "data")); err != nil {
			t.Errorf("the imported file: %v", err)
		}
		_, err = h.Disk(ctx, diskID("data"))
		wantProblem(t, err, problem.NotFound, "ResourceNotFound")
	})
}

func TestImportRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		taken := h.file("taken", 1<<20)
		if _, _, err := h.PutDisk(ctx, h.disk("taken", taken)); err != nil {
			t.Fatal(err)
		}
		secret := filepath.Join(filepath.Dir(h.images), "secret")
		if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(secret, filepath.Join(h.images, "link")); err != nil {
			t.Fatal(err)
		}
		inUse := h.file("vmdk", 0)
		if err := os.WriteFile(filepath.Join(h.images, "vmdk"), []byte("KDMV"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			uri  string
			kind problem.Kind
			code string
		}{
			{"file://" + h.images + "/none", problem.Invalid, "DiskImageNotFound"},
			{"file://" + secret, problem.Denied, "DiskImageNotAllowed"},
			{"file://" + h.images + "/../secret", problem.Denied, "DiskImageNotAllowed"},
			{"file://" + h.images + "/%2e%2e/secret", problem.Denied, "DiskImageNotAllowed"},
			{"file://" + h.images + "/link", problem.Denied, "DiskImageNotAllowed"},
			{"file://otherhost" + h.images + "/taken", problem.Invalid, "InvalidParameter"},
			{"https://storage.example/disk.vhd", problem.Invalid, "InvalidParameter"},
			{h.images + "/taken", problem.Invalid, "InvalidParameter"},
			{"file:relative", problem.Invalid, "InvalidParameter"},
			{"file://" + h.images + "/a%00b", problem.Invalid, "InvalidParameter"},
			{"file://%zz", problem.Invalid, "InvalidParameter"},
			{"", problem.Invalid, "InvalidParameter"},
			{inUse, problem.Invalid, "InvalidDiskImage"},
			{taken, problem.Conflict, "DiskImageInUse"},
		} {
			_, _, err := h.PutDisk(ctx, h.disk("new", test.uri))
			t.Run(test.uri, func(t *testing.T) { wantProblem(t, err, test.kind, test.code) })
			if _, err := h.LookupDisk(ctx, diskID("new")); problem.KindOf(err) != problem.NotFound {
				t.Errorf("%s left a disk: %v", test.uri, err)
			}
		}
		for _, option := range []string{"Empty", "FromImage", "Restore", ""} {
			d := h.disk("new", taken)
			d.Properties.CreationData.CreateOption = option
			_, _, err := h.PutDisk(ctx, d)
			wantProblem(t, err, problem.Unsupported, "OperationNotSupported")
		}
		d := h.disk("new", taken)
		d.Location = ""
		_, _, err := h.PutDisk(ctx, d)
		wantProblem(t, err, problem.Invalid, "LocationRequired")
		d = h.disk("new", taken)
		d.ID = subscription.Group("none").Resource(compute.DiskType, "new")
		_, _, err = h.PutDisk(ctx, d)
		wantProblem(t, err, problem.NotFound, "ResourceGroupNotFound")
	})
}

func TestAdoptRestored(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		from := h.mustPutDisk("os")
		path := filepath.Join(h.restore, "restored")
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		id := subscription.Group("other").Resource(compute.DiskType, "restored")
		d, err := h.AdoptRestored(ctx, id, path, 4096, from, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := d.Properties
		if d.Location != "westeurope" || d.Tags["a"] != "b" || p.OSType != "Linux" || p.CreationData.CreateOption != "Restore" ||
			p.SizeBytes != 4096 || p.UniqueID == from.Properties.UniqueID || p.DiskState != "Unattached" {
			t.Errorf("restored disk %+v", d)
		}
		if got := wire(t, d); got["name"] != "restored" || got["id"] != id.String() {
			t.Errorf("restored disk %v", got)
		}
		_, err = h.AdoptRestored(ctx, id, path+"2", 4096, from, nil)
		wantProblem(t, err, problem.Conflict, "DiskAlreadyExists")
		// Its file is ours, and goes with it.
		if existed, err := h.DeleteDisk(ctx, id); err != nil || !existed {
			t.Fatalf("delete: %v, %v", existed, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the restored file: %v", err)
		}
	})
}

func TestDropRestored(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		from := h.mustPutDisk("os")
		path := filepath.Join(h.restore, "restored")
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		id := diskID("restored")
		if _, err := h.AdoptRestored(ctx, id, path, 4096, from, nil); err != nil {
			t.Fatal(err)
		}
		h.denied = compute.DiskType + "/delete" // a job has no caller whose role could be asked for
		for _, drop := range []armid.ID{id, id, diskID("os")} {
			if err := h.DropRestored(ctx, drop); err != nil {
				t.Errorf("drop %s: %v", drop.Name(), err)
			}
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the restored file: %v", err)
		}
		if _, err := h.LookupDisk(ctx, id); problem.KindOf(err) != problem.NotFound {
			t.Errorf("the dropped disk: %v", err)
		}
		if _, err := h.LookupDisk(ctx, diskID("os")); err != nil {
			t.Errorf("the imported disk: %v", err)
		}
	})
}

func TestVM(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		for _, name := range []string{"os", "data", "more"} {
			h.mustPutDisk(name)
		}
		put, created, err := h.PutVM(ctx, h.vm("vm", "os", "data"))
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		got, err := h.VM(ctx, vmID("VM"))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"id": vmID("vm").String(), "name": "vm", "type": "Microsoft.Compute/virtualMachines", "location": "westeurope",
			"properties": map[string]any{
				"vmId": put.Properties.VMID, "provisioningState": "Succeeded", "timeCreated": "2026-03-01T12:00:00Z",
				"hardwareProfile": map[string]any{"vmSize": "Standard_D2s_v3"},
				"storageProfile": map[string]any{
					"osDisk":    map[string]any{"osType": "Linux", "createOption": "Attach", "managedDisk": map[string]any{"id": diskID("os").String(), "storageAccountType": "Premium_LRS"}},
					"dataDisks": []any{map[string]any{"lun": 0.0, "name": "data", "createOption": "Attach", "caching": "ReadOnly", "managedDisk": map[string]any{"id": diskID("data").String()}}},
				},
				"networkProfile": map[string]any{"networkInterfaces": []any{map[string]any{"id": "/subscriptions/s/nic"}}},
			},
		}
		for name, vm := range map[string]compute.VM{"put": put, "get": got} {
			if diff := cmp.Diff(want, wire(t, vm)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		wantAttached := func(want map[string]string) {
			t.Helper()
			for name, vm := range want {
				d, err := h.LookupDisk(ctx, diskID(name))
				if err != nil {
					t.Fatal(err)
				}
				state := "Unattached"
				if vm != "" {
					state, vm = "Attached", vmID(vm).String()
				}
				if d.Properties.DiskState != state || d.ManagedBy != vm {
					t.Errorf("disk %s is %s by %q, want %s by %q", name, d.Properties.DiskState, d.ManagedBy, state, vm)
				}
			}
		}
		wantAttached(map[string]string{"os": "vm", "data": "vm", "more": ""})

		// An attached disk is not free, cannot be deleted, and stays attached when its settings change.
		_, _, err = h.PutVM(ctx, h.vm("thief", "data"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		if _, err := h.LookupVM(ctx, vmID("thief")); problem.KindOf(err) != problem.NotFound {
			t.Errorf("the refused VM exists: %v", err)
		}
		_, err = h.DeleteDisk(ctx, diskID("data"))
		wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
		disk, err := h.LookupDisk(ctx, diskID("data"))
		if err != nil {
			t.Fatal(err)
		}
		disk.ManagedBy = ""
		if _, _, err := h.PutDisk(ctx, disk); err != nil {
			t.Errorf("put what was got: %v", err)
		}
		wantAttached(map[string]string{"os": "vm", "data": "vm", "more": ""})

		// Another set of disks.
		vm := h.mustPutVM(h.vm("vm", "os", "more"))
		if vm.Properties.VMID != put.Properties.VMID {
			t.Error("a change gave the VM another vmId")
		}
		wantAttached(map[string]string{"os": "vm", "data": "", "more": "vm"})
		// A change that fails changes nothing.
		_, _, err = h.PutVM(ctx, h.vm("vm", "data", "none"))
		wantProblem(t, err, problem.Invalid, "InvalidParameter")
		wantAttached(map[string]string{"os": "vm", "data": "", "more": "vm"})

		if existed, err := h.DeleteVM(ctx, vmID("vm")); err != nil || !existed {
			t.Errorf("delete: %v, %v", existed, err)
		}
		if existed, err := h.DeleteVM(ctx, vmID("vm")); err != nil || existed {
			t.Errorf("delete again: %v, %v", existed, err)
		}
		wantAttached(map[string]string{"os": "", "data": "", "more": ""})
	})
}

func TestVMRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		h.mustPutDisk("data")
		for name, test := range map[string]struct {
			change func(vm *compute.VM)
			code   string
		}{
			"no location":   {func(vm *compute.VM) { vm.Location = "" }, "LocationRequired"},
			"no os disk":    {func(vm *compute.VM) { vm.Properties.StorageProfile.OSDisk.ManagedDisk = nil }, "InvalidParameter"},
			"from image":    {func(vm *compute.VM) { vm.Properties.StorageProfile.OSDisk.CreateOption = "FromImage" }, "OperationNotSupported"},
			"no data disk":  {func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].ManagedDisk = nil }, "OperationNotSupported"},
			"not a disk":    {func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].ManagedDisk.ID = vmID("vm") }, "OperationNotSupported"},
			"missing disk":  {func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].ManagedDisk.ID = diskID("none") }, "InvalidParameter"},
			"disk twice":    {func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].ManagedDisk.ID = diskID("OS") }, "InvalidParameter"},
			"negative lun":  {func(vm *compute.VM) { vm.Properties.StorageProfile.DataDisks[0].Lun = -1 }, "InvalidParameter"},
			"group missing": {func(vm *compute.VM) { vm.ID = subscription.Group("none").Resource(compute.VMType, "vm") }, "ResourceGroupNotFound"},
			"lun twice": {func(vm *compute.VM) {
				s := &vm.Properties.StorageProfile
				s.DataDisks = append(s.DataDisks, compute.DataDisk{CreateOption: "Attach", ManagedDisk: &compute.Ref{ID: diskID("third")}})
			}, "InvalidParameter"},
		} {
			t.Run(name, func(t *testing.T) {
				vm := h.vm("vm", "os", "data")
				test.change(&vm)
				_, _, err := h.PutVM(ctx, vm)
				if p := problem.Of(err); p == nil || p.Code != test.code {
					t.Errorf("error %v, want %s", err, test.code)
				}
			})
		}
	})
}

func TestListsAreByScope(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		for _, name := range []string{"b", "A", "c"} {
			h.mustPutDisk(name)
		}
		other := h.disk("z", h.file("z", 1<<20))
		other.ID = subscription.Group("Other").Resource(compute.DiskType, "z")
		if _, _, err := h.PutDisk(ctx, other); err != nil {
			t.Fatal(err)
		}
		h.mustPutVM(h.vm("vm", "b"))
		for _, test := range []struct {
			scope armid.ID
			disks string
			vms   int
		}{
			{group, "A b c", 1}, {subscription.Group("RG"), "A b c", 1}, {subscription.Group("other"), "z", 0}, {subscription.Group("r"), "", 0},
			{subscription, "z A b c", 1}, {armid.Subscription("another"), "", 0},
		} {
			disks, err := h.Disks(ctx, test.scope)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, d := range disks {
				names = append(names, d.ID.Name())
			}
			if got := strings.Join(names, " "); got != test.disks {
				t.Errorf("disks of %s: %q, want %q", test.scope, got, test.disks)
			}
			vms, err := h.VMs(ctx, test.scope)
			if err != nil || len(vms) != test.vms {
				t.Errorf("VMs of %s: %d, %v", test.scope, len(vms), err)
			}
		}
		if n, err := h.CountIn(ctx, group); err != nil || n != 4 {
			t.Errorf("the group holds %d, %v", n, err)
		}
	})
}

func TestTwoVMsRaceForADisk(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			vm := h.vm(fmt.Sprint("vm", i), "os")
			wg.Go(func() { _, _, errs[i] = h.PutVM(ctx, vm) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				wantProblem(t, err, problem.Conflict, "OperationNotAllowed")
			}
		}
		if vms, err := h.VMs(ctx, group); won != 1 || len(vms) != 1 || err != nil {
			t.Errorf("%d won, %d VMs, %v", won, len(vms), err)
		}
	})
}

func TestEveryMethodNeedsItsPermission(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		h.mustPutDisk("os")
		h.mustPutVM(h.vm("vm", "os"))
		disk, vm := h.disk("os", ""), h.vm("vm", "os")
		for _, test := range []struct {
			action string
			call   func() error
		}{
			{"Microsoft.Compute/disks/read", func() error { _, err := h.Disk(ctx, disk.ID); return err }},
			{"Microsoft.Compute/disks/read", func() error { _, err := h.Disks(ctx, group); return err }},
			{"Microsoft.Compute/disks/write", func() error { _, _, err := h.PutDisk(ctx, disk); return err }},
			{"Microsoft.Compute/disks/delete", func() error { _, err := h.DeleteDisk(ctx, diskID("none")); return err }},
			{"Microsoft.Compute/virtualMachines/read", func() error { _, err := h.VM(ctx, vm.ID); return err }},
			{"Microsoft.Compute/virtualMachines/read", func() error { _, err := h.VMs(ctx, group); return err }},
			{"Microsoft.Compute/virtualMachines/read", func() error { _, err := h.InstanceView(ctx, vm.ID); return err }},
			{"Microsoft.Compute/virtualMachines/write", func() error { _, _, err := h.PutVM(ctx, vm); return err }},
			{"Microsoft.Compute/virtualMachines/delete", func() error { _, err := h.DeleteVM(ctx, vmID("none")); return err }},
		} {
			h.denied = test.action
			wantProblem(t, test.call(), problem.Denied, "AuthorizationFailed")
			h.denied = "something else"
			if err := test.call(); err != nil {
				t.Errorf("%s: %v", test.action, err)
			}
		}
	})
}
