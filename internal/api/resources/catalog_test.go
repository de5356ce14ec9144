package resources_test

import (
	"net/url"
	"strings"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

// filter is a path with a $filter.
func filter(path, text string) string { return path + "?" + url.Values{"$filter": {text}}.Encode() }

func names(a answer) (all []string) {
	for i := range length(a) {
		all = append(all, at(a.body, "value", i, "name").(string))
	}
	return all
}

// All resources are one list, whoever keeps them; a caller sees of it what he may.
func TestResourcesOfAllKinds(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		d.want(201, "", d.send("PUT", group+"2", `{"location":"here","tags":{"Stage":"prod"}}`))
		d.want(201, "", d.send("PUT", networks+"/net", `{"location":"westeurope","tags":{"Stage":"prod","owner":"a"}}`))
		d.want(201, "", d.send("PUT", strings.Replace(networks, "/rg/", "/rg2/", 1)+"/net2", here))
		d.want(200, "", d.send("PUT", accounts+"/one", `{"location":"westeurope","tags":{"stage":"test"}}`))
		d.want(201, "", d.send("PUT", deployments+"/d", template(`{}`, ""))) // no resource
		for text, want := range map[string]string{
			"": "net net2 one", "resourceType eq 'microsoft.network/VIRTUALNETWORKS'": "net net2", "resourceGroup eq 'RG2'": "net2", "name eq 'one'": "one",
			"tagName eq 'stage'": "net one", "tagName eq 'stage' and tagValue eq 'prod'": "net", "tagValue eq 'test'": "one", "location eq 'nowhere'": "",
			"resourceGroup eq 'rg' and resourceType eq 'Microsoft.Network/virtualNetworks'": "net", "resourceType eq 'Microsoft.Resources/deployments'": "",
		} {
			a := d.want(200, "", d.send("GET", filter(subscription+"/resources", text), ""))
			if got := strings.Join(names(a), " "); got != want {
				t.Errorf("%q finds %q, want %q", text, got, want)
			}
		}
		a := d.want(200, "", d.send("GET", group+"/resources?$expand=createdTime,provisioningState", ""))
		if strings.Join(names(a), " ") != "net one" || at(a.body, "value", 1, "sku", "name") != "Standard_LRS" || at(a.body, "value", 0, "provisioningState") != "Succeeded" ||
			at(a.body, "value", 0, "properties") != nil {
			t.Errorf("resources %s", a.raw)
		}
		if a := d.want(200, "", d.send("GET", subscription+"/resources?$top=2", "")); length(a) != 2 || !strings.Contains(a.raw, "nextLink") {
			t.Errorf("two resources %s", a.raw)
		}
		if a := d.want(200, "", d.send("GET", filter(subscription+"/resourceGroups", "tagName eq 'stage' and tagValue eq 'prod'"), "")); strings.Join(names(a), " ") != "rg2" {
			t.Errorf("groups with the tag %s", a.raw)
		}
		d.denied = "storageAccounts/read"
		if a := d.want(200, "", d.send("GET", subscription+"/resources", "")); strings.Join(names(a), " ") != "net net2" {
			t.Errorf("who may not see accounts sees %s", a.raw)
		}
	})
}

func TestTags(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		d.want(201, "", d.send("PUT", networks+"/net", here))
		d.want(200, "", d.send("PUT", accounts+"/one", `{"location":"westeurope","sku":{"name":"Premium_LRS"}}`))
		for _, of := range []string{subscription, group, networks + "/net", accounts + "/one"} {
			tags := of + "/providers/Microsoft.Resources/tags/default"
			want := func(a answer, names ...string) {
				t.Helper()
				read := d.want(200, "", d.send("GET", tags, ""))
				resource := d.want(200, "", d.send("GET", of, ""))
				for _, got := range []any{at(a.body, "properties", "tags"), at(read.body, "properties", "tags"), resource.body["tags"]} {
					all, _ := got.(map[string]any)
					if len(all) != len(names) || len(names) > 0 && all[names[0]] != "1" {
						t.Errorf("tags of %s are %v, want %v", of, got, names)
					}
				}
			}
			want(d.want(200, "", d.send("PUT", tags, `{"properties":{"tags":{"a":"1","b":"2"}}}`)), "a", "b")
			want(d.want(200, "", d.send("PATCH", tags, `{"operation":"Merge","properties":{"tags":{"B":"3","c":"4"}}}`)), "a", "b", "c")
			want(d.want(200, "", d.send("PATCH", tags, `{"operation":"Delete","properties":{"tags":{"b":"other","C":""}}}`)), "a", "b")
			want(d.want(200, "", d.send("PATCH", tags, `{"operation":"Replace","properties":{"tags":{"z":"1"}}}`)), "z")
			if a := d.want(200, "", d.send("GET", subscription+"/tagNames", "")); at(a.body, "value", 0, "tagName") != "z" || at(a.body, "value", 0, "values", 0, "count", "value") != 1.0 {
				t.Errorf("names of tags %s", a.raw)
			}
			want(d.want(200, "", d.send("DELETE", tags, "")))
		}
		if a := d.want(200, "", d.send("GET", accounts+"/one", "")); at(a.body, "sku", "name") != "Premium_LRS" {
			t.Errorf("tagging changed the account: %s", a.raw)
		}
		d.denied = "virtualNetworks/write"
		if a := d.send("PUT", networks+"/net/providers/Microsoft.Resources/tags/default", `{"properties":{"tags":{"a":"1"}}}`); a.status != 403 {
			t.Errorf("who may not change the network may tag it: %d", a.status)
		}
	})
}

