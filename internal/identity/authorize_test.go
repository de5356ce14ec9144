package identity_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// Who may do what, at a glance. A column holds a letter for each role that may: Owner, Contributor,
// Reader, User access administrator, Locks contributor, backup contrIbutor (I), backup oPerator (P), backup reaDer (D),
// Key vault contributor (K), Virtual machine contributor (V), the roles for what is in key vaults that also see what is
// around it (M), and the one that gives these roles (X). A role with '-' has data actions only.
var matrix = []struct{ action, roles string }{
	{"Microsoft.Resources/subscriptions/resourceGroups/read", "OCRIPKVUMX"},
	{"Microsoft.Resources/subscriptions/resourceGroups/write", "OC"},
	{"Microsoft.Resources/subscriptions/resourceGroups/delete", "OC"},
	{"Microsoft.Resources/deployments/write", "OCIPKVMX"},
	{"Microsoft.Authorization/roleAssignments/read", "OCRIPDKVUMX"},
	{"Microsoft.Authorization/roleAssignments/write", "OUX"},
	{"Microsoft.Authorization/roleAssignments/delete", "OUX"},

	{"Microsoft.Authorization/locks/read", "OCRUIPDKVMXL"},
	{"Microsoft.Authorization/locks/write", "OUL"},
	{"Microsoft.Authorization/locks/delete", "OUL"},

	{"Microsoft.RecoveryServices/vaults/read", "OCRIPDVU"},
	{"Microsoft.RecoveryServices/vaults/write", "OCIV"},
	{"Microsoft.RecoveryServices/vaults/delete", "OC"},
	{"Microsoft.RecoveryServices/vaults/backupPolicies/read", "OCRIPDVU"},
	{"Microsoft.RecoveryServices/vaults/backupPolicies/write", "OCIV"},
	{"Microsoft.RecoveryServices/vaults/backupPolicies/delete", "OCI"},
	{"Microsoft.RecoveryServices/vaults/backupstorageconfig/write", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupconfig/write", "OCI"},
	{"Microsoft.RecoveryServices/vaults/backupJobs/read", "OCRIPDU"},
	{"Microsoft.RecoveryServices/vaults/backupJobs/cancel/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/refreshContainers/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/read", "OCRIPDVU"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/write", "OCIPV"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/delete", "OCI"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/backup/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/read", "OCRIPDVU"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/restore/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/provisionInstantItemRecovery/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/revokeInstantItemRecovery/action", "OCIP"},
	{"Microsoft.RecoveryServices/vaults/decryptRecoveryPoints/action", "OC"},
	{"Microsoft.RecoveryServices/locations/backupStatus/action", "OCIPDV"},

	{"Microsoft.KeyVault/vaults/read", "OCRKU"},
	{"Microsoft.KeyVault/vaults/write", "OCK"},
	{"Microsoft.KeyVault/vaults/accessPolicies/write", "OCK"},
	{"Microsoft.KeyVault/locations/deletedVaults/read", "OCRKUM"},
	{"Microsoft.KeyVault/locations/deletedVaults/purge/action", "OC"},

	{"Microsoft.Compute/virtualMachines/read", "OCRVU"},
	{"Microsoft.Compute/virtualMachines/write", "OCV"},
	{"Microsoft.Compute/virtualMachines/start/action", "OCV"},
	{"Microsoft.Compute/disks/delete", "OCV"},
	{"Microsoft.Storage/storageAccounts/read", "OCRIPVU"},
	{"Microsoft.Storage/storageAccounts/listKeys/action", "OCV"},
}

var letters = map[string]string{
	"Owner": "O", "Contributor": "C", "Reader": "R", "User Access Administrator": "U", "Locks Contributor": "L",
	"Backup Contributor": "I", "Backup Operator": "P", "Backup Reader": "D", "Key Vault Contributor": "K", "Virtual Machine Contributor": "V",
	"Key Vault Administrator": "M", "Key Vault Reader": "M", "Key Vault Crypto Officer": "M", "Key Vault Secrets Officer": "M",
	"Key Vault Certificates Officer": "M", "Key Vault Data Access Administrator": "X",
	"Key Vault Crypto User": "-", "Key Vault Secrets User": "-", "Key Vault Crypto Service Encryption User": "-",
	"Key Vault Crypto Service Release User": "-", "Key Vault Backup Service": "-",
}

func TestRoleMatrix(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		scope := armid.Subscription(subscription).Group("g")
		if len(identity.Roles()) != len(letters) {
			t.Errorf("there are %d roles, the matrix has %d", len(identity.Roles()), len(letters))
		}
		for _, role := range identity.Roles() {
			p, _, err := s.CreatePrincipal(t.Context(), role.Name)
			if err != nil {
				t.Fatal(err)
			}
			ctx := identity.With(t.Context(), p)
			wantCode(t, s.Authorize(ctx, matrix[0].action, scope), problem.Denied, "AuthorizationFailed")
			if err := s.Assign(t.Context(), p.AppID, strings.ToLower(role.Name), scope); err != nil {
				t.Fatal(err)
			}
			for _, m := range matrix {
				err := s.Authorize(ctx, m.action, scope.Resource("Microsoft.Any/thing", "x"))
				if may := strings.Contains(m.roles, letters[role.Name]); may != (err == nil) {
					t.Errorf("%s, %s: %v, want allowed %v", role.Name, m.action, err, may)
				}
				if upper := s.Authorize(ctx, strings.ToUpper(m.action), scope.Resource("Microsoft.Any/thing", "x")); (upper == nil) != (err == nil) {
					t.Errorf("%s, %s: case matters", role.Name, m.action)
				}
			}
		}
	})
}

