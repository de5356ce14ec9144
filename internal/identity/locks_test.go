package identity_test

import (
	"strings"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// What each lock forbids an Owner, on what is locked, above it, below it and beside it.
func TestLocks(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		sub := armid.Subscription(subscription)
		group := sub.Group("Prod")
		vault := group.Resource("Microsoft.RecoveryServices/vaults", "v")
		vm := group.Resource("Microsoft.Compute/virtualMachines", "web")
		owner, _ := caller(t, s, "Owner", sub)
		const (
			deleteGroup = "Microsoft.Resources/subscriptions/resourceGroups/delete"
			deleteVault = "Microsoft.RecoveryServices/vaults/delete"
			deleteItem  = "Microsoft.RecoveryServices/vaults/backupFabrics/protectionContainers/protectedItems/delete"
			writePolicy = "Microsoft.RecoveryServices/vaults/backupPolicies/write"
			cancel      = "Microsoft.RecoveryServices/vaults/backupJobs/cancel/action"
			readVault   = "Microsoft.RecoveryServices/vaults/read"
			deleteVM    = "Microsoft.Compute/virtualMachines/delete"
			unassign    = "Microsoft.Authorization/roleAssignments/delete"
			writeLock   = "Microsoft.Authorization/locks/write"
			deleteLock  = "Microsoft.Authorization/locks/delete"
		)
		type try struct {
			action string
			scope  armid.ID
		}
		all := []try{{deleteGroup, group}, {deleteVault, vault}, {deleteItem, vault}, {writePolicy, vault}, {cancel, vault}, {readVault, vault},
			{deleteVM, vm}, {unassign, vault}, {writeLock, vault}, {deleteLock, vault}}
		for _, c := range []struct {
			scope     armid.ID
			level     identity.LockLevel
			forbidden string
		}{
			{vault, "canNotDelete", "deleteGroup deleteVault deleteItem unassign"},
			{vault, "readOnly", "deleteGroup deleteVault deleteItem writePolicy cancel unassign"},
			{group, identity.CanNotDelete, "deleteGroup deleteVault deleteItem deleteVM unassign"},
			{sub, identity.ReadOnly, "deleteGroup deleteVault deleteItem writePolicy cancel deleteVM unassign"},
			{sub.Group("Prod2"), identity.ReadOnly, ""},
		} {
			if _, created, err := s.PutLock(owner, identity.Lock{Scope: c.scope, Name: "keep", Level: c.level}); err != nil || !created {
				t.Fatalf("lock %s: %v, %v", c.scope, created, err)
			}
			names := []string{"deleteGroup", "deleteVault", "deleteItem", "writePolicy", "cancel", "readVault", "deleteVM", "unassign", "writeLock", "deleteLock"}
			var forbidden []string
			for i, x := range all {
				err := s.Authorize(owner, x.action, armid.Must(strings.ToUpper(x.scope.String())))
				if err == nil {
					continue
				}
				forbidden = append(forbidden, names[i])
				wantCode(t, err, problem.Conflict, "ScopeLocked")
				if !strings.Contains(err.Error(), "locked: '"+c.scope.String()+"'") {
					t.Errorf("refusal does not name the locked scope: %v", err)
				}
			}
			if got := strings.Join(forbidden, " "); got != c.forbidden {
				t.Errorf("%s on %s forbids %s\nwant %s", c.level, c.scope, got, c.forbidden)
			}
			if existed, err := s.DeleteLock(owner, c.scope, "KEEP"); err != nil || !existed {
				t.Fatalf("unlock: %v, %v", existed, err)
			}
		}
		if err := s.Authorize(owner, deleteGroup, group); err != nil {
			t.Errorf("after all locks are gone: %v", err)
		}
	})
}

func TestLockManagement(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		sub := armid.Subscription(subscription)
		group := sub.Group("prod")
		vm := group.Resource("Microsoft.Compute/virtualMachines", "web")
		owner, p := caller(t, s, "Owner", sub)
		contributor, _ := caller(t, s, "Contributor", sub)
		_, _, err := s.PutLock(contributor, identity.Lock{Scope: vm, Name: "l", Level: identity.ReadOnly})
		wantCode(t, err, problem.Denied, "AuthorizationFailed")
		for i, scope := range []armid.ID{sub, group, vm} {
			l, created, err := s.PutLock(owner, identity.Lock{Scope: scope, Name: "Keep", Level: identity.CanNotDelete, Notes: "why"})
			if err != nil || !created || l.CreatedBy != p.ObjectID || l.ID().Name() != "Keep" {
				t.Fatalf("lock %d: %+v, %v, %v", i, l, created, err)
			}
		}
		if l, created, err := s.PutLock(owner, identity.Lock{Scope: vm, Name: "keep", Level: identity.ReadOnly}); err != nil || created || l.Name != "Keep" {
			t.Errorf("put again: %+v, %v, %v", l, created, err)
		}
		if l, err := s.Lock(contributor, vm, "KEEP"); err != nil || l.Level != identity.ReadOnly || l.Notes != "" {
			t.Errorf("read: %+v, %v", l, err)
		}
		for _, c := range []struct {
			scope   armid.ID
			atScope bool
			want    int
		}{{sub, false, 3}, {sub, true, 1}, {group, false, 3}, {vm, true, 3}, {sub.Group("other"), false, 1}} {
			if got, err := s.Locks(owner, c.scope, c.atScope); err != nil || len(got) != c.want {
				t.Errorf("locks of %s, %v: %d, %v; want %d", c.scope, c.atScope, len(got), err, c.want)
			}
		}
		for _, bad := range []identity.Lock{
			{Scope: vm, Name: "a/b", Level: identity.ReadOnly}, {Scope: vm, Name: "l", Level: "Sometimes"}, {Scope: vm.Child("extensions", "e"), Name: "l", Level: identity.ReadOnly},
			{Scope: vm, Name: "l", Level: identity.ReadOnly, Notes: strings.Repeat("x", 600)},
		} {
			_, _, err := s.PutLock(owner, bad)
			wantCode(t, err, problem.Invalid, "LockDefinitionInvalid")
		}
		_, err = s.Lock(owner, vm, "none")
		wantCode(t, err, problem.NotFound, "LockNotFound")
		if existed, err := s.DeleteLock(owner, vm, "none"); err != nil || existed {
			t.Errorf("delete of none: %v, %v", existed, err)
		}
	})
}