// A group goes with all that is in it.
func TestDeleteGroupWithContents(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.send("PUT", networks+"/net", here))
	d.want(200, "", d.send("PUT", accounts+"/one", here))
	d.want(201, "", d.send("PUT", deployments+"/d", template(`{}`, "")))
	d.denied = "storageAccounts/delete"
	if a := d.want(409, "ResourceGroupDeletionBlocked", d.send("DELETE", group, "")); at(a.body, "error", "details", 0, "code") != "AuthorizationFailed" {
		t.Errorf("the reason is not told: %s", a.raw)
	}
	d.want(200, "", d.send("GET", networks+"/net", ""))
	d.denied = ""
	location := strings.TrimPrefix(d.want(202, "", d.send("DELETE", group, "")).header.Get("Location"), "https://localhost")
	d.want(200, "", d.send("GET", strings.Split(location, "?")[0], ""))
	d.want(404, "ResourceGroupNotFound", d.send("GET", networks+"/net", ""))
	d.want(201, "", d.send("PUT", group, here))
	d.want(202, "", d.send("GET", strings.Split(location, "?")[0], "")) // somebody made it anew
	if a := d.want(200, "", d.send("GET", group+"/resources", "")); length(a) != 0 {
		t.Errorf("the group came back with %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", deployments, "")); length(a) != 0 {
		t.Errorf("the group came back with the deployments %s", a.raw)
	}
}

func TestProviders(t *testing.T) {
	d := open(t, sqlite(t))
	a := d.want(200, "", d.send("GET", subscription+"/providers/Microsoft.Storage", ""))
	if at(a.body, "resourceTypes", 0, "resourceType") != "storageAccounts" || at(a.body, "resourceTypes", 0, "apiVersions", 0) != "2025-08-01" ||
		at(a.body, "resourceTypes", 0, "locations", 0) != "North Europe" || a.body["registrationState"] != "Registered" {
		t.Errorf("provider %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", subscription+"/providers/Microsoft.Network/resourceTypes", "")); length(a) != 6 {
		t.Errorf("types %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", "/providers/Microsoft.Network", "")); a.body["namespace"] != "Microsoft.Network" || a.body["registrationState"] != nil {
		t.Errorf("the tenant's provider %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", "/providers", "")); length(a) != 4 {
		t.Errorf("the tenant's providers %s", a.raw)
	}
}

// az writes some paths in ways of its own.
func TestPathsOfOldClients(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.send("PUT", group+"/providers/Microsoft.Network//virtualNetworks/net", here))
	d.want(201, "", d.send("PUT", deployments+"/d", template(`{}`, network("n1"))))
	short := subscription + "/resourcegroups/rg/deployments/d/operations"
	if a := d.want(200, "", d.send("GET", short, "")); length(a) != 1 {
		t.Errorf("operations %s", a.raw)
	}
	d.want(204, "", d.send("HEAD", deployments+"/d", ""))
	if a := d.want(200, "", d.send("GET", filter(deployments, "provisioningState eq 'Failed'"), "")); length(a) != 0 {
		t.Errorf("failed deployments %s", a.raw)
	}
	d.want(409, "DeploymentCannotBeCancelled", d.send("POST", deployments+"/d/cancel", ""))
}
