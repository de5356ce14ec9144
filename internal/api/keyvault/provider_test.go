package keyvault_test

import (
	"maps"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
)

func vaultRequest(properties map[string]any) map[string]any {
	p := map[string]any{"tenantId": tenant, "sku": map[string]any{"family": "A", "name": "Premium"}, "accessPolicies": []any{}}
	maps.Copy(p, properties)
	return map[string]any{"location": "westeurope", "properties": p}
}

func TestKeyVaults(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := serve(t, db)
		want(t, s.manage("GET", vaults+"kv-one", nil), 404, "error.code", "ResourceNotFound")
		put := s.manage("PUT", vaults+"kv-one", vaultRequest(map[string]any{"enabledForDiskEncryption": true,
			"networkAcls": map[string]any{"bypass": "AzureServices", "defaultAction": "Allow"}}))
		want(t, put, 200, "properties.vaultUri", "https://kv-one."+s.suffix+"/", "properties.sku.name", "Premium", "properties.softDeleteRetentionInDays", float64(90),
			"properties.enabledForDiskEncryption", true, "properties.provisioningState", "Succeeded", "properties.networkAcls.bypass", "AzureServices",
			"properties.enablePurgeProtection", nil, "systemData.createdBy", owner.ObjectID)
		want(t, s.manage("GET", "/Subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/RG/providers/microsoft.keyvault/VAULTS/KV-one", nil),
			200, "id", vaults+"kv-one")
		want(t, s.manage("PATCH", vaults+"kv-one", map[string]any{"tags": map[string]string{"a": "b"}, "properties": map[string]any{"enabledForDeployment": true}}),
			200, "tags.a", "b", "properties.enabledForDeployment", true, "properties.enabledForDiskEncryption", true)
		for _, scope := range []string{subscription, subscription + "/resourceGroups/rg"} {
			a := s.manage("GET", scope+"/providers/Microsoft.KeyVault/vaults", nil)
			if items, _ := a.at("value").([]any); len(items) != 1 {
				t.Errorf("list of %s: %s", scope, a.raw)
			}
		}
		check := func(name string, pathsAndValues ...any) {
			t.Helper()
			want(t, s.manage("POST", subscription+"/providers/Microsoft.KeyVault/checkNameAvailability", map[string]any{"name": name, "type": "Microsoft.KeyVault/vaults"}), 200, pathsAndValues...)
		}
		check("kv-ONE", "nameAvailable", false, "reason", "AlreadyExists")
		check("9", "nameAvailable", false, "reason", "AccountNameInvalid")
		check("kv-two", "nameAvailable", true)

		want(t, s.manage("DELETE", vaults+"kv-one", nil), 200)
		want(t, s.manage("DELETE", vaults+"kv-one", nil), 204)
		check("kv-one", "nameAvailable", false, "reason", "AlreadyExists")
		want(t, s.manage("PUT", vaults+"kv-one", vaultRequest(nil)), 409, "error.code", "ConflictError")
		a := s.manage("GET", subscription+"/providers/Microsoft.KeyVault/deletedVaults", nil)
		if items, _ := a.at("value").([]any); len(items) != 1 {
			t.Errorf("deleted vaults: %s", a.raw)
		}
		for _, none := range []string{"managedHSMs", "deletedManagedHSMs"} {
			a := s.manage("GET", subscription+"/providers/Microsoft.KeyVault/"+none, nil)
			if items, there := a.at("value").([]any); a.status != 200 || !there || len(items) != 0 {
				t.Errorf("%s: %d %s", none, a.status, a.raw)
			}
		}
		want(t, s.manage("PUT", vaults+"kv-one", map[string]any{"location": "westeurope", "properties": map[string]any{"createMode": "recover"}}), 200, "tags.a", "b")
	})
}

func TestAccessPolicies(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	backup := identity.BackupManagementService.ObjectID
	policy := func(permissions map[string]any) map[string]any {
		return map[string]any{"properties": map[string]any{"accessPolicies": []any{map[string]any{"tenantId": tenant, "objectId": backup, "permissions": permissions}}}}
	}
	all := []string{"Get", "List", "Backup"}
	a := s.manage("PUT", vaults+"kv-one/accessPolicies/add", policy(map[string]any{"keys": all, "secrets": all}))
	want(t, a, 200, "type", "Microsoft.KeyVault/vaults/accessPolicies", "id", vaults+"kv-one/accessPolicies/")
	if policies, _ := a.at("properties.accessPolicies").([]any); len(policies) != 2 {
		t.Errorf("after add: %s", a.raw)
	}
	a = s.manage("PUT", vaults+"kv-one/accessPolicies/remove", policy(map[string]any{}))
	if policies, _ := a.at("properties.accessPolicies").([]any); len(policies) != 1 {
		t.Errorf("after remove: %s", a.raw)
	}
	want(t, s.manage("PUT", vaults+"kv-one/accessPolicies/add", policy(map[string]any{"keys": []string{"fly"}})), 400, "error.code", "InvalidAccessPolicy")
	want(t, s.manage("PUT", vaults+"kv-one/accessPolicies/burn", policy(nil)), 400, "error.code", "InvalidAccessPolicyOperation")
	want(t, s.manage("PUT", vaults+"kv-two/accessPolicies/add", policy(nil)), 404, "error.code", "ResourceNotFound")
}

// A key vault that leaves access to roles says so, and its access policies let nobody in.
func TestRBACMode(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-roles")
	rbac := func(on bool) map[string]any {
		return map[string]any{"properties": map[string]any{"enableRbacAuthorization": on}}
	}
	want(t, s.data("GET", "kv-roles", "/secrets", nil), 200)
	want(t, s.manage("PATCH", vaults+"kv-roles", rbac(true)), 200, "properties.enableRbacAuthorization", true)
	want(t, s.data("GET", "kv-roles", "/secrets", nil), 403, "error.code", "Forbidden", "error.innererror.code", "ForbiddenByRbac")
	want(t, s.manage("PATCH", vaults+"kv-roles", rbac(false)), 200, "properties.enableRbacAuthorization", false)
	want(t, s.data("GET", "kv-roles", "/secrets", nil), 200)
}

func TestSettingsThatWouldNotBeKeptAreRefused(t *testing.T) {
	s := serve(t, sqlite(t))
	s.manage("PUT", vaults+"kv-protected", vaultRequest(map[string]any{"enablePurgeProtection": true}))
	for name, properties := range map[string]map[string]any{
		"tenant":          {"tenantId": "33333333-3333-3333-3333-333333333333"},
		"soft delete":     {"enableSoftDelete": false},
		"retention":       {"softDeleteRetentionInDays": 6},
		"network":         {"networkAcls": map[string]any{"defaultAction": "Deny"}},
		"private network": {"publicNetworkAccess": "Disabled"},
		"sku":             {"sku": map[string]any{"name": "gold"}},
	} {
		a := s.manage("PUT", vaults+"kv-bad", vaultRequest(properties))
		if a.status != 400 {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
	want(t, s.manage("GET", vaults+"kv-bad", nil), 404)
	want(t, s.manage("PATCH", vaults+"kv-protected", map[string]any{"properties": map[string]any{"enablePurgeProtection": false}}), 400)
	want(t, s.manage("PUT", vaults+"kv-protected", vaultRequest(nil)), 200, "properties.enablePurgeProtection", true)
	s.manage("DELETE", vaults+"kv-protected", nil)
	want(t, s.manage("POST", subscription+"/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-protected/purge", nil), 409)
}
