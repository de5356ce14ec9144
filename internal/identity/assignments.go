package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// The types of Microsoft.Authorization.
const (
	AssignmentType = "Microsoft.Authorization/roleAssignments"
	RoleType       = "Microsoft.Authorization/roleDefinitions"
	LockType       = "Microsoft.Authorization/locks"
)

// Assignment gives a principal a role at a scope and everything below it.
type Assignment struct {
	Name          string // a GUID; with the scope it makes the id
	PrincipalID   string // object id
	PrincipalType string // Azure's word: ServicePrincipal or User
	Role          string // id of a built-in role
	Scope         armid.ID
	Description   string

	Created, Updated     time.Time
	CreatedBy, UpdatedBy string // object ids; empty where the server itself did it
}

// ID returns the assignment's id.
func (a Assignment) ID() armid.ID { return a.Scope.Extension(AssignmentType, a.Name) }

// AssignmentFilter says which assignments of a scope are meant.
type AssignmentFilter struct {
	PrincipalID string // only those of this principal
	AtScope     bool   // not those of the scopes below
}

// RoleAssignments returns the assignments that hold at the scope, from there and from above, and, unless the
// filter says otherwise, those of the scopes below.
func (s *Service) RoleAssignments(ctx context.Context, scope armid.ID, filter AssignmentFilter) ([]Assignment, error) {
	if err := s.Authorize(ctx, AssignmentType+"/read", s.orSubscription(scope)); err != nil {
		return nil, err
	}
	all, err := s.Assignments(ctx, scope)
	return slices.DeleteFunc(all, func(a Assignment) bool {
		return filter.PrincipalID != "" && !strings.EqualFold(a.PrincipalID, filter.PrincipalID) || filter.AtScope && !scope.Within(a.Scope)
	}), err
}

// RoleAssignment returns one.
func (s *Service) RoleAssignment(ctx context.Context, scope armid.ID, name string) (a Assignment, err error) {
	if err := s.Authorize(ctx, AssignmentType+"/read", scope); err != nil {
		return Assignment{}, err
	}
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		var found bool
		if a, found, err = assignmentNamed(ctx, tx, name); err == nil && (!found || !a.Scope.Equal(scope)) {
			err = assignmentNotFound(scope, name)
		}
		return err
	})
	return a, err
}

// PutRoleAssignment makes an assignment, or changes the description of one: nothing else of it can change.
// Name, Scope, PrincipalID and Role of a say what is wanted.
func (s *Service) PutRoleAssignment(ctx context.Context, a Assignment) (put Assignment, created bool, err error) {
	role, known := RoleNamed(a.Role)
	if err := s.authorizeAssigning(ctx, "/write", a.Scope, role); err != nil {
		return Assignment{}, false, err
	}
	if !known {
		return Assignment{}, false, unknownRole(a.Role)
	}
	a.Role = role.ID
	if err := s.checkAssignment(&a); err != nil {
		return Assignment{}, false, err
	}
	who, _ := From(ctx)
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		p, err := s.find(ctx, tx, a.PrincipalID)
		if err != nil || p.ObjectID != strings.ToLower(a.PrincipalID) {
			return noSuchAssignee(a.PrincipalID, s.tenant, err)
		}
		if a.PrincipalType != "" && !strings.EqualFold(a.PrincipalType, p.assigneeType()) {
			return otherAssigneeType(p, a.PrincipalType)
		}
		a.PrincipalID, a.PrincipalType = p.ObjectID, p.assigneeType()
		old, found, err := assignmentNamed(ctx, tx, a.Name)
		if err != nil {
			return err
		}
		if found {
			if old.PrincipalID != a.PrincipalID || old.Role != a.Role || !old.Scope.Equal(a.Scope) {
				return assignmentFixed(old)
			}
			put, created = old, false
			put.Description, put.Updated, put.UpdatedBy = a.Description, s.now(), who.ObjectID
			return updateAssignment(ctx, tx, put)
		}
		put, created = a, true
		put.Created, put.CreatedBy = s.now(), who.ObjectID
		put.Updated, put.UpdatedBy = put.Created, put.CreatedBy
		if inserted, err := insertAssignment(ctx, tx, put); err != nil || inserted {
			return err
		}
		return s.assignmentExists(ctx, tx, put)
	})
	return put, created, err
}

// assignmentExists names the assignment that is in the way.
func (s *Service) assignmentExists(ctx context.Context, tx *database.Tx, a Assignment) error {
	all, err := assignmentsOf(ctx, tx, a.PrincipalID)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(old Assignment) bool { return old.Role == a.Role && old.Scope.Equal(a.Scope) })
	if i < 0 {
		return fmt.Errorf("the assignment %s is neither new nor there", a.Name)
	}
	return assignmentExists(all[i])
}

