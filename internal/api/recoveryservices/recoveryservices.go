// Package recoveryservices is the door of Microsoft.RecoveryServices: vaults, policies, protected items,
// recovery points, restores and jobs of workload AzureIaasVM.
//
// It decodes a request, calls the backup service, which authorizes, and encodes the answer in Azure's
// shapes (wire.go). Three things it decides itself, because they are the wire's and not the service's:
//
//   - An asynchronous operation is a view of the job that it started (operations.go).
//   - What a $filter means for each list (filter.go).
//   - A property that would change what is done, and that we don't do, is refused (problems.go), and so are the
//     parts of Azure Backup that make no sense here (refused.go). All
//     other properties we don't know are ignored: clients of newer api-versions send them.
//
// What Azure does not have stands beside Azure's own properties under names that begin with "kluis": a
// client of Azure ignores them. Ids in answers have Azure's spelling of types, and names as they were
// first written.
package recoveryservices

import (
	"context"
	"slices"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/compute"
)

// Service is what the door asks of the backup service.
type Service interface {
	PutVault(ctx context.Context, v backup.RecoveryVault) (_ backup.RecoveryVault, created bool, err error)
	Vault(ctx context.Context, id armid.ID) (backup.RecoveryVault, error)
	Vaults(ctx context.Context, scope armid.ID) ([]backup.RecoveryVault, error)
	VaultOf(ctx context.Context, part armid.ID, verb string) (backup.RecoveryVault, error)
	ConfigureVault(ctx context.Context, part armid.ID, change func(*backup.RecoveryVault)) (backup.RecoveryVault, error)
	DeleteVault(ctx context.Context, id armid.ID) (existed bool, err error)
	PutPolicy(ctx context.Context, p backup.Policy) (backup.Policy, error)
	Policy(ctx context.Context, id armid.ID) (backup.Policy, error)
	Policies(ctx context.Context, vault armid.ID) ([]backup.Policy, error)
	DeletePolicy(ctx context.Context, id armid.ID) (existed bool, err error)
	ProtectDisks(ctx context.Context, id, vm, policy armid.ID, disks *backup.DiskSelection) (backup.Item, backup.Job, error)
	Stop(ctx context.Context, id armid.ID) (backup.Job, error)
	Delete(ctx context.Context, id armid.ID) (backup.Job, error)
	Undelete(ctx context.Context, id armid.ID) (backup.Job, error)
	Check(ctx context.Context, vault, vm armid.ID) error
	Item(ctx context.Context, id armid.ID) (backup.Item, error)
	ItemOf(ctx context.Context, vm armid.ID) (backup.Item, error)
	Items(ctx context.Context, vault armid.ID) ([]backup.Item, error)
	ItemsAfter(ctx context.Context, vault armid.ID, after string, most int) ([]backup.Item, error)
	Protectable(ctx context.Context, vault armid.ID) ([]compute.VM, error)
	BackUp(ctx context.Context, item armid.ID, expiry time.Time) (backup.Job, error)
	Points(ctx context.Context, item armid.ID) ([]backup.Point, error)
	PointsAfter(ctx context.Context, item armid.ID, after string, most int) ([]backup.Point, error)
	Point(ctx context.Context, id armid.ID) (backup.Point, error)
	PointKeys(ctx context.Context, id armid.ID) ([]backup.KeyBackup, error)
	Restore(ctx context.Context, r backup.RestoreRequest) (backup.Job, error)
	ValidateRestore(ctx context.Context, action string, r backup.RestoreRequest) error
	RestoreKeys(ctx context.Context, point armid.ID) ([]backup.RestoredKey, error)
	StartDrill(ctx context.Context, r backup.DrillRequest) (backup.Job, error)
	Provision(ctx context.Context, r backup.MountRequest) (backup.Mount, error)
	Mount(ctx context.Context, vault armid.ID, id string) (backup.Mount, error)
	Revoke(ctx context.Context, point armid.ID, mount string) error
	Jobs(ctx context.Context, vault armid.ID) ([]backup.Job, error)
	JobsAfter(ctx context.Context, vault armid.ID, after string, most int) ([]backup.Job, error)
	Job(ctx context.Context, vault armid.ID, id string) (backup.Job, error)
	CancelJob(ctx context.Context, vault armid.ID, id string) error
	ExportJobs(ctx context.Context, vault armid.ID, name, contentType string, data []byte) (backup.Published, error)
	Alerts(ctx context.Context, vault armid.ID) ([]backup.Alert, error)
	AllowedAt(ctx context.Context, location armid.ID, action string) error
}

