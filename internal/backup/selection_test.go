package backup_test

import (
	"fmt"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
)

// putVMWithData makes a VM of plain disks: its own and data disks with the LUNs 0, 1, ….
func (h *house) putVMWithData(name string, data int) {
	h.t.Helper()
	profile := compute.StorageProfile{OSDisk: compute.OSDisk{OSType: "Linux", CreateOption: "Attach", ManagedDisk: &compute.Ref{ID: diskID(name)}}}
	h.plainImage(h.imageOf(name), 4<<20)
	h.putDisk(name, nil)
	for lun := range data {
		disk := fmt.Sprintf("%s-data%d", name, lun)
		h.plainImage(h.imageOf(disk), 4<<20)
		h.putDisk(disk, nil)
		profile.DataDisks = append(profile.DataDisks, compute.DataDisk{Lun: lun, CreateOption: "Attach", ManagedDisk: &compute.Ref{ID: diskID(disk)}})
	}
	_, _, err := h.compute.PutVM(h.ctx, compute.VM{ID: vmID(name), Location: location, Properties: compute.VMProperties{StorageProfile: profile}})
	h.check(err)
}

func disksOf(all []backup.PointDisk) (names []string) {
	for _, d := range all {
		names = append(names, d.Name)
	}
	return names
}

// Data disks are left out of backups by LUN, the OS disk never; a change of policy changes nothing of it.
func TestDiskSelection(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		h.putVMWithData("web", 2)
		id := backup.ItemID(vaultID, vmID("web"))
		for _, c := range []struct {
			disks   *backup.DiskSelection
			in, out string
		}{
			{&backup.DiskSelection{Luns: []int{1}}, "[web web-data0]", "[web-data1]"},
			{nil, "[web web-data0]", "[web-data1]"},
			{&backup.DiskSelection{Inclusion: true}, "[web]", "[web-data0 web-data1]"},
			{&backup.DiskSelection{Luns: []int{1}, Inclusion: true}, "[web web-data1]", "[web-data0]"},
			{&backup.DiskSelection{}, "[web web-data0 web-data1]", "[]"},
		} {
			item, _, err := h.ProtectDisks(h.ctx, id, vmID("web"), policyID, c.disks)
			h.check(err)
			if p := h.backedUp(item); fmt.Sprint(disksOf(p.Disks)) != c.in || fmt.Sprint(disksOf(p.Excluded)) != c.out {
				t.Errorf("with %+v in the point are %v, left out %v", item.Disks, disksOf(p.Disks), disksOf(p.Excluded))
			}
		}
		_, _, err := h.ProtectDisks(h.ctx, id, vmID("web"), policyID, &backup.DiskSelection{Luns: []int{7}})
		h.wantProblem(err, "BMSUserErrorInvalidDiskLunList")
	})
}

// Disks of an encrypted VM are left out under an enhanced policy only, also when it was encrypted later.
func TestDiskSelectionOfEncrypted(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		h.putVMWithData("web", 1)
		id := backup.ItemID(vaultID, vmID("web"))
		osOnly := &backup.DiskSelection{Inclusion: true}
		item, _, err := h.ProtectDisks(h.ctx, id, vmID("web"), policyID, osOnly)
		h.check(err)
		h.encryptedImage(h.imageOf("web"), "passphrase", cheap)
		h.putDisk("web", h.setBEK(kek, "bek-web", "passphrase", "web"))
		const refused = "UserErrorEncryptedVmNotSupportedWithDiskEx"
		if j := h.backUp(item, time.Time{}); j.Outcome != job.Failed || codes(j.Problems)[0] != refused {
			t.Errorf("the backup ended as %s: %v", j.Outcome, codes(j.Problems))
		}
		_, _, err = h.ProtectDisks(h.ctx, id, vmID("web"), policyID, osOnly)
		h.wantProblem(err, refused)
		item, _, err = h.ProtectDisks(h.ctx, id, vmID("web"), vaultID.Child("backupPolicies", "EnhancedPolicy"), osOnly)
		h.check(err)
		if p := h.backedUp(item); len(p.Disks) != 1 || len(p.Excluded) != 1 || len(p.Keys) != 1 {
			t.Errorf("under an enhanced policy the point has %v, left out %v", disksOf(p.Disks), disksOf(p.Excluded))
		}
		h.wantProblem(second3(h.Protect(h.ctx, id, vmID("web"), policyID)), refused)
	})
}
