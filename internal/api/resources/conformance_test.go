package resources_test

import (
	"flag"
	"net/url"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

var update = flag.Bool("update", false, "write the list of what is compared anew")

// The answers hold what the published descriptions require, in the types that they give, and nothing that is not in them.
//
// The lists of tenants and subscriptions are not compared: their description requires a nextLink, which Azure itself
// does not send when there is no next page.
func TestAnswersAsPublished(t *testing.T) {
	subscriptions := openapitest.Open(t, "resources/resource-manager/Microsoft.Resources/stable/2022-12-01/subscriptions.json")
	manager := openapitest.Open(t, "resources/resource-manager/Microsoft.Resources/stable/2024-03-01/resources.json")
	keys := openapitest.Open(t, "keyvault/resource-manager/Microsoft.KeyVault/stable/2023-07-01/keyvault.json")
	d := open(t, sqlite(t))
	const (
		one       = "/subscriptions/{subscriptionId}"
		groups    = one + "/resourcegroups"
		named     = groups + "/{resourceGroupName}"
		generic   = named + "/providers/{resourceProviderNamespace}/{parentResourcePath}/{resourceType}/{resourceName}"
		tags      = "/{scope}/providers/Microsoft.Resources/tags/default"
		deploy    = named + "/providers/Microsoft.Resources/deployments/{deploymentName}"
		operation = named + "/deployments/{deploymentName}/operations"
		wide      = one + "/providers/Microsoft.Resources/deployments/{deploymentName}"
	)
	body := template(`{"name":{"value":"n1"}}`, network("[parameters('name')]"))
	for _, c := range []struct {
		described    openapitest.Spec
		method, path string // as the description writes it
		body         string
		status       int
	}{
		{subscriptions, "get", one, "", 200},
		{subscriptions, "get", one + "/locations", "", 200},
		{manager, "get", one + "/providers", "", 200},
		{manager, "get", "/providers", "", 200},
		{manager, "get", one + "/providers/{resourceProviderNamespace}", "", 200},
		{manager, "get", "/providers/{resourceProviderNamespace}", "", 200},
		{manager, "get", one + "/providers/{resourceProviderNamespace}/resourceTypes", "", 200},
		{manager, "post", one + "/providers/{resourceProviderNamespace}/register", "", 200},
		{manager, "post", one + "/providers/{resourceProviderNamespace}/unregister", "", 400},
		{manager, "get", one + "/providers/Microsoft.Resources/deployments/", "", 200},
		{manager, "put", wide, `{"location":"westeurope","properties":{"mode":"Incremental"}}`, 400},
		{manager, "get", wide, "", 404},
		{manager, "head", wide, "", 404},
		{manager, "delete", wide, "", 204},
		{manager, "post", wide + "/cancel", "", 404},
		{manager, "post", wide + "/validate", body, 400},
		{manager, "post", wide + "/whatIf", body, 400},
		{manager, "post", wide + "/exportTemplate", "", 400},
		{manager, "get", wide + "/operations", "", 404},
		{manager, "put", named, `{"location":"westeurope","tags":{"a":"b"},"managedBy":"somebody"}`, 200},
		{manager, "get", named, "", 200},
		{manager, "patch", named, `{"tags":{"c":"d"}}`, 200},
		{manager, "get", groups, "", 200},
		{manager, "put", generic, here, 201},
		{manager, "put", generic, here, 200},
		{manager, "get", generic, "", 200},
		{manager, "patch", generic, `{"tags":{"c":"d"}}`, 200},
		{manager, "head", generic, "", 204},
		{manager, "put", tags, `{"properties":{"tags":{"a":"b"}}}`, 200},
		{manager, "patch", tags, `{"operation":"Merge","properties":{"tags":{"c":"d"}}}`, 200},
		{manager, "get", tags, "", 200},
		{manager, "get", one + "/tagNames", "", 200},
		{manager, "get", one + "/resources", "", 200},
		{manager, "get", one + "/resourceGroups/{resourceGroupName}/resources", "", 200},
		{manager, "post", one + "/resourceGroups/{sourceResourceGroupName}/moveResources", "{}", 400},
		{manager, "post", one + "/resourceGroups/{sourceResourceGroupName}/validateMoveResources", "{}", 400},
		{keys, "get", one + "/resources", "", 200},
		{manager, "delete", tags, "", 200},
		{manager, "post", deploy + "/validate", body, 200},
		{manager, "put", deploy, body, 201},
		{manager, "get", deploy, "", 200},
		{manager, "head", deploy, "", 204},
		{manager, "get", named + "/providers/Microsoft.Resources/deployments/", "", 200},
		{manager, "get", operation, "", 200},
		{manager, "post", deploy + "/whatIf", body, 400},
		{manager, "post", deploy + "/exportTemplate", "", 400},
		{manager, "post", deploy + "/cancel", "", 409},
		{manager, "delete", deploy, "", 204},
		{manager, "get", deploy, "", 404},
		{manager, "delete", generic, "", 200},
		{manager, "delete", generic, "", 204},
		{manager, "head", generic, "", 404},
		{manager, "post", named + "/exportTemplate", "{}", 400},
		{manager, "head", named, "", 204},
		{manager, "delete", named, "", 202},
		{manager, "head", named, "", 404},
		{manager, "get", named, "", 404},
	} {
		at := strings.NewReplacer("/{scope}", networks+"/net", "{subscriptionId}", subscriptionID, "{resourceGroupName}", "rg", "{sourceResourceGroupName}", "rg", "{deploymentName}", "d",
			"{resourceProviderNamespace}/{parentResourcePath}/{resourceType}/{resourceName}", "Microsoft.Network//virtualNetworks/net",
			"{resourceProviderNamespace}", "Microsoft.Network").Replace(c.path)
		a := d.send(strings.ToUpper(c.method), at, c.body)
		if a.status != c.status {
			t.Errorf("%s %s = %d, want %d: %s", c.method, c.path, a.status, c.status, a.raw)
			continue
		}
		if c.method == "head" {
			a.raw = ""
		}
		if c.status != 404 || c.method != "head" {
			c.described.Check(t, c.method, c.path, a.status, a.raw)
		}
	}
	openapitest.Listed(t, "testdata/published.txt", *update, subscriptions, manager, keys)
}

// Whatever is sent as a path, a filter, a link to a page or a body is answered, with an error that says what is wrong or
// with what was asked for, and never by the server's own fault.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][4]string{
		{"GET", "/subscriptions/" + subscriptionID + "/resources", "resourceType eq 'Microsoft.Network/virtualNetworks' and tagName eq 'a'", ""},
		{"GET", group + "/providers/Microsoft.Network//virtualNetworks/net", "", ""},
		{"PUT", strings.ToUpper(networks) + "/net", "", `{"location":"westeurope","tags":{"a":"b"},"properties":null}`},
		{"PATCH", networks + "/net/providers/Microsoft.Resources/tags/default", "", `{"operation":"Merge","properties":{"tags":{"a":null}}}`},
		{"PUT", deployments + "/d", "", template(`{}`, network("n"))},
		{"DELETE", group, "atScope()", "{}"},
		{"POST", "/subscriptions//resourceGroups/../x", "a eq 'b", "[]"},
		{"GET", "/subscriptions/" + subscriptionID + "/operationresults/cmc", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], "AAAAAA", seed[3])
	}
	d := open(f, sqlite(f))
	f.Fuzz(func(t *testing.T, method, path, filter, token, body string) {
		d.t = t
		if method = strings.ToUpper(method); !strings.Contains(" GET PUT PATCH DELETE POST HEAD ", " "+method+" ") {
			method = "GET"
		}
		target := (&url.URL{Path: "/" + path}).EscapedPath() + "?" + url.Values{"$filter": {filter}, "$skipToken": {token}}.Encode()
		if a := d.send(method, target, body); a.status >= 500 || a.status < 200 {
			t.Fatalf("%s %s = %d %s", method, target, a.status, a.raw)
		}
	})
}
