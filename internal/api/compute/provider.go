// Package compute is the door of Microsoft.Compute: virtual machines and managed disks. It decodes, calls
// the service of the same name, which authorizes, and encodes. What a client sends and the service does
// not know comes back unchanged, so documents are the service's own types and not copied here.
//
// Azure answers a PUT at once and finishes it behind an operation; here it is finished when it is
// answered, with provisioningState Succeeded, which every poller takes as the end. What takes its time, or tells its
// outcome at an address of its own in Azure, is followed by clients as there (operation.go).
//
// Microsoft.ClassicCompute, the model before Resource Manager, has a door too, because clients probe for
// classic VMs by their ids: it never has any.
package compute

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/compute"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// Keys tries keys on disks: the backup service, which knows how a disk is opened.
type Keys interface {
	TryKey(ctx context.Context, vm armid.ID, disk string, key secret.Bytes) (backup.OpenedDisk, error)
}

// Provider returns the table of Microsoft.Compute.
func Provider(s *compute.Service, k Keys) arm.Provider {
	h := handlers{s, k}
	return arm.Provider{Namespace: "Microsoft.Compute", Versions: versions, Resources: append(h.none(), []arm.Resource{
		{Type: compute.VMType, Get: h.getVM, Put: h.putVM, Patch: h.patchVM, Delete: h.deleteVM, List: h.listVMs,
			Actions: map[string]arm.Handler{"kluisTryEncryptionKey": h.tryKey, "start": h.run, "restart": h.run, "redeploy": h.run,
				"powerOff": h.stop, "deallocate": h.stop},
			GetActions: map[string]arm.Handler{"instanceView": h.instanceView}},
		{Type: compute.ExtensionType, Get: h.getExtension, Put: h.putExtension, Patch: h.patchExtension, Delete: h.deleteExtension, List: h.listExtensions},
		{Type: compute.DiskType, Get: h.getDisk, Put: h.putDisk, Patch: h.patchDisk, Delete: h.deleteDisk, List: h.listDisks,
			Actions: map[string]arm.Handler{"beginGetAccess": h.beginAccess, "endGetAccess": h.endAccess}},
		{Type: compute.SnapshotType, Get: h.getSnapshot, Put: h.putSnapshot, Patch: h.patchSnapshot, Delete: h.deleteSnapshot, List: h.listSnapshots,
			Actions: map[string]arm.Handler{"beginGetAccess": h.beginAccess, "endGetAccess": h.endAccess}},
		{Type: operationType, Get: h.operation},
		{Type: compute.HostGroupType, Get: h.getHostGroup, List: h.listHostGroups},
		{Type: compute.HostType, Get: h.getHost, List: h.listHosts},
	}...)}
}

// Classic returns the table of Microsoft.ClassicCompute, which is always empty.
func Classic() arm.Provider {
	return arm.Provider{Namespace: "Microsoft.ClassicCompute", Resources: []arm.Resource{
		{Type: "Microsoft.ClassicCompute/virtualMachines", Get: noClassic, List: noClassics},
	}}
}

type handlers struct {
	s *compute.Service
	k Keys
}

func (h handlers) getVM(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vm, err := h.s.VM(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	extra := map[string]any{}
	extensions, err := h.s.LookupExtensions(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	if len(extensions) > 0 {
		extra["resources"] = extensions
	}
	if wantsInstanceView(r) {
		view, err := h.s.InstanceView(ctx, vm.ID)
		if err != nil {
			return nil, err
		}
		extra["instanceView"] = view
	}
	body, err := withMore(vm, extra)
	if err != nil {
		return nil, err
	}
	return arm.OK(body), nil
}

func (h handlers) instanceView(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	view, err := h.s.InstanceView(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(view), nil
}

func (h handlers) listVMs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vms, err := h.s.VMs(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if !wantsInstanceView(r) {
		return arm.List(r, vms), nil
	}
	var items []any
	for _, vm := range vms {
		item, err := h.withInstanceView(ctx, vm)
		switch {
		case problem.KindOf(err) == problem.NotFound: // deleted since the list was read
			continue
		case err != nil:
			return nil, err
		}
		items = append(items, item)
	}
	return arm.List(r, items), nil
}

func (h handlers) putVM(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var vm compute.VM
	if err := r.Decode(&vm); err != nil {
		return nil, err
	}
	vm.ID = r.ID
	vm, created, err := h.s.PutVM(ctx, vm)
	if err != nil {
		return nil, err
	}
	return put(vm, created), nil
}

func (h handlers) deleteVM(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.s.DeleteVM(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return deleted(existed), nil
}

func (h handlers) getDisk(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	disk, err := h.s.Disk(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(disk), nil
}

func (h handlers) listDisks(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	disks, err := h.s.Disks(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, disks), nil
}

func (h handlers) putDisk(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var disk compute.Disk
	if err := r.Decode(&disk); err != nil {
		return nil, err
	}
	disk.ID = r.ID
	disk, _, err := h.s.PutDisk(ctx, disk)
	if err != nil {
		return nil, err
	}
	return putFollowed(r, disk, disk.Location, disk.Operation()), nil
}

func (h handlers) deleteDisk(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.s.DeleteDisk(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return deleted(existed), nil
}

func put(body any, created bool) *arm.Reply {
	if created {
		return arm.Created(body)
	}
	return arm.OK(body)
}

func deleted(existed bool) *arm.Reply {
	if existed {
		return arm.OK(nil)
	}
	return arm.NoContent()
}

// wantsInstanceView reports whether $expand, whose value is a list, has instanceView in it.
func wantsInstanceView(r *arm.Request) bool {
	for name, values := range r.Query {
		if !strings.EqualFold(name, "$expand") {
			continue
		}
		for _, v := range strings.Split(strings.Join(values, ","), ",") {
			if strings.EqualFold(strings.TrimSpace(v), "instanceView") {
				return true
			}
		}
	}
	return false
}

// withInstanceView is a VM's document with its instance view among the properties.
func (h handlers) withInstanceView(ctx context.Context, vm compute.VM) (any, error) {
	view, err := h.s.InstanceView(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	return withMore(vm, map[string]any{"instanceView": view})
}

// withMore is a VM's document with what is known of it elsewhere: its instance view is a property, all else stands
// beside the properties.
func withMore(vm compute.VM, more map[string]any) (any, error) {
	b, err := json.Marshal(vm)
	if err != nil {
		return nil, fmt.Errorf("encode virtual machine: %w", err)
	}
	var document map[string]any
	if err := json.Unmarshal(b, &document); err != nil {
		return nil, fmt.Errorf("decode virtual machine: %w", err)
	}
	for name, value := range more {
		if properties, ok := document["properties"].(map[string]any); ok && name == "instanceView" {
			properties[name] = value
		} else {
			document[name] = value
		}
	}
	return document, nil
}

func noClassic(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	return nil, problem.New(problem.NotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found.",
		r.ID.Type(), r.ID.Name(), r.ID.ResourceGroup).WithTarget(r.ID.String()).
		WithAdvice("Classic virtual machines do not exist here. Deploy the VM through Resource Manager.")
}

func noClassics(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	return arm.List(r, []any{}), nil
}
