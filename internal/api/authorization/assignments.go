package authorization

import (
	"context"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

type assignmentBody struct {
	ID         string               `json:"id,omitempty"`
	Type       string               `json:"type,omitempty"`
	Name       string               `json:"name,omitempty"`
	Properties assignmentProperties `json:"properties"`
}

type assignmentProperties struct {
	Role          string  `json:"roleDefinitionId"`
	PrincipalID   string  `json:"principalId"`
	PrincipalType string  `json:"principalType"`
	Scope         string  `json:"scope"`
	Condition     *string `json:"condition"`
	Version       *string `json:"conditionVersion"`
	Created       string  `json:"createdOn"`
	Updated       string  `json:"updatedOn"`
	CreatedBy     string  `json:"createdBy"`
	UpdatedBy     string  `json:"updatedBy"`
	Delegated     *string `json:"delegatedManagedIdentityResourceId"`
	Description   *string `json:"description"`
}

func encodeAssignment(a identity.Assignment) assignmentBody {
	b := assignmentBody{ID: a.ID().String(), Type: identity.AssignmentType, Name: a.Name,
		Properties: assignmentProperties{Role: roleID(a.Scope, a.Role), PrincipalID: a.PrincipalID, PrincipalType: a.PrincipalType, Scope: a.Scope.String(),
			Created: stamp(a.Created), Updated: stamp(a.Updated), CreatedBy: a.CreatedBy, UpdatedBy: a.UpdatedBy}}
	if a.Description != "" {
		b.Properties.Description = &a.Description
	}
	return b
}

func (d door) getAssignment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	a, err := d.s.RoleAssignment(ctx, r.ID.Extended(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeAssignment(a)), nil
}

func (d door) putAssignment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body assignmentBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	p := body.Properties
	for name, value := range map[string]*string{"condition": p.Condition, "delegatedManagedIdentityResourceId": p.Delegated} {
		if value != nil && *value != "" {
			return nil, notKept(name)
		}
	}
	a := identity.Assignment{Name: r.ID.Name(), Scope: r.ID.Extended(), PrincipalID: p.PrincipalID, PrincipalType: p.PrincipalType,
		Role: p.Role[strings.LastIndexByte(p.Role, '/')+1:]}
	if p.Description != nil {
		a.Description = *p.Description
	}
	a, created, err := d.s.PutRoleAssignment(ctx, a)
	if err != nil {
		return nil, err
	}
	if created {
		return arm.Created(encodeAssignment(a)), nil
	}
	return arm.OK(encodeAssignment(a)), nil
}

// notKept refuses what would make the assignment narrower than it then were.
func notKept(property string) *problem.Error {
	return problem.New(problem.Unsupported, "RoleAssignmentPropertyNotSupported", "Role assignments with a %s are not supported.", property).
		WithTarget(property).WithAdvice("Assign a narrower role, or at a narrower scope, and leave %s out.", property)
}

func (d door) deleteAssignment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	a, existed, err := d.s.DeleteRoleAssignment(ctx, r.ID.Extended(), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return gone(existed, encodeAssignment(a)), nil
}

// listAssignments takes assignedTo() for principalId: there are no groups that a principal could be in.
func (d door) listAssignments(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	filter, err := filterOf(r, "atScope()", "principalId", "assignedTo()")
	if err != nil {
		return nil, err
	}
	f := identity.AssignmentFilter{PrincipalID: filter["principalid"]}
	if id, there := filter["assignedto()"]; there {
		f.PrincipalID = id
	}
	_, f.AtScope = filter["atscope()"]
	all, err := d.s.RoleAssignments(ctx, r.ID, f)
	if err != nil {
		return nil, err
	}
	bodies := []assignmentBody{}
	for _, a := range all {
		bodies = append(bodies, encodeAssignment(a))
	}
	return arm.List(r, bodies), nil
}
