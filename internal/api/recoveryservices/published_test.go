package recoveryservices_test

import (
	"maps"
	"slices"
	"testing"

	"kluis/internal/api/openapitest"
	"kluis/internal/job"
)

// backups and vaultsOf are the descriptions of this door.
const (
	backups  = "recoveryservicesbackup/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/bms.json"
	vaultsOf = "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaults.json"
	usageOf  = "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaultusages.json"
)

// unpublished are the differences that are meant: the real service sends these, and its description forgot them.
var unpublished = map[string]string{
	"properties.softDeleteRetentionPeriod is not published":         "Azure sends it beside softDeleteRetentionPeriodInDays (recorded)",
	"value[].properties.softDeleteRetentionPeriod is not published": "Azure sends it beside softDeleteRetentionPeriodInDays (recorded)",
	"error.details[].code is not published":                         "the description of this error has details without members; Resource Manager's have these",
	"error.details[].message is not published":                      "the description of this error has details without members; Resource Manager's have these",
}

const policyRequest = `{"properties":{"backupManagementType":"AzureIaasVM","schedulePolicy":{"schedulePolicyType":"SimpleSchedulePolicy",
	"scheduleRunFrequency":"Daily","scheduleRunTimes":["2026-11-23T22:00:00Z"]},"retentionPolicy":{"retentionPolicyType":"LongTermRetentionPolicy",
	"dailySchedule":{"retentionTimes":["2026-11-23T22:00:00Z"],"retentionDuration":{"count":30,"durationType":"Days"}}}}}`

