package az_test

import "testing"

func TestVault(t *testing.T) {
	_, a := story(t, "vault")
	const show = " --query [name,location,properties.provisioningState,sku.name,tags,properties.monitoringSettings.classicAlertSettings.alertsForCriticalOperations]"
	a.prints(`["nightly","westeurope","Succeeded","Standard",null,"Enabled"]`, "backup vault create -g vault -n nightly -l westeurope"+show)
	a.prints(`["nightly","westeurope","Succeeded","Standard",{"a":"b"},"Disabled"]`, "backup vault create -g vault -n nightly -l westeurope --tags a=b --classic-alerts Disable"+show) // which updates it
	a.prints(`["nightly","westeurope","Succeeded","Standard",{"a":"b"},"Disabled"]`, "backup vault show -g vault -n nightly"+show)
	a.prints(`["nightly"]`, "backup vault list -g vault --query [].name")
	a.prints(`["nightly"]`, "backup vault list --query [?resourceGroup=='vault'].name")
	a.refuses("ResourceNotFound", "backup vault show -g vault -n none")

	const properties = "backup vault backup-properties set -g vault -n nightly "
	a.prints(`"LocallyRedundant"`, properties+"--backup-storage-redundancy LocallyRedundant --query properties.storageModelType")
	a.prints(`"Disabled"`, properties+"--soft-delete-feature-state Disable --query properties.softDeleteFeatureState")
	a.prints(`"Enabled"`, properties+"--soft-delete-feature-state Enable --query properties.softDeleteFeatureState")
	a.prints(`"Enabled"`, properties+"--classic-alerts Enable --query properties.monitoringSettings.classicAlertSettings.alertsForCriticalOperations")
	a.prints(`[["vaultstorageconfig","LocallyRedundant",null],["vaultconfig",null,"Enabled"]]`,
		"backup vault backup-properties show -g vault -n nightly --query [].[name,properties.storageModelType,properties.softDeleteFeatureState]")

	a.prints(``, "backup vault identity show -g vault -n nightly")
	a.prints(`"SystemAssigned"`, "backup vault identity assign -g vault -n nightly --system-assigned --query identity.type")
	a.prints(`"SystemAssigned"`, "backup vault identity show -g vault -n nightly --query type")
	a.prints(``, "backup vault identity remove -g vault -n nightly --system-assigned --query identity")
	a.prints(`["MicrosoftManaged","Disabled"]`, "backup vault encryption show -g vault -n nightly --query properties.[encryptionAtRestType,infrastructureEncryptionState]")

	a.prints(``, "backup vault delete -g vault -n nightly --yes")
	a.prints(`[]`, "backup vault list -g vault")
}

func TestPolicy(t *testing.T) {
	_, a := story(t, "policy")
	a.run("backup vault create -g policy -n plans -l westeurope")
	a.prints(`"DefaultPolicy"`, "backup policy get-default-for-vm -g policy -v plans --query name")
	a.prints(`["DefaultPolicy","EnhancedPolicy"]`, "backup policy list -g policy -v plans --backup-management-type AzureIaasVM --workload-type VM --query [].name")
	a.write("policy.json", a.run("backup policy show -g policy -v plans -n DefaultPolicy"))
	const days = " --query [name,properties.retentionPolicy.dailySchedule.retentionDuration.count]"
	a.prints(`["weeks",30]`, "backup policy create -g policy -v plans -n weeks --backup-management-type AzureIaasVM --policy @policy.json"+days)
	a.write("policy.json", a.run("backup policy show -g policy -v plans -n weeks --query"+
		" {name:name,id:id,properties:properties}"))
	a.prints(`["weeks",30]`, "backup policy set -g policy -v plans -n weeks --policy @policy.json"+days)
	a.prints(`[]`, "backup policy list-associated-items -g policy -v plans -n weeks --backup-management-type AzureIaasVM")
	a.prints(``, "backup policy delete -g policy -v plans -n weeks")
	a.refuses("BMSUserErrorPolicyNotFound", "backup policy show -g policy -v plans -n weeks")
	a.prints(`["DefaultPolicy","EnhancedPolicy"]`, "backup policy list -g policy -v plans --query [].name")
}
