package backup

import (
	"slices"

	"kluis/internal/armid"
	"kluis/internal/compute"
)

// DiskSelection leaves data disks of a VM out of its backups, by LUN: those that are listed, or with Inclusion all
// others. The OS disk is always backed up. The zero value leaves nothing out.
type DiskSelection struct {
	Luns      []int `json:"luns,omitempty"`
	Inclusion bool  `json:"inclusion,omitempty"`
}

// IsZero reports whether nothing is left out, whatever disks there are.
func (s DiskSelection) IsZero() bool { return len(s.Luns) == 0 && !s.Inclusion }

// Has reports whether the disk with a LUN is backed up.
func (s DiskSelection) Has(lun int) bool {
	return lun < 0 || slices.Contains(s.Luns, lun) == s.Inclusion
}

// allowed refuses to leave disks of an encrypted VM out under a standard policy: Azure does it under an enhanced one only.
func (s DiskSelection) allowed(vm armid.ID, encryption []compute.DiskEncryption, policy Policy) error {
	if !s.IsZero() && len(encryption) > 0 && !policy.Body.enhanced() {
		return diskExclusionOfEncrypted(vm)
	}
	return nil
}

// check refuses LUNs that a VM has not. One that it loses later is in nobody's way.
func (s DiskSelection) check(vm compute.VM) error {
	var luns []int
	for _, d := range vm.Properties.StorageProfile.DataDisks {
		luns = append(luns, d.Lun)
	}
	for _, lun := range s.Luns {
		if !slices.Contains(luns, lun) {
			return vmHasNoLun(vm.ID, lun, luns)
		}
	}
	return nil
}

// split divides the disks of a VM into those that are backed up and those that are left out.
func (s DiskSelection) split(vm compute.VM) (included []armid.ID, excluded []PointDisk) {
	for _, id := range vm.DiskIDs() {
		if lun := vm.LunOf(id); s.Has(lun) {
			included = append(included, id)
		} else {
			excluded = append(excluded, PointDisk{Name: id.Name(), Lun: lun, ID: id})
		}
	}
	return included, excluded
}
