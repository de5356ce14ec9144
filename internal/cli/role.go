package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

func roleCommand() *cobra.Command {
	return noun("role", "Roles, and who has them where",
		`What a principal may do is the sum of the roles that it has: at the subscription, at a resource group or at a
resource. A role holds for everything below the place where it was given. Who gives and takes roles needs the role
Owner or User Access Administrator there; Key Vault Data Access Administrator is enough for the roles of key vaults.`,
		roleList(), roleAssigned(), roleAssign(), roleUnassign())
}

func roleList() *cobra.Command {
	return verb("list", "List the roles that there are", "kluis role list", cobra.NoArgs, func(c *call) error {
		all, err := c.Roles(c.ctx())
		if err != nil {
			return err
		}
		return table(c, all, rawOf, []column[client.Role]{
			{"Role", func(r client.Role) string { return r.Properties.RoleName }},
			{"What it allows", func(r client.Role) string { return r.Properties.Description }},
			{"Id", func(r client.Role) string { return r.Name }},
		})
	})
}

func roleAssigned() *cobra.Command {
	cmd := verb("assigned", "List who has which role where", `
kluis role assigned
# what holds at a resource, from there and from above
kluis role assigned --scope /subscriptions/…/vaults/nightly --inherited`, cobra.NoArgs, func(c *call) error {
		scope, err := c.scopeFlag()
		if err != nil {
			return err
		}
		all, err := c.RoleAssignments(c.ctx(), scope, c.is("inherited"))
		if err != nil {
			return err
		}
		return c.assignments(all)
	})
	cmd.Flags().Bool("inherited", false, "only what holds at the scope itself, and not what is given below it")
	return withScope(cmd)
}

// assignments shows role assignments, with the names of the roles.
func (c *call) assignments(all []client.RoleAssignment) error {
	roles, err := c.Roles(c.ctx())
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, r := range roles {
		names[strings.ToLower(r.Name)] = r.Properties.RoleName
	}
	return table(c, all, rawOf, []column[client.RoleAssignment]{
		{"Principal", func(a client.RoleAssignment) string { return a.Properties.PrincipalID }},
		{"Role", func(a client.RoleAssignment) string {
			return names[strings.ToLower(lastPart(a.Properties.RoleDefinitionID, "/"))]
		}},
		{"Scope", func(a client.RoleAssignment) string { return a.Properties.Scope }},
	})
}

func roleAssign() *cobra.Command {
	cmd := verb("assign ROLE", "Give a role to a principal", `
kluis role assign "Backup Operator" --object-id 5f1e… -g prod
kluis role assign "Key Vault Secrets User" --object-id 5f1e… --scope /subscriptions/…/vaults/prod-keys/secrets/web1-os`, cobra.ExactArgs(1), func(c *call) error {
		scope, role, err := c.roleAndScope()
		if err != nil {
			return err
		}
		a, err := c.AssignRole(c.ctx(), scope, role, c.flag("object-id"))
		if err != nil {
			return err
		}
		return c.assignments([]client.RoleAssignment{a})
	})
	return principalFlag(withScope(cmd))
}

func roleUnassign() *cobra.Command {
	cmd := verb("unassign ROLE", "Take a role away, where it was given", `kluis role unassign "Backup Operator" --object-id 5f1e… -g prod`, cobra.ExactArgs(1), func(c *call) error {
		scope, role, err := c.roleAndScope()
		if err != nil {
			return err
		}
		if err := c.UnassignRole(c.ctx(), scope, role, c.flag("object-id")); err != nil {
			return err
		}
		c.done("%s no longer has the role %s from %s.", c.flag("object-id"), role.Properties.RoleName, scope)
		return nil
	})
	return principalFlag(withScope(cmd))
}

func principalFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("object-id", "", "object id of the principal")
	return require(cmd, "object-id")
}

func (c *call) roleAndScope() (scope armid.ID, role client.Role, err error) {
	if scope, err = c.scopeFlag(); err != nil {
		return scope, role, err
	}
	role, err = c.Role(c.ctx(), c.args[0])
	return scope, role, err
}

// withScope adds the flag that says where something holds.
func withScope(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("scope", "", "id of a resource group or resource (default: the resource group, if one is given, else the subscription)")
	return cmd
}

func (c *call) scopeFlag() (armid.ID, error) {
	s := c.flag("scope")
	if s == "" {
		return c.scope(), nil
	}
	id, err := armid.Parse(s)
	if err != nil {
		return armid.ID{}, UsageError(err)
	}
	return id, nil
}
