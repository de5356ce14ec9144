package az_test

import (
	"testing"

	"kluis/internal/client"
)

// Who may what: an application gets a role in a group, and has it no longer.
func TestRoles(t *testing.T) {
	h, a := story(t, "roles")
	app, err := h.CreatePrincipal(t.Context(), client.NewCredential{DisplayName: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	const reader = "a795c7a0-d4a2-40c1-ae25-d81f01202912"
	a.prints(`[["`+reader+`","BuiltInRole"]]`, "role definition list --name "+reader+" --query [].[name,roleType]")
	a.prints(`["ServicePrincipal",true]`, "role assignment create --assignee %s --role %s -g roles --query [principalType,ends_with(scope,'/resourceGroups/roles')]", app.Properties.AppID, reader)
	a.prints(`[["Backup Reader","`+app.Properties.AppID+`"]]`, "role assignment list -g roles --query [].[roleDefinitionName,principalName]")
	a.prints(`["roles"]`, "role assignment list --all --assignee %s --query [].resourceGroup", app.Properties.AppID)
	a.prints(``, "role assignment delete --assignee %s --role %s -g roles", app.Properties.AppID, reader)
	a.prints(`[]`, "role assignment list -g roles")
}
