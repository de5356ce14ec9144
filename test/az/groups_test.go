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
