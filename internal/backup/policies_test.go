package backup_test

import (
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

// putPolicy makes or changes a policy that runs daily at 22:00.
func (h *house) putPolicy(id armid.ID, days int) {
	h.t.Helper()
	at := []time.Time{time.Date(2026, 1, 1, 22, 0, 0, 0, time.UTC)}
	_, err := h.PutPolicy(h.ctx, backup.Policy{ID: id, Body: backup.PolicyProperties{BackupManagementType: "AzureIaasVM",
		Schedule: backup.Schedule{Type: "SimpleSchedulePolicy", Frequency: "Daily", Times: at},
		Retention: backup.Retention{Type: "LongTermRetentionPolicy",
			Daily: &backup.DailyRetention{Times: at, Duration: backup.Duration{Count: days, Type: "Days"}}}}})
	h.check(err)
}

// A change of the policy, or to another one, counts for what its schedule has already made. What somebody asked for keeps
// its own expiry, and of an item whose protection is stopped nothing goes.
func TestPolicyChangesWhatIsKept(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		h.putPolicy(policyID, 7)
		asked := h.backedUp(item)
		h.clock.forward(11 * time.Hour) // 23:00
		h.check(h.StartDue(h.ctx))
		for _, j := range must(h.Jobs(h.ctx, vaultID))(t) {
			h.wait(j)
		}
		points := must(h.Points(h.ctx, item.ID))(t)
		if len(points) != 2 || !points[0].Scheduled.Equal(time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)) {
			t.Fatalf("there are %d points, the newest scheduled for %v", len(points), points[0].Scheduled)
		}
		taken, id := points[0].Time, points[0].ID
		kept := func(what string, days int) {
			t.Helper()
			p := must(h.Point(h.ctx, item.ID.Child("recoveryPoints", id)))(t)
			if !p.Expiry.Equal(taken.AddDate(0, 0, days)) {
				t.Errorf("%s: kept until %v, taken %v", what, p.Expiry, taken)
			}
			if p := must(h.Point(h.ctx, item.ID.Child("recoveryPoints", asked.ID)))(t); !p.Expiry.Equal(asked.Expiry) {
				t.Errorf("%s: what was asked for is kept until %v", what, p.Expiry)
			}
		}
		h.putPolicy(policyID, 60)
		kept("a longer retention", 60)
		other := vaultID.Child("backupPolicies", "other")
		h.putPolicy(other, 14)
		_, _, err := h.Protect(h.ctx, item.ID, item.VM, other)
		h.check(err)
		kept("another policy", 14)
		_, err = h.Stop(h.ctx, item.ID)
		h.check(err)
		h.putPolicy(other, 9)
		h.clock.forward(20 * 24 * time.Hour)
		kept("stopped", 14)
		_, _, err = h.Protect(h.ctx, item.ID, item.VM, other)
		h.check(err)
		kept("resumed", 9)
		h.backedUp(item)
		if _, err := h.Point(h.ctx, item.ID.Child("recoveryPoints", id)); err == nil {
			t.Error("what has expired under the policy is still there")
		}
	})
}

// A vault has Azure's default policies, and refuses what Azure refuses with Azure's codes.
func TestPolicies(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		var names []string
		for _, p := range must(h.Policies(h.ctx, vaultID))(t) {
			names = append(names, p.ID.Name())
		}
		if len(names) != 2 || names[0] != "DefaultPolicy" || names[1] != "EnhancedPolicy" {
			t.Errorf("a new vault has the policies %v", names)
		}
		p := must(h.Policy(h.ctx, vaultID.Child("backupPolicies", "EnhancedPolicy")))(t)
		p.Body.InstantRetentionDays = 30
		h.wantProblem(second(h.PutPolicy(h.ctx, p)), "BMSUserErrorInstantRPRetentionExceedsVaultedRetention")
		p.Body.InstantRetentionDays = 31
		h.wantProblem(second(h.PutPolicy(h.ctx, p)), "BMSUserErrorInvalidPolicyInput")
		p.Body.InstantRetentionDays, p.Body.TimeZone = 0, ""
		if p = must(h.PutPolicy(h.ctx, p))(t); p.Body.InstantRetentionDays != 7 || p.Body.TimeZone != "UTC" {
			t.Errorf("completed, the policy is %+v", p.Body)
		}
		h.plainImage(h.imageOf("web"), 4<<20)
		h.putDisk("web", nil)
		h.putVM("web")
		h.protect("web")
		h.wantProblem(second(h.DeletePolicy(h.ctx, policyID)), "BMSUserErrorPolicyInUse")
		if !must(h.DeletePolicy(h.ctx, p.ID))(t) || must(h.DeletePolicy(h.ctx, p.ID))(t) {
			t.Error("a policy is deleted once")
		}
	})
}

// A vault holds as many policies and items as Azure's do, and no more. What is there can be changed when it is full, and
// what goes makes room.
func TestLimits(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.close()
		h.limits = backup.Limits{Policies: 3, Items: 1}
		h.open()
		h.putVault()
		full, extra := vaultID.Child("backupPolicies", "full"), vaultID.Child("backupPolicies", "extra")
		h.putPolicy(full, 7)
		h.putPolicy(full, 8)
		body := must(h.Policy(h.ctx, full))(t).Body
		h.wantProblem(second(h.PutPolicy(h.ctx, backup.Policy{ID: extra, Body: body})), "UserErrorPolicyLimitReached")
		must(h.DeletePolicy(h.ctx, full))(t)
		h.putPolicy(extra, 7)

		for _, name := range []string{"one", "two"} {
			h.plainImage(h.imageOf(name), 4<<20)
			h.putDisk(name, nil)
			h.putVM(name)
		}
		h.noSoftDelete()
		item := h.protect("one")
		h.protect("one") // again
		id := backup.ItemID(vaultID, vmID("two"))
		_, _, err := h.Protect(h.ctx, id, vmID("two"), policyID)
		h.wantProblem(err, "UserErrorProtectedItemLimitReached")
		h.wait(must(h.Delete(h.ctx, item.ID))(t))
		h.protect("two")
	})
}
