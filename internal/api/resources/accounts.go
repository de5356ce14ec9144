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
	Tags       map[string]string `json:"tags"`
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
	AccessTier       string            `json:"accessTier,omitempty"`
	MinimumTLS       string            `json:"minimumTlsVersion"`
	SharedKeys       bool              `json:"allowSharedKeyAccess"`
	PublicAccess     bool              `json:"allowBlobPublicAccess"`
	HTTPSOnly        bool              `json:"supportsHttpsTrafficOnly"`
	NetworkACLs      networkACLs       `json:"networkAcls"`
	Encryption       map[string]string `json:"encryption"`
}

// networkACLs are the rules of who may connect: here everybody who can reach the server.
type networkACLs struct {
	Bypass        string `json:"bypass"`
	DefaultAction string `json:"defaultAction"`
	IPRules       []any  `json:"ipRules"`
	NetworkRules  []any  `json:"virtualNetworkRules"`
}

// accountRequest is what a PUT or a PATCH says. What is absent stays, or is Azure's default.
type accountRequest struct {
	Location   string             `json:"location"`
	Tags       *map[string]string `json:"tags"`
	Kind       string             `json:"kind"`
	SKU        accountSKU         `json:"sku"`
	Properties struct {
		AccessTier   *string `json:"accessTier"`
		MinimumTLS   *string `json:"minimumTlsVersion"`
		SharedKeys   *bool   `json:"allowSharedKeyAccess"`
		PublicAccess *bool   `json:"allowBlobPublicAccess"`
		HTTPSOnly    *bool   `json:"supportsHttpsTrafficOnly"`
		HNS          *bool   `json:"isHnsEnabled"`
		SFTP         *bool   `json:"isSftpEnabled"`
		NFS          *bool   `json:"isNfsV3Enabled"`
		Network      string  `json:"publicNetworkAccess"`
		ACLs         struct {
			DefaultAction string `json:"defaultAction"`
		} `json:"networkAcls"`
		Encryption struct {
			Source string `json:"keySource"`
		} `json:"encryption"`
	} `json:"properties"`
}

// refuse names what is asked for and would not hold. A setting that protects nothing must not look as if it did.
func (b accountRequest) refuse() error {
	yes := func(v *bool) bool { return v != nil && *v }
	p := b.Properties
	switch {
	case yes(p.PublicAccess):
		return notInAccounts("allowBlobPublicAccess", "Nobody reads a blob without a key, a signature or a role. Sign a URL instead.")
	case p.HTTPSOnly != nil && !*p.HTTPSOnly:
		return notInAccounts("supportsHttpsTrafficOnly", "The server speaks https alone.")
	case yes(p.HNS):
		return notInAccounts("isHnsEnabled", "Use block blobs in a flat namespace.")
	case yes(p.SFTP), yes(p.NFS):
		return notInAccounts("isSftpEnabled", "Use the Blob service.")
	case p.Network != "" && !strings.EqualFold(p.Network, "Enabled"), strings.EqualFold(p.ACLs.DefaultAction, "Deny"):
		return notInAccounts("networkAcls", "Restrict who can reach the server in front of it, with a firewall.")
	case p.Encryption.Source != "" && !strings.EqualFold(p.Encryption.Source, "Microsoft.Storage"):
		return notInAccounts("encryption", "Keep the store on an encrypted disk.")
	}
	return nil
}

func notInAccounts(setting, advice string) error {
	return problem.New(problem.Unsupported, "FeatureNotSupportedForAccount", "The storage account setting %s cannot have this value here.", setting).
		WithTarget(setting).WithAdvice("%s", advice)
}

// change lets an account be what the request says.
func (b accountRequest) change(a *storage.Account) {
	if b.Tags != nil {
		a.Tags = *b.Tags
	}
	if b.Kind != "" {
		a.Kind = b.Kind
	}
	if b.SKU.Name != "" {
		a.SKU = b.SKU.Name
	}
	if v := b.Properties.AccessTier; v != nil {
		a.AccessTier = *v
	}
	if v := b.Properties.MinimumTLS; v != nil {
		a.MinimumTLS = *v
	}
	if v := b.Properties.SharedKeys; v != nil {
		a.NoSharedKeys = !*v
	}
}

// tier is the first word of an SKU's name.
func tier(sku string) string {
	t, _, _ := strings.Cut(sku, "_")
	return t
}

// armTime is how Resource Manager writes times.
const armTime = "2006-01-02T15:04:05.9999999Z"

func (h *door) encodeAccount(a storage.Account) accountBody {
	p := accountProperties{
		Provisioning: "Succeeded", PrimaryEndpoints: map[string]string{"blob": h.s.Endpoint(a.ID.Name())}, PrimaryLocation: a.Location, PrimaryStatus: "available",
		Created: a.Created.UTC().Format(armTime), AccessTier: a.AccessTier, MinimumTLS: a.MinimumTLS, SharedKeys: !a.NoSharedKeys, HTTPSOnly: true,
		NetworkACLs: networkACLs{Bypass: "AzureServices", DefaultAction: "Allow", IPRules: []any{}, NetworkRules: []any{}},
		Encryption:  map[string]string{"keySource": "Microsoft.Storage"}}
	if p.AccessTier == "" {
		p.AccessTier = "Hot"
	}
	if p.MinimumTLS == "" {
		p.MinimumTLS = "TLS1_2"
	}
	if a.Tags == nil {
		a.Tags = map[string]string{}
	}
	return accountBody{a.ID.String(), a.ID.Name(), accountType, a.Location, a.Tags, a.Kind, accountSKU{a.SKU, tier(a.SKU)}, p}
}

func (h *door) getAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	a, err := h.s.Account(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(h.encodeAccount(a)), nil
}

func (h *door) putAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body accountRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.refuse(); err != nil {
		return nil, err
	}
	a := storage.Account{ID: r.ID, Location: body.Location, Kind: "StorageV2", SKU: "Standard_LRS"}
	body.change(&a)
	a, _, err := h.s.PutAccount(ctx, a)
	if err != nil {
		return nil, err
	}
	return arm.OK(h.encodeAccount(a)), nil // never 201, which is no success to Azure's clients here
}

func (h *door) patchAccount(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body accountRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.refuse(); err != nil {
		return nil, err
	}
	a, err := h.s.ChangeAccount(ctx, r.ID, body.change)
	if err != nil {
		return nil, err
	}
	return arm.OK(h.encodeAccount(a)), nil
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
