package client

import (
	"context"
	"net/http"

	"kluis/internal/armid"
	"kluis/internal/secret"
)

const versionMetadata = "2022-09-01"

// Cloud is what the server says of itself to clients that are new to it.
type Cloud struct {
	Name            string        `json:"name"`
	ResourceManager string        `json:"resourceManager"`
	Suffixes        CloudSuffixes `json:"suffixes"`
}

// CloudSuffixes are what follows a key vault's name, and a storage account's name and ".blob.".
type CloudSuffixes struct {
	KeyVaultDNS string `json:"keyVaultDns"`
	Storage     string `json:"storage"`
}

// Cloud asks the server what it is. No token is needed for that.
func (c *Client) Cloud(ctx context.Context) (Cloud, error) {
	var cloud Cloud
	err := fetch(ctx, c.open, http.MethodGet, c.armURL("/metadata/endpoints", versionMetadata, nil), nil, &cloud)
	return cloud, err
}

// Host is the server's name, and Authority its name with the port, as URLs have it.
func (c *Client) Host() string      { return c.endpoint.Hostname() }
func (c *Client) Authority() string { return c.endpoint.Host }

// CAFile is the file of the authority that certified the server.
func (c *Client) CAFile() string { return c.admin.CAFile }

// ClientID is what the client's principal logs in with; ClientSecret proves it.
func (c *Client) ClientID() string           { return c.admin.ClientID }
func (c *Client) ClientSecret() secret.Bytes { return c.admin.ClientSecret }

// StorageAccounts lists the storage accounts of a scope.
func (c *Client) StorageAccounts(ctx context.Context, scope armid.ID) ([]StorageAccount, error) {
	return listResources[StorageAccountProperties](ctx, c, collection(scope, "Microsoft.Storage/storageAccounts"), versionStorage, "")
}
