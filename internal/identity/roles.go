package identity

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strings"
)

// Role is a set of actions. An action is allowed if one of Actions matches it and none of NotActions.
type Role struct {
	ID          string   `json:"id"` // Azure's
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Actions     []string `json:"actions"`
	NotActions  []string `json:"notActions,omitempty"`
}

// roles.json holds Azure's roles with their actions as published; actions of providers
// that have nothing to do with virtual machines, key vaults and Recovery Services vaults are left out.
//
//go:embed roles.json
var rolesJSON []byte

var builtInRoles = func() (roles []Role) {
	if err := json.Unmarshal(rolesJSON, &roles); err != nil {
		panic(err) // the file is part of the program
	}
	return roles
}()

// Roles returns the built-in roles.
func Roles() []Role { return slices.Clone(builtInRoles) }

// RoleNamed finds a built-in role by its name or id, in any case.
func RoleNamed(name string) (Role, bool) {
	for _, r := range builtInRoles {
		if strings.EqualFold(r.Name, name) || strings.EqualFold(r.ID, name) {
			return r, true
		}
	}
	return Role{}, false
}

// Allows reports whether the role allows the action.
func (r Role) Allows(action string) bool {
	fits := func(pattern string) bool { return matches(pattern, action) }
	return slices.ContainsFunc(r.Actions, fits) && !slices.ContainsFunc(r.NotActions, fits)
}
