package resources

import (
	"context"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/problem"
)

type providerBody struct {
	ID        string             `json:"id,omitempty"`
	Namespace string             `json:"namespace"`
	State     string             `json:"registrationState,omitempty"`
	Policy    string             `json:"registrationPolicy,omitempty"`
	Types     []resourceTypeBody `json:"resourceTypes"`
}

type resourceTypeBody struct {
	Type         string   `json:"resourceType"`
	Locations    []string `json:"locations"`
	Versions     []string `json:"apiVersions"`
	Default      string   `json:"defaultApiVersion,omitempty"`
	Capabilities string   `json:"capabilities"`
}

// encodeProvider tells what a provider has. It is registered because it is there; the tenant's view of it does not
// speak of that.
func (h *door) encodeProvider(r *arm.Request, p arm.Provider) providerBody {
	b := providerBody{Namespace: p.Namespace, Types: h.types(r, p)}
	if r.ID.Subscription != "" {
		b.ID = armid.Subscription(r.ID.Subscription).String() + "/providers/" + p.Namespace
		b.State, b.Policy = "Registered", "RegistrationFree"
	}
	return b
}

func (h *door) types(r *arm.Request, p arm.Provider) []resourceTypeBody {
	locations := []string{}
	for _, l := range h.r.Offered() {
		locations = append(locations, l.DisplayName)
	}
	all := []resourceTypeBody{}
	for _, t := range p.Resources {
		kind, ok := strings.CutPrefix(t.Type, p.Namespace+"/")
		if !ok {
			if kind = t.Type; kind == p.Namespace || kind == "providers" {
				continue
			}
		}
		b := resourceTypeBody{Type: kind, Locations: locations, Versions: p.VersionsOf(t.Type), Capabilities: "None"}
		if len(b.Versions) == 0 {
			b.Versions = []string{r.APIVersion}
		}
		if b.Default = b.Versions[0]; t.Put != nil {
			b.Capabilities = "SupportsTags, SupportsLocation"
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b resourceTypeBody) int { return strings.Compare(a.Type, b.Type) })
	return all
}

func (h *door) find(ctx context.Context, r *arm.Request) (arm.Provider, error) {
	if err := h.maySeeProviders(ctx, r); err != nil {
		return arm.Provider{}, err
	}
	i := slices.IndexFunc(h.catalog.providers, func(p arm.Provider) bool { return strings.EqualFold(p.Namespace, r.ID.Provider) })
	if i < 0 {
		return arm.Provider{}, problem.New(problem.NotFound, "InvalidResourceNamespace", "The resource namespace '%.80s' is invalid.", r.ID.Provider).
			WithAdvice("Check the spelling; GET …/providers lists what there is.")
	}
	return h.catalog.providers[i], nil
}

// maySeeProviders is nil for who may see the subscription; the tenant's own list is for everybody who is known.
func (h *door) maySeeProviders(ctx context.Context, r *arm.Request) error {
	if r.ID.Subscription == "" {
		return nil
	}
	_, err := h.r.Subscription(ctx, r.ID.Subscription)
	return err
}

func (h *door) getProvider(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := h.find(ctx, r)
	if err != nil {
		return nil, err
	}
	return arm.OK(h.encodeProvider(r, p)), nil
}

func (h *door) listTypes(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := h.find(ctx, r)
	if err != nil {
		return nil, err
	}
	return arm.OK(arm.Page[resourceTypeBody]{Value: h.types(r, p)}), nil
}

func (h *door) listProviders(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.maySeeProviders(ctx, r); err != nil {
		return nil, err
	}
	bodies := []providerBody{}
	for _, p := range h.catalog.providers {
		bodies = append(bodies, h.encodeProvider(r, p))
	}
	slices.SortFunc(bodies, func(a, b providerBody) int { return strings.Compare(a.Namespace, b.Namespace) })
	return arm.List(r, bodies), nil
}

// notSupported answers for what Azure does and this server does not, and says so.
func notSupported(what string) arm.Handler {
	return func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
		why := unsupported[what]
		return nil, problem.New(problem.Unsupported, what+"NotSupported", "%s", why[0]).WithTarget(r.ID.String()).WithAdvice("%s", why[1])
	}
}

// unsupported says why not, and what to do instead.
var unsupported = map[string][2]string{
	"ExportTemplate":     {"Templates are not written from what there is.", "Keep the template that you deployed; a restore leaves one for its disks in the storage account."},
	"MoveResources":      {"Resources do not move between groups.", "Create them where they belong, and delete the old ones."},
	"PredefinedTags":     {"There are no predefined names of tags.", "Tag resources; the names of their tags are listed."},
	"UnregisterProvider": {"Providers are registered because they are there.", "Leave it registered; it costs nothing."},
	"WhatIf":             {"What a deployment would change is not foretold.", "Validate the template (az deployment group validate): it names the resources that would be created or updated."},
}
