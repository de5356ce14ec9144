package login

import (
	"net/http"

	"kluis/internal/identity"
)

// cloud describes this cloud in the shape of /metadata/endpoints. Terraform insists on every member
// that it knows, also on those of services that are not here: they name the base.
type cloud struct {
	Name                    string         `json:"name"`
	Portal                  string         `json:"portal"`
	ResourceManager         string         `json:"resourceManager"`
	Authentication          authentication `json:"authentication"`
	MicrosoftGraph          string         `json:"microsoftGraphResourceId"`
	Graph                   string         `json:"graph"`
	GraphAudience           string         `json:"graphAudience"`
	Batch                   string         `json:"batch"`
	Media                   string         `json:"media"`
	Gallery                 string         `json:"gallery"`
	VMImageAliases          string         `json:"vmImageAliasDoc"`
	SQLManagement           string         `json:"sqlManagement"`
	ActiveDirectoryDataLake string         `json:"activeDirectoryDataLake"`
	Suffixes                suffixes       `json:"suffixes"`
}

type authentication struct {
	LoginEndpoint    string   `json:"loginEndpoint"`
	Audiences        []string `json:"audiences"`
	Tenant           string   `json:"tenant"`
	IdentityProvider string   `json:"identityProvider"`
}

type suffixes struct {
	KeyVaultDNS        string `json:"keyVaultDns"`
	Storage            string `json:"storage"`
	SQLServer          string `json:"sqlServerHostname"`
	ManagedHSMDNS      string `json:"mhsmDns"`
	ContainerRegistry  string `json:"acrLoginServer"`
	StorageSyncService string `json:"storageSyncEndpointSuffix"`
}

// metadata describes the cloud. From 2022-09-01 the answer is one object, from 2018-05-01 a list of
// them, and in 2015-01-01 an object with fewer members under older names.
func (d *door) metadata(w http.ResponseWriter, r *http.Request) {
	c := d.cloud(r)
	switch version := r.URL.Query().Get("api-version"); {
	case version >= "2022-09-01":
		d.write(w, http.StatusOK, c)
	case version >= "2018-05-01":
		d.write(w, http.StatusOK, []cloud{c})
	default:
		d.write(w, http.StatusOK, map[string]any{
			"galleryEndpoint": c.Gallery, "graphEndpoint": c.Graph, "portalEndpoint": c.Portal,
			"authentication": map[string]any{"loginEndpoint": c.Authentication.LoginEndpoint, "audiences": c.Authentication.Audiences},
		})
	}
}

func (d *door) cloud(r *http.Request) cloud {
	base := d.options.Base(r)
	audiences := []string{base}
	if arm := identity.Audience(d.options.ARMAudience); arm != "" && arm != base {
		audiences = []string{arm, base}
	}
	return cloud{
		Name: d.options.Name, Portal: base, ResourceManager: base,
		Authentication: authentication{base, audiences, "common", "AAD"}, // anything else is Azure Stack to Terraform
		MicrosoftGraph: base, Graph: base, GraphAudience: base, Batch: base, Media: base, Gallery: base,
		VMImageAliases: base, SQLManagement: base, ActiveDirectoryDataLake: base,
		Suffixes: suffixes{
			KeyVaultDNS: d.options.KeyVaultDNS, Storage: d.options.StorageDNS,
			SQLServer: "sql." + d.options.StorageDNS, ManagedHSMDNS: "managedhsm." + d.options.StorageDNS,
			ContainerRegistry: "azurecr." + d.options.StorageDNS, StorageSyncService: "afs." + d.options.StorageDNS,
		},
	}
}
