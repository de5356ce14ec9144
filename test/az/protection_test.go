package az_test

import (
	"os"
	"testing"
)

// What can be done with protection: other settings, another policy, stop, resume, delete, undelete; and a job that is stopped.
func TestProtection(t *testing.T) {
	h, a := story(t, "protection")
	keys, err := h.NewKeys(t.Context(), "protection", "protection-keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.NewMachine(t.Context(), "protection", "db1", keys, "qcow2"); err != nil {
		t.Fatal(err)
	}
	a.run("backup vault create -g protection -n vault -l westeurope")
	a.write("policy.json", a.run("backup policy show -g protection -v vault -n DefaultPolicy"))
	a.run("backup policy create -g protection -v vault -n other --backup-management-type AzureIaasVM --policy @policy.json")
	const (
		vault = " -g protection -v vault"
		db1   = vault + " -c db1 -i db1"
		show  = "backup item show -c db1 -n db1" + vault + item + " --query "
	)
	const enable = "backup protection enable-for-vm -g protection -v vault --vm db1 --disk-list-setting exclude --diskslist 0"
	a.refuses("UserErrorEncryptedVmNotSupportedWithDiskEx", enable+" -p DefaultPolicy")
	a.prints(`["ConfigureBackup","Completed"]`, enable+" -p EnhancedPolicy"+state)
	a.prints(`[[0],false]`, show+"properties.extendedProperties.diskExclusionProperties.[diskLunList,isInclusionList]")
	a.prints(`["ConfigureBackup","Completed"]`, "backup protection update-for-vm"+db1+" --disk-list-setting resetexclusionsettings"+state)
	a.prints(``, show+"properties.extendedProperties.diskExclusionProperties")
	a.prints(`["ConfigureBackup","Completed"]`, "backup item set-policy -g protection -v vault -c db1 -n db1 -p other"+item+state)
	a.prints(`"other"`, show+"properties.policyName")
	a.stopJob(h)

	a.prints(`["DisableBackup","Completed"]`, "backup protection disable --yes"+db1+item+state)
	a.prints(`"ProtectionStopped"`, show+"properties.protectionState")
	a.refuses("ServiceResourceNotEmptyWithContainerDetails", "backup vault delete -g protection -n vault --yes")
	a.refuses("ResourceGroupDeletionBlocked", "group delete -n protection --yes")
	a.prints(`["ConfigureBackup","Completed"]`, "backup protection resume -p other"+db1+item+state)
	a.done("DeleteBackupData", vault, "backup protection disable --yes --delete-backup-data true -c db1 -i db1"+item)
	a.prints(`true`, show+"properties.isScheduledForDeferredDelete")
	a.prints(`["Undelete","Completed"]`, "backup protection undelete"+db1+item+state)
	a.prints(`"ProtectionStopped"`, show+"properties.protectionState")

	// Without soft delete, what is deleted is gone, and so is the vault.
	a.run("backup vault backup-properties set -g protection -n vault --soft-delete-feature-state Disable")
	a.done("DeleteBackupData", vault, "backup protection disable --yes --delete-backup-data true -c db1 -i db1"+item)
	a.prints(`[]`, "backup item list -g protection -v vault")
	a.prints(``, "backup vault delete -g protection -n vault --yes")
}

// stopJob stops a backup that cannot go on by itself: its disk is not opened before the file is gone.
func (a *az) stopJob(h *house) {
	a.t.Helper()
	if err := os.WriteFile(h.held, nil, 0o600); err != nil {
		a.t.Fatal(err)
	}
	defer os.Remove(h.held)
	job := a.word("backup protection backup-now -g protection -v vault -c db1 -i db1 --query name" + item)
	a.prints(`["`+job+`"]`, "backup job list -g protection -v vault --status InProgress --query [].name")
	a.prints(``, "backup job stop -g protection -v vault -n %s", job)
	a.prints(`["Backup","Cancelled"]`, "backup job wait -g protection -v vault -n %s --query properties.[operation,status]", job)
}
