package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"kluis/internal/armid"
)

const (
	forVMs     = "backupManagementType eq 'AzureIaasVM'"
	typeOfItem = "Microsoft.Compute/virtualMachines"
)

// ProtectableItem is a VM that could be protected.
type ProtectableItem = Resource[ProtectableItemProperties]

// ProtectableItemProperties says which VM it is.
type ProtectableItemProperties struct {
	VirtualMachineID string `json:"virtualMachineId"`
	FriendlyName     string `json:"friendlyName"`
	ResourceGroup    string `json:"resourceGroup"`
	ProtectionState  string `json:"protectionState"`
}

// Item is a protected item: a VM and the policy that protects it.
type Item = Resource[ItemProperties]

// ItemProperties are what we read of a protected item, and the few that a change sends.
type ItemProperties struct {
	ProtectedItemType string `json:"protectedItemType"`
	SourceResourceID  string `json:"sourceResourceId"`
	PolicyID          string `json:"policyId"`
	PolicyName        string `json:"policyName,omitempty"`
	FriendlyName      string `json:"friendlyName,omitempty"`
	ProtectionState   string `json:"protectionState,omitempty"`
	HealthStatus      string `json:"healthStatus,omitempty"`
	LastBackupStatus  string `json:"lastBackupStatus,omitempty"`
	LastBackupTime    string `json:"lastBackupTime,omitempty"`
	LastRecoveryPoint string `json:"lastRecoveryPoint,omitempty"`
	DeferredDelete    bool   `json:"isScheduledForDeferredDelete,omitempty"`
	EraseIn           string `json:"deferredDeleteTimeRemaining,omitempty"`
	IsRehydrate       bool   `json:"isRehydrate,omitempty"`

	// Disks that are left out of backups; a change without it leaves them as they are.
	Extended *ItemDisks `json:"extendedProperties,omitempty"`

	HealthDetails []HealthDetail `json:"healthDetails,omitempty"`
	Drift         []Drift        `json:"kluisDrift,omitempty"`
}

// ItemDisks holds the selection of disks; without one all disks are backed up.
type ItemDisks struct {
	Exclusion *DiskExclusion `json:"diskExclusionProperties,omitempty"`
}

// DiskExclusion names data disks by LUN: those that are left out, or with Inclusion those that are not.
type DiskExclusion struct {
	Luns      []int `json:"diskLunList"`
	Inclusion bool  `json:"isInclusionList"`
}

// HealthDetail says what is wrong with an item, and what to do.
type HealthDetail struct {
	Title           string   `json:"title"`
	Message         string   `json:"message"`
	Recommendations []string `json:"recommendations"`
}

// Drift is a disk whose bytes say another thing than the VM's encryption settings.
type Drift struct {
	Disk     string `json:"disk"`
	Settings string `json:"settings"` // encrypted or plain
	Bytes    string `json:"bytes"`    // the same
	Found    string `json:"found"`
	Message  string `json:"message"`
	Advice   string `json:"advice"`
}

// ItemID is the id of the protected item of a VM in a vault.
func ItemID(vault, vm armid.ID) armid.ID {
	name := strings.ToLower("iaasvmcontainerv2;" + vm.ResourceGroup + ";" + vm.Name())
	if strings.EqualFold(vm.Provider, "Microsoft.ClassicCompute") {
		name = strings.ToLower("iaasvmcontainer;" + vm.ResourceGroup + ";" + vm.Name())
	}
	return vault.Child("backupFabrics", "Azure").Child("protectionContainers", "IaasVMContainer;"+name).Child("protectedItems", "VM;"+name)
}

// VaultOf is the Recovery Services vault that a protected item, a job or a recovery point belongs to.
func VaultOf(id armid.ID) armid.ID {
	return id.Scope().Resource(typeRecoveryVault, id.NameOf("vaults"))
}

// ProtectableItems refreshes the server's list of VMs and returns those that nobody protects.
func (c *Client) ProtectableItems(ctx context.Context, vault armid.ID) ([]ProtectableItem, error) {
	if err := c.do(ctx, http.MethodPost, vault.String()+"/backupFabrics/Azure/refreshContainers", versionBackup, nil, nil); err != nil {
		return nil, err
	}
	return listResources[ProtectableItemProperties](ctx, c, vault.String()+"/backupProtectableItems", versionBackup, forVMs)
}

// EnableProtection protects a VM by a policy. It returns when the item is there; nothing is backed up yet.
func (c *Client) EnableProtection(ctx context.Context, vault, vm armid.ID, policy string) (Item, error) {
	return c.EnableProtectionOf(ctx, vault, vm, policy, nil)
}

// EnableProtectionOf is EnableProtection of a selection of the VM's disks; nil is all of them.
func (c *Client) EnableProtectionOf(ctx context.Context, vault, vm armid.ID, policy string, disks *ItemDisks) (Item, error) {
	return c.putItem(ctx, ItemID(vault, vm), ItemProperties{
		ProtectedItemType: typeOfItem,
		SourceResourceID:  vm.String(),
		PolicyID:          vault.Child(typePolicy, policy).String(),
		Extended:          disks,
	})
}

