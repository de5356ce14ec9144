// Package resources is the door of Microsoft.Resources and of what needs no door of its own: the tenant
// and its subscription, resource groups, deployments, networks and their kin, and storage accounts.
//
// It decodes, calls one service, which authorizes, and encodes.
package resources

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/deployment"
	"kluis/internal/problem"
	"kluis/internal/resources"
	"kluis/internal/storage"
)

type door struct {
	r *resources.Service
	d *deployment.Service
	s *storage.Service

	namespaces map[string][]string // resource types by namespace, for clients that ask what there is
}

// Providers are the tables of what the door answers. others are the tables of the other doors: clients ask
// here what providers there are.
func Providers(r *resources.Service, d *deployment.Service, s *storage.Service, others ...arm.Provider) []arm.Provider {
	h := &door{r: r, d: d, s: s, namespaces: map[string][]string{}}
	own := []arm.Provider{
		{Namespace: "Microsoft.Resources", Versions: resourcesVersions, Resources: []arm.Resource{
			{Type: "tenants", List: h.listTenants},
			{Type: "subscriptions", Get: h.getSubscription, List: h.listSubscriptions, GetActions: map[string]arm.Handler{"locations": h.locations}},
			h.ours(arm.Resource{Type: "resourceGroups", Get: h.getGroup, Head: h.headGroup, Put: h.putGroup, Patch: h.patchGroup, Delete: h.deleteGroup, List: h.listGroups}),
			{Type: "providers", Get: h.getProvider, List: h.listProviders, Actions: map[string]arm.Handler{"register": h.getProvider}},
			h.ours(arm.Resource{Type: deploymentType, Get: h.getDeployment, Head: h.headDeployment, Put: h.putDeployment, Delete: h.deleteDeployment,
				List: h.listDeployments, Actions: map[string]arm.Handler{"validate": h.validate}}),
			h.ours(arm.Resource{Type: deploymentType + "/operationStatuses", Get: h.deploymentStatus}),
			h.ours(arm.Resource{Type: deploymentType + "/operations", Get: h.getOperation, List: h.listOperations}),
		}},
		{Namespace: "Microsoft.Network", Versions: networkVersions},
		{Namespace: "Microsoft.Storage", Versions: storageVersions, Resources: []arm.Resource{
			h.ours(arm.Resource{Type: "Microsoft.Storage", Actions: map[string]arm.Handler{"checkNameAvailability": h.checkAccountName}}),
			h.ours(arm.Resource{Type: accountType, Get: h.getAccount, Put: h.putAccount, Delete: h.deleteAccount, List: h.listAccounts})}},
	}
	for _, typ := range resources.DocumentTypes {
		own[1].Resources = append(own[1].Resources, h.ours(arm.Resource{Type: typ, Get: h.getDocument, Put: h.putDocument, Delete: h.deleteDocument,
			List: func(ctx context.Context, r *arm.Request) (*arm.Reply, error) { return h.listDocuments(ctx, r, typ) }}))
	}
	for _, p := range slices.Concat(own, others) {
		for _, t := range p.Resources {
			if kind, ok := strings.CutPrefix(t.Type, p.Namespace+"/"); ok {
				h.namespaces[p.Namespace] = append(h.namespaces[p.Namespace], kind)
			}
		}
	}
	return append(own, others...)
}

// ours returns the row with handlers that answer for the subscription of this installation alone.
func (h *door) ours(r arm.Resource) arm.Resource {
	guard := func(handler arm.Handler) arm.Handler {
		if handler == nil {
			return nil
		}
		return func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
			if err := h.r.InSubscription(r.ID); err != nil {
				return nil, err
			}
			return handler(ctx, r)
		}
	}
	r.Get, r.Put, r.Patch, r.Delete, r.Head, r.List = guard(r.Get), guard(r.Put), guard(r.Patch), guard(r.Delete), guard(r.Head), guard(r.List)
	for name, handler := range r.Actions {
		r.Actions[name] = guard(handler)
	}
	return r
}

func (h *door) listTenants(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	id := h.r.Tenant()
	return arm.List(r, []map[string]any{{"id": "/tenants/" + id, "tenantId": id, "displayName": "Kluis", "tenantCategory": "Home",
		"domains": []string{}, "tenantType": "AAD"}}), nil
}

func encodeSubscription(s resources.Subscription) map[string]any {
	return map[string]any{"id": armid.Subscription(s.ID).String(), "subscriptionId": s.ID, "tenantId": s.TenantID, "displayName": s.Name,
		"state": "Enabled", "authorizationSource": "RoleBased",
		"subscriptionPolicies": map[string]string{"locationPlacementId": "Internal_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"}}
}

func (h *door) getSubscription(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	s, err := h.r.Subscription(ctx, r.ID.Subscription)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeSubscription(s)), nil
}

func (h *door) listSubscriptions(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.r.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	bodies := []map[string]any{}
	for _, s := range all {
		bodies = append(bodies, encodeSubscription(s))
	}
	return arm.List(r, bodies), nil
}

