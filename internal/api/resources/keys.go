package resources

import (
	"context"
	"encoding/base64"

	"kluis/internal/api/arm"
	"kluis/internal/storage"
)

type keyBody struct {
	Name        string `json:"keyName"`
	Value       string `json:"value"`
	Permissions string `json:"permissions"`
	Created     string `json:"creationTime"`
}

// encodeKeys tells an account's keys to whoever may know them. They are wiped here.
func encodeKeys(keys []storage.Key) *arm.Reply {
	all := []keyBody{}
	for _, k := range keys {
		all = append(all, keyBody{k.Name(), base64.StdEncoding.EncodeToString(k.Value.Reveal()), "FULL", k.Created.UTC().Format(armTime)})
		k.Value.Wipe()
	}
	return arm.OK(map[string]any{"keys": all})
}

func (h *door) listKeys(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	keys, err := h.s.ListKeys(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return encodeKeys(keys), nil
}

func (h *door) regenerateKey(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Name string `json:"keyName"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	keys, err := h.s.RegenerateKey(ctx, r.ID, body.Name)
	if err != nil {
		return nil, err
	}
	return encodeKeys(keys), nil
}

func (h *door) revokeDelegationKeys(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.RevokeDelegationKeys(ctx, r.ID); err != nil {
		return nil, err
	}
	return arm.OK(nil), nil
}

// sasRequest is what a signature is to say.
type sasRequest struct {
	Resource     string `json:"canonicalizedResource"`
	Services     string `json:"signedServices"`
	Types        string `json:"signedResourceTypes"`
	Kind         string `json:"signedResource"`
	Permissions  string `json:"signedPermission"`
	Start        string `json:"signedStart"`
	Expiry       string `json:"signedExpiry"`
	Addresses    string `json:"signedIp"`
	Protocol     string `json:"signedProtocol"`
	Key          string `json:"keyToSign"`
	CacheControl string `json:"rscc"`
	Disposition  string `json:"rscd"`
	Encoding     string `json:"rsce"`
	Language     string `json:"rscl"`
	ContentType  string `json:"rsct"`
}

func (b sasRequest) sas() storage.SAS {
	return storage.SAS{Services: b.Services, Types: b.Types, Resource: b.Kind, Permissions: b.Permissions, Start: b.Start, Expiry: b.Expiry, Addresses: b.Addresses,
		Protocol: b.Protocol, Override: [5]string{b.CacheControl, b.Disposition, b.Encoding, b.Language, b.ContentType}}
}

func (h *door) listAccountSAS(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body sasRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	query, err := h.s.ListAccountSAS(ctx, r.ID, body.sas(), body.Key)
	if err != nil {
		return nil, err
	}
	return arm.OK(map[string]any{"accountSasToken": query}), nil
}

func (h *door) listServiceSAS(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body sasRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	query, err := h.s.ListServiceSAS(ctx, r.ID, body.sas(), body.Resource, body.Key)
	if err != nil {
		return nil, err
	}
	return arm.OK(map[string]any{"serviceSasToken": query}), nil
}

// getBlobService tells how the Blob service of an account is set up: there is nothing to set up.
func (h *door) getBlobService(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	a, err := h.s.Account(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	off := map[string]any{"enabled": false}
	return arm.OK(map[string]any{"id": r.ID.String(), "name": r.ID.Name(), "type": r.ID.Type(), "sku": accountSKU{a.SKU, tier(a.SKU)},
		"properties": map[string]any{"cors": map[string]any{"corsRules": []any{}}, "deleteRetentionPolicy": off, "containerDeleteRetentionPolicy": off}}), nil
}
