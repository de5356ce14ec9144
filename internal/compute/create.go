package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

// A VM whose properties.host names a host is made there: a machine is defined with the disks that the VM names, and
// started. All of it happens or nothing does: a VM whose keys cannot be had, or that its host does not start, is not
// there afterwards, and its disks are free.

// Networks knows to what network interfaces are to be connected.
type Networks interface {
	// NetworkOf is the name of a host's network for an interface; empty leaves it to the host.
	NetworkOf(ctx context.Context, nic armid.ID) (string, error)
}

// create makes a VM on a host.
func (s *Service) create(ctx context.Context, vm VM) (_ VM, err error) {
	host, err := s.hostFor(vm)
	if err != nil {
		return VM{}, err
	}
	keys, err := s.keysFor(ctx, vm)
	if err != nil {
		return VM{}, err
	}
	defer wipe(keys)
	spec, err := s.specOf(ctx, vm, host)
	if err != nil {
		return VM{}, err
	}
	vm.Properties.Host = &Ref{s.hostID(host)}
	vm.settle(spec.UUID, s.o.Now())
	m := machineRow{vm: vm, host: host, uuid: spec.UUID, power: fabric.Stopped, agent: fabric.AgentNone, made: true}
	s.presence.begin(host, spec.UUID)
	if err := s.insert(ctx, m); err != nil {
		s.presence.forget(host, spec.UUID)
		return VM{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.unmake(context.WithoutCancel(ctx), m))
		}
	}()
	made, err := s.o.Hosts.Define(ctx, host, spec)
	if err != nil {
		return VM{}, hostProblem(m, "create", err)
	}
	if err := s.noteDefined(ctx, m, made); err != nil {
		return VM{}, err
	}
	s.presence.made(host, spec.UUID)
	if err := s.o.Hosts.Start(ctx, host, spec.UUID, keys); err != nil {
		return VM{}, hostProblem(m, "start", err)
	}
	return vm, s.notePower(ctx, vm.ID, fabric.Running, false)
}

// hostFor is the host that a VM asks for.
func (s *Service) hostFor(vm VM) (string, error) {
	for _, name := range s.o.HostNames {
		if !s.hostID(name).Equal(vm.Properties.Host.ID) {
			continue
		}
		if !s.presence.answers(name) {
			return "", hostAway(vm, name)
		}
		return name, nil
	}
	return "", noSuchHost(vm)
}

// specOf is what a host is told of a VM that it is to make.
func (s *Service) specOf(ctx context.Context, vm VM, host string) (spec fabric.MachineSpec, err error) {
	spec = fabric.MachineSpec{UUID: s.o.NewID(), Name: vm.ID.Name(), Group: vm.ID.ResourceGroup, OS: vm.OSType()}
	spec.CPUs, spec.Memory = sizeOf(vm.Properties.HardwareProfile.VMSize)
	for i, id := range vm.DiskIDs() {
		row, err := s.diskRow(ctx, id)
		if isNotFound(err) {
			return spec, diskMissing(vm.ID, id)
		}
		if err != nil {
			return spec, err
		}
		if row.host != "" || row.image.Format != "raw" && row.image.Format != "qcow2" {
			return spec, notRunnable(vm, row, host)
		}
		spec.Disks = append(spec.Disks, fabric.DiskSpec{ID: id.Name(), Path: row.image.Path, Format: row.image.Format, ExpectedSize: row.image.Size, Target: row.Properties.Target})
		if i == 0 {
			spec.UEFI = strings.EqualFold(row.Properties.Generation, "V2")
			if spec.State, err = s.guestState(ctx, id); err != nil {
				return spec, err
			}
		}
	}
	for _, nic := range vm.interfaces() {
		network, err := s.o.Networks.NetworkOf(ctx, nic)
		if err != nil {
			return spec, err
		}
		spec.Networks = append(spec.Networks, network)
	}
	return spec, nil
}

var ownSizes = regexp.MustCompile(`^` + ownSize + `(\d{1,4})-(\d{1,9})$`)

