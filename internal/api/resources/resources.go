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

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/deployment"
	"kluis/internal/resources"
	"kluis/internal/storage"
)

type door struct {
	r *resources.Service
	d *deployment.Service
	s *storage.Service

	catalog catalog
}

// Providers are the tables of what the door answers. others are the tables of the other doors: clients ask
// here what providers there are.
func Providers(r *resources.Service, d *deployment.Service, s *storage.Service, others ...arm.Provider) []arm.Provider {
	h := &door{r: r, d: d, s: s}
	own := []arm.Provider{
		{Namespace: "Microsoft.Resources", Versions: resourcesVersions, Resources: []arm.Resource{
			{Type: "tenants", List: h.listTenants},
			{Type: "subscriptions", Get: h.getSubscription, List: h.listSubscriptions, GetActions: map[string]arm.Handler{"locations": h.locations}},
			h.ours(arm.Resource{Type: "resourceGroups", Get: h.getGroup, Put: h.putGroup, Patch: h.patchGroup, Delete: h.deleteGroup, List: h.listGroups,
				Actions: map[string]arm.Handler{"exportTemplate": notSupported("ExportTemplate"), "moveResources": notSupported("MoveResources"),
					"validateMoveResources": notSupported("MoveResources")}}),
			h.ours(arm.Resource{Type: "Microsoft.Resources/operationresults", Get: h.groupDeleted}),
			h.ours(arm.Resource{Type: "resources", List: h.listResources}),
			h.ours(arm.Resource{Type: tagsType, Extends: true, Get: h.getTags, Put: h.putTags, Patch: h.patchTags, Delete: h.deleteTags}),
			h.ours(arm.Resource{Type: "tagNames", List: h.listTagNames}),
			h.ours(arm.Resource{Type: "Microsoft.Resources/tagNames", Put: notSupported("PredefinedTags"), Delete: notSupported("PredefinedTags")}),
			{Type: "providers", Get: h.getProvider, List: h.listProviders, GetActions: map[string]arm.Handler{"resourceTypes": h.listTypes},
				Actions: map[string]arm.Handler{"register": h.getProvider, "unregister": notSupported("UnregisterProvider")}},
			h.ours(arm.Resource{Type: deploymentType, Get: h.getDeployment, Put: h.putDeployment, Delete: h.deleteDeployment,
				List: h.listDeployments, Actions: map[string]arm.Handler{"validate": h.validate, "whatIf": notSupported("WhatIf"),
					"exportTemplate": notSupported("ExportTemplate"), "cancel": h.cancelDeployment}}),
			h.ours(arm.Resource{Type: deploymentType + "/operationStatuses", Get: h.deploymentStatus}),
			h.ours(arm.Resource{Type: deploymentType + "/operations", Get: h.getOperation, List: h.listOperations}),
		}},
		{Namespace: "Microsoft.Network", Versions: networkVersions},
		{Namespace: "Microsoft.Storage", Versions: storageVersions, Resources: []arm.Resource{
			h.ours(arm.Resource{Type: "Microsoft.Storage", Actions: map[string]arm.Handler{"checkNameAvailability": h.checkAccountName}}),
			h.ours(arm.Resource{Type: accountType, Get: h.getAccount, Put: h.putAccount, Patch: h.patchAccount, Delete: h.deleteAccount, List: h.listAccounts,
				Actions: map[string]arm.Handler{"listKeys": h.listKeys, "regenerateKey": h.regenerateKey, "listAccountSas": h.listAccountSAS, "listServiceSas": h.listServiceSAS,
					"revokeUserDelegationKeys": h.revokeDelegationKeys}}),
			h.ours(arm.Resource{Type: accountType + "/blobServices", Get: h.getBlobService})}},
	}
	for _, typ := range resources.DocumentTypes {
		own[1].Resources = append(own[1].Resources, h.ours(arm.Resource{Type: typ, Get: h.getDocument, Put: h.putDocument, Patch: h.patchDocument, Delete: h.deleteDocument,
			List: func(ctx context.Context, r *arm.Request) (*arm.Reply, error) { return h.listDocuments(ctx, r, typ) }}))
	}
	for _, typ := range resources.PartTypes {
		own[1].Resources = append(own[1].Resources, h.ours(arm.Resource{Type: typ, Get: h.getPart, Put: h.putPart, Delete: h.deletePart,
			List: func(ctx context.Context, r *arm.Request) (*arm.Reply, error) { return h.listParts(ctx, r, typ) }}))
	}
	all := slices.Concat(own, others)
	h.catalog = newCatalog(all)
	return all
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
	body := map[string]any{"id": armid.Subscription(s.ID).String(), "subscriptionId": s.ID, "tenantId": s.TenantID, "displayName": s.Name,
		"state": "Enabled", "authorizationSource": "RoleBased",
		"subscriptionPolicies": map[string]string{"locationPlacementId": "Internal_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"}}
	if len(s.Tags) > 0 {
		body["tags"] = s.Tags
	}
	return body
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

// locations are those that clients are offered, and those that groups are in.
func (h *door) locations(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.r.InSubscription(r.ID); err != nil {
		return nil, err
	}
	all, err := h.r.Locations(ctx)
	if err != nil {
		return nil, err
	}
	bodies := []map[string]any{}
	for _, l := range all {
		bodies = append(bodies, map[string]any{"id": r.ID.String() + "/locations/" + l.Name, "subscriptionId": r.ID.Subscription, "name": l.Name, "type": "Region",
			"displayName": l.DisplayName, "regionalDisplayName": l.DisplayName, "metadata": map[string]any{"regionType": "Physical", "regionCategory": "Recommended",
				"pairedRegion": []any{}}})
	}
	return arm.List(r, bodies), nil
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

func (h *door) getPart(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := h.r.Part(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(body), nil
}

func (h *door) putPart(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body json.RawMessage
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	part, created, err := h.r.PutPart(ctx, r.ID, body)
	if err != nil {
		return nil, err
	}
	return put(part, created), nil
}

func (h *door) deletePart(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.r.DeletePart(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return gone(existed), nil
}

func (h *door) listParts(ctx context.Context, r *arm.Request, typ string) (*arm.Reply, error) {
	all, err := h.r.Parts(ctx, r.ID, typ)
	if err != nil {
		return nil, err
	}
	return arm.List(r, all), nil
}

// patchDocument changes the tags, as Azure does for what is in a network.
func (h *door) patchDocument(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var sent struct{ Tags map[string]string }
	if err := r.Decode(&sent); err != nil {
		return nil, err
	}
	d, err := h.r.TagDocument(ctx, r.ID, sent.Tags)
	if err != nil {
		return nil, err
	}
	return arm.OK(d.Body), nil
}