// Answers have what is published, in the types and words that are published, and nothing else.
func TestAnswersAsPublished(t *testing.T) {
	const restoreBody = `"recoveryPointId":"` + point + `","recoveryType":"RestoreDisks","sourceResourceId":"` + vm + `"`
	running := func() *fake { return withJobs() }
	b := jobOf("Backup", job.Running).ID
	location := subscription + "/providers/Microsoft.RecoveryServices/locations/westeurope"
	specs := map[string]openapitest.Spec{}
	for _, file := range []string{backups, vaultsOf, usageOf} {
		specs[file] = openapitest.Open(t, file)
	}
	for _, c := range []struct {
		file, id, method, target, body string
		state                          func() *fake
	}{
		{vaultsOf, "Vaults_Get", "GET", vault, "", world},
		{vaultsOf, "Vaults_ListBySubscriptionId", "GET", subscription + "/providers/Microsoft.RecoveryServices/vaults", "", world},
		{vaultsOf, "Vaults_ListByResourceGroup", "GET", group + "/providers/Microsoft.RecoveryServices/vaults", "", world},
		{vaultsOf, "Vaults_CreateOrUpdate", "PUT", vault, `{"location":"westeurope","sku":{"name":"Standard"},"properties":{}}`, world},
		{vaultsOf, "Vaults_Update", "PATCH", vault, `{"tags":{"a":"b"}}`, world},
		{vaultsOf, "GetOperationStatus", "GET", vault + "/operationStatus/1", "", world},
		{vaultsOf, "GetOperationResult", "GET", vault + "/operationResults/1", "", world},
		{vaultsOf, "RecoveryServices_Capabilities", "POST", location + "/capabilities", `{"type":"Microsoft.RecoveryServices/vaults","properties":{"dnsZones":[{"subResource":"AzureBackup"}]}}`, world},
		{vaultsOf, "RecoveryServices_CheckNameAvailability", "POST", group + "/providers/Microsoft.RecoveryServices/locations/westeurope/checkNameAvailability", `{"name":"one","type":"Microsoft.RecoveryServices/Vaults"}`, world},
		{vaultsOf, "Operations_List", "GET", "/providers/Microsoft.RecoveryServices/operations", "", world},
		{vaultsOf, "PrivateLinkResources_List", "GET", vault + "/privateLinkResources", "", world},
		{usageOf, "Usages_ListByVaults", "GET", vault + "/usages", "", world},
		{backups, "BackupResourceStorageConfigsNonCRR_Get", "GET", vault + "/backupstorageconfig/vaultstorageconfig", "", world},
		{backups, "BackupResourceVaultConfigs_Get", "GET", vault + "/backupconfig/vaultconfig", "", world},
		{backups, "BackupResourceVaultConfigs_Update", "PATCH", vault + "/backupconfig/vaultconfig", `{"properties":{"softDeleteFeatureState":"Enabled"}}`, world},
		{backups, "BackupResourceEncryptionConfigs_Get", "GET", vault + "/backupEncryptionConfigs/backupResourceEncryptionConfig", "", world},
		{backups, "ResourceGuardProxies_Get", "GET", vault + "/backupResourceGuardProxies", "", world},
		{backups, "BackupUsageSummaries_List", "GET", vault + "/backupUsageSummaries", "", world},
		{backups, "BackupPolicies_List", "GET", vault + "/backupPolicies", "", world},
		{backups, "ProtectionPolicies_Get", "GET", vault + "/backupPolicies/DefaultPolicy", "", world},
		{backups, "ProtectionPolicies_CreateOrUpdate", "PUT", vault + "/backupPolicies/DefaultPolicy", policyRequest, world},
		{backups, "ProtectionPolicies_Delete", "DELETE", vault + "/backupPolicies/DefaultPolicy", "", world},
		{backups, "BackupResourceStorageConfigsNonCRR_Update", "PUT", vault + "/backupstorageconfig/vaultstorageconfig", `{"properties":{"storageModelType":"LocallyRedundant"}}`, world},
		{backups, "BackupResourceStorageConfigsNonCRR_patch", "PATCH", vault + "/backupstorageconfig/vaultstorageconfig", `{"properties":{"storageModelType":"LocallyRedundant"}}`, world},
		{backups, "BackupResourceVaultConfigs_Put", "PUT", vault + "/backupconfig/vaultconfig", `{"properties":{"softDeleteFeatureState":"Enabled"}}`, world},
		{backups, "BackupResourceEncryptionConfigs_Update", "PUT", vault + "/backupEncryptionConfigs/backupResourceEncryptionConfig", `{"properties":{"encryptionAtRestType":"CustomerManaged"}}`, world},
		{backups, "BackupEngines_Get", "GET", vault + "/backupEngines/one", "", world},
		{backups, "ResourceGuardProxy_Get", "GET", vault + "/backupResourceGuardProxies/VaultProxy", "", world},
		{backups, "ProtectionContainers_Unregister", "DELETE", container, "", world},
		{backups, "PrivateEndpointConnection_Get", "GET", vault + "/privateEndpointConnections/one", "", world},
		{backups, "BackupProtectableItems_List", "GET", vault + "/backupProtectableItems", "", world},
		{backups, "BackupProtectionContainers_List", "GET", vault + "/backupProtectionContainers", "", world},
		{backups, "DeletedProtectionContainers_List", "GET", vault + "/backupDeletedProtectionContainers", "", world},
		{backups, "ProtectionContainers_Get", "GET", container, "", world},
		{backups, "ProtectionContainers_Refresh", "POST", vault + "/backupFabrics/Azure/refreshContainers", "", world},
		{backups, "ProtectionContainerRefreshOperationResults_Get", "GET", vault + "/backupFabrics/Azure/operationResults/7", "", world},
		{backups, "ProtectableContainers_List", "GET", vault + "/backupFabrics/Azure/protectableContainers", "", world},
		{backups, "BackupWorkloadItems_List", "GET", container + "/items", "", world},
		{backups, "BackupEngines_List", "GET", vault + "/backupEngines", "", world},
		{backups, "BackupProtectionIntent_List", "GET", vault + "/backupProtectionIntents", "", world},
		{backups, "BackupStatus_Get", "POST", location + "/backupStatus", `{"resourceType":"VM","resourceId":"` + vm + `"}`, world},
		{backups, "ProtectionIntent_Validate", "POST", location + "/backupPreValidateProtection", `{"resourceType":"VM","resourceId":"` + vm + `","vaultId":"` + vault + `"}`, world},
		{backups, "FeatureSupport_Validate", "POST", location + "/backupValidateFeatures", `{"featureType":"AzureVMResourceBackup"}`, world},
		{backups, "ProtectedItems_Get", "GET", item, "", world},
		{backups, "ProtectedItems_CreateOrUpdate", "PUT", item, `{"properties":{"protectedItemType":"Microsoft.Compute/virtualMachines","sourceResourceId":"` + vm + `","policyId":"` + vault + `/backupPolicies/DefaultPolicy"}}`, world},
		{backups, "ProtectedItems_Delete", "DELETE", item, "", world},
		{backups, "BackupProtectedItems_List", "GET", vault + "/backupProtectedItems", "", world},
		{backups, "Backups_Trigger", "POST", item + "/backup", `{"properties":{"objectType":"IaasVMBackupRequest"}}`, world},
		{backups, "RecoveryPoints_List", "GET", item + "/recoveryPoints", "", world},
		{backups, "RecoveryPoints_Get", "GET", item + "/recoveryPoints/" + point, "", world},
		{backups, "RecoveryPointsRecommendedForMove_List", "POST", item + "/recoveryPointsRecommendedForMove", `{}`, world},
		{backups, "Restores_Trigger", "POST", item + "/recoveryPoints/" + point + "/restore", `{"properties":{"objectType":"IaasVMRestoreRequest",` + restoreBody + `}}`, world},
		{backups, "ItemLevelRecoveryConnections_Provision", "POST", item + "/recoveryPoints/" + point + "/provisionInstantItemRecovery", `{"properties":{"objectType":"IaasVMILRRegistrationRequest"}}`, mounting},
		{backups, "ItemLevelRecoveryConnections_Revoke", "POST", item + "/recoveryPoints/" + point + "/revokeInstantItemRecovery", "", mounting},
		{backups, "BackupJobs_List", "GET", vault + "/backupJobs", "", running},
		{backups, "JobDetails_Get", "GET", vault + "/backupJobs/" + b, "", running},
		{backups, "JobCancellations_Trigger", "POST", vault + "/backupJobs/" + b + "/cancel", "", running},
		{backups, "JobOperationResults_Get", "GET", vault + "/backupJobs/" + b + "/operationResults/" + b, "", running},
		{backups, "Jobs_Export", "POST", vault + "/backupJobsExport", "", running},
		{backups, "BackupOperationStatuses_Get", "GET", vault + "/backupOperations/" + b, "", running},
		{backups, "BackupOperationResults_Get", "GET", vault + "/backupOperationResults/" + b, "", running},
		{backups, "ProtectedItemOperationStatuses_Get", "GET", item + "/operationsStatus/" + b, "", running},
		{backups, "ProtectedItemOperationResults_Get", "GET", item + "/operationResults/" + b, "", running},
		{backups, "Operation_Validate", "POST", vault + "/backupValidateOperation", `{"objectType":"ValidateIaasVMRestoreOperationRequest","restoreRequest":{` + restoreBody + `}}`, world},
		{backups, "ValidateOperation_Trigger", "POST", vault + "/backupTriggerValidateOperation", `{"objectType":"ValidateIaasVMRestoreOperationRequest","restoreRequest":{` + restoreBody + `}}`, world},
		{backups, "MoveRecoveryPoint", "POST", item + "/recoveryPoints/" + point + "/move", `{}`, world},
		{backups, "ProtectionContainers_Register", "PUT", container, `{}`, world},
		{backups, "ProtectionContainers_Inquire", "POST", container + "/inquire", "", world},
		{backups, "SecurityPINs_Get", "POST", vault + "/backupSecurityPIN", "", world},
		{backups, "FetchTieringCost_Post", "POST", vault + "/backupTieringCost/default/fetchTieringCost", `{}`, world},
		{backups, "BMSPrepareDataMove", "POST", vault + "/backupstorageconfig/vaultstorageconfig/prepareDataMove", `{}`, world},
	} {
		spec := specs[c.file]
		a := ask(t, c.state(), c.method, c.target+version, c.body)
		for _, d := range spec.Differences(t, c.id, a.Status, a.Raw) {
			if unpublished[d] == "" {
				t.Errorf("%s: %s", c.id, d)
			}
		}
	}
	openapitest.Listed(t, "testdata/published.txt", *update, slices.Collect(maps.Values(specs))...)
}
