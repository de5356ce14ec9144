package identity_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// caller makes a principal with a role at a scope and returns a context in which it calls.
func caller(t *testing.T, s *identity.Service, role string, scope armid.ID) (context.Context, identity.Principal) {
	t.Helper()
	p, _, err := s.CreatePrincipal(t.Context(), "holder of "+role)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		if err := s.Assign(t.Context(), p.ObjectID, role, scope); err != nil {
			t.Fatal(err)
		}
	}
	return identity.With(t.Context(), p), p
}

// The whole life of an assignment, each step by somebody who may and refused to somebody who may not.
func TestRoleAssignments(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		sub := armid.Subscription(subscription)
		group := sub.Group("Prod")
		vm := group.Resource("Microsoft.Compute/virtualMachines", "web")
		owner, ownerPrincipal := caller(t, s, "Owner", sub)
		contributor, _ := caller(t, s, "Contributor", sub)
		outsider, bob := caller(t, s, "Reader", sub.Group("other"))
		a := identity.Assignment{Name: uuid.NewString(), PrincipalID: strings.ToUpper(bob.ObjectID), Role: "acdd72a7-3385-48ef-bd42-f606fba81ae7", Scope: group}

		_, _, err := s.PutRoleAssignment(contributor, a)
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
		put, created, err := s.PutRoleAssignment(owner, a)
		if err != nil || !created || put.PrincipalID != bob.ObjectID || put.PrincipalType != "ServicePrincipal" || put.CreatedBy != ownerPrincipal.ObjectID || put.Created.IsZero() {
			t.Fatalf("put = %+v, %v, %v", put, created, err)
		}
		if err := s.Authorize(outsider, "Microsoft.Compute/virtualMachines/read", vm); err != nil {
			t.Errorf("the role is not inherited: %v", err)
		}

		a.Description = "on call"
		again, created, err := s.PutRoleAssignment(owner, a)
		if err != nil || created || again.Description != "on call" || again.Created != put.Created {
			t.Errorf("put again = %+v, %v, %v", again, created, err)
		}
		if got, err := s.RoleAssignment(outsider, armid.Must(strings.ToUpper(group.String())), strings.ToUpper(a.Name)); err != nil || got.ID().String() != again.ID().String() {
			t.Errorf("read = %+v, %v", got, err)
		}
		_, err = s.RoleAssignment(outsider, vm, a.Name)
		wantCode(t, err, problem.NotFound, "RoleAssignmentNotFound")

		for name, c := range map[string]struct {
			change func(*identity.Assignment)
			kind   problem.Kind
			code   string
		}{
			"the same under another name": {func(a *identity.Assignment) { a.Name = uuid.NewString() }, problem.Conflict, "RoleAssignmentExists"},
			"another role":                {func(a *identity.Assignment) { a.Role = "Contributor" }, problem.Invalid, "RoleAssignmentUpdateNotPermitted"},
			"another scope":               {func(a *identity.Assignment) { a.Scope = sub }, problem.Invalid, "RoleAssignmentUpdateNotPermitted"},
			"no such role":                {func(a *identity.Assignment) { a.Role = uuid.NewString() }, problem.NotFound, "RoleDefinitionDoesNotExist"},
			"no such principal":           {func(a *identity.Assignment) { a.PrincipalID = uuid.NewString() }, problem.Invalid, "PrincipalNotFound"},
			"an application id":           {func(a *identity.Assignment) { a.PrincipalID = bob.AppID }, problem.Invalid, "PrincipalNotFound"},
			"a name that is no GUID":      {func(a *identity.Assignment) { a.Name = "mine" }, problem.Invalid, "InvalidRoleAssignmentId"},
			"a long description":          {func(a *identity.Assignment) { a.Description = strings.Repeat("x", 2000) }, problem.Invalid, "BadRequestFormat"},
		} {
			bad := a
			c.change(&bad)
			_, _, err := s.PutRoleAssignment(owner, bad)
			t.Run(name, func(t *testing.T) { wantCode(t, err, c.kind, c.code) })
		}

		list := func(scope armid.ID, f identity.AssignmentFilter) int {
			t.Helper()
			all, err := s.RoleAssignments(owner, scope, f)
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		if all, here, bobs := list(sub, identity.AssignmentFilter{}), list(sub, identity.AssignmentFilter{AtScope: true}), list(sub, identity.AssignmentFilter{PrincipalID: bob.ObjectID}); all != 4 || here != 2 || bobs != 2 {
			t.Errorf("at the subscription: %d, at it alone %d, bob's %d", all, here, bobs)
		}
		if here := list(vm, identity.AssignmentFilter{AtScope: true}); here != 3 {
			t.Errorf("what holds at the VM: %d", here)
		}

		_, _, err = s.DeleteRoleAssignment(outsider, group, a.Name)
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
		if deleted, found, err := s.DeleteRoleAssignment(owner, group, a.Name); err != nil || !found || deleted.Name != a.Name {
			t.Errorf("delete = %+v, %v, %v", deleted, found, err)
		}
		if _, found, err := s.DeleteRoleAssignment(owner, group, a.Name); err != nil || found {
			t.Errorf("delete again: %v, %v", found, err)
		}
		wantCode(t, s.Authorize(outsider, "Microsoft.Compute/virtualMachines/read", vm), problem.Denied, "AuthorizationFailed")
	})
}

