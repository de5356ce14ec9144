package recoveryservices_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/job"
)

var update = flag.Bool("update", false, "write the golden files anew")

const failedBackup = "ffffffff-0000-4000-8000-000000000000"

// withJobs is the world with a job of each kind and state that clients tell apart.
func withJobs() *fake {
	f := world()
	failed := jobOf("Backup", job.Ended)
	failed.ID, failed.Outcome, failed.Done = failedBackup, job.Failed, 1<<30
	failed.Tasks[1].Status = job.TaskFailed
	failed.Problems = []job.Problem{
		{Code: "UserErrorRecoveryPointNotProved", Message: "A warning that came first.", Advice: "Look at it."},
		{Code: "UserErrorKeyVaultPermissionsNotConfigured", Message: "Azure Backup Service does not have sufficient permissions to Key Vault for Backup of Encrypted Virtual Machines.", Advice: "Add an access policy."},
	}
	failed.Created = noon.Add(-time.Hour)
	f.jobs = []backup.Job{jobOf("Restore", job.Running), jobOf("Backup", job.Running), jobOf("ConfigureBackup", job.Ended), failed}
	return f
}

// What clients read, whole. The golden files are also the documentation of our wire.
func TestGolden(t *testing.T) {
	failing := withJobs()
	failing.items[0].State, failing.items[0].LastStatus = backup.ProtectionError, "Failed"
	failing.items[0].Problem = &job.Problem{Code: "UserErrorKeyVaultPermissionsNotConfigured", Message: "It lacks permissions.", Advice: "Grant them."}
	fresh := world()
	fresh.items[0] = backup.Item{ID: fresh.items[0].ID, VM: fresh.items[0].VM, Policy: fresh.items[0].Policy, State: backup.IRPending, Created: noon}
	deleted := world()
	deleted.items[0].State, deleted.items[0].Policy = backup.ProtectionStopped, armid.ID{}
	deleted.items[0].Deferred = backup.Deferral{At: noon, Until: noon.AddDate(0, 0, 14), Days: 14}
	ended := world()
	ended.jobs = []backup.Job{jobOf("Restore", job.Ended)}
	for name, c := range map[string]struct {
		s      *fake
		target string
	}{
		"vault":             {world(), vault + version},
		"vaults":            {world(), subscription + "/providers/Microsoft.RecoveryServices/vaults" + version},
		"policy":            {world(), vault + "/backupPolicies/DefaultPolicy" + version},
		"item":              {world(), item + version + "&$filter=expand%20eq%20'extendedinfo'"},
		"item-new":          {fresh, item + version},
		"item-failed":       {failing, item + version},
		"item-deleted":      {deleted, item + version},
		"items":             {world(), vault + "/backupProtectedItems" + version},
		"protectable-items": {world(), vault + "/backupProtectableItems" + version},
		"containers":        {world(), vault + "/backupProtectionContainers" + version},
		"usage":             {world(), vault + "/backupUsageSummaries" + version},
		"vault-usage":       {world(), vault + "/usages" + version},
		"recovery-point":    {world(), item + "/recoveryPoints/" + point + version},
		"recovery-points":   {world(), item + "/recoveryPoints" + version},
		"job-backup":        {withJobs(), vault + "/backupJobs/" + jobOf("Backup", job.Running).ID + version},
		"job-restore":       {ended, vault + "/backupJobs/" + jobOf("Restore", job.Ended).ID + version},
		"job-failed":        {withJobs(), vault + "/backupJobs/" + failedBackup + version},
		"jobs":              {withJobs(), vault + "/backupJobs" + version},
		"operation":         {withJobs(), vault + "/backupOperations/" + jobOf("Backup", job.Running).ID + version},
		"storage-config":    {world(), vault + "/backupstorageconfig/vaultstorageconfig" + version},
		"vault-config":      {world(), vault + "/backupconfig/vaultconfig" + version},
		"encryption-config": {world(), vault + "/backupEncryptionConfigs/backupResourceEncryptionConfig" + version},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, c.s, "GET", c.target, "")
			if a.Status != 200 {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
			golden(t, name, a.Raw)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".golden.json")
	if *update {
		if err := os.WriteFile(path, pretty.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("differs from %s:\n%s", path, pretty.Bytes())
	}
}
