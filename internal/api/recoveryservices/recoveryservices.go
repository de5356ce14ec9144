// Package recoveryservices is the door of Microsoft.RecoveryServices: vaults, policies, protected items,
// recovery points, restores and jobs of workload AzureIaasVM.
//
// It decodes a request, calls the backup service, which authorizes, and encodes the answer in Azure's
// shapes. An asynchronous operation is a view of the job that it started: its id is the job's, and it has
// succeeded as soon as the job exists (operations.go).
//
// What Azure does not have stands beside Azure's own properties under names that begin with "kluis": a
// client of Azure ignores them.
package recoveryservices

import (
	"context"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/compute"
)

// Service is what the door asks of the backup service.
type Service interface {
	PutVault(ctx context.Context, v backup.RecoveryVault) (backup.RecoveryVault, bool, error)
	Vault(ctx context.Context, id armid.ID) (backup.RecoveryVault, error)
	Vaults(ctx context.Context, scope armid.ID) ([]backup.RecoveryVault, error)
	DeleteVault(ctx context.Context, id armid.ID) (bool, error)
	PutPolicy(ctx context.Context, p backup.Policy) (backup.Policy, error)
	Policy(ctx context.Context, id armid.ID) (backup.Policy, error)
	Policies(ctx context.Context, vault armid.ID) ([]backup.Policy, error)
	DeletePolicy(ctx context.Context, id armid.ID) (bool, error)
	Protect(ctx context.Context, id, vm, policy armid.ID) (backup.Item, backup.Job, error)
	Stop(ctx context.Context, id armid.ID) (backup.Job, error)
	Delete(ctx context.Context, id armid.ID) (backup.Job, error)
	Check(ctx context.Context, vault, vm armid.ID) error
	Item(ctx context.Context, id armid.ID) (backup.Item, error)
	ItemOf(ctx context.Context, vm armid.ID) (backup.Item, error)
	Items(ctx context.Context, vault armid.ID) ([]backup.Item, error)
	Protectable(ctx context.Context, vault armid.ID) ([]compute.VM, error)
	BackUp(ctx context.Context, item armid.ID, expiry time.Time) (backup.Job, error)
	Points(ctx context.Context, item armid.ID) ([]backup.Point, error)
	Point(ctx context.Context, id armid.ID) (backup.Point, error)
	PointKeys(ctx context.Context, id armid.ID) ([]backup.KeyBackup, error)
	Restore(ctx context.Context, r backup.RestoreRequest) (backup.Job, error)
	Jobs(ctx context.Context, vault armid.ID) ([]backup.Job, error)
	Job(ctx context.Context, vault armid.ID, id string) (backup.Job, error)
	CancelJob(ctx context.Context, vault armid.ID, id string) error
}

// Options are what the door needs beside the service.
type Options struct {
	Now   func() time.Time
	NewID func() string
}

type door struct {
	s Service
	o Options
}

const (
	namespace  = "Microsoft.RecoveryServices"
	vaults     = namespace + "/vaults"
	fabrics    = vaults + "/backupFabrics"
	containers = fabrics + "/protectionContainers"
	items      = containers + "/protectedItems"
	points     = items + "/recoveryPoints"
	jobs       = vaults + "/backupJobs"
	vmType     = "Microsoft.Compute/virtualMachines"
	management = "AzureIaasVM"
)

// Provider is the table of what the door answers.
func Provider(s Service, o Options) arm.Provider {
	d := &door{s, o}
	status, result := d.operationStatus, d.operationResult
	return arm.Provider{Namespace: namespace, Resources: []arm.Resource{
		{Type: vaults, Get: d.getVault, Put: d.putVault, Patch: d.patchVault, Delete: d.deleteVault, List: d.listVaults},
		{Type: vaults + "/operationStatus", Get: d.vaultOperationStatus},
		{Type: vaults + "/backupstorageconfig", Get: d.getStorageConfig, Put: d.putStorageConfig, Patch: d.putStorageConfig},
		{Type: vaults + "/backupconfig", Get: d.getVaultConfig},
		{Type: vaults + "/backupEncryptionConfigs", Get: d.getEncryptionConfig},
		{Type: vaults + "/backupResourceGuardProxies", List: d.emptyList},
		{Type: vaults + "/backupUsageSummaries", List: d.listUsage},
		{Type: vaults + "/backupPolicies", Get: d.getPolicy, Put: d.putPolicy, Delete: d.deletePolicy, List: d.listPolicies},
		{Type: vaults + "/backupProtectableItems", List: d.listProtectable},
		{Type: vaults + "/backupProtectionContainers", List: d.listContainers},
		{Type: vaults + "/backupProtectedItems", List: d.listItems},
		{Type: fabrics, Actions: map[string]arm.Handler{"refreshContainers": d.refresh}},
		{Type: fabrics + "/operationResults", Get: d.refreshed},
		{Type: items, Get: d.getItem, Put: d.putItem, Delete: d.deleteItem, Actions: map[string]arm.Handler{"backup": d.backUp}},
		{Type: items + "/operationsStatus", Get: status},
		{Type: items + "/operationResults", Get: result},
		{Type: points, Get: d.getPoint, List: d.listPoints, Actions: map[string]arm.Handler{"restore": d.restore}},
		{Type: vaults + "/backupOperations", Get: status},
		{Type: vaults + "/backupOperationResults", Get: result},
		{Type: jobs, Get: d.getJob, List: d.listJobs, Actions: map[string]arm.Handler{"cancel": d.cancelJob}},
		{Type: jobs + "/operationsStatus", Get: status},
		{Type: jobs + "/operationResults", Get: d.cancelled},
		{Type: namespace + "/locations", Actions: map[string]arm.Handler{
			"backupStatus": d.backupStatus, "backupPreValidateProtection": d.preValidate, "backupValidateFeatures": d.validateFeatures}},
	}}
}

// vaultOf is the vault of anything inside one.
func vaultOf(id armid.ID) armid.ID {
	id.Segments = id.Segments[:min(1, len(id.Segments))]
	return id
}

// matches reports whether a value passes a $filter's condition; a condition that is not there passes all.
func matches(filter map[string]string, key, value string) bool {
	want, ok := filter[strings.ToLower(key)]
	return !ok || strings.EqualFold(want, value)
}

// azureTime writes a time with up to seven digits of a second, as Azure does.
func azureTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }

func (d *door) emptyList(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return arm.List(r, []struct{}{}), nil
}
