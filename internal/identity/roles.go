package identity

import (
	_ "embed"
	"encoding/json"
	"slices"
	"strings"
)

// Role is a set of actions. An action is allowed if one of Actions matches it and none of NotActions. What
// is done with the content of a key vault that leaves access to roles is a data action, and no action allows it.
type Role struct {
	ID             string   `json:"id"` // Azure's
	Name           string   `json:"name"`
	Description    string   `json:"description"`
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions,omitempty"`
	DataActions    []string `json:"dataActions,omitempty"`
	NotDataActions []string `json:"notDataActions,omitempty"`

	// Assigns are the ids of the roles that this one may give and take, if it may do that at all. Empty: any.
	Assigns []string `json:"assigns,omitempty"`
}

// roles.json holds Azure's roles with their actions as published; actions of providers
// that have nothing to do with virtual machines, key vaults and Recovery Services vaults are left out. One is
// not Azure's: Key Vault Backup Service has the data actions that Azure asks for in a role for its backup service.
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
func (r Role) Allows(action string) bool { return allows(r.Actions, r.NotActions, action) }

// AllowsData reports whether the role allows the data action.
func (r Role) AllowsData(action string) bool { return allows(r.DataActions, r.NotDataActions, action) }

func allows(patterns, except []string, action string) bool {
	fits := func(pattern string) bool { return matches(pattern, action) }
	return slices.ContainsFunc(patterns, fits) && !slices.ContainsFunc(except, fits)
}

// mayAssign reports whether the role, where it allows roles to be given and taken, allows it for this one.
func (r Role) mayAssign(other Role) bool {
	return len(r.Assigns) == 0 || slices.Contains(r.Assigns, other.ID)
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
