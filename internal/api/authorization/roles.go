package authorization

import (
	"context"
	"fmt"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/identity"
)

type roleBody struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Name       string         `json:"name"`
	Properties roleProperties `json:"properties"`
}

type roleProperties struct {
	Name        string       `json:"roleName"`
	Type        string       `json:"type"`
	Description string       `json:"description"`
	Scopes      []string     `json:"assignableScopes"`
	Permissions []permission `json:"permissions"`
}

type permission struct {
	Actions          []string `json:"actions"`
	NotActions       []string `json:"notActions"`
	DataActions      []string `json:"dataActions"`
	NotDataActions   []string `json:"notDataActions"`
	ConditionVersion string   `json:"conditionVersion,omitempty"`
	Condition        string   `json:"condition,omitempty"`
}

const builtIn = "BuiltInRole"

// roleID is the id of a role as it is written everywhere in a subscription: clients match by it.
func roleID(scope armid.ID, id string) string {
	return armid.Subscription(scope.Subscription).Resource(identity.RoleType, id).String()
}

func encodeRole(scope armid.ID, r identity.Role) roleBody {
	return roleBody{ID: roleID(scope, r.ID), Type: identity.RoleType, Name: r.ID,
		Properties: roleProperties{Name: r.Name, Type: builtIn, Description: r.Description, Scopes: []string{"/"}, Permissions: []permission{encodePermission(r)}}}
}

func encodePermission(r identity.Role) permission {
	list := func(s []string) []string { return append([]string{}, s...) }
	p := permission{Actions: list(r.Actions), NotActions: list(r.NotActions), DataActions: list(r.DataActions), NotDataActions: list(r.NotDataActions)}
	if len(r.Assigns) > 0 {
		p.ConditionVersion, p.Condition = "2.0", condition(r.Assigns)
	}
	return p
}

// condition writes down, in Azure's language for it, that a role may give and take these roles only.
func condition(ids []string) string {
	const form = "((!(ActionMatches{'%[1]s/%[2]s'})) OR (@%[3]s[%[1]s:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals{%[4]s}))"
	among := strings.Join(ids, ", ")
	return fmt.Sprintf(form, identity.AssignmentType, "write", "Request", among) + " AND " +
		fmt.Sprintf(form, identity.AssignmentType, "delete", "Resource", among)
}

func (d door) getRole(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	role, err := d.s.RoleDefinition(ctx, r.ID.Extended(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeRole(r.ID, role)), nil
}

// putRole answers also for DELETE: roles are built in.
func (d door) putRole(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	return nil, d.s.ChangeRoleDefinition(ctx, r.ID.Extended(), r.HTTP.Method == "DELETE")
}

func (d door) listRoles(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	filter, err := filterOf(r, "roleName", "type", "atScope()", "atScopeAndBelow()")
	if err != nil {
		return nil, err
	}
	roles, err := d.s.RoleDefinitions(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	name, named := filter["rolename"]
	typ, typed := filter["type"]
	bodies := []roleBody{}
	for _, role := range roles {
		if (!named || strings.EqualFold(role.Name, name)) && (!typed || strings.EqualFold(typ, builtIn)) {
			bodies = append(bodies, encodeRole(r.ID, role))
		}
	}
	return arm.List(r, bodies), nil
}

func (d door) listPermissions(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	roles, err := d.s.Permissions(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []permission{}
	for _, role := range roles {
		bodies = append(bodies, encodePermission(role))
	}
	return arm.List(r, bodies), nil
}
