package keyvault

import (
	"strings"
	"time"

	"kluis/internal/keyvault"
	"kluis/internal/problem"
)

// The JSON of Microsoft.KeyVault/vaults. Pointers tell what was sent from what was not.

type vaultRequest struct {
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Properties struct {
		TenantID                     *string                 `json:"tenantId"`
		SKU                          *sku                    `json:"sku"`
		AccessPolicies               []keyvault.AccessPolicy `json:"accessPolicies"`
		EnabledForDeployment         *bool                   `json:"enabledForDeployment"`
		EnabledForDiskEncryption     *bool                   `json:"enabledForDiskEncryption"`
		EnabledForTemplateDeployment *bool                   `json:"enabledForTemplateDeployment"`
		EnableSoftDelete             *bool                   `json:"enableSoftDelete"`
		SoftDeleteRetentionInDays    *int                    `json:"softDeleteRetentionInDays"`
		EnableRbacAuthorization      *bool                   `json:"enableRbacAuthorization"`
		EnablePurgeProtection        *bool                   `json:"enablePurgeProtection"`
		CreateMode                   string                  `json:"createMode"`
		NetworkACLs                  *networkACLs            `json:"networkAcls"`
		PublicNetworkAccess          *string                 `json:"publicNetworkAccess"`
	} `json:"properties"`
}

type sku struct {
	Family string `json:"family"`
	Name   string `json:"name"`
}

type networkACLs struct {
	Bypass              string `json:"bypass"`
	DefaultAction       string `json:"defaultAction"`
	IPRules             []any  `json:"ipRules"`
	VirtualNetworkRules []any  `json:"virtualNetworkRules"`
}

// apply puts what was sent into settings, and refuses what would not be kept.
func (b *vaultRequest) apply(s *keyvault.Settings, tenant string) error {
	p := &b.Properties
	if p.TenantID != nil && !strings.EqualFold(*p.TenantID, tenant) {
		return notKept("tenantId", "the tenant is not that of this installation").WithAdvice("Set tenantId to %s.", tenant)
	}
	if p.EnableSoftDelete != nil && !*p.EnableSoftDelete {
		return notKept("enableSoftDelete", "soft delete can't be turned off").WithAdvice("Leave enableSoftDelete out, and purge what you have deleted.")
	}
	if p.PublicNetworkAccess != nil && strings.EqualFold(*p.PublicNetworkAccess, "Disabled") {
		return notKept("publicNetworkAccess", "there are no private endpoints").WithAdvice("Set publicNetworkAccess to Enabled, and limit who reaches the server at its host.")
	}
	if a := p.NetworkACLs; a != nil {
		if strings.EqualFold(a.DefaultAction, "Deny") || len(a.IPRules)+len(a.VirtualNetworkRules) > 0 {
			return notKept("networkAcls", "network rules are not enforced").WithAdvice("Set networkAcls.defaultAction to Allow without rules, and limit who reaches the server at its host.")
		}
		s.NetworkBypass = a.Bypass
	}
	if b.Tags != nil {
		s.Tags = b.Tags
	}
	if p.SKU != nil {
		s.SKU = p.SKU.Name
	}
	if p.AccessPolicies != nil {
		s.AccessPolicies = p.AccessPolicies
	}
	set(&s.EnabledForDeployment, p.EnabledForDeployment)
	set(&s.EnabledForDiskEncryption, p.EnabledForDiskEncryption)
	set(&s.EnabledForTemplateDeployment, p.EnabledForTemplateDeployment)
	set(&s.RBAC, p.EnableRbacAuthorization)
	set(&s.PurgeProtection, p.EnablePurgeProtection)
	set(&s.SoftDeleteDays, p.SoftDeleteRetentionInDays)
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func notKept(target, why string) *problem.Error {
	return problem.New(problem.Unsupported, "BadRequest", "The property %s can't be set so: %s.", target, why).WithTarget(target)
}

type vaultBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	SystemData systemData        `json:"systemData"`
	Properties vaultProperties   `json:"properties"`
}

