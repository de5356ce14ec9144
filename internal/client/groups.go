package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"kluis/internal/armid"
)

// Group is a resource group.
type Group = Resource[GroupProperties]

// GroupProperties is what we read of a resource group.
type GroupProperties struct {
	ProvisioningState string `json:"provisioningState,omitempty"`
}

// PutGroup creates a resource group, or leaves it as it is.
func (c *Client) PutGroup(ctx context.Context, name, location string) (Group, error) {
	return putResource(ctx, c, c.Subscription().Group(name), versionResources, Group{Location: location})
}

// Group reads a resource group.
func (c *Client) Group(ctx context.Context, name string) (Group, error) {
	var g Group
	err := c.get(ctx, c.Subscription().Group(name).String(), versionResources, nil, &g)
	return g, err
}

// Groups lists the resource groups of the subscription.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	return list[Group](ctx, c, c.armPipeline(), c.listARM(c.Subscription().String()+"/resourceGroups", versionResources, ""))
}

// DeleteGroup deletes a resource group.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	return c.delete(ctx, c.Subscription().Group(name), versionResources)
}

// StorageAccount is where a restore writes its template and configuration.
type StorageAccount = Resource[StorageAccountProperties]

// StorageAccountProperties is what we read of a storage account.
type StorageAccountProperties struct {
	ProvisioningState string            `json:"provisioningState,omitempty"`
	PrimaryEndpoints  map[string]string `json:"primaryEndpoints,omitempty"`
}

// StorageAccountID is the id of a storage account.
func (c *Client) StorageAccountID(group, name string) armid.ID {
	return c.ResourceID(group, "Microsoft.Storage/storageAccounts", name)
}

// PutStorageAccount creates a storage account, or leaves it as it is.
func (c *Client) PutStorageAccount(ctx context.Context, id armid.ID, location string) (StorageAccount, error) {
	return putResource(ctx, c, id, versionStorage, StorageAccount{
		Location: location, Kind: "StorageV2", SKU: &SKU{Name: "Standard_LRS"},
	})
}

// Deployment is one run of a template.
type Deployment = Resource[DeploymentProperties]

// DeploymentProperties is what we read of a deployment.
type DeploymentProperties struct {
	ProvisioningState string          `json:"provisioningState,omitempty"`
	Timestamp         string          `json:"timestamp,omitempty"`
	Duration          string          `json:"duration,omitempty"`
	Outputs           json.RawMessage `json:"outputs,omitempty"`
	OutputResources   []Ref           `json:"outputResources,omitempty"`
	Error             json.RawMessage `json:"error,omitempty"`
}

// DeploymentID is the id of a deployment.
func (c *Client) DeploymentID(group, name string) armid.ID {
	return c.ResourceID(group, "Microsoft.Resources/deployments", name)
}

// Deploy runs a template with parameters, incrementally, and returns when all that it describes is
// there. The template goes with the request, whoever wrote it.
func (c *Client) Deploy(ctx context.Context, id armid.ID, template json.RawMessage, parameters map[string]any) (Deployment, error) {
	values := map[string]any{}
	for name, value := range parameters {
		values[name] = map[string]any{"value": value}
	}
	body := map[string]any{"properties": map[string]any{"mode": "Incremental", "template": template, "parameters": values}}
	var d Deployment
	err := c.do(ctx, http.MethodPut, id.String(), versionResources, body, &d)
	return d, err
}

// Deployment reads a deployment.
func (c *Client) Deployment(ctx context.Context, id armid.ID) (Deployment, error) {
	return getResource[DeploymentProperties](ctx, c, id, versionResources)
}

// Blob reads a blob by its address, e.g. the template that a restore wrote.
func (c *Client) Blob(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil || !c.ours(u) {
		return nil, &Error{Code: "InvalidBlobUri", Target: address,
			Message: "The address does not belong to this server.",
			Advice:  "Take the address from the job of the restore: kluis job show."}
	}
	return c.dataBytes(ctx, address)
}