// locations are those that resource groups are in: a location is any word here.
func (h *door) locations(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.r.InSubscription(r.ID); err != nil {
		return nil, err
	}
	groups, err := h.r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	bodies := []map[string]any{}
	seen := map[string]bool{}
	for _, g := range groups {
		if name := strings.ToLower(g.Location); !seen[name] {
			seen[name] = true
			bodies = append(bodies, map[string]any{"id": r.ID.String() + "/locations/" + name, "name": name, "displayName": g.Location, "regionalDisplayName": g.Location})
		}
	}
	return arm.List(r, bodies), nil
}

type groupBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties state             `json:"properties"`
}

type state struct {
	Provisioning string `json:"provisioningState"`
}

func encodeGroup(id armid.ID, g resources.Group) groupBody {
	return groupBody{armid.Subscription(id.Subscription).Group(g.Name).String(), g.Name, "Microsoft.Resources/resourceGroups", g.Location, g.Tags, state{"Succeeded"}}
}

func (h *door) getGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	g, err := h.r.Group(ctx, r.ID.ResourceGroup)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeGroup(r.ID, g)), nil
}

func (h *door) headGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.r.Group(ctx, r.ID.ResourceGroup); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

func (h *door) putGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Location string
		Tags     map[string]string
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	g, created, err := h.r.PutGroup(ctx, resources.Group{Name: r.ID.ResourceGroup, Location: body.Location, Tags: body.Tags})
	if err != nil {
		return nil, err
	}
	return put(encodeGroup(r.ID, g), created), nil
}

// put is the answer to a PUT.
func put(body any, created bool) *arm.Reply {
	if created {
		return arm.Created(body)
	}
	return arm.OK(body)
}

// gone is the answer to a DELETE.
func gone(existed bool) *arm.Reply {
	if existed {
		return &arm.Reply{Status: http.StatusOK}
	}
	return arm.NoContent()
}

// patchGroup changes the tags: a group has nothing else that can change.
func (h *door) patchGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct{ Tags map[string]string }
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Tags == nil {
		return h.getGroup(ctx, r)
	}
	g, err := h.r.TagGroup(ctx, r.ID.ResourceGroup, body.Tags)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeGroup(r.ID, g)), nil
}

func (h *door) deleteGroup(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.r.DeleteGroup(ctx, r.ID.ResourceGroup); err != nil {
		return nil, err
	}
	return gone(true), nil
}

func (h *door) listGroups(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	groups, err := h.r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	bodies := []groupBody{}
	for _, g := range groups {
		bodies = append(bodies, encodeGroup(r.ID, g))
	}
	return arm.List(r, bodies), nil
}

// A provider is registered because it is there.
func (h *door) provider(r *arm.Request, namespace string) map[string]any {
	types := []map[string]any{}
	for _, t := range h.namespaces[namespace] {
		types = append(types, map[string]any{"resourceType": t, "locations": []string{}, "apiVersions": []string{r.APIVersion}, "capabilities": "None"})
	}
	return map[string]any{"id": armid.Subscription(r.ID.Subscription).String() + "/providers/" + namespace, "namespace": namespace,
		"registrationState": "Registered", "registrationPolicy": "RegistrationFree", "resourceTypes": types}
}

func (h *door) getProvider(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.r.Subscription(ctx, r.ID.Subscription); err != nil {
		return nil, err
	}
	for namespace := range h.namespaces {
		if strings.EqualFold(namespace, r.ID.Provider) {
			return arm.OK(h.provider(r, namespace)), nil
		}
	}
	return nil, problem.New(problem.NotFound, "InvalidResourceNamespace", "The resource namespace '%.80s' is invalid.", r.ID.Provider).
		WithAdvice("Check the spelling; GET …/providers lists what there is.")
}

func (h *door) listProviders(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.r.Subscription(ctx, r.ID.Subscription); err != nil {
		return nil, err
	}
	var names []string
	for namespace := range h.namespaces {
		names = append(names, namespace)
	}
	slices.Sort(names)
	bodies := []map[string]any{}
	for _, namespace := range names {
		bodies = append(bodies, h.provider(r, namespace))
	}
	return arm.List(r, bodies), nil
}

func (h *door) getDocument(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.r.Document(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(d.Body), nil
}

func (h *door) putDocument(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	d, created, err := h.r.PutDocument(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return put(d.Body, created), nil
}

func (h *door) deleteDocument(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.r.DeleteDocument(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return gone(existed), nil
}

func (h *door) listDocuments(ctx context.Context, r *arm.Request, typ string) (*arm.Reply, error) {
	all, err := h.r.Documents(ctx, r.ID, typ)
	if err != nil {
		return nil, err
	}
	bodies := []json.RawMessage{}
	for _, d := range all {
		bodies = append(bodies, d.Body)
	}
	return arm.List(r, bodies), nil
}
