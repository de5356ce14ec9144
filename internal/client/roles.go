package client

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"kluis/internal/armid"
)

// Role is what may be assigned: a set of actions with a name.
type Role = Resource[RoleProperties]

// RoleProperties say what a role allows.
type RoleProperties struct {
	RoleName    string           `json:"roleName"`
	Description string           `json:"description"`
	Permissions []RolePermission `json:"permissions"`
}

// RolePermission is a set of actions, and of data actions, which are about the content of key vaults.
type RolePermission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

// RoleAssignment gives a principal a role at a scope and below it.
type RoleAssignment = Resource[RoleAssignmentProperties]

// RoleAssignmentProperties say who has what role where.
type RoleAssignmentProperties struct {
	RoleDefinitionID string `json:"roleDefinitionId"`
	PrincipalID      string `json:"principalId"`
	PrincipalType    string `json:"principalType,omitempty"`
	Description      string `json:"description,omitempty"`
	Scope            string `json:"scope,omitempty"`
}

// Lock keeps a scope from being deleted or changed.
type Lock = Resource[LockProperties]

// LockProperties say what a lock forbids, and why.
type LockProperties struct {
	Level string `json:"level"` // CanNotDelete or ReadOnly
	Notes string `json:"notes,omitempty"`
}

// The roles that commands give.
const (
	KeyVaultAdministrator = "Key Vault Administrator"
	KeyVaultBackupService = "Key Vault Backup Service"
)

const (
	typeRole       = "Microsoft.Authorization/roleDefinitions"
	typeAssignment = "Microsoft.Authorization/roleAssignments"
	typeLock       = "Microsoft.Authorization/locks"
)

// Roles lists the roles that may be assigned.
func (c *Client) Roles(ctx context.Context) ([]Role, error) {
	return listResources[RoleProperties](ctx, c, collection(c.Subscription(), typeRole), versionRoles, "")
}

// Role finds a role by its name or id.
func (c *Client) Role(ctx context.Context, name string) (Role, error) {
	all, err := c.Roles(ctx)
	if err != nil {
		return Role{}, err
	}
	var names []string
	for _, r := range all {
		if strings.EqualFold(r.Properties.RoleName, name) || strings.EqualFold(r.Name, name) || strings.EqualFold(r.ID, name) {
			return r, nil
		}
		names = append(names, r.Properties.RoleName)
	}
	return Role{}, &Error{Code: "RoleDefinitionDoesNotExist", Target: name, Message: fmt.Sprintf("There is no role %q.", name),
		Advice: "Use one of: " + strings.Join(names, ", ") + "."}
}

// RoleAssignments lists what is assigned at a scope, above it and, unless only what holds at the scope is wanted, below it.
func (c *Client) RoleAssignments(ctx context.Context, scope armid.ID, atScope bool) ([]RoleAssignment, error) {
	filter := ""
	if atScope {
		filter = "atScope()"
	}
	return listResources[RoleAssignmentProperties](ctx, c, collection(scope, typeAssignment), versionRoles, filter)
}

// AssignRole gives a role to a principal, named by its object id. It does nothing if the principal has it at this scope.
func (c *Client) AssignRole(ctx context.Context, scope armid.ID, role Role, objectID string) (RoleAssignment, error) {
	body := RoleAssignment{Properties: RoleAssignmentProperties{RoleDefinitionID: role.ID, PrincipalID: objectID}}
	a, err := putResource(ctx, c, scope.Extension(typeAssignment, assignmentName(scope, role.Name, objectID)), versionRoles, body)
	if Is(err, "RoleAssignmentExists") { // under another name
		return c.assignment(ctx, scope, role, objectID)
	}
	return a, err
}

// assignmentName is the same whenever the same is assigned, so that it is one assignment.
func assignmentName(scope armid.ID, role, objectID string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(strings.Join([]string{scope.String(), role, objectID}, "\n"))))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80 // RFC 9562: version 8, which is for names like this one
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// UnassignRole takes a role away that was assigned at exactly this scope.
func (c *Client) UnassignRole(ctx context.Context, scope armid.ID, role Role, objectID string) error {
	a, err := c.assignment(ctx, scope, role, objectID)
	if err != nil {
		return err
	}
	return c.delete(ctx, a.ARMID(), versionRoles)
}

func (c *Client) assignment(ctx context.Context, scope armid.ID, role Role, objectID string) (RoleAssignment, error) {
	all, err := c.RoleAssignments(ctx, scope, true)
	if err != nil {
		return RoleAssignment{}, err
	}
	for _, a := range all {
		if strings.EqualFold(a.Properties.PrincipalID, objectID) && strings.EqualFold(a.Properties.RoleDefinitionID, role.ID) && strings.EqualFold(a.Properties.Scope, scope.String()) {
			return a, nil
		}
	}
	return RoleAssignment{}, &Error{Code: "RoleAssignmentNotFound", Target: scope.String(),
		Message: fmt.Sprintf("%s does not have the role %s from %s.", objectID, role.Properties.RoleName, scope),
		Advice:  "List who has what (kluis role assigned); a role is taken away at the scope where it was given."}
}

// Locks lists the locks of a scope, above it and below it.
func (c *Client) Locks(ctx context.Context, scope armid.ID) ([]Lock, error) {
	return listResources[LockProperties](ctx, c, collection(scope, typeLock), versionLocks, "")
}

// PutLock sets a lock.
func (c *Client) PutLock(ctx context.Context, scope armid.ID, name string, p LockProperties) (Lock, error) {
	return putResource(ctx, c, scope.Extension(typeLock, name), versionLocks, Lock{Properties: p})
}

// DeleteLock removes a lock that was set at exactly this scope.
func (c *Client) DeleteLock(ctx context.Context, scope armid.ID, name string) error {
	id := scope.Extension(typeLock, name)
	if _, err := getResource[LockProperties](ctx, c, id, versionLocks); err != nil {
		return err
	}
	return c.delete(ctx, id, versionLocks)
}