// Options are what the door needs beside the service.
type Options struct {
	Now   func() time.Time
	NewID func() string // ids of operations that are no job's
}

type door struct {
	s           Service
	o           Options
	validations answers[validationBody]
	exports     answers[exportOperation]
	over        answers[struct{}] // operations that were over at once
}

// Types as ids and bodies spell them.
const (
	namespace  = "Microsoft.RecoveryServices"
	locations  = namespace + "/locations"
	vaults     = namespace + "/vaults"
	policies   = vaults + "/backupPolicies"
	fabrics    = vaults + "/backupFabrics"
	containers = fabrics + "/protectionContainers"
	items      = containers + "/protectedItems"
	points     = items + "/recoveryPoints"
	jobs       = vaults + "/backupJobs"
	alerts     = vaults + "/monitoringAlerts"
)

// Words that many bodies have.
const (
	vmType     = "Microsoft.Compute/virtualMachines"
	management = "AzureIaasVM"
	workload   = "VM"
	fabricName = "Azure"
)

// Provider is the table of what the door answers.
func Provider(s Service, o Options) arm.Provider {
	d := &door{s: s, o: o}
	return arm.Provider{Namespace: namespace, Versions: versions, Resources: slices.Concat(d.table(), d.refused())}
}

// table has the rows of what is here.
func (d *door) table() []arm.Resource {
	return []arm.Resource{
		{Type: namespace + "/operations", List: d.listOperations},
		{Type: vaults, Get: d.getVault, Put: d.putVault, Patch: d.patchVault, Delete: d.deleteVault, List: d.listVaults, Actions: map[string]arm.Handler{
			"backupSecurityPIN": d.refuse(securityPIN), "backupValidateOperation": d.validateOperation,
			"backupTriggerValidateOperation": d.triggerValidateOperation, "backupJobsExport": d.exportJobs}},
		{Type: vaults + "/operationStatus", Get: d.vaultOperationStatus},
		{Type: vaults + "/operationResults", Get: d.vaultOperationResult},
		{Type: vaults + "/usages", List: d.listVaultUsages},
		{Type: vaults + "/replicationUsages", List: d.emptyList},
		{Type: vaults + "/backupstorageconfig", Get: d.getStorageConfig, Put: d.putStorageConfig, Patch: d.putStorageConfig, Actions: map[string]arm.Handler{
			"prepareDataMove": d.refuse(dataMove), "triggerDataMove": d.refuse(dataMove)}},
		{Type: vaults + "/backupconfig", Get: d.getVaultConfig, Put: d.putVaultConfig, Patch: d.putVaultConfig},
		{Type: vaults + "/backupEncryptionConfigs", Get: d.getEncryptionConfig, Put: d.refuse(ownKey)},
		{Type: vaults + "/backupResourceGuardProxies", Get: d.noGuard, Put: d.refuse(resourceGuard), Delete: d.noGuard, List: d.emptyList,
			Actions: map[string]arm.Handler{"unlockDelete": d.refuse(resourceGuard)}},
		{Type: vaults + "/backupUsageSummaries", List: d.listUsage},
		{Type: policies, Get: d.getPolicy, Put: d.putPolicy, Delete: d.deletePolicy, List: d.listPolicies},
		{Type: policies + "/operations", Get: d.policyOperation},
		{Type: policies + "/operationResults", Get: d.policyOperationResult},

		{Type: fabrics, Actions: map[string]arm.Handler{"refreshContainers": d.refresh}},
		{Type: vaults + "/backupProtectableItems", List: d.listProtectable},
		{Type: vaults + "/backupProtectionContainers", List: d.listContainers},
		{Type: vaults + "/backupDeletedProtectionContainers", List: d.listDeletedContainers},
		{Type: containers, Get: d.getContainer, Put: d.refuse(workloads), Delete: d.refuse(workloads),
			Actions: map[string]arm.Handler{"inquire": d.refuse(workloads)}},
		{Type: locations, GetActions: map[string]arm.Handler{"backupAadProperties": d.refuseAt(otherRegion)}, Actions: map[string]arm.Handler{
			"backupStatus": d.backupStatus, "backupPreValidateProtection": d.preValidate, "backupValidateFeatures": d.validateFeatures,
			"checkNameAvailability": d.checkVaultName, "capabilities": d.capabilities, "backupCrossRegionRestore": d.refuseAt(otherRegion),
			"backupCrrJob": d.refuseAt(otherRegion), "backupCrrJobs": d.refuseAt(otherRegion)}},

		{Type: items, Get: d.getItem, Put: d.putItem, Delete: d.deleteItem, Actions: map[string]arm.Handler{
			"backup": d.backUp, "recoveryPointsRecommendedForMove": d.recommendedForMove}},
		{Type: vaults + "/backupProtectedItems", List: d.listItems},
		{Type: points, Get: d.getPoint, List: d.listPoints, Actions: map[string]arm.Handler{"restore": d.restore, "restoreKeys": d.restoreKeys, "drill": d.drill,
			"provisionInstantItemRecovery": d.provision, "revokeInstantItemRecovery": d.revoke,
			"move": d.refuse(archiveTier), "accessToken": d.refuse(otherRegion)}},
		{Type: jobs, Get: d.getJob, List: d.listJobs, Actions: map[string]arm.Handler{"cancel": d.cancelJob},
			GetActions: map[string]arm.Handler{"*": d.exportResult}},
		{Type: alerts, List: d.listAlerts},

		{Type: vaults + "/backupOperations", Get: d.operationStatus},
		{Type: vaults + "/backupOperationResults", Get: d.operationResult},
		{Type: items + "/operationsStatus", Get: d.operationStatus},
		{Type: items + "/operationResults", Get: d.operationResult},
		{Type: jobs + "/operationsStatus", Get: d.operationStatus},
		{Type: jobs + "/operationResults", Get: d.cancelResult},
		{Type: fabrics + "/operationsStatus", Get: d.fabricOperationStatus},
		{Type: fabrics + "/operationResults", Get: d.fabricOperationResult},
		{Type: vaults + "/backupValidateOperationsStatuses", Get: d.validateStatus},
		{Type: vaults + "/backupValidateOperationResults", Get: d.validateResult},
	}
}

// vaultOf is the vault of anything inside one.
func vaultOf(id armid.ID) armid.ID {
	id.Segments = id.Segments[:min(1, len(id.Segments))]
	return id
}

// azureTime writes a time with up to seven digits of a second, as Azure does.
func azureTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }

// timeOrNothing leaves a time out that is not known yet. Azure writes the year 1 then, without a zone,
// which strict readers of times refuse.
func timeOrNothing(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return azureTime(t)
}

// containerName is the name that bodies give for the container of a VM: the last part of the item's name
// without its prefix.
func containerName(item string) string { return item[strings.IndexByte(item, ';')+1:] }

func (d *door) emptyList(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, r.ID.Child(r.Collection, ""), "read"); err != nil {
		return nil, err
	}
	return arm.List(r, []struct{}{}), nil
}
