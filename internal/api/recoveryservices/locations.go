package recoveryservices

import (
	"context"
	"maps"
	"slices"
	"strings"

	"kluis/internal/api/arm"
)

// What belongs to no vault: what the provider can do, and what may be allowed.

// capabilities tells which DNS zones private endpoints would need: none, since there are none.
func (d *door) capabilities(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	var body capabilities
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	for i := range body.Properties.Zones {
		body.Properties.Zones[i].Names = []string{}
	}
	return arm.OK(body), nil
}

// saying is what an operation of the provider does, for people.
var saying = map[string]string{"read": "Read", "write": "Create or update", "delete": "Delete", "action": "Do"}

// listOperations answers whoever has a token: what may be allowed is no secret. It is made of the table.
func (d *door) listOperations(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	names := map[string]bool{}
	for _, row := range slices.Concat(d.table(), d.refused()) {
		for _, name := range operationsOf(row) {
			names[name] = true
		}
	}
	all := []operationName{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		cut := strings.LastIndexByte(name, '/')
		typ, verb := strings.TrimPrefix(name[:cut], namespace+"/"), name[cut+1:]
		all = append(all, operationName{name, operationDisplay{namespace, typ, saying[verb], saying[verb] + " " + typ}, "user"})
	}
	return arm.List(r, all), nil
}

// operationsOf are the names that roles have for what a row of the table does.
func operationsOf(row arm.Resource) (names []string) {
	for verb, there := range map[string]bool{"read": row.Get != nil || row.List != nil, "write": row.Put != nil || row.Patch != nil, "delete": row.Delete != nil} {
		if there {
			names = append(names, row.Type+"/"+verb)
		}
	}
	for action := range row.Actions {
		names = append(names, row.Type+"/"+action+"/action")
	}
	for action := range row.GetActions {
		if action != "*" {
			names = append(names, row.Type+"/"+action+"/read")
		}
	}
	return names
}
