package compute

import (
	"context"
	"slices"

	"kluis/internal/armid"
)

// DiskEncryption names the secret that opens a disk and the key that wraps it. KeyURL is empty when the
// disk is encrypted with a BEK alone.
type DiskEncryption struct {
	DiskID      armid.ID
	Lun         int // -1 is the OS disk
	Name        string
	SecretURL   string
	SecretVault armid.ID
	KeyURL      string
	KeyVault    armid.ID
}

// Encryption returns the encrypted disks of a VM with their keys, the OS disk first. The settings are
// those of the disk (encrypted in a single pass); for the OS disk without any, those of the VM.
func (s *Service) Encryption(ctx context.Context, id armid.ID) (all []DiskEncryption, err error) {
	vm, err := s.LookupVM(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.encryptionOf(ctx, vm)
}

func (s *Service) encryptionOf(ctx context.Context, vm VM) (all []DiskEncryption, err error) {
	for _, diskID := range vm.DiskIDs() {
		disk, err := s.LookupDisk(ctx, diskID)
		if err != nil {
			return nil, err
		}
		settings := vm.settingsOf(disk)
		if settings == nil {
			continue
		}
		e := DiskEncryption{DiskID: disk.ID, Lun: vm.LunOf(diskID), Name: disk.ID.Name(),
			SecretURL: settings.DiskEncryptionKey.SecretURL, SecretVault: settings.DiskEncryptionKey.SourceVault.ID}
		if k := settings.KeyEncryptionKey; k != nil {
			e.KeyURL, e.KeyVault = k.KeyURL, k.SourceVault.ID
		}
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(a, b DiskEncryption) int { return a.Lun - b.Lun })
	return all, nil
}
