package arm

import (
	"fmt"
	"slices"
	"strings"

	"kluis/internal/armid"
)

// Provider is a namespace and what it holds.
type Provider struct {
	Namespace string
	Resources []Resource

	// Versions are the api-versions by type; those of the namespace are for types that are not named. A
	// provider without any takes every api-version.
	Versions map[string]Versions
}

// Resource is one row of the table: a type and who answers for it. What is nil does not exist.
//
// Type is written with its namespace, "Microsoft.RecoveryServices/vaults/backupPolicies", and its
// spelling is the one that ids get. The kinds of ids without a provider's resource are "tenants",
// "subscriptions", "resourceGroups" and "providers"; a type that is only a namespace
// ("Microsoft.KeyVault") carries actions of the namespace at a subscription.
type Resource struct {
	Type string

	// Extends says that the type belongs to other resources, of any type: its ids may stand behind theirs
	// ("…/virtualMachines/web/providers/Microsoft.Authorization/locks/l"). Those of other types may not: a right to
	// a resource would be one to whatever is named behind it.
	Extends bool

	Get, Put, Patch, Delete Handler
	Head                    Handler // nil: whether Get finds it
	List                    Handler // GET on the type without a name

	Actions    map[string]Handler // POST on one more segment, by its name
	GetActions map[string]Handler // GET on one more segment that is not a child type; "*" is any other one
}

// Route is one thing that can be asked for.
type Route struct {
	Method  string
	Type    string
	List    bool
	Action  string // for what the type's Actions and GetActions name
	Extends bool
	Version string // an api-version that the type has
}

// Routes are all that the tables of the providers hold, in no order. What is true of each of them can be tested.
func (rt *Router) Routes() (all []Route) {
	for _, r := range rt.table.rows {
		route := Route{Type: r.Type, Extends: r.Extends, Version: "2024-04-01"}
		if len(r.versions) > 0 {
			route.Version = r.versions[0]
		}
		add := func(method, action string, list bool) {
			route.Method, route.Action, route.List = method, action, list
			all = append(all, route)
		}
		for method, h := range map[string]Handler{"GET": r.Get, "PUT": r.Put, "PATCH": r.Patch, "DELETE": r.Delete, "HEAD": r.Head} {
			if h != nil {
				add(method, "", false)
			}
		}
		if r.List != nil {
			add("GET", "", true)
		}
		for name := range r.Actions {
			add("POST", name, false)
		}
		for name := range r.GetActions {
			add("GET", name, false)
		}
	}
	return all
}

// table finds rows. Keys are in lower case.
type table struct {
	namespaces map[string]string // lower case -> as spelled
	own        string            // the namespace of subscriptions and groups, and of what stands in them without one
	rows       map[string]*row
}

type row struct {
	Resource
	versions   Versions
	words      []string          // namespace and type segments as the table spells them
	actions    map[string]string // lower case -> as spelled
	getActions map[string]string
}

