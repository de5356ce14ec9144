package identity

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Authorize returns nil if the caller in ctx may perform the action, such as
// "Microsoft.RecoveryServices/vaults/read", at the scope; otherwise a problem with the code
// AuthorizationFailed, also for scopes that don't exist, or ScopeLocked where a lock stands in the way. Without
// a caller nothing is allowed, and Backup Management Service has no rights of this kind.
func (s *Service) Authorize(ctx context.Context, action string, scope armid.ID) error {
	err := s.decide(ctx, action, scope, func(Role) bool { return true })
	note(ctx, action, scope, err)
	return err
}

// decide is Authorize for those of the caller's roles that also fit.
func (s *Service) decide(ctx context.Context, action string, scope armid.ID, fits func(Role) bool) error {
	p, ok := From(ctx)
	if !ok {
		return missingToken()
	}
	if p.BuiltIn {
		return authorizationFailed(p, action, scope)
	}
	return s.db.Read(ctx, func(tx *database.Tx) error {
		assigned, err := assignmentsOf(ctx, tx, p.ObjectID)
		if err != nil {
			return fmt.Errorf("read assignments: %w", err)
		}
		allowed := func(a Assignment) bool {
			role, ok := RoleNamed(a.Role)
			return ok && scope.Within(a.Scope) && role.Allows(action) && fits(role)
		}
		if !slices.ContainsFunc(assigned, allowed) {
			return authorizationFailed(p, action, scope)
		}
		return checkLocks(ctx, tx, action, scope)
	})
}

// AllowsData reports whether a role that is assigned to the principal allows the data action at the scope, or
// above it. It is asked by the service that keeps the data, within its own transaction, so that what it then
// does happens under this very answer. Locks do not matter here: they protect resources, not what is in them.
func (s *Service) AllowsData(ctx context.Context, tx *database.Tx, objectID, action string, scope armid.ID) (bool, error) {
	assigned, err := assignmentsOf(ctx, tx, strings.ToLower(objectID))
	if err != nil {
		return false, fmt.Errorf("read assignments: %w", err)
	}
	return slices.ContainsFunc(assigned, func(a Assignment) bool {
		role, ok := RoleNamed(a.Role)
		return ok && scope.Within(a.Scope) && role.AllowsData(action)
	}), nil
}

// Permissions returns the roles that the caller has at the scope, from there or from above.
func (s *Service) Permissions(ctx context.Context, scope armid.ID) (roles []Role, err error) {
	if err := s.Authorize(ctx, "Microsoft.Authorization/permissions/read", scope); err != nil {
		return nil, err
	}
	p, _ := From(ctx)
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		assigned, err := assignmentsOf(ctx, tx, p.ObjectID)
		roles = nil
		for _, a := range assigned {
			if role, ok := RoleNamed(a.Role); ok && scope.Within(a.Scope) {
				roles = append(roles, role)
			}
		}
		return err
	})
	return roles, err
}
