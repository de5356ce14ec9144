package compute

import (
	"context"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

// machineRow is a VM that a host runs, with what the host last said of it.
type machineRow struct {
	vm          VM
	host        string
	uuid        string // the host's identity for it
	power       fabric.PowerState
	agent       fabric.AgentState
	made        bool // it was defined from here, and may be undefined from here
	deallocated bool // that it is off was asked for by this word
	definition  []byte
	left        []leftDisk
}

// leftDisk is a disk of a machine that is no resource.
type leftDisk struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
}

// Placement says which host runs a VM, as which of its machines, and how that is defined. The host is empty for a VM
// that is image files at rest.
func (s *Service) Placement(ctx context.Context, vm armid.ID) (host, uuid string, definition []byte, err error) {
	m, _, err := s.machine(ctx, vm)
	return m.host, m.uuid, m.definition, err
}

// machine returns a VM and what a host says of it; hosted is false for one at rest.
func (s *Service) machine(ctx context.Context, id armid.ID) (m machineRow, hosted bool, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if m, hosted, err = selectMachine(ctx, tx, id); hosted || err != nil {
			return err
		}
		m.vm, err = selectVM(ctx, tx, id)
		return err
	})
	return m, hosted, err
}

// keepDisks makes sure that a change of a VM leaves it the disks that its host says it has, and its host.
func keepDisks(old, changed VM) error {
	if changed.Properties.Host != nil && !changed.Properties.Host.ID.Equal(old.Properties.Host.ID) {
		return hostFixed(old)
	}
	was, is := old.DiskIDs(), changed.DiskIDs()
	same := len(was) == len(is)
	for _, id := range is {
		same = same && old.has(id) && old.LunOf(id) == changed.LunOf(id)
	}
	if !same {
		return disksOfHost(old)
	}
	return nil
}
