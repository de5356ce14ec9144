package resources

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/problem"
)

// catalog is every type of resource that there is, with the handlers of its door. Through them this door speaks of
// resources that others keep: it lists them all, tags them, and empties a group.
type catalog struct {
	providers []arm.Provider
	rows      map[string]row // by type in lower case
}

type row struct {
	arm.Resource
	versions arm.Versions
}

func newCatalog(providers []arm.Provider) catalog {
	c := catalog{providers, map[string]row{}}
	for _, p := range providers {
		for _, r := range p.Resources {
			c.rows[strings.ToLower(r.Type)] = row{r, p.VersionsOf(r.Type)}
		}
	}
	return c
}

// version is the api-version with which a type is asked: its newest.
func (r row) version(sent string) string {
	if len(r.versions) > 0 {
		return r.versions[0]
	}
	return sent
}

// tracked are the types of resources that stand in a group by themselves, in order. What extends a resource, or
// tells of an operation, is none.
func (c catalog) tracked() []row {
	var all []row
	for _, r := range c.rows {
		namespace, kind, _ := strings.Cut(r.Type, "/")
		own := kind != "" && !strings.Contains(kind, "/") && !strings.EqualFold(namespace, "Microsoft.Resources") && !strings.EqualFold(namespace, "Microsoft.Authorization")
		if own && r.Get != nil && r.Put != nil && r.Delete != nil && r.List != nil {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b row) int { return strings.Compare(a.Type, b.Type) })
	return all
}

// entry is what a list of all resources tells of one.
type entry struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	ManagedBy  string            `json:"managedBy,omitempty"`
	SKU        json.RawMessage   `json:"sku,omitempty"`
	Identity   json.RawMessage   `json:"identity,omitempty"`
	State      string            `json:"provisioningState,omitempty"`
	Properties *struct {
		State string `json:"provisioningState"`
	} `json:"properties,omitempty"`
}

// in returns the resources of a scope that the caller may read, by type and in the order of their lists. wanted may
// leave out types.
func (c catalog) in(ctx context.Context, r *arm.Request, scope armid.ID, wanted func(typ string) bool) ([]entry, error) {
	all := []entry{}
	for _, t := range c.tracked() {
		if !wanted(t.Type) {
			continue
		}
		text, err := r.Read(ctx, t.List, scope, t.version(r.APIVersion))
		if problem.KindOf(err) == problem.Denied {
			continue
		}
		if err != nil {
			return nil, err
		}
		var page arm.Page[entry]
		if err := json.Unmarshal(text, &page); err != nil {
			return nil, err
		}
		for _, e := range page.Value {
			if e.Properties != nil {
				e.State, e.Properties = e.Properties.State, nil
			}
			all = append(all, e)
		}
	}
	return all, nil
}

// contents are a group's resources, for the service that deletes groups.
type contents struct {
	catalog
	r *arm.Request
}

func (c contents) In(ctx context.Context, group armid.ID) (ids []armid.ID, err error) {
	all, err := c.in(ctx, c.r, group, func(string) bool { return true })
	for _, e := range all {
		id, err := armid.Parse(e.ID)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, err
}

func (c contents) Delete(ctx context.Context, id armid.ID) error {
	t := c.rows[strings.ToLower(id.Type())]
	err := c.r.Change(ctx, t.Delete, http.MethodDelete, id, t.version(c.r.APIVersion), nil)
	if problem.KindOf(err) == problem.NotFound { // it went with another
		return nil
	}
	return err
}

// listResources lists the resources of a group or of the subscription, whatever they are.
func (h *door) listResources(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if r.ID.ResourceGroup != "" {
		if _, err := h.r.Group(ctx, r.ID.ResourceGroup); err != nil {
			return nil, err
		}
	}
	if err := knows(r, "resourceType", "resourceGroup", "name", "location", "tagName", "tagValue"); err != nil {
		return nil, err
	}
	all, err := h.catalog.in(ctx, r, r.ID, func(typ string) bool { return is(r, "resourceType", typ) })
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e entry) bool {
		id, err := armid.Parse(e.ID)
		return err != nil || !is(r, "name", e.Name) || !is(r, "location", e.Location) || !is(r, "resourceGroup", id.ResourceGroup) || !tagged(r, e.Tags)
	})
	if !strings.Contains(r.Query.Get("$expand"), "provisioningState") {
		for i := range all {
			all[i].State = ""
		}
	}
	return arm.List(r, all), nil
}

// knows refuses a $filter with a condition that the list does not have.
func knows(r *arm.Request, names ...string) error {
	for name := range r.Filter {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			return problem.New(problem.Invalid, "InvalidFilterInQueryString", "Invalid $filter specified in the query string: this list has no condition '%.60s'.", name).
				WithTarget("$filter").WithAdvice("These can be given: %s.", strings.Join(names, ", "))
		}
	}
	return nil
}

// is reports whether a value passes the condition of that name, or there is none.
func is(r *arm.Request, name, value string) bool {
	want, there := r.Filter[strings.ToLower(name)]
	return !there || strings.EqualFold(want, value)
}

// tagged reports whether tags pass the conditions on them.
func tagged(r *arm.Request, tags map[string]string) bool {
	name, there := r.Filter["tagname"]
	if !there {
		value, there := r.Filter["tagvalue"]
		return !there || slices.Contains(slices.Collect(maps.Values(tags)), value)
	}
	for key, value := range tags {
		if want, there := r.Filter["tagvalue"]; strings.EqualFold(key, name) && (!there || value == want) {
			return true
		}
	}
	return false
}