// sizeOf reads a size of ours; another leaves the machine as it was.
func sizeOf(size string) (cpus int, memory int64) {
	parts := ownSizes.FindStringSubmatch(size)
	if parts == nil {
		return 0, 0
	}
	cpus, _ = strconv.Atoi(parts[1])
	mib, _ := strconv.ParseInt(parts[2], 10, 64)
	return cpus, mib << 20
}

// interfaces are the network interfaces that a VM names.
func (v VM) interfaces() (ids []armid.ID) {
	properties, _ := v.sent["properties"].(map[string]any)
	profile, _ := properties["networkProfile"].(map[string]any)
	all, _ := profile["networkInterfaces"].([]any)
	for _, one := range all {
		nic, _ := one.(map[string]any)
		text, _ := nic["id"].(string)
		if id, err := armid.Parse(text); err == nil && id.Is("Microsoft.Network/networkInterfaces") {
			ids = append(ids, id)
		}
	}
	return ids
}

// insert writes the rows of a VM that is being made.
func (s *Service) insert(ctx context.Context, m machineRow) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		_, err := selectVM(ctx, tx, m.vm.ID)
		if err == nil {
			return vmExists(m.vm.ID)
		}
		if !isNotFound(err) {
			return err
		}
		if err := s.attach(ctx, tx, m.vm); err != nil {
			return err
		}
		if err := putVM(ctx, tx, m.vm); err != nil {
			return err
		}
		return putMachine(ctx, tx, m)
	})
}

// noteDefined writes down what the host made: how it is defined, and as which targets it has the disks.
func (s *Service) noteDefined(ctx context.Context, m machineRow, made fabric.Machine) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		m.definition, m.left = made.Definition, leftOut(made)
		if err := putMachine(ctx, tx, m); err != nil {
			return err
		}
		rows, err := selectDisksOf(ctx, tx, m.vm.ID)
		if err != nil {
			return err
		}
		for _, row := range rows {
			for _, disk := range made.Disks {
				if disk.Path == row.image.Path {
					row.target = disk.Target
				}
			}
			if err := putDisk(ctx, tx, row); err != nil {
				return err
			}
		}
		return nil
	})
}

// unmake removes a VM that was made here, from its host and from the inventory. Its disks stay, detached.
func (s *Service) unmake(ctx context.Context, m machineRow) error {
	for _, do := range []func(ctx context.Context, host, uuid string) error{s.o.Hosts.Destroy, s.o.Hosts.Undefine} {
		if err := do(ctx, m.host, m.uuid); err != nil && !fabric.IsHostKind(err, fabric.Gone) {
			return hostProblem(m, "delete", err)
		}
	}
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := detachAll(ctx, tx, m.vm.ID); err != nil {
			return err
		}
		_, err := deleteVM(ctx, tx, m.vm.ID)
		return err
	})
	if err == nil {
		s.presence.forget(m.host, m.uuid)
	}
	return err
}

func stateContext(disk armid.ID) string { return "compute/guest-state/" + disk.Key() }

// guestState is what a machine was whose OS disk this is; nil if nobody knows.
func (s *Service) guestState(ctx context.Context, disk armid.ID) (*fabric.GuestState, error) {
	var sealed []byte
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		sealed, err = selectGuestState(ctx, tx, disk)
		return err
	})
	if err != nil || sealed == nil {
		return nil, err
	}
	text, err := s.o.Seal.Open(stateContext(disk), sealed)
	if err != nil {
		return nil, fmt.Errorf("open the guest state of disk %s: %w", disk.Name(), err)
	}
	defer clear(text)
	var state fabric.GuestState
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, fmt.Errorf("read the guest state of disk %s: %w", disk.Name(), err)
	}
	return &state, nil
}

func (s *Service) sealState(disk armid.ID, state *fabric.GuestState) ([]byte, error) {
	if state == nil {
		return nil, nil
	}
	text, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return s.o.Seal.Seal(stateContext(disk), text)
}
