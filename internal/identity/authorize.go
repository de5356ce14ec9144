package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Assignment gives a principal a role at a scope and everything below it.
type Assignment struct {
	PrincipalID string // object id
	Role        string // name of a built-in role
	Scope       armid.ID
}

// Authorize returns nil if the caller in ctx may perform the action, such as
// "Microsoft.RecoveryServices/vaults/read", at the scope; otherwise a problem with the code
// AuthorizationFailed, also for scopes that don't exist. Without a caller nothing is allowed, and
// Backup Management Service has no rights of this kind.
func (s *Service) Authorize(ctx context.Context, action string, scope armid.ID) error {
	p, ok := From(ctx)
	if !ok {
		return missingToken()
	}
	if p.BuiltIn {
		return authorizationFailed(p, action, scope)
	}
	var assigned []Assignment
	err := s.db.Read(ctx, func(tx *database.Tx) (err error) {
		assigned, err = assignmentsOf(ctx, tx, p.ObjectID)
		return err
	})
	if err != nil {
		return fmt.Errorf("read assignments: %w", err)
	}
	for _, a := range assigned {
		if role, ok := RoleNamed(a.Role); ok && scope.Within(a.Scope) && role.Allows(action) {
			return nil
		}
	}
	return authorizationFailed(p, action, scope)
}

// Assign gives a principal, named by object or application id, a built-in role at a scope. Assigning
// twice is the same as once.
func (s *Service) Assign(ctx context.Context, principal, role string, scope armid.ID) error {
	return s.db.InTx(ctx, func(tx *database.Tx) error {
		a, err := s.assignment(ctx, tx, principal, role, scope)
		if err != nil {
			return err
		}
		return insertAssignment(ctx, tx, a)
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
			return assignmentNotFound(a)
		}
		return err
	})
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
	if p.BuiltIn {
		return Assignment{}, builtInPrincipal(p)
	}
	return Assignment{p.ObjectID, known.Name, scope}, nil
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

// matches reports whether an action fits a pattern, in any case; '*' stands for any characters.
func matches(pattern, action string) bool {
	pattern, action = strings.ToLower(pattern), strings.ToLower(action)
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == action
	}
	if !strings.HasPrefix(action, parts[0]) {
		return false
	}
	action = action[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(action, part)
		if i < 0 {
			return false
		}
		action = action[i+len(part):]
	}
	return strings.HasSuffix(action, last)
}
