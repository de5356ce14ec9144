package client

import (
	"context"
	"net/http"

	"kluis/internal/armid"
)

// KeyVault is a key vault as the Resource Manager sees it. Its keys and secrets are read and written at
// Properties.VaultURI.
type KeyVault = Resource[KeyVaultProperties]

// KeyVaultProperties are the settings of a key vault.
type KeyVaultProperties struct {
	TenantID                     string         `json:"tenantId,omitempty"`
	SKU                          *SKU           `json:"sku,omitempty"`
	AccessPolicies               []AccessPolicy `json:"accessPolicies"`
	VaultURI                     string         `json:"vaultUri,omitempty"`
	EnabledForDeployment         bool           `json:"enabledForDeployment"`
	EnabledForDiskEncryption     bool           `json:"enabledForDiskEncryption"`
	EnabledForTemplateDeployment bool           `json:"enabledForTemplateDeployment"`
	EnableRBACAuthorization      bool           `json:"enableRbacAuthorization,omitempty"`
	SoftDeleteRetentionInDays    int            `json:"softDeleteRetentionInDays,omitempty"`
	CreateMode                   string         `json:"createMode,omitempty"`
	ProvisioningState            string         `json:"provisioningState,omitempty"`
}

// AccessPolicy says what one principal may do with a key vault's content.
type AccessPolicy struct {
	TenantID    string      `json:"tenantId"`
	ObjectID    string      `json:"objectId"`
	Permissions Permissions `json:"permissions"`
}

// Permissions are the verbs of an access policy: get, list, backup, …
type Permissions struct {
	Keys         []string `json:"keys,omitempty"`
	Secrets      []string `json:"secrets,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
}

// DeletedKeyVault is a key vault in soft delete.
type DeletedKeyVault = Resource[DeletedKeyVaultProperties]

// DeletedKeyVaultProperties says where it was and when it goes for good.
type DeletedKeyVaultProperties struct {
	VaultID            string `json:"vaultId"`
	Location           string `json:"location"`
	DeletionDate       string `json:"deletionDate"`
	ScheduledPurgeDate string `json:"scheduledPurgeDate"`
}

// The principal Backup Management Service, as which every server reads keys and secrets: its application
// id is Azure's own, its object id is what access policies name.
const (
	BackupManagementServiceApp = "262044b1-e2ce-469f-a196-69ab7ada62d3"
	BackupManagementService    = "5d3a9c1e-7b42-4f0a-9c56-1f8e2ab7d9c4"
)

// AzureBackupTemplate is what the access policy template 'Azure Backup' grants: read-only access.
func AzureBackupTemplate() Permissions {
	verbs := []string{"get", "list", "backup"}
	return Permissions{Keys: verbs, Secrets: verbs}
}

// EveryPermission is what the owner of a key vault gives to himself.
func EveryPermission() Permissions {
	return Permissions{
		Keys: []string{"get", "list", "create", "import", "update", "delete", "recover", "purge", "backup", "restore",
			"encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify", "rotate", "getrotationpolicy", "setrotationpolicy"},
		Secrets: []string{"get", "list", "set", "delete", "recover", "purge", "backup", "restore"},
	}
}

const typeKeyVault = "Microsoft.KeyVault/vaults"

// KeyVaultID is the id of a key vault.
func (c *Client) KeyVaultID(group, name string) armid.ID {
	return c.ResourceID(group, typeKeyVault, name)
}

// PutKeyVault creates or replaces a key vault. Tenant and SKU are filled in.
func (c *Client) PutKeyVault(ctx context.Context, id armid.ID, location string, p KeyVaultProperties) (KeyVault, error) {
	if p.TenantID == "" {
		p.TenantID = c.TenantID()
	}
	if p.SKU == nil {
		p.SKU = &SKU{Name: "standard", Family: "A"}
	}
	if p.AccessPolicies == nil {
		p.AccessPolicies = []AccessPolicy{}
	}
	return putResource(ctx, c, id, versionKeyVault, KeyVault{Location: location, Properties: p})
}

// KeyVault reads a key vault.
func (c *Client) KeyVault(ctx context.Context, id armid.ID) (KeyVault, error) {
	return getResource[KeyVaultProperties](ctx, c, id, versionKeyVault)
}

// KeyVaults lists the key vaults of a scope: a group or the subscription.
func (c *Client) KeyVaults(ctx context.Context, scope armid.ID) ([]KeyVault, error) {
	return listResources[KeyVaultProperties](ctx, c, collection(scope, typeKeyVault), versionKeyVault, "")
}

// DeleteKeyVault puts a key vault into soft delete.
func (c *Client) DeleteKeyVault(ctx context.Context, id armid.ID) error {
	return c.delete(ctx, id, versionKeyVault)
}

// DeletedKeyVaults lists the key vaults in soft delete.
func (c *Client) DeletedKeyVaults(ctx context.Context) ([]DeletedKeyVault, error) {
	return listResources[DeletedKeyVaultProperties](ctx, c, collection(c.Subscription(), "Microsoft.KeyVault/deletedVaults"), versionKeyVault, "")
}

// PurgeKeyVault destroys a key vault in soft delete, with all that is in it.
func (c *Client) PurgeKeyVault(ctx context.Context, location, name string) error {
	path := collection(c.Subscription(), "Microsoft.KeyVault/locations/"+location+"/deletedVaults/"+name+"/purge")
	return c.do(ctx, http.MethodPost, path, versionKeyVault, nil, nil)
}

// AddAccessPolicy adds permissions for a principal, named by its object id, to those it has.
func (c *Client) AddAccessPolicy(ctx context.Context, id armid.ID, objectID string, p Permissions) error {
	body := map[string]any{"properties": map[string]any{
		"accessPolicies": []AccessPolicy{{TenantID: c.TenantID(), ObjectID: objectID, Permissions: p}},
	}}
	return c.do(ctx, http.MethodPut, id.String()+"/accessPolicies/add", versionKeyVault, body, nil)
}
