package resources

import (
	"context"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

const accountType = "Microsoft.Storage/storageAccounts"

type accountBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags,omitempty"`
	Kind       string            `json:"kind"`
	SKU        accountSKU        `json:"sku"`
	Properties accountProperties `json:"properties"`
}

type accountSKU struct {
	Name string `json:"name"`
	Tier string `json:"tier,omitempty"`
}

type accountProperties struct {
	Provisioning     string            `json:"provisioningState"`
	PrimaryEndpoints map[string]string `json:"primaryEndpoints"`
	PrimaryLocation  string            `json:"primaryLocation"`
	PrimaryStatus    string            `json:"statusOfPrimary"`
	Created          string            `json:"creationTime"`
	SharedKeys       bool              `json:"allowSharedKeyAccess"`
	HTTPSOnly        bool              `json:"supportsHttpsTrafficOnly"`
}

// tier is the first word of an SKU's name.
func tier(sku string) string {
	t, _, _ := strings.Cut(sku, "_")
	return t
}

func (h *door) encodeAccount(a storage.Account) accountBody {
	blob := strings.TrimSuffix(h.s.URL(a.ID.Name(), "", ""), "/")
	return accountBody{a.ID.String(), a.ID.Name(), accountType, a.Location, a.Tags, a.Kind, accountSKU{a.SKU, tier(a.SKU)}, accountProperties{
		Provisioning: "Succeeded", PrimaryEndpoints: map[string]string{"blob": blob}, PrimaryLocation: a.Location, PrimaryStatus: "available",
		Created: a.Created.UTC().Format("2006-01-02T15:04:05.9999999Z"), HTTPSOnly: true}}
}

func (h *door) getAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	a, err := h.s.Account(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(h.encodeAccount(a)), nil
}

func (h *door) putAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body := accountBody{Kind: "StorageV2", SKU: accountSKU{Name: "Standard_LRS"}}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	a, created, err := h.s.PutAccount(ctx, storage.Account{ID: r.ID, Location: body.Location, Tags: body.Tags, Kind: body.Kind, SKU: body.SKU.Name})
	if err != nil {
		return nil, err
	}
	return put(h.encodeAccount(a), created), nil
}

func (h *door) deleteAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := h.s.DeleteAccount(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return gone(existed), nil
}

func (h *door) listAccounts(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := h.s.Accounts(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []accountBody{}
	for _, a := range all {
		bodies = append(bodies, h.encodeAccount(a))
	}
	return arm.List(r, bodies), nil
}

// checkAccountName says whether an account of that name can be created.
func (h *door) checkAccountName(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct{ Name string }
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	err := h.s.CheckName(ctx, r.ID.Scope(), body.Name)
	p := problem.Of(err)
	switch {
	case err == nil:
		return arm.OK(map[string]any{"nameAvailable": true}), nil
	case p != nil && p.Kind == problem.Conflict:
		return arm.OK(map[string]any{"nameAvailable": false, "reason": "AlreadyExists", "message": p.Message}), nil
	case p != nil && p.Kind == problem.Invalid:
		return arm.OK(map[string]any{"nameAvailable": false, "reason": "AccountNameInvalid", "message": p.Message}), nil
	}
	return nil, err
}