type systemData struct {
	CreatedBy          string `json:"createdBy"`
	CreatedByType      string `json:"createdByType"`
	CreatedAt          string `json:"createdAt"`
	LastModifiedBy     string `json:"lastModifiedBy"`
	LastModifiedByType string `json:"lastModifiedByType"`
	LastModifiedAt     string `json:"lastModifiedAt"`
}

type vaultProperties struct {
	SKU                          sku                     `json:"sku"`
	TenantID                     string                  `json:"tenantId"`
	NetworkACLs                  *networkACLs            `json:"networkAcls,omitempty"`
	AccessPolicies               []keyvault.AccessPolicy `json:"accessPolicies"`
	EnabledForDeployment         bool                    `json:"enabledForDeployment"`
	EnabledForDiskEncryption     bool                    `json:"enabledForDiskEncryption"`
	EnabledForTemplateDeployment bool                    `json:"enabledForTemplateDeployment"`
	EnableSoftDelete             bool                    `json:"enableSoftDelete"`
	SoftDeleteRetentionInDays    int                     `json:"softDeleteRetentionInDays"`
	EnableRbacAuthorization      bool                    `json:"enableRbacAuthorization"`
	EnablePurgeProtection        *bool                   `json:"enablePurgeProtection,omitempty"` // Azure never says false
	VaultURI                     string                  `json:"vaultUri"`
	ProvisioningState            string                  `json:"provisioningState"`
	PublicNetworkAccess          string                  `json:"publicNetworkAccess"`
}

func (h management) vault(v keyvault.Vault) vaultBody {
	b := vaultBody{
		ID: v.ID.String(), Name: v.Name(), Type: keyvault.VaultType, Location: v.Location, Tags: tagsOf(v.Tags),
		SystemData: systemData{v.CreatedBy, "Application", fineStamp(v.Created), v.ChangedBy, "Application", fineStamp(v.Changed)},
		Properties: vaultProperties{
			SKU: sku{"A", v.SKU}, TenantID: h.s.TenantID(), AccessPolicies: append([]keyvault.AccessPolicy{}, v.AccessPolicies...),
			EnabledForDeployment: v.EnabledForDeployment, EnabledForDiskEncryption: v.EnabledForDiskEncryption,
			EnabledForTemplateDeployment: v.EnabledForTemplateDeployment, EnableSoftDelete: true, SoftDeleteRetentionInDays: v.SoftDeleteDays,
			EnableRbacAuthorization: v.RBAC, VaultURI: v.URI, ProvisioningState: "Succeeded", PublicNetworkAccess: "Enabled",
		},
	}
	if v.PurgeProtection {
		b.Properties.EnablePurgeProtection = new(true)
	}
	if v.NetworkBypass != "" {
		b.Properties.NetworkACLs = &networkACLs{v.NetworkBypass, "Allow", []any{}, []any{}}
	}
	return b
}

type policiesRequest struct {
	Properties struct {
		AccessPolicies []keyvault.AccessPolicy `json:"accessPolicies"`
	} `json:"properties"`
}

type policiesBody struct {
	ID         string             `json:"id"`
	Type       string             `json:"type"`
	Location   string             `json:"location"`
	Properties policiesProperties `json:"properties"`
}

type policiesProperties struct {
	AccessPolicies []keyvault.AccessPolicy `json:"accessPolicies"`
}

type deletedBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Properties deletedProperties `json:"properties"`
}

type deletedProperties struct {
	VaultID                string            `json:"vaultId"`
	Location               string            `json:"location"`
	Tags                   map[string]string `json:"tags"`
	DeletionDate           string            `json:"deletionDate"`
	ScheduledPurgeDate     string            `json:"scheduledPurgeDate"`
	PurgeProtectionEnabled *bool             `json:"purgeProtectionEnabled,omitempty"`
}

type nameBody struct {
	NameAvailable bool   `json:"nameAvailable"`
	Reason        string `json:"reason,omitempty"`
	Message       string `json:"message,omitempty"`
}

// tagsOf is never null: clients range over it.
func tagsOf(tags map[string]string) map[string]string {
	if tags == nil {
		return map[string]string{}
	}
	return tags
}

func stamp(t time.Time) string     { return t.UTC().Format("2006-01-02T15:04:05Z") }
func fineStamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
