package az_test

import "testing"

func TestAccount(t *testing.T) {
	h, a := story(t, "account")
	a.prints(`["AzureCloud",false]`, "cloud show -n AzureCloud --query [name,isActive]")
	a.prints(`{"id":"`+h.Subscription().Subscription+`","state":"Enabled","tenant":"`+h.TenantID()+`"}`, "account show --query {id:id,state:state,tenant:tenantId}")
	a.prints(`["`+h.Subscription().Subscription+`"]`, "account list --query [].id")
	a.word("account get-access-token --query accessToken")
}

func TestGroups(t *testing.T) {
	_, a := story(t, "groups")
	a.prints(`["groups-2","westeurope",{"env":"test"},"Succeeded"]`, "group create -n groups-2 -l westeurope --tags env=test --query [name,location,tags,properties.provisioningState]")
	a.prints(`["groups","groups-2"]`, "group list --query sort([?starts_with(name,'groups')].name)")
	a.prints(`["groups-2"]`, "group list --tag env=test --query [].name")
	a.prints(`{"env":"prod"}`, "group update -n groups-2 --set tags.env=prod --query tags")
	a.prints(`"westeurope"`, "group show -n groups-2 --query location")
	a.prints(`true`, "group exists -n groups-2")
	a.prints(``, "group delete -n groups-2 --yes")
	a.prints(`false`, "group exists -n groups-2")
	a.refuses("ResourceGroupNotFound", "group show -n groups-2")
}

// Networks are documents here: they are made, found among all resources, tagged and deleted. A lock keeps them, and their group.
func TestResourcesAndLocks(t *testing.T) {
	_, a := story(t, "resources")
	const (
		network = " -g resources -n net --resource-type Microsoft.Network/virtualNetworks"
		locks   = "lock list -g resources --query [].[name,level]"
	)
	a.prints(`"net"`, `resource create -l westeurope --properties {"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}} --query name`+network)
	a.prints(`["net"]`, "resource list -g resources --query [].name")
	a.prints(`["net"]`, "resource list --resource-type Microsoft.Network/virtualNetworks --query [?resourceGroup=='resources'].name")
	a.prints(`["10.0.0.0/16"]`, "resource show --query properties.addressSpace.addressPrefixes"+network)
	a.prints(`{"kind":"net"}`, "resource tag --tags kind=net --query tags"+network)
	a.prints(`["net"]`, "resource list --tag kind=net --query [].name")
	a.prints(`"CanNotDelete"`, "lock create -n keep -g resources --lock-type CanNotDelete --query level")
	a.prints(`[["keep","CanNotDelete"]]`, locks)
	a.refuses("ScopeLocked", "group delete -n resources --yes")
	a.prints(``, "lock delete -n keep -g resources")
	a.prints(`[]`, locks)
	a.prints(``, "resource delete"+network)
	a.prints(`[]`, "resource list -g resources")
}