func newTable(providers []Provider) (*table, error) {
	t := &table{namespaces: map[string]string{}, rows: map[string]*row{}}
	for _, p := range providers {
		key := strings.ToLower(p.Namespace)
		if _, twice := t.namespaces[key]; twice {
			return nil, fmt.Errorf("provider %s is there twice", p.Namespace)
		}
		t.namespaces[key] = p.Namespace
		for _, r := range p.Resources {
			if err := t.add(p, r); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

func (t *table) add(p Provider, r Resource) error {
	namespace, versions := p.Namespace, p.VersionsOf(r.Type)
	if !checkVersions(versions) {
		return fmt.Errorf("the api-versions of %s are malformed, or not in order", r.Type)
	}
	words := strings.Split(r.Type, "/")
	if slices.Contains(words, "") {
		return fmt.Errorf("resource type %q of %s has an empty segment", r.Type, namespace)
	}
	if strings.Contains(words[0], ".") && words[0] != namespace {
		return fmt.Errorf("resource type %s is in the table of %s", r.Type, namespace)
	}
	key := strings.ToLower(r.Type)
	if key == "subscriptions" {
		t.own = namespace
	}
	if _, twice := t.rows[key]; twice {
		return fmt.Errorf("resource type %s is there twice", r.Type)
	}
	t.rows[key] = &row{Resource: r, versions: versions, words: words, actions: folded(r.Actions), getActions: folded(r.GetActions)}
	return nil
}

func folded(m map[string]Handler) map[string]string {
	f := make(map[string]string, len(m))
	for name := range m {
		f[strings.ToLower(name)] = name
	}
	return f
}

// match is what a path means.
type match struct {
	id         armid.ID
	resource   *row   // the row of the id itself; nil if the type is unknown
	collection *row   // the row of the type that the trailing segment names, if it has a list
	trailing   string // the odd segment, or ""
}

// find gives a path its meaning. The id's types come back as the table spells them.
func (t *table) find(id armid.ID, trailing string) match {
	m := match{id: t.spell(id), trailing: trailing, resource: t.row(id, kind(id))}
	if trailing != "" {
		if child := t.row(id, childKind(id, trailing)); child != nil && child.List != nil {
			m.collection = child
		}
	}
	if id.Provider != "" && len(id.Segments) == 0 && !m.resource.has(trailing) {
		m.resource = t.rows["providers"]
	}
	return m
}

// row is that of a type, if the type can stand where the id does.
func (t *table) row(id armid.ID, typ string) *row {
	r := t.rows[strings.ToLower(typ)]
	if r != nil && id.Extends() && !r.Extends {
		return nil
	}
	return r
}

// has reports whether a trailing segment is an action of the row.
func (r *row) has(trailing string) bool {
	if r == nil {
		return false
	}
	key := strings.ToLower(trailing)
	return r.actions[key] != "" || r.getActions[key] != ""
}

// kind is the type of an id, with names for the ids that have none. A bare provider is its namespace.
func kind(id armid.ID) string {
	switch {
	case id.Provider != "":
		return id.Type()
	case id.ResourceGroup != "":
		return "resourceGroups"
	case id.Subscription != "":
		return "subscriptions"
	}
	return ""
}

// childKind is the type that a trailing segment names under an id.
func childKind(id armid.ID, trailing string) string {
	if id.Provider != "" {
		return id.Type() + "/" + trailing
	}
	return trailing
}

// spell gives the id's namespaces and types the spelling that the table has: those of the resource, and
// those of the one that extends it.
func (t *table) spell(id armid.ID) armid.ID {
	if id.Provider == "" {
		return id
	}
	id.Segments = slices.Clone(id.Segments)
	rest := id.Segments
	for namespace := &id.Provider; ; {
		end := slices.IndexFunc(rest, func(s armid.Segment) bool { return strings.EqualFold(s.Type, "providers") })
		if end < 0 {
			t.spellTypes(namespace, rest)
			return id
		}
		t.spellTypes(namespace, rest[:end])
		rest[end].Type = "providers"
		namespace, rest = &rest[end].Name, rest[end+1:]
	}
}

// spellTypes takes the spelling of the longest known type.
func (t *table) spellTypes(namespace *string, segments []armid.Segment) {
	if known := t.namespaces[strings.ToLower(*namespace)]; known != "" {
		*namespace = known
	}
	key := strings.ToLower(armid.ID{Provider: *namespace, Segments: segments}.Type())
	for ; key != ""; key = above(key) {
		if r := t.rows[key]; r != nil {
			for i, word := range r.words[1:] {
				segments[i].Type = word
			}
			return
		}
	}
}

// allow is the Allow header of a path, empty if nothing is there.
func (m match) allow() []string {
	var methods []string
	add := func(h Handler, method string) {
		if h != nil {
			methods = append(methods, method)
		}
	}
	if m.trailing == "" {
		if r := m.resource; r != nil {
			add(r.Get, "GET")
			if r.Head != nil || r.Get != nil {
				methods = append(methods, "HEAD")
			}
			add(r.Put, "PUT")
			add(r.Patch, "PATCH")
			add(r.Delete, "DELETE")
		}
		return methods
	}
	if h, _ := m.get(); h != nil {
		methods = append(methods, "GET")
	}
	if h, _ := m.post(); h != nil {
		methods = append(methods, "POST")
	}
	return methods
}

// get is the handler of a GET on a trailing segment that is not a list's, or the list's.
func (m match) get() (Handler, string) {
	if m.collection != nil {
		return m.collection.List, ""
	}
	if m.resource == nil {
		return nil, ""
	}
	if name := m.resource.getActions[strings.ToLower(m.trailing)]; name != "" {
		return m.resource.GetActions[name], name
	}
	return m.resource.GetActions["*"], m.trailing
}

func (m match) post() (Handler, string) {
	if m.resource == nil {
		return nil, ""
	}
	name := m.resource.actions[strings.ToLower(m.trailing)]
	return m.resource.Actions[name], name
}
