package compute

import (
	"context"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// PutVM creates a VM of disks that exist, or changes one.
func (s *Service) PutVM(ctx context.Context, vm VM) (_ VM, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/write", vm.ID); err != nil {
		return VM{}, false, err
	}
	if err := vm.check(); err != nil {
		return VM{}, false, err
	}
	if err := s.o.Groups.GroupExists(ctx, vm.ID.ResourceGroup); err != nil {
		return VM{}, false, err
	}
	vm.dropReadOnly()
	was, err := s.LookupVM(ctx, vm.ID)
	if err := s.mayName(ctx, was.named(), vm.named()); err != nil {
		return VM{}, false, err
	}
	if isNotFound(err) && vm.Properties.Host != nil {
		vm, err = s.create(ctx, vm)
		return vm, err == nil, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectVM(ctx, tx, vm.ID)
		if err != nil && !isNotFound(err) {
			return err
		}
		if created = isNotFound(err); !created {
			return s.change(ctx, tx, old, &vm)
		}
		if vm.Properties.Host != nil {
			return err // it was there a moment ago
		}
		vm.settle(s.o.NewID(), s.o.Now())
		if err := s.attach(ctx, tx, vm); err != nil {
			return err
		}
		return putVM(ctx, tx, vm)
	})
	return vm, created, err
}

// change puts a VM's document in place of the old one. Which disks a VM has is its host's to say, where it has one.
func (s *Service) change(ctx context.Context, tx *database.Tx, old VM, vm *VM) error {
	if !strings.EqualFold(old.Location, vm.Location) {
		return locationFixed(vm.ID, old.Location)
	}
	vm.settle(old.Properties.VMID, old.Properties.TimeCreated)
	_, hosted, err := selectMachine(ctx, tx, vm.ID)
	switch {
	case err != nil:
		return err
	case hosted:
		if err := keepDisks(old, *vm); err != nil {
			return err
		}
		vm.Properties.Host = old.Properties.Host
	case vm.Properties.Host != nil:
		return hostFixed(old)
	default:
		if err := s.attach(ctx, tx, *vm); err != nil {
			return err
		}
	}
	return putVM(ctx, tx, *vm)
}

// attach gives a VM its disks, and lets go of those that it no longer names.
func (s *Service) attach(ctx context.Context, tx *database.Tx, vm VM) error {
	had, err := detachAll(ctx, tx, vm.ID)
	if err != nil {
		return err
	}
	for _, id := range vm.DiskIDs() {
		row, err := selectDisk(ctx, tx, id)
		if isNotFound(err) {
			return diskMissing(vm.ID, id)
		}
		if err != nil {
			return err
		}
		if row.vm != "" {
			return diskAttached(row.Disk, row.vm)
		}
		if !had[id.Key()] && row.isShared(s.o.Now()) {
			return diskShared(row.ID)
		}
		if row.Properties.isCreating() {
			return notMadeYet(row.ID)
		}
		row.vm = vm.ID.String()
		row.Properties.DiskState = attached
		if err := putDisk(ctx, tx, row); err != nil {
			return err
		}
	}
	return nil
}

// VM returns a VM.
func (s *Service) VM(ctx context.Context, id armid.ID) (VM, error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/read", id); err != nil {
		return VM{}, err
	}
	return s.LookupVM(ctx, id)
}

// LookupVM returns a VM, for jobs.
func (s *Service) LookupVM(ctx context.Context, id armid.ID) (vm VM, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		vm, err = selectVM(ctx, tx, id)
		return err
	})
	return vm, err
}

// VMs returns the VMs of a group or of the subscription, by id.
func (s *Service) VMs(ctx context.Context, scope armid.ID) (vms []VM, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/read", scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		vms, err = selectVMs(ctx, tx, scope)
		return err
	})
	return vms, err
}

// DeleteVM removes a VM; its disks stay, detached. Deleting one that does not exist is no error. One that was created on a
// host goes there too; one that was found there is not removed.
func (s *Service) DeleteVM(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/delete", id); err != nil {
		return false, err
	}
	m, hosted, err := s.machine(ctx, id)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case hosted && !m.made:
		return false, foundOnHost(m)
	case hosted && !s.configured(m.host):
		return false, hostGone(m, "delete")
	case hosted:
		return true, s.unmake(ctx, m)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := detachAll(ctx, tx, id); err != nil {
			return err
		}
		existed, err = deleteVM(ctx, tx, id)
		return err
	})
	return existed, err
}

// detachAll lets go of a VM's disks, and says by their keys which they were.
func detachAll(ctx context.Context, tx *database.Tx, vm armid.ID) (had map[string]bool, err error) {
	rows, err := selectDisksOf(ctx, tx, vm)
	if err != nil {
		return nil, err
	}
	had = map[string]bool{}
	for _, row := range rows {
		row.vm, row.target, row.Properties.DiskState = "", "", unattached
		if err := putDisk(ctx, tx, row); err != nil {
			return nil, err
		}
		had[row.ID.Key()] = true
	}
	return had, nil
}