func TestScopes(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		p, _, err := s.CreatePrincipal(t.Context(), "ci")
		if err != nil {
			t.Fatal(err)
		}
		ctx := identity.With(t.Context(), p)
		group := armid.Subscription(subscription).Group("Prod")
		vm := group.Resource("Microsoft.Compute/virtualMachines", "web")
		const read = "Microsoft.Compute/virtualMachines/read"
		allowed := func(want bool, scope armid.ID) {
			t.Helper()
			if err := s.Authorize(ctx, read, scope); want != (err == nil) {
				t.Errorf("%s at %s: %v, want allowed %v", read, scope, err, want)
			}
		}
		if err := s.Assign(ctx, p.ObjectID, "Reader", vm); err != nil {
			t.Fatal(err)
		}
		allowed(true, vm)
		allowed(true, armid.Must(strings.ToUpper(vm.String())))
		allowed(true, vm.Child("extensions", "x"))
		allowed(false, group.Resource("Microsoft.Compute/virtualMachines", "web2"))
		allowed(false, group)
		allowed(false, armid.Subscription(subscription))
		allowed(false, armid.ID{})

		for range 2 { // assigning twice is the same as once
			if err := s.Assign(ctx, p.AppID, "reader", armid.Subscription(subscription).Group("prod")); err != nil {
				t.Fatal(err)
			}
		}
		allowed(true, group.Resource("Microsoft.Compute/virtualMachines", "web2"))
		allowed(false, armid.Subscription(subscription).Group("Prod2"))
		for scope, want := range map[string]int{"/": 2, group.String(): 2, vm.String(): 2, group.Resource("A.B/c", "d").String(): 1, "/subscriptions/other": 0} {
			if got, err := s.Assignments(ctx, armid.Must(scope)); err != nil || len(got) != want {
				t.Errorf("assignments around %s = %v, %v; want %d", scope, got, err, want)
			}
		}

		if err := s.Unassign(ctx, p.ObjectID, "Reader", group); err != nil {
			t.Fatal(err)
		}
		allowed(false, group.Resource("Microsoft.Compute/virtualMachines", "web2"))
		allowed(true, vm)
		wantCode(t, s.Unassign(ctx, p.ObjectID, "Reader", group), problem.NotFound, "RoleAssignmentNotFound")
		wantCode(t, s.Assign(ctx, p.ObjectID, "King", group), problem.NotFound, "RoleDefinitionDoesNotExist")
		wantCode(t, s.Assign(ctx, "nobody", "Reader", group), problem.NotFound, "PrincipalNotFound")
	})
}

func TestDenyByDefault(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		scope := armid.Subscription(subscription)
		wantCode(t, s.Authorize(t.Context(), "Microsoft.Compute/disks/read", scope), problem.Unauthenticated, identity.CodeMissingToken)

		// Backup Management Service can be given roles, for their data actions; actions they give to it never.
		backup := identity.With(t.Context(), identity.BackupManagementService)
		if err := s.Assign(t.Context(), identity.BackupManagementService.AppID, "Owner", scope); err != nil {
			t.Fatal(err)
		}
		for _, m := range matrix {
			wantCode(t, s.Authorize(backup, m.action, scope), problem.Denied, "AuthorizationFailed")
		}
		if err := s.Unassign(t.Context(), identity.BackupManagementService.AppID, "Owner", scope); err != nil {
			t.Fatal(err)
		}
		// Being called like the built-in principal, or pretending not to be built in, changes nothing.
		pretender := identity.BackupManagementService
		pretender.BuiltIn = false
		wantCode(t, s.Authorize(identity.With(t.Context(), pretender), "Microsoft.Compute/disks/read", scope), problem.Denied, "AuthorizationFailed")

		p, _, err := s.CreatePrincipal(t.Context(), "ci")
		if err != nil {
			t.Fatal(err)
		}
		err = s.Authorize(identity.With(t.Context(), p), "Microsoft.Compute/disks/read", scope)
		want := "The client '" + p.AppID + "' with object id '" + p.ObjectID + "' does not have authorization to perform action " +
			"'Microsoft.Compute/disks/read' over scope '/subscriptions/" + subscription + "' or the scope is invalid. If access was recently granted, please refresh your credentials."
		if got := problem.Of(err); got == nil || got.Message != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// A pattern made from an action by putting '*' anywhere allows the action, in any case; and a role
// never allows what it says it doesn't.
func TestGlobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		action := rapid.StringMatching(`[a-zA-Z]{1,8}(/[a-zA-Z]{1,8}){1,5}`).Draw(t, "action")
		pattern := action
		for range rapid.IntRange(0, 3).Draw(t, "stars") {
			from := rapid.IntRange(0, len(pattern)).Draw(t, "from")
			to := rapid.IntRange(from, len(pattern)).Draw(t, "to")
			pattern = pattern[:from] + "*" + pattern[to:]
		}
		role := identity.Role{Actions: []string{strings.ToUpper(pattern)}}
		if !role.Allows(action) {
			t.Fatalf("%q does not allow %q", pattern, action)
		}
		role = identity.Role{Actions: []string{"*"}, NotActions: []string{pattern}}
		if role.Allows(action) {
			t.Fatalf("'*' without %q allows %q", pattern, action)
		}
	})
	for pattern, others := range map[string][]string{
		"a/*/read":     {"a/read", "a/b/write", "b/c/read", "a/b/readx"},
		"a/b":          {"a/b/c", "a", "a/bb"},
		"a/b/*":        {"a/b", "a/bc"},
		"*/read":       {"read", "a/read/b"},
		"a*b*a":        {"aba/", "a", "ab", "aa"},
		"Microsoft.A/": {"microsoftxa/"},
	} {
		for _, action := range others {
			if (identity.Role{Actions: []string{pattern}}).Allows(action) {
				t.Errorf("%q allows %q", pattern, action)
			}
		}
	}
}
