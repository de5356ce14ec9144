package backup_test

import (
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
)

// What was deleted can be undeleted with all its recovery points, and meanwhile nothing else be done with it.
func TestUndelete(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		point := h.backedUp(item)
		id := item.ID.Child("recoveryPoints", point.ID)

		h.wantProblem(second(h.Undelete(h.ctx, item.ID)), "UserErrorProtectedItemNotSoftDeleted")
		j := h.wait(must(h.Delete(h.ctx, item.ID))(t))
		if j.Kind != "DeleteBackupData" || j.Outcome != job.Completed || j.Details["Number of Recovery Points"] != "1" {
			t.Fatalf("the deletion ended as %s with %v", j.Outcome, j.Details)
		}
		if len(h.ground.settled) != 1 || h.ground.settled[0] != "web=" {
			t.Errorf("on the hosts, these keep these checkpoints: %q", h.ground.settled)
		}
		item = must(h.Item(h.ctx, item.ID))(t)
		if !item.SoftDeleted() || item.State != backup.ProtectionStopped || item.Deferred.Days != 14 ||
			!item.Deferred.Until.Equal(item.Deferred.At.AddDate(0, 0, 14)) {
			t.Errorf("the deleted item is %+v", item)
		}
		if a := must(h.Alerts(h.ctx, vaultID))(t); len(a) != 1 || a[0].Code != "BackupDataSoftDeleted" {
			t.Errorf("the alerts are %+v", a)
		}
		const deleted = "UserErrorProtectedItemSoftDeleted"
		h.wantProblem(second(h.Delete(h.ctx, item.ID)), deleted)
		h.wantProblem(second(h.Stop(h.ctx, item.ID)), deleted)
		h.wantProblem(second(h.BackUp(h.ctx, item.ID, time.Time{})), deleted)
		h.wantProblem(second3(h.Protect(h.ctx, item.ID, vmID("web"), policyID)), deleted)
		h.wantProblem(second(h.Provision(h.ctx, backup.MountRequest{Point: id})), deleted)
		h.wantProblem(second(h.DeleteVault(h.ctx, vaultID)), "ServiceResourceNotEmptyWithBackendMessage")

		if j := must(h.Undelete(h.ctx, item.ID))(t); j.Kind != "Undelete" || j.Details["Undelete flag"] != "True" {
			t.Errorf("the undeletion is %+v", j)
		}
		h.clock.forward(100 * 24 * time.Hour)
		h.check(h.StartPurges(h.ctx))
		item = must(h.Item(h.ctx, item.ID))(t)
		if item.SoftDeleted() || item.State != backup.ProtectionStopped || len(must(h.Points(h.ctx, item.ID))(t)) != 1 {
			t.Errorf("the undeleted item is %+v", item)
		}
		if len(must(h.PointKeys(h.ctx, id))(t)) != 1 {
			t.Error("the recovery point has lost its keys")
		}
		if item = h.protect("web"); item.State != backup.Protected {
			t.Errorf("resumed, the item is %s", item.State)
		}
		h.backedUp(item)
	})
}

// The days are those of the vault when the data was deleted. After them the store is erased, which is tried
// again until it is done.
func TestPurge(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		v := must(h.Vault(h.ctx, vaultID))(t)
		v.SoftDelete.Days = 20
		_, _, err := h.PutVault(h.ctx, v)
		h.check(err)
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		h.backedUp(item)
		h.wait(must(h.Delete(h.ctx, item.ID))(t))
		h.noSoftDelete() // from now on
		h.wantProblem(second(h.Delete(h.ctx, item.ID)), "UserErrorProtectedItemSoftDeleted")
		h.close()
		h.open()

		h.clock.forward(19 * 24 * time.Hour)
		h.check(h.StartPurges(h.ctx))
		if len(must(h.Points(h.ctx, item.ID))(t)) != 1 {
			t.Fatal("erased too early")
		}
		h.clock.forward(25 * time.Hour)
		h.check(h.StartPurges(h.ctx))
		for _, j := range must(h.Jobs(h.ctx, vaultID))(t) {
			h.wait(j)
		}
		if _, err := h.Item(h.ctx, item.ID); err == nil || len(h.objects("stores/")) != 0 {
			t.Errorf("left are %v", h.objects("stores/"))
		}
		h.check(h.StartPurges(h.ctx))
		if !must(h.DeleteVault(h.ctx, vaultID))(t) {
			t.Error("the vault is not there")
		}
	})
}

// Soft delete that is always on stays so.
func TestSoftDeleteSettings(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		v := must(h.Vault(h.ctx, vaultID))(t)
		if v.SoftDelete != (backup.SoftDelete{State: "Enabled", Days: 14}) {
			t.Errorf("a new vault has %+v", v.SoftDelete)
		}
		put := func(s backup.SoftDelete) error {
			v.SoftDelete = s
			_, _, err := h.PutVault(h.ctx, v)
			return err
		}
		for _, bad := range []backup.SoftDelete{{State: "Sometimes", Days: 14}, {State: "Enabled", Days: 13}, {State: "Enabled", Days: 181}, {Days: -1}} {
			h.wantProblem(put(bad), "BMSUserErrorInvalidSoftDeleteSettings")
		}
		h.check(put(backup.SoftDelete{State: "AlwaysON", Days: 30}))
		h.wantProblem(put(backup.SoftDelete{State: "Disabled"}), "BMSUserErrorSoftDeleteStateAlwaysOn")
		h.check(put(backup.SoftDelete{State: "AlwaysON", Days: 180}))
	})
}