// SelectDisks changes which disks of a protected VM are backed up.
func (c *Client) SelectDisks(ctx context.Context, item Item, disks ItemDisks) (Item, error) {
	return c.putItem(ctx, item.ARMID(), ItemProperties{
		ProtectedItemType: typeOfItem,
		SourceResourceID:  item.Properties.SourceResourceID,
		PolicyID:          item.Properties.PolicyID,
		Extended:          &disks,
	})
}

// StopProtection ends the backups of an item and keeps its recovery points.
func (c *Client) StopProtection(ctx context.Context, item Item) (Item, error) {
	return c.putItem(ctx, item.ARMID(), ItemProperties{
		ProtectedItemType: typeOfItem,
		SourceResourceID:  item.Properties.SourceResourceID,
		ProtectionState:   "ProtectionStopped",
	})
}

// Undelete takes back the deletion of an item's recovery points. Its protection stays stopped.
func (c *Client) Undelete(ctx context.Context, item Item) (Item, error) {
	return c.putItem(ctx, item.ARMID(), ItemProperties{
		ProtectedItemType: typeOfItem,
		SourceResourceID:  item.Properties.SourceResourceID,
		ProtectionState:   "ProtectionStopped",
		IsRehydrate:       true,
	})
}

// SetPolicy gives an item another policy, or resumes its protection under one.
func (c *Client) SetPolicy(ctx context.Context, item Item, policy string) (Item, error) {
	return c.putItem(ctx, item.ARMID(), ItemProperties{
		ProtectedItemType: typeOfItem,
		SourceResourceID:  item.Properties.SourceResourceID,
		PolicyID:          VaultOf(item.ARMID()).Child(typePolicy, policy).String(),
	})
}

func (c *Client) putItem(ctx context.Context, id armid.ID, p ItemProperties) (Item, error) {
	return putResource(ctx, c, id, versionBackup, Item{Properties: p})
}

// Item reads a protected item.
func (c *Client) Item(ctx context.Context, id armid.ID) (Item, error) {
	return getResource[ItemProperties](ctx, c, id, versionBackup)
}

// Items lists the protected items of a vault.
func (c *Client) Items(ctx context.Context, vault armid.ID) ([]Item, error) {
	return listResources[ItemProperties](ctx, c, vault.String()+"/backupProtectedItems", versionBackup, forVMs+" and itemType eq 'VM'")
}

// DeleteItem ends the protection of an item and deletes its recovery points. Where the vault has soft delete, the item
// stays and can be undeleted for some days.
func (c *Client) DeleteItem(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionBackup)
}

// Backup starts a backup now and returns the id of its job. The expiry is a time in RFC 3339, empty for
// what the server finds right.
func (c *Client) Backup(ctx context.Context, item armid.ID, expiry string) (string, error) {
	p := map[string]string{"objectType": "IaasVMBackupRequest"}
	if expiry != "" {
		p["recoveryPointExpiryTimeInUTC"] = expiry
	}
	return c.startJob(ctx, item.String()+"/backup", map[string]any{"properties": p})
}

// RestoreRequest says which disks go where.
type RestoreRequest struct {
	TargetGroup    armid.ID // the resource group of the restored disks
	StorageAccount armid.ID // where configuration and template are written
	Region         string   // the vault's location
	DiskLUNs       []int    // nil: all disks; empty: the OS disk alone
}

// RestoreDisks starts the restore of a recovery point's disks and returns the id of its job.
func (c *Client) RestoreDisks(ctx context.Context, item Item, point string, r RestoreRequest) (string, error) {
	p := map[string]any{
		"objectType":                   "IaasVMRestoreRequest",
		"recoveryPointId":              point,
		"recoveryType":                 "RestoreDisks",
		"sourceResourceId":             item.Properties.SourceResourceID,
		"targetResourceGroupId":        r.TargetGroup.String(),
		"storageAccountId":             r.StorageAccount.String(),
		"region":                       r.Region,
		"createNewCloudService":        false,
		"originalStorageAccountOption": false,
	}
	if r.DiskLUNs != nil {
		p["restoreDiskLunList"] = r.DiskLUNs
	}
	return c.startJob(ctx, item.ARMID().Child("recoveryPoints", point).String()+"/restore", map[string]any{"properties": p})
}

// startJob posts a request whose operation, once it has succeeded, names a job.
func (c *Client) startJob(ctx context.Context, path string, body any) (string, error) {
	resp, err := exchange(ctx, c.armPipeline(), http.MethodPost, c.armURL(path, versionBackup, nil), body)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	status, err := c.follow(ctx, resp, runtime.FinalStateViaAzureAsyncOp)
	if err != nil {
		return "", err
	}
	var operation struct {
		Properties struct {
			JobID string `json:"jobId"`
		} `json:"properties"`
	}
	if err := json.Unmarshal(status, &operation); err != nil {
		return "", fmt.Errorf("read operation: %w", err)
	}
	if operation.Properties.JobID == "" {
		return "", fmt.Errorf("the operation of %s named no job", path)
	}
	return operation.Properties.JobID, nil
}
