package az_test

import (
	"encoding/json"
	"path"
	"strings"
	"testing"
)

// item is how commands name a protected item by the names that people use.
const (
	item  = " --backup-management-type AzureIaasVM --workload-type VM"
	state = " --query properties.[operation,status]"
)

// The way there and back: a VM is protected, backed up and restored, and comes back from the template that the restore left.
func TestBackUpAndRestore(t *testing.T) {
	h, a := story(t, "story")
	keys, err := h.NewKeys(t.Context(), "story", "story-keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.NewMachine(t.Context(), "story", "web1", keys, "raw"); err != nil {
		t.Fatal(err)
	}
	a.prints(`"Succeeded"`, "backup vault create -g story -n nightly -l westeurope --query properties.provisioningState")
	a.prints(``, "backup protection check-vm --vm web1 -g story")
	a.prints(`["ConfigureBackup","Completed"]`, "backup protection enable-for-vm -g story -v nightly --vm web1 -p DefaultPolicy"+state)
	vault := h.RecoveryVaultID("story", "nightly").String()
	a.prints(quote(vault), "backup protection check-vm --vm web1 -g story")
	a.prints(`["VM;iaasvmcontainerv2;story;web1"]`, "backup policy list-associated-items -g story -v nightly -n DefaultPolicy --query [].name")
	a.prints(`["IaasVMContainer;iaasvmcontainerv2;story;web1"]`, "backup container list -g story -v nightly --backup-management-type AzureIaasVM --query [].name")
	a.prints(`["web1","Registered"]`, "backup container show -g story -v nightly -n web1 --backup-management-type AzureIaasVM --query properties.[friendlyName,registrationStatus]")
	a.prints(`["VM;iaasvmcontainerv2;story;web1"]`, "backup item list -g story -v nightly --query [].name")

	job := a.done("Backup", " -g story -v nightly", "backup protection backup-now -c web1 -i web1 --retain-until 01-01-2100"+item)
	a.prints(`[["Take Snapshot","Completed"],["Transfer data to vault","Completed"]]`, "backup job show -g story -v nightly -n %s"+
		" --query properties.extendedInfo.tasksList[:2].[taskId,status]", job)
	a.prints(`["`+job+`"]`, "backup job list -g story -v nightly --operation Backup --status Completed --start-date 01-01-2020 --end-date 01-01-2100 --query [].name")
	a.prints(`["Protected","Completed",true]`, "backup item show -g story -v nightly -c web1 -n web1 --query properties.[protectionState,lastBackupStatus,virtualMachineId!=null]"+item)

	point := a.word("backup recoverypoint list -g story -v nightly -c web1 -i web1 --query [0].name" + item)
	a.prints(`[true,true]`, "backup recoverypoint show -g story -v nightly -c web1 -i web1 -n %s --query properties.[isSourceVmEncrypted,isManagedVirtualMachine]"+item, point)

	a.restore(point)
	a.takeFilesOut(point)
}

// restore restores the disks into another group, and deploys what the restore left.
func (a *az) restore(point string) {
	a.t.Helper()
	a.prints(`"Succeeded"`, "storage account create -n storystaging -g story -l westeurope --query provisioningState")
	a.run("group create -n story-again -l westeurope")
	job := a.done("Restore", " -g story -v nightly", "backup restore restore-disks -c web1 -i web1 -r %s --storage-account storystaging -t story-again", point)
	a.prints(`2`, "disk list -g story-again --query length(@)")

	var bag map[string]string
	if err := json.Unmarshal(a.run("backup job show -g story -v nightly -n %s --query properties.extendedInfo.propertyBag", job), &bag); err != nil {
		a.t.Fatal(err)
	}
	container, blob := bag["Config Blob Container Name"], path.Base(bag["Template Blob Uri"])
	a.prints(`true`, "storage blob list --account-name storystaging -c %s --auth-mode login --query contains([].name,'%s')", container, blob)
	a.prints(quote(blob), "storage blob download --account-name storystaging -c %s -n %s -f template.json --auth-mode login --no-progress --query name", container, blob)
	a.prints(`"Succeeded"`, "deployment group create -g story-again -n again --template-file template.json --parameters VirtualMachineName=web2 --query properties.provisioningState")
	a.prints(`["web2"]`, "vm list -g story-again --query [].name")
}

// takeFilesOut mounts the recovery point, to the point of the script that az writes for the person to run.
func (a *az) takeFilesOut(point string) {
	a.t.Helper()
	const active = "backup recoverypoint show -g story -v nightly -c web1 -i web1 -n %s --query properties.isInstantIlrSessionActive" + item
	a.prints(``, "backup restore files mount-rp -g story -v nightly -c web1 -i web1 -r %s", point)
	if script := string(a.read("web1_" + point + ".sh")); !strings.HasPrefix(script, "#!") {
		a.t.Errorf("the script begins %.80q", script)
	}
	a.prints(`true`, active, point)
	a.prints(``, "backup restore files unmount-rp -g story -v nightly -c web1 -i web1 -r %s", point)
	a.prints(`false`, active, point)
}
