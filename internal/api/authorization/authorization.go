// Package authorization is the door of Microsoft.Authorization: roles, who has them where, and locks.
//
// All of them belong to something else: their ids stand behind that of a subscription, a resource group or a resource,
// their scope. A list asked for at a scope tells what holds there, from there or from above, and what is below it; with
// $filter=atScope() not the latter. Package identity authorizes and decides; this one decodes and encodes.
//
// Source: the OpenAPI descriptions of Microsoft.Authorization, api-versions 2015-07-01 to 2022-04-01 for roles and
// 2016-09-01 to 2020-05-01 for locks; what azure-cli sends.
package authorization

import (
	"context"
	"net/http"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

const namespace = "Microsoft.Authorization"

// Provider returns the table of Microsoft.Authorization.
func Provider(s *identity.Service) arm.Provider {
	d := door{s}
	return arm.Provider{Namespace: namespace, Versions: versions, Resources: []arm.Resource{
		{Type: identity.RoleType, Extends: true, Get: d.getRole, Put: d.putRole, Delete: d.putRole, List: d.listRoles},
		{Type: identity.AssignmentType, Extends: true, Get: d.getAssignment, Put: d.putAssignment, Delete: d.deleteAssignment, List: d.listAssignments},
		{Type: identity.LockType, Extends: true, Get: d.getLock, Put: d.putLock, Delete: d.deleteLock, List: d.listLocks},
		{Type: namespace + "/permissions", Extends: true, List: d.listPermissions},
		{Type: namespace + "/denyAssignments", Extends: true, List: d.listNone("denyAssignments")},
		{Type: namespace + "/classicAdministrators", List: d.listNone("classicAdministrators")},
	}}
}

var versions = map[string]arm.Versions{
	namespace:         {"2022-05-01-preview", "2022-04-01", "2020-10-01-preview", "2020-04-01-preview", "2018-07-01", "2018-01-01-preview", "2015-07-01", "2015-06-01"},
	identity.LockType: {"2020-05-01", "2017-04-01", "2016-09-01", "2015-01-01"},
}

type door struct{ s *identity.Service }

// listNone is a list of what there can't be any of here, for those who may see it.
func (d door) listNone(kind string) arm.Handler {
	return func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
		if err := d.s.Authorize(ctx, namespace+"/"+kind+"/read", r.ID); err != nil {
			return nil, err
		}
		return arm.List(r, []struct{}{}), nil
	}
}

// filterOf returns the terms of a $filter, if the list knows them all; "atScope()" is a term, too.
func filterOf(r *arm.Request, known ...string) (map[string]string, error) {
	for name := range r.Filter {
		found := false
		for _, k := range known {
			found = found || strings.EqualFold(k, name)
		}
		if !found {
			return nil, problem.New(problem.Invalid, "UnsupportedFilter", "The filter '%.80s' is not supported.", name).
				WithTarget("$filter").WithAdvice("Use one of: %s.", strings.Join(known, ", "))
		}
	}
	return r.Filter, nil
}

// gone is the answer to a DELETE, with what is no longer there.
func gone(existed bool, body any) *arm.Reply {
	if !existed {
		return arm.NoContent()
	}
	return &arm.Reply{Status: http.StatusOK, Body: body}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }
