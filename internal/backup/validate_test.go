package backup_test

import (
	"testing"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/storage"
)

func TestAllowedAt(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		const action = "Microsoft.RecoveryServices/locations/backupCrrJobs/action"
		location := armid.Subscription(vaultID.Subscription).Resource("Microsoft.RecoveryServices/locations", "westus")
		h.check(h.AllowedAt(h.ctx, location, action))
		h.authorizer.set(action)
		h.wantProblem(h.AllowedAt(h.ctx, location, action), "AuthorizationFailed")
	})
}

// A restore that is asked about meets what a restore would meet, and starts nothing.
func TestValidateRestore(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, _, p := mountedHouse(t, db)
		const action = "Microsoft.RecoveryServices/vaults/backupValidateOperation/action"
		group := vaultID.Group(vaultID.ResourceGroup)
		account := group.Resource("Microsoft.Storage/storageAccounts", "staging1")
		_, _, err := h.storage.PutAccount(h.ctx, storage.Account{ID: account, Location: "westeurope"})
		h.check(err)
		good := backup.RestoreRequest{Point: idOf(p), Type: "RestoreDisks", TargetGroup: group, StorageAccount: account, Region: "WEST EUROPE"}
		bad := func(code string, change func(*backup.RestoreRequest)) {
			t.Helper()
			r := good
			change(&r)
			h.wantProblem(h.ValidateRestore(h.ctx, action, r), code)
		}
		before := len(must(h.Jobs(h.ctx, vaultID))(t))
		h.check(h.ValidateRestore(h.ctx, action, good))
		bad("OperationNotSupported", func(r *backup.RestoreRequest) { r.Region = "westus" })
		bad("BMSUserErrorRecoveryPointNotFound", func(r *backup.RestoreRequest) { r.Point = p.Item.Child("recoveryPoints", "7") })
		bad("UserErrorEncryptedVmRestoreTypeNotSupported", func(r *backup.RestoreRequest) { r.Type = "OriginalLocation" })
		h.authorizer.set(action)
		bad("AuthorizationFailed", func(*backup.RestoreRequest) {})
		h.authorizer.set()
		if after := len(must(h.Jobs(h.ctx, vaultID))(t)); after != before {
			t.Errorf("%d jobs have been started", after-before)
		}
	})
}
