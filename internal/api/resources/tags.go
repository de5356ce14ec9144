package resources

import (
	"cmp"
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

// Tags of anything can be read and changed at one place, …/providers/Microsoft.Resources/tags/default below it. They
// are the resource's own: this reads and changes the resource, through its handlers.

const tagsType = "Microsoft.Resources/tags"

type tagsBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Tags map[string]string `json:"tags"`
	} `json:"properties"`
}

func encodeTags(of armid.ID, tags map[string]string) tagsBody {
	b := tagsBody{ID: strings.TrimSuffix(of.String(), "/") + "/providers/" + tagsType + "/default", Name: "default", Type: tagsType}
	if b.Properties.Tags = tags; tags == nil {
		b.Properties.Tags = map[string]string{}
	}
	return b
}

// taggable is what has the tags: its handlers, and its body as it is.
func (h *door) taggable(ctx context.Context, r *arm.Request) (of armid.ID, t row, body map[string]json.RawMessage, tags map[string]string, err error) {
	if !strings.EqualFold(r.ID.Name(), "default") {
		return of, t, nil, nil, problem.New(problem.NotFound, "ResourceNotFound", "Tags have the name 'default', not '%.60s'.", r.ID.Name()).WithAdvice("Write …/tags/default.")
	}
	of = r.ID.Extended()
	switch {
	case of.Provider != "":
		t = h.catalog.rows[strings.ToLower(of.Type())]
	case of.ResourceGroup != "":
		t = h.catalog.rows["resourcegroups"]
	default:
		t = h.catalog.rows["subscriptions"]
	}
	if t.Get == nil {
		return of, t, nil, nil, tagsNotSupported(of)
	}
	text, err := r.Read(ctx, t.Get, of, t.version(r.APIVersion))
	if err != nil {
		return of, t, nil, nil, err
	}
	var tagged struct{ Tags map[string]string }
	err = cmp.Or(json.Unmarshal(text, &body), json.Unmarshal(text, &tagged))
	return of, t, body, tagged.Tags, err
}

func tagsNotSupported(id armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "TagsNotSupported", "'%s' cannot have tags here.", id).
		WithTarget(id.String()).WithAdvice("Tag a resource group, or a resource in one.")
}

func (h *door) getTags(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	of, _, _, tags, err := h.taggable(ctx, r)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeTags(of, tags)), nil
}

func (h *door) putTags(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	return h.changeTags(ctx, r, "Replace")
}

func (h *door) patchTags(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	return h.changeTags(ctx, r, "")
}

func (h *door) deleteTags(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	of, t, body, _, err := h.taggable(ctx, r)
	if err != nil {
		return nil, err
	}
	return &arm.Reply{Status: http.StatusOK}, h.setTags(ctx, r, of, t, body, map[string]string{})
}

// changeTags does what operation says, or what the body does.
func (h *door) changeTags(ctx context.Context, r *arm.Request, operation string) (*arm.Reply, error) {
	var sent struct {
		Operation  string
		Properties struct{ Tags map[string]string }
	}
	if err := r.Decode(&sent); err != nil {
		return nil, err
	}
	of, t, body, tags, err := h.taggable(ctx, r)
	if err != nil {
		return nil, err
	}
	if tags, err = changed(tags, sent.Properties.Tags, cmp.Or(operation, sent.Operation)); err != nil {
		return nil, err
	}
	if err := h.setTags(ctx, r, of, t, body, tags); err != nil {
		return nil, err
	}
	return arm.OK(encodeTags(of, tags)), nil
}

// changed returns the tags after an operation. Names of tags are the same in any case, and keep the one they have.
func changed(tags, sent map[string]string, operation string) (map[string]string, error) {
	out := map[string]string{}
	switch strings.ToLower(operation) {
	case "replace":
		maps.Copy(out, sent)
		return out, nil
	case "merge", "delete":
		maps.Copy(out, tags)
	default:
		return nil, problem.New(problem.Invalid, "InvalidTagsPatchOperation", "The operation '%.30s' is not one on tags.", operation).
			WithTarget("operation").WithAdvice("Use Merge, Replace or Delete.")
	}
	for name, value := range sent {
		key := name
		for known := range out {
			if strings.EqualFold(known, name) {
				key = known
			}
		}
		switch {
		case strings.EqualFold(operation, "merge"):
			out[key] = value
		case value == "" || out[key] == value:
			delete(out, key)
		}
	}
	return out, nil
}

// setTags gives the resource its tags, by a PATCH where its type has one, else by a PUT of what it is. A subscription has
// neither in Azure: its tags are changed here alone.
func (h *door) setTags(ctx context.Context, r *arm.Request, of armid.ID, t row, body map[string]json.RawMessage, tags map[string]string) error {
	text, err := json.Marshal(tags)
	if err != nil {
		return err
	}
	switch {
	case of.Provider == "" && of.ResourceGroup == "":
		return h.r.TagSubscription(ctx, of.Subscription, tags)
	case t.Patch != nil:
		return r.Change(ctx, t.Patch, http.MethodPatch, of, t.version(r.APIVersion), json.RawMessage(`{"tags":`+string(text)+`}`))
	case t.Put != nil:
		body["tags"] = text
		whole, err := json.Marshal(body)
		if err != nil {
			return err
		}
		return r.Change(ctx, t.Put, http.MethodPut, of, t.version(r.APIVersion), whole)
	}
	return tagsNotSupported(of)
}

type tagCount struct {
	Type  string `json:"type"`
	Value int    `json:"value"`
}

type tagValue struct {
	ID    string   `json:"id"`
	Value string   `json:"tagValue"`
	Count tagCount `json:"count"`
}

type tagName struct {
	ID     string     `json:"id"`
	Name   string     `json:"tagName"`
	Count  tagCount   `json:"count"`
	Values []tagValue `json:"values"`
}

// listTagNames counts the tags that the subscription has, and its groups and resources.
func (h *door) listTagNames(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.catalog.in(ctx, r, r.ID, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	groups, err := h.r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	subscription, err := h.r.Subscription(ctx, r.ID.Subscription)
	if err != nil {
		return nil, err
	}
	counts := map[string]map[string]int{}
	count := func(tags map[string]string) {
		for name, value := range tags {
			if counts[name] == nil {
				counts[name] = map[string]int{}
			}
			counts[name][value]++
		}
	}
	count(subscription.Tags)
	for _, e := range all {
		count(e.Tags)
	}
	for _, g := range groups {
		count(g.Tags)
	}
	names := []tagName{}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		n := tagName{ID: r.ID.String() + "/tagNames/" + name, Name: name, Count: tagCount{"Total", 0}, Values: []tagValue{}}
		for _, value := range slices.Sorted(maps.Keys(counts[name])) {
			n.Count.Value += counts[name][value]
			n.Values = append(n.Values, tagValue{n.ID + "/tagValues/" + value, value, tagCount{"Total", counts[name][value]}})
		}
		names = append(names, n)
	}
	return arm.List(r, names), nil
}