// The subscription is never left to nobody.
func TestLastAdministratorStays(t *testing.T) {
	s := newService(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), newClock())
	sub := armid.Subscription(subscription)
	first, p := caller(t, s, "Owner", sub)
	all, err := s.RoleAssignments(first, sub, identity.AssignmentFilter{PrincipalID: p.ObjectID})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	caller(t, s, "Owner", sub.Group("prod"))
	caller(t, s, "Key Vault Data Access Administrator", sub)
	_, _, err = s.DeleteRoleAssignment(first, sub, all[0].Name)
	wantCode(t, err, problem.Conflict, "CannotDeleteLastRbacAdminAssignment")
	caller(t, s, "User Access Administrator", sub)
	if _, found, err := s.DeleteRoleAssignment(first, sub, all[0].Name); err != nil || !found {
		t.Errorf("with somebody else there: %v, %v", found, err)
	}
}

// Some may give and take only the roles that their own one names: nobody makes himself Owner that way.
func TestDelegationIsLimited(t *testing.T) {
	s := newService(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), newClock())
	sub := armid.Subscription(subscription)
	owner, _ := caller(t, s, "Owner", sub)
	delegate, p := caller(t, s, "Key Vault Data Access Administrator", sub)
	give := func(ctx context.Context, role string) (identity.Assignment, error) {
		a, _, err := s.PutRoleAssignment(ctx, identity.Assignment{Name: uuid.NewString(), PrincipalID: p.ObjectID, Role: role, Scope: sub})
		return a, err
	}
	for _, role := range []string{"Owner", "Contributor", "User Access Administrator", "Key Vault Data Access Administrator", "Key Vault Contributor"} {
		_, err := give(delegate, role)
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
	}
	a, err := give(delegate, "Key Vault Secrets User")
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.DeleteRoleAssignment(delegate, sub, a.Name); err != nil || !found {
		t.Errorf("delete: %v, %v", found, err)
	}
	reader, err := give(owner, "Reader")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.DeleteRoleAssignment(delegate, sub, reader.Name)
	wantCode(t, err, problem.Denied, "AuthorizationFailed")
}

func TestDataActions(t *testing.T) {
	db := databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")
	s := newService(t, db, newClock())
	vault := armid.Subscription(subscription).Group("prod").Resource("Microsoft.KeyVault/vaults", "kv")
	_, p := caller(t, s, "Key Vault Secrets User", vault.Child("secrets", "bek"))
	_, owner := caller(t, s, "Owner", armid.Subscription(subscription))
	allowed := func(who identity.Principal, action string, scope armid.ID) (ok bool) {
		t.Helper()
		err := db.Read(t.Context(), func(tx *database.Tx) (err error) {
			ok, err = s.AllowsData(t.Context(), tx, strings.ToUpper(who.ObjectID), "Microsoft.KeyVault/vaults/"+action, scope)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !allowed(p, "secrets/getSecret/action", vault.Child("secrets", "BEK")) || allowed(p, "secrets/getSecret/action", vault.Child("secrets", "other")) ||
		allowed(p, "secrets/getSecret/action", vault) || allowed(p, "secrets/delete", vault.Child("secrets", "bek")) {
		t.Error("a role at a secret holds there alone, and for its own actions")
	}
	if allowed(owner, "secrets/getSecret/action", vault) {
		t.Error("an Owner's actions are no data actions")
	}
}

// Assignments from before they had ids keep working, and get ids that stay.
func TestOldAssignmentsGetIDs(t *testing.T) {
	migration, err := os.ReadFile("../database/migrations/00013_role_assignments.sql")
	if err != nil {
		t.Fatal(err)
	}
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ctx, p := caller(t, s, "", armid.ID{})
		_, moves, _ := strings.Cut(string(migration), "INSERT INTO")
		err := db.InTx(ctx, func(tx *database.Tx) error {
			for _, statement := range append([]string{
				`CREATE TABLE identity_assignments (principal TEXT NOT NULL, role TEXT NOT NULL, scope TEXT NOT NULL, scope_key TEXT NOT NULL)`,
				`INSERT INTO identity_assignments VALUES ('` + p.ObjectID + `', 'Owner', '/subscriptions/` + subscription + `', '/subscriptions/` + subscription + `')`,
				`INSERT INTO identity_assignments VALUES ('` + p.ObjectID + `', 'Backup Reader', '/subscriptions/S/resourceGroups/G', '/subscriptions/s/resourcegroups/g')`,
			}, strings.Split("INSERT INTO"+moves, ";")...) {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for range 2 {
			s = newService(t, db, newClock())
			all, err := s.Assignments(ctx, armid.ID{})
			if err != nil || len(all) != 2 || all[1].Role != "a795c7a0-d4a2-40c1-ae25-d81f01202912" || all[1].Scope.ResourceGroup != "G" {
				t.Fatalf("assignments = %+v, %v", all, err)
			}
			names = append(names, all[0].Name, all[1].Name)
		}
		if _, err := uuid.Parse(names[0]); err != nil || names[0] == names[1] || names[0] != names[2] || names[1] != names[3] {
			t.Errorf("names are %q", names)
		}
		if err := s.Authorize(ctx, "Microsoft.Authorization/roleAssignments/write", armid.Subscription(subscription)); err != nil {
			t.Error(err)
		}
	})
}
