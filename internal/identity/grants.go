package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// What the server itself does with assignments, for principals that it makes: nobody is authorized here.

// Assign gives a principal, named by object or application id, a built-in role, named by name or id, at a scope.
// Assigning twice is the same as once.
func (s *Service) Assign(ctx context.Context, principal, role string, scope armid.ID) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		a, err := s.assignment(ctx, tx, principal, role, scope)
		if err != nil {
			return err
		}
		_, err = insertAssignment(ctx, tx, a)
		return err
	})
}

// Unassign takes a role at exactly that scope away.
func (s *Service) Unassign(ctx context.Context, principal, role string, scope armid.ID) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		a, err := s.assignment(ctx, tx, principal, role, scope)
		if err != nil {
			return err
		}
		deleted, err := deleteAssignment(ctx, tx, a)
		if err == nil && !deleted {
			return assignmentNotFound(scope, role)
		}
		return err
	})
}

// Assignments returns what is assigned at the scope, above it and below it.
func (s *Service) Assignments(ctx context.Context, scope armid.ID) (all []Assignment, err error) {
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		all, err = allAssignments(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list assignments: %w", err)
	}
	return slices.DeleteFunc(all, func(a Assignment) bool {
		return !a.Scope.Within(scope) && !scope.Within(a.Scope)
	}), nil
}

func (s *Service) assignment(ctx context.Context, tx *database.Tx, principal, role string, scope armid.ID) (Assignment, error) {
	known, ok := RoleNamed(role)
	if !ok {
		return Assignment{}, unknownRole(role)
	}
	p, err := s.find(ctx, tx, principal)
	if err != nil {
		return Assignment{}, err
	}
	return s.grant(p, known.ID, scope), nil
}

// owner is the id of the role of the first administrator.
const owner = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

// grant is an assignment that the server makes.
func (s *Service) grant(p Principal, roleID string, scope armid.ID) Assignment {
	now := s.now()
	return Assignment{Name: grantName(p.ObjectID, roleID, scope), PrincipalID: p.ObjectID, PrincipalType: p.assigneeType(), Role: roleID, Scope: scope,
		Created: now, Updated: now}
}

// grantName names an assignment by what it says, so that it has the same name whoever asks first.
func grantName(objectID, roleID string, scope armid.ID) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.Join([]string{"kluis", objectID, roleID, scope.Key()}, "\n"))).String()
}

// nameGrants names the assignments that a migration has left without a name.
func (s *Service) nameGrants(ctx context.Context) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		all, err := allAssignments(ctx, tx)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.Name != "" {
				continue
			}
			a.Name = grantName(a.PrincipalID, a.Role, a.Scope)
			if err := nameAssignment(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
}