// DeleteRoleAssignment takes a role away, and reports what was there. Somebody must stay who can give roles for
// the whole subscription.
func (s *Service) DeleteRoleAssignment(ctx context.Context, scope armid.ID, name string) (a Assignment, found bool, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) (err error) {
		a, found, err = assignmentNamed(ctx, tx, name)
		found = found && a.Scope.Equal(scope)
		return err
	})
	if err != nil {
		return Assignment{}, false, err
	}
	role, _ := RoleNamed(a.Role) // empty, and for everybody to take away, where there is nothing
	if err := s.authorizeAssigning(ctx, "/delete", scope, role); err != nil || !found {
		return Assignment{}, false, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		if found, err = deleteAssignment(ctx, tx, a); err != nil || !found {
			return err
		}
		return s.checkSomebodyRules(ctx, tx)
	})
	return a, found, err
}

// authorizeAssigning asks whether the caller may give or take that role at the scope. Some may do so for a few
// roles only.
func (s *Service) authorizeAssigning(ctx context.Context, verb string, scope armid.ID, role Role) error {
	err := s.decide(ctx, AssignmentType+verb, scope, func(own Role) bool { return role.ID == "" || own.mayAssign(role) })
	note(ctx, AssignmentType+verb, scope, err)
	return err
}

// checkSomebodyRules refuses to leave the subscription to nobody: no command could give it back.
func (s *Service) checkSomebodyRules(ctx context.Context, tx *database.Tx) error {
	all, err := allAssignments(ctx, tx)
	if err != nil {
		return err
	}
	subscription := armid.Subscription(s.subscription)
	rules := func(a Assignment) bool {
		role, ok := RoleNamed(a.Role)
		return ok && subscription.Within(a.Scope) && role.Allows(AssignmentType+"/write") && len(role.Assigns) == 0 &&
			a.PrincipalID != BackupManagementService.ObjectID
	}
	if !slices.ContainsFunc(all, rules) {
		return lastAdministrator()
	}
	return nil
}

const maxDescription = 1024

func (s *Service) checkAssignment(a *Assignment) error {
	name, err := uuid.Parse(a.Name)
	switch {
	case err != nil || len(a.Name) != len(name.String()):
		return badAssignmentName(a.Name)
	case len(a.Description) > maxDescription:
		return badAssignment("description", fmt.Sprintf("it has more than %d bytes", maxDescription))
	case a.Scope.Subscription != "" && !strings.EqualFold(a.Scope.Subscription, s.subscription), a.Scope.Subscription == "":
		return badAssignment("scope", "roles are assigned in the subscription "+s.subscription)
	}
	a.Name = name.String()
	return nil
}

// assigneeType is Azure's word, in role assignments, for what a principal is.
func (p Principal) assigneeType() string {
	if p.Kind == User {
		return "User"
	}
	return "ServicePrincipal"
}

// RoleDefinitions returns the roles that may be assigned at the scope: all of them, everywhere.
func (s *Service) RoleDefinitions(ctx context.Context, scope armid.ID) ([]Role, error) {
	if err := s.Authorize(ctx, RoleType+"/read", s.orSubscription(scope)); err != nil {
		return nil, err
	}
	return Roles(), nil
}

// RoleDefinition returns the role with that id.
func (s *Service) RoleDefinition(ctx context.Context, scope armid.ID, id string) (Role, error) {
	if err := s.Authorize(ctx, RoleType+"/read", s.orSubscription(scope)); err != nil {
		return Role{}, err
	}
	for _, r := range builtInRoles {
		if strings.EqualFold(r.ID, id) {
			return r, nil
		}
	}
	return Role{}, unknownRole(id)
}

// ChangeRoleDefinition is refused: roles are built in.
func (s *Service) ChangeRoleDefinition(ctx context.Context, scope armid.ID, remove bool) error {
	verb := "/write"
	if remove {
		verb = "/delete"
	}
	if err := s.Authorize(ctx, RoleType+verb, s.orSubscription(scope)); err != nil {
		return err
	}
	return customRolesNotSupported()
}

// orSubscription is the scope, or the subscription where the scope is the tenant: there is nothing else in it,
// and clients ask there for roles.
func (s *Service) orSubscription(scope armid.ID) armid.ID {
	if scope.IsZero() {
		return armid.Subscription(s.subscription)
	}
	return scope
}
