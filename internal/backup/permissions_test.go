package backup_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
	"kluis/internal/keyvault"
)

// The template 'Azure Backup' is what a backup needs, and all of it: with these six permissions and no more it works,
// and without any one of them it is refused before anything is stored.
func TestExactlyTheTemplatesPermissions(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		grant := func(p keyvault.Permissions) {
			t.Helper()
			_, err := h.keys.UpdateAccessPolicies(h.ctx, keyVaultID, keyvault.Replace,
				[]keyvault.AccessPolicy{{TenantID: tenant, ObjectID: clerk.ObjectID, Permissions: p}})
			h.check(err)
		}
		template := keyvault.AzureBackupTemplate()
		if len(template.Keys) != 3 || len(template.Secrets) != 3 {
			t.Fatalf("the template has changed: %+v", template)
		}
		grant(template)
		item := h.putEncryptedVM(kek, "web")
		h.backedUp(item)
		data := func() []string { // but for the name of the owner's lease, which is new each time
			return slices.DeleteFunc(h.objects(""), func(name string) bool { return strings.Contains(name, "/owner/") })
		}
		stored := data()
		refused := func(left keyvault.Permissions) {
			t.Helper()
			grant(left)
			j := h.backUp(item, time.Time{})
			if j.Outcome != job.Failed || !slices.Contains(codes(j.Problems), "UserErrorKeyVaultPermissionsNotConfigured") {
				t.Errorf("with %+v the backup ended as %s: %+v", left, j.Outcome, j.Problems)
			}
			_, _, err := h.Protect(h.ctx, backup.ItemID(vaultID, vmID("web")), vmID("web"), policyID)
			h.wantProblem(err, "UserErrorKeyVaultPermissionsNotConfigured")
			if now := data(); !slices.Equal(now, stored) {
				t.Errorf("with %+v the store holds %v, not %v", left, now, stored)
			}
		}
		for i := range 3 {
			refused(keyvault.Permissions{Keys: slices.Delete(slices.Clone(template.Keys), i, i+1), Secrets: template.Secrets})
			refused(keyvault.Permissions{Keys: template.Keys, Secrets: slices.Delete(slices.Clone(template.Secrets), i, i+1)})
		}
		grant(template)
		h.backedUp(item)
	})
}
