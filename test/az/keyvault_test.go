package az_test

import (
	"testing"

	"kluis/internal/client"
)

func TestKeyVault(t *testing.T) {
	h, a := story(t, "keyvault")
	me, err := h.ObjectID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.prints(`["az-vault",true,7,["`+me+`"]]`, "keyvault create -n az-vault -g keyvault -l westeurope --enabled-for-disk-encryption --retention-days 7"+
		" --query [name,properties.enabledForDiskEncryption,properties.softDeleteRetentionInDays,properties.accessPolicies[].objectId]")
	a.prints(`["az-vault"]`, "keyvault list -g keyvault --query [].name")
	a.prints(`["az-vault"]`, "keyvault list --query [?resourceGroup=='keyvault'].name")
	a.prints(`"westeurope"`, "keyvault show -n az-vault --query location") // az looks for the group itself
	a.prints(`true`, "keyvault update -n az-vault -g keyvault --enabled-for-deployment --query properties.enabledForDeployment")

	const policies = "--query properties.accessPolicies[?objectId=='" + client.BackupManagementService + "'].permissions.[sort(keys),sort(secrets)]"
	a.prints(`[[["backup","get","list"],["backup","get","list"]]]`, "keyvault set-policy -n az-vault -g keyvault --spn "+client.BackupManagementServiceApp+
		" --key-permissions backup get list --secret-permissions backup get list "+policies)
	a.prints(`[[["get"],["backup","get","list"]]]`, "keyvault set-policy -n az-vault -g keyvault --object-id "+client.BackupManagementService+" --key-permissions get "+policies)
	a.prints(`[]`, "keyvault delete-policy -n az-vault -g keyvault --object-id "+client.BackupManagementService+" "+policies)

	a.prints(``, "keyvault delete -n az-vault -g keyvault")
	a.prints(`["az-vault"]`, "keyvault list-deleted --query [?name=='az-vault'].name")
	a.prints(`"az-vault"`, "keyvault show-deleted -n az-vault --query name")
	a.prints(`"Succeeded"`, "keyvault recover -n az-vault --query properties.provisioningState")
	a.prints(``, "keyvault delete -n az-vault -g keyvault")
	a.prints(``, "keyvault purge -n az-vault -l westeurope")
	a.prints(`[]`, "keyvault list-deleted --query [?name=='az-vault'].name")
}
