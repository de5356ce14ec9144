package compute

import (
	"context"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/secret"
)

// Hosts do what is asked of the machines that they run. Errors are *fabric.HostError.
type Hosts interface {
	// Start starts a machine and hands its guest the keys of its disks; one that runs is left alone.
	Start(ctx context.Context, host, uuid string, keys []fabric.KeyFile) error
	// Rekey hands the keys to a guest that boots again.
	Rekey(ctx context.Context, host, uuid string, keys []fabric.KeyFile) error
	// Stop asks the guest to shut down, and switches the machine off if it does not.
	Stop(ctx context.Context, host, uuid string) error
	// Destroy switches the machine off.
	Destroy(ctx context.Context, host, uuid string) error
	// Define makes a machine, which is off.
	Define(ctx context.Context, host string, spec fabric.MachineSpec) (fabric.Machine, error)
	// Undefine forgets a machine that is off.
	Undefine(ctx context.Context, host, uuid string) error
}

// DiskKeys gets the keys of disks from key vaults, as the principal Azure Disk Encryption.
type DiskKeys interface {
	// DiskKey returns what opens a disk, and the name of the file by which its guest knows it; empty if nobody said. keyURL
	// is empty where the disk's settings name no KEK.
	DiskKey(ctx context.Context, secretURL, keyURL string) (fileName string, key secret.Bytes, err error)
}

// Run starts a VM, or stops and starts it. action is the last word of the right to it. Image files at rest are run by
// nobody, and no VM moves to another host; this says so.
func (s *Service) Run(ctx context.Context, id armid.ID, action string) error {
	m, hosted, err := s.powerOf(ctx, id, action)
	if err != nil {
		return err
	}
	if !hosted {
		return runsNoMachines(m.vm.ID, action)
	}
	again := strings.EqualFold(action, "restart")
	if !again && !strings.EqualFold(action, "start") {
		return staysOnHost(m, action)
	}
	if m.power == fabric.Running && !again && s.presence.answers(m.host) {
		return nil
	}
	// The keys come first: a VM that could not start again is not stopped.
	keys, err := s.keysOf(ctx, m.vm.ID)
	if err != nil {
		return err
	}
	defer wipe(keys)
	if again {
		if err := s.o.Hosts.Stop(ctx, m.host, m.uuid); err != nil {
			return hostProblem(m, action, err)
		}
	}
	if err := s.o.Hosts.Start(ctx, m.host, m.uuid, keys); err != nil {
		return hostProblem(m, action, err)
	}
	return s.notePower(ctx, id, fabric.Running, false)
}

// Stop powers a VM off, or deallocates it, which for a host is the same. At once: without asking the guest. A VM of image
// files is off already.
func (s *Service) Stop(ctx context.Context, id armid.ID, action string, atOnce bool) error {
	m, hosted, err := s.powerOf(ctx, id, action)
	if err != nil || !hosted {
		return err
	}
	stop := s.o.Hosts.Stop
	if atOnce {
		stop = s.o.Hosts.Destroy
	}
	if err := stop(ctx, m.host, m.uuid); err != nil {
		return hostProblem(m, action, err)
	}
	return s.notePower(ctx, id, fabric.Stopped, strings.EqualFold(action, "deallocate"))
}

// powerOf returns a VM to a caller who has the right to an action on its power.
func (s *Service) powerOf(ctx context.Context, id armid.ID, action string) (m machineRow, hosted bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/"+action+"/action", id); err != nil {
		return machineRow{}, false, err
	}
	if m, hosted, err = s.machine(ctx, id); err != nil || !hosted {
		return m, hosted, err
	}
	if s.o.Hosts == nil || !s.configured(m.host) {
		return m, true, hostGone(m, action)
	}
	return m, true, nil
}

// notePower writes down what was done, ahead of what the host says of it.
func (s *Service) notePower(ctx context.Context, id armid.ID, power fabric.PowerState, deallocated bool) error {
	return s.o.DB.InTx(context.WithoutCancel(ctx), func(tx *database.Tx) error {
		m, hosted, err := selectMachine(ctx, tx, id)
		if err != nil || !hosted {
			return err
		}
		m.power, m.deallocated = power, deallocated
		if power == fabric.Running && m.agent == fabric.AgentReady {
			m.agent = fabric.AgentNotReady // until it says that it is
		}
		return putMachine(ctx, tx, m)
	})
}

// Rebooted gives a machine that boots again the keys of its disks once more, if it has any.
func (s *Service) Rebooted(ctx context.Context, host, uuid string) {
	id, err := s.vmOf(ctx, host, uuid)
	if err == nil && !id.IsZero() {
		err = s.rekey(ctx, host, uuid, id)
	}
	if err != nil {
		s.o.Log.Error("a virtual machine boots again without the keys of its disks", "host", host, "machine", uuid, "error", err)
	}
}

func (s *Service) rekey(ctx context.Context, host, uuid string, id armid.ID) error {
	keys, err := s.keysOf(ctx, id)
	if err != nil || len(keys) == 0 {
		return err
	}
	defer wipe(keys)
	return s.o.Hosts.Rekey(ctx, host, uuid, keys)
}

// vmOf finds the VM that a machine is.
func (s *Service) vmOf(ctx context.Context, host, uuid string) (id armid.ID, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		all, err := selectMachinesOn(ctx, tx, host)
		for _, m := range all {
			if m.uuid == uuid {
				id = m.vm.ID
			}
		}
		return err
	})
	return id, err
}

// keysOf gets the keys of a VM's encrypted disks, all or none.
func (s *Service) keysOf(ctx context.Context, id armid.ID) ([]fabric.KeyFile, error) {
	vm, err := s.LookupVM(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.keysFor(ctx, vm)
}

func (s *Service) keysFor(ctx context.Context, vm VM) (keys []fabric.KeyFile, err error) {
	disks, err := s.encryptionOf(ctx, vm)
	if err != nil || len(disks) == 0 {
		return nil, err
	}
	if s.o.DiskKeys == nil {
		return nil, noDiskKeys(vm.ID)
	}
	defer func() {
		if err != nil {
			wipe(keys)
			keys = nil
		}
	}()
	for i, disk := range disks {
		name, key, err := s.o.DiskKeys.DiskKey(ctx, disk.SecretURL, disk.KeyURL)
		if err != nil {
			return keys, diskKeyMissing(vm.ID, disk, err)
		}
		keys = append(keys, fabric.KeyFile{Name: fabric.KeyFileName(name, i == 0, disk.Lun), Key: key})
	}
	return keys, nil
}

func wipe(keys []fabric.KeyFile) {
	for _, k := range keys {
		k.Key.Wipe()
	}
}

// None is nil if the caller may know that there is no resource of a type: sizes to choose from, sets of machines.
func (s *Service) None(ctx context.Context, typ string, scope armid.ID) error {
	return s.o.Authorizer.Authorize(ctx, typ+"/read", scope)
}
