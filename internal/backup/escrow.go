package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/proof"
	"kluis/internal/secret"
)

// MaxTriedKey is the length of the longest key that TryKey takes. A key vault's RSA keys wrap less.
const MaxTriedKey = 4 << 10

// OpenedDisk is what a key has opened.
type OpenedDisk struct {
	Name       string
	Encryption string // LUKS2 aes-xts-plain64, …
	FileSystem string // inside
}

// TryKey opens a disk of a VM with a key, as the disk is now, and returns what was found; an empty name means
// the OS disk. It is how a key is tried before it is kept: nothing of it is. A key that does not open the
// disk is an error that says why and what to do. Whoever may change the VM may try; each try is in the log.
func (s *Service) TryKey(ctx context.Context, vm armid.ID, disk string, key secret.Bytes) (OpenedDisk, error) {
	if err := s.o.Authorizer.Authorize(ctx, vmType+"/write", vm); err != nil {
		return OpenedDisk{}, err
	}
	if key.Len() == 0 || key.Len() > MaxTriedKey {
		return OpenedDisk{}, keySizeInvalid(vm)
	}
	machine, err := s.o.Machines.LookupVM(ctx, vm)
	if isNotFound(err) {
		return OpenedDisk{}, vmNotFound(vm)
	}
	if err != nil {
		return OpenedDisk{}, err
	}
	id, err := attachedDisk(machine, disk)
	if err != nil {
		return OpenedDisk{}, err
	}
	verdict, err := s.tryKey(ctx, machine, id, key)
	if err != nil {
		return OpenedDisk{}, translate(err)
	}
	s.o.Log.Info("a key was tried on a disk", "vm", machine.ID.String(), "disk", id.Name(), "verdict", string(verdict.State))
	if verdict.State != proof.Proved {
		return OpenedDisk{}, keyDoesNotOpen(machine.ID, verdict)
	}
	return OpenedDisk{verdict.Name, verdict.Encryption, verdict.FileSystem}, nil
}

// attachedDisk finds a disk of a VM by its name.
func attachedDisk(vm compute.VM, name string) (armid.ID, error) {
	var names []string
	for _, id := range vm.DiskIDs() {
		if strings.EqualFold(id.Name(), name) || name == "" && vm.LunOf(id) < 0 {
			return id, nil
		}
		names = append(names, id.Name())
	}
	return armid.ID{}, vmHasNoDisk(vm.ID, name, names)
}

func (s *Service) tryKey(ctx context.Context, vm compute.VM, disk armid.ID, key secret.Bytes) (v proof.DiskVerdict, err error) {
	machine, err := s.machineOf(ctx, vm.ID, []compute.Disk{{ID: disk}})
	if err != nil {
		return v, err
	}
	machine.Peek = true
	snapshot, err := s.o.Fabric.Snapshot(ctx, machine, "")
	if err != nil {
		return v, fmt.Errorf("look at disk %s: %w", disk.Name(), err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := errors.Join(snapshot.Close(ctx), snapshot.Settle(ctx, "")); err != nil {
			s.o.Log.Error("close snapshot", "error", err)
		}
	}()
	source := snapshot.Disks()[0]
	verdict, err := proof.Prove(ctx, []proof.Disk{{Name: disk.Name(), ReaderAt: source, Size: source.Size(), ExpectEncrypted: true, BEK: key}}, s.o.Now)
	if err != nil {
		return v, err
	}
	return verdict.Disks[0], nil
}
