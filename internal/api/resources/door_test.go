package resources_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	api "kluis/internal/api/resources"
	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/deployment"
	"kluis/internal/identity"
	"kluis/internal/objects/objectstest"
	"kluis/internal/problem"
	"kluis/internal/resources"
	"kluis/internal/seal"
	"kluis/internal/storage"
)

const (
	tenant         = "54826b22-38d6-4fb2-bad9-b7b93a3e9c5a"
	subscriptionID = "11111111-2222-3333-4444-555555555555"
	subscription   = "/subscriptions/" + subscriptionID
	group          = subscription + "/resourceGroups/rg"
	networks       = group + "/providers/Microsoft.Network/virtualNetworks"
	accounts       = group + "/providers/Microsoft.Storage/storageAccounts"
	deployments    = group + "/providers/Microsoft.Resources/deployments"
	here           = `{"location":"westeurope"}`
)

// door is the door with its three services. All is allowed, but what is denied.
type door struct {
	t      testing.TB
	router *arm.Router
	denied string
}

func (d *door) Authorize(_ context.Context, action string, _ armid.ID) error {
	if d.denied != "" && strings.HasSuffix(action, d.denied) {
		return problem.New(problem.Denied, "AuthorizationFailed", "no %s", action)
	}
	return nil
}

// newRoot makes a root key.
func newRoot(t testing.TB) *seal.Root {
	t.Helper()
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func open(t testing.TB, db *database.DB) *door {
	t.Helper()
	d := &door{t: t}
	now := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	r := resources.New(resources.Options{DB: db, Authorizer: d, TenantID: tenant, SubscriptionID: subscriptionID, SubscriptionName: "Kluis", Locations: []string{"North Europe", "cellar"}, Now: now})
	s := storage.New(storage.Options{DB: db, Authorizer: d, Groups: r, Bucket: objectstest.NewMemory(), DNSSuffix: "blob.localhost:8443",
		Seal: newRoot(t), Rand: rand.Reader, NewID: uuid.NewString, Now: now})
	r.Occupy(s)
	deploy := deployment.New(deployment.Options{DB: db, Authorizer: d, TenantID: tenant, Now: now, NewID: uuid.NewString,
		GroupLocation: func(ctx context.Context, name string) (string, error) {
			g, err := r.Group(ctx, name)
			return g.Location, err
		},
		Fetch: func(context.Context, string) ([]byte, error) { return nil, errors.New("there is no such blob") },
		Deployers: map[string]deployment.Deployer{"Microsoft.Network/virtualNetworks": func(ctx context.Context, id armid.ID, _ string, body json.RawMessage) error {
			if id.Name() == "broken" {
				return errors.New("a secret of the server's inside")
			}
			_, _, err := r.PutDocument(ctx, id, body)
			return err
		}}})
	var err error
	d.router, err = arm.NewRouter(arm.RouterOptions{
		Authenticate: func(ctx context.Context, r *http.Request) (context.Context, error) {
			if r.Header.Get("Authorization") != "Bearer right" {
				return nil, problem.New(problem.Unauthenticated, "InvalidAuthenticationToken", "no token that is valid").WithAdvice("Get a token.")
			}
			return identity.With(ctx, identity.Principal{ObjectID: "o"}), nil
		},
		Logger: slog.New(slog.DiscardHandler), NewID: uuid.NewString, InSubscription: r.InSubscription, GroupExists: r.GroupExists,
	}, api.Providers(r, deploy, s, arm.Provider{Namespace: "Microsoft.Other", Resources: []arm.Resource{{Type: "Microsoft.Other/things"}}})...)
	if err != nil {
		t.Fatal(err)
	}
	d.want(201, "", d.send("PUT", group, here))
	return d
}

func sqlite(t testing.TB) *database.DB {
	t.Helper()
	return databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "db"))
}

type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (d *door) send(method, path, body string) answer {
	d.t.Helper()
	return d.sendAs("Bearer right", method, path, body)
}

func (d *door) sendAs(authorization, method, path, body string) answer {
	d.t.Helper()
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	r := httptest.NewRequest(method, "https://localhost"+path+separator+"api-version=2021-04-01", io.NopCloser(strings.NewReader(body)))
	r.Header.Set("Authorization", authorization)
	r.ContentLength = int64(len(body))
	w := httptest.NewRecorder()
	d.router.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if a.raw != "" {
		if err := json.NewDecoder(bytes.NewReader(w.Body.Bytes())).Decode(&a.body); err != nil {
			d.t.Fatalf("%s %s answers what is not JSON: %v\n%s", method, path, err, a.raw)
		}
	}
	return a
}

// want checks the status and the code of an error, which must also say what to do.
func (d *door) want(status int, code string, a answer) answer {
	d.t.Helper()
	if a.status != status {
		d.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	if code == "" {
		return a
	}
	if got := at(a.body, "error", "code"); got != code || at(a.body, "error", "message") == "" || !strings.Contains(a.raw, "RecommendedAction") {
		d.t.Errorf("the error is %s, want %s with message and advice", a.raw, code)
	}
	return a
}

// at follows a path of keys and indexes through a document.
func at(v any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			list, _ := v.([]any)
			if s >= len(list) {
				return nil
			}
			v = list[s]
		}
	}
	return v
}

func length(a answer) int {
	list, _ := a.body["value"].([]any)
	return len(list)
}

func TestTenantAndSubscription(t *testing.T) {
	d := open(t, sqlite(t))
	if a := d.want(200, "", d.send("GET", "/tenants", "")); at(a.body, "value", 0, "tenantId") != tenant {
		t.Errorf("tenants %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", "/subscriptions", "")); length(a) != 1 || at(a.body, "value", 0, "subscriptionId") != subscriptionID {
		t.Errorf("subscriptions %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", subscription, "")); a.body["state"] != "Enabled" || a.body["tenantId"] != tenant {
		t.Errorf("subscription %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", subscription+"/locations", "")); length(a) != 3 || at(a.body, "value", 0, "name") != "northeurope" || at(a.body, "value", 2, "displayName") != "West Europe" {
		t.Errorf("locations %s", a.raw)
	}
	a := d.want(200, "", d.send("GET", subscription+"/providers/microsoft.network", ""))
	if a.body["namespace"] != "Microsoft.Network" || a.body["registrationState"] != "Registered" || !strings.Contains(a.raw, "virtualNetworks") {
		t.Errorf("provider %s", a.raw)
	}
	d.want(200, "", d.send("POST", subscription+"/providers/Microsoft.Other/register", ""))
	if a := d.want(200, "", d.send("GET", subscription+"/providers", "")); length(a) < 4 || !strings.Contains(a.raw, `"things"`) {
		t.Errorf("providers %s", a.raw)
	}
}

func TestGroups(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		d.want(200, "", d.send("PUT", group, `{"location":"West Europe","tags":{"a":"b"}}`))
		a := d.want(200, "", d.send("GET", strings.ToUpper(group[:16])+group[16:], ""))
		if a.body["id"] != group || a.body["location"] != "westeurope" || at(a.body, "tags", "a") != "b" || at(a.body, "properties", "provisioningState") != "Succeeded" {
			t.Errorf("group %s", a.raw)
		}
		if a := d.want(200, "", d.send("PATCH", group, `{"tags":{"c":"d"}}`)); at(a.body, "tags", "c") != "d" || at(a.body, "tags", "a") != nil {
			t.Errorf("patched group %s", a.raw)
		}
		if a := d.want(200, "", d.send("PATCH", group, `{}`)); at(a.body, "tags", "c") != "d" {
			t.Errorf("a patch of nothing made %s", a.raw)
		}
		if a := d.want(204, "", d.send("HEAD", group, "")); a.raw != "" {
			t.Errorf("head has a body: %s", a.raw)
		}
		d.want(404, "", d.send("HEAD", group+"2", ""))
		d.want(201, "", d.send("PUT", group+"2", here))
		if a := d.want(200, "", d.send("GET", subscription+"/resourcegroups", "")); length(a) != 2 {
			t.Errorf("groups %s", a.raw)
		}
		// One at a time, by the links.
		first := d.want(200, "", d.send("GET", subscription+"/resourcegroups?$top=1", ""))
		next, _ := first.body["nextLink"].(string)
		path, query, _ := strings.Cut(strings.TrimPrefix(next, "https://localhost"), "?")
		second := d.want(200, "", d.send("GET", path+"?"+strings.Replace(query, "api-version=2021-04-01", "x=y", 1), ""))
		if length(first) != 1 || length(second) != 1 || at(second.body, "value", 0, "name") != "rg2" {
			t.Errorf("pages %s and %s", first.raw, second.raw)
		}
		gone := d.want(202, "", d.send("DELETE", group+"2", ""))
		d.want(200, "", d.send("GET", strings.TrimPrefix(strings.Split(gone.header.Get("Location"), "?")[0], "https://localhost"), ""))
		d.want(404, "ResourceGroupNotFound", d.send("DELETE", group+"2", ""))
	})
}

func TestDocuments(t *testing.T) {
	d := open(t, sqlite(t))
	a := d.want(201, "", d.send("PUT", networks+"/net", `{"location":"westeurope","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/8"]}},"odd":1e30}`))
	if a.body["id"] != networks+"/net" || at(a.body, "properties", "provisioningState") != "Succeeded" || at(a.body, "properties", "addressSpace") == nil {
		t.Errorf("network %s", a.raw)
	}
	d.want(200, "", d.send("PUT", strings.ToLower(networks)+"/NET", here))
	if a := d.want(200, "", d.send("GET", networks, "")); length(a) != 1 || at(a.body, "value", 0, "name") != "net" {
		t.Errorf("networks %s", a.raw)
	}
	if a := d.want(200, "", d.send("GET", group+"/providers/Microsoft.Network/publicIPAddresses", "")); length(a) != 0 {
		t.Errorf("addresses %s", a.raw)
	}
	if a := d.want(200, "", d.send("PATCH", networks+"/net", `{"tags":{"a":"b"}}`)); at(a.body, "tags", "a") != "b" || a.body["location"] != "westeurope" {
		t.Errorf("tagged network %s", a.raw)
	}
	subnets := networks + "/net/subnets"
	if a := d.want(201, "", d.send("PUT", subnets+"/a", `{"properties":{"addressPrefix":"10.0.0.0/24"}}`)); a.body["id"] != subnets+"/a" || at(a.body, "properties", "provisioningState") != "Succeeded" {
		t.Errorf("subnet %s", a.raw)
	}
	d.want(200, "", d.send("PUT", subnets+"/A", `{"name":"a"}`))
	if a := d.want(200, "", d.send("GET", subnets, "")); length(a) != 1 {
		t.Errorf("subnets %s", a.raw)
	}
	d.want(201, "", d.send("PUT", group+"/providers/Microsoft.Network/networkInterfaces/nic", `{"location":"x","properties":{"ipConfigurations":[{"name":"i","properties":{"subnet":{"id":"`+subnets+`/a"}}}]}}`))
	d.want(400, "InUseSubnetCannotBeDeleted", d.send("DELETE", subnets+"/a", ""))
	d.want(400, "InUseSubnetCannotBeDeleted", d.send("DELETE", networks+"/net", ""))
	d.want(200, "", d.send("DELETE", group+"/providers/Microsoft.Network/networkInterfaces/nic", ""))
	d.want(200, "", d.send("DELETE", subnets+"/a", ""))
	d.want(404, "ResourceNotFound", d.send("GET", subnets+"/a", ""))
	d.want(204, "", d.send("DELETE", subnets+"/a", ""))
	d.want(200, "", d.send("DELETE", networks+"/net", ""))
	d.want(204, "", d.send("DELETE", networks+"/net", ""))
	d.want(404, "ResourceNotFound", d.send("GET", subnets, ""))
}

func TestAccounts(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		a := d.want(200, "", d.send("PUT", accounts+"/one", `{"location":"westeurope","sku":{"name":"Premium_LRS"},"tags":{"a":"b"}}`))
		if at(a.body, "properties", "primaryEndpoints", "blob") != "https://one.blob.localhost:8443/" || at(a.body, "sku", "tier") != "Premium" || a.body["kind"] != "StorageV2" {
			t.Errorf("account %s", a.raw)
		}
		d.want(200, "", d.send("PUT", accounts+"/one", here))
		if a := d.want(200, "", d.send("GET", accounts, "")); length(a) != 1 {
			t.Errorf("accounts %s", a.raw)
		}
		d.want(201, "", d.send("PUT", group+"2", here))
		d.want(409, "StorageAccountAlreadyTaken", d.send("PUT", strings.Replace(accounts, "/rg/", "/rg2/", 1)+"/one", here))
		d.want(404, "StorageAccountNotFound", d.send("GET", strings.Replace(accounts, "/rg/", "/rg2/", 1)+"/one", ""))
		const check = subscription + "/providers/Microsoft.Storage/checkNameAvailability"
		for name, reason := range map[string]any{"one": "AlreadyExists", "No_Name": "AccountNameInvalid", "": "AccountNameInvalid", "free": nil} {
			a := d.want(200, "", d.send("POST", check, `{"name":"`+name+`","type":"Microsoft.Storage/storageAccounts"}`))
			if a.body["nameAvailable"] != (reason == nil) || a.body["reason"] != reason {
				t.Errorf("%q: %s", name, a.raw)
			}
		}
		d.want(400, "InvalidRequestContent", d.send("POST", check, `{"name":7}`))
		d.want(200, "", d.send("DELETE", accounts+"/one", ""))
		d.want(204, "", d.send("DELETE", accounts+"/one", ""))
	})
}

// Settings are changed one by one, and one that would protect nothing is refused.
func TestAccountSettings(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, "", d.send("PUT", accounts+"/one", `{"location":"westeurope","tags":{"a":"b"},"properties":{"accessTier":"Cool"}}`))
	a := d.want(200, "", d.send("PATCH", accounts+"/one", `{"properties":{"allowSharedKeyAccess":false}}`))
	if at(a.body, "properties", "allowSharedKeyAccess") != false || at(a.body, "properties", "accessTier") != "Cool" || at(a.body, "tags", "a") != "b" ||
		at(a.body, "properties", "primaryEndpoints", "blob") != "https://one.blob.localhost:8443/" {
		t.Errorf("changed: %s", a.raw)
	}
	for _, properties := range []string{`{"allowBlobPublicAccess":true}`, `{"supportsHttpsTrafficOnly":false}`, `{"isHnsEnabled":true}`, `{"isSftpEnabled":true}`,
		`{"publicNetworkAccess":"Disabled"}`, `{"networkAcls":{"defaultAction":"Deny"}}`, `{"encryption":{"keySource":"Microsoft.Keyvault"}}`} {
		for _, method := range []string{"PUT", "PATCH"} {
			d.want(400, "FeatureNotSupportedForAccount", d.send(method, accounts+"/one", `{"location":"westeurope","properties":`+properties+`}`))
		}
	}
	d.want(404, "StorageAccountNotFound", d.send("PATCH", accounts+"/none", `{}`))
	d.want(200, "", d.send("GET", accounts+"/one/blobServices/default", ""))
}

func TestAccountKeys(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, "", d.send("PUT", accounts+"/one", here))
	first := d.want(200, "", d.send("POST", accounts+"/one/listKeys", ""))
	second := d.want(200, "", d.send("POST", accounts+"/one/regenerateKey", `{"keyName":"key1"}`))
	key := func(a answer, n int) any { keys, _ := at(a.body, "keys").([]any); return at(keys[n], "value") }
	if key(first, 0) == key(second, 0) || key(first, 1) != key(second, 1) {
		t.Errorf("key1 anew: %s, then %s", first.raw, second.raw)
	}
	d.want(400, "InvalidValuesForRequestParameters", d.send("POST", accounts+"/one/regenerateKey", `{"keyName":"kerb1"}`))
	a := d.want(200, "", d.send("POST", accounts+"/one/listAccountSas", `{"signedServices":"b","signedResourceTypes":"sco","signedPermission":"rl","signedExpiry":"2026-03-02T00:00:00Z"}`))
	if token, _ := a.body["accountSasToken"].(string); !strings.Contains(token, "sig=") {
		t.Errorf("account SAS: %s", a.raw)
	}
	a = d.want(200, "", d.send("POST", accounts+"/one/listServiceSas", `{"canonicalizedResource":"/blob/one/box","signedResource":"c","signedPermission":"rl","signedExpiry":"2026-03-02"}`))
	if token, _ := a.body["serviceSasToken"].(string); !strings.Contains(token, "sr=c") {
		t.Errorf("service SAS: %s", a.raw)
	}
	for _, body := range []string{`{"signedServices":"b","signedResourceTypes":"o","signedPermission":"r","signedExpiry":"2026-02-01"}`, `{}`, `{"signedServices":"b","signedResourceTypes":"o","signedExpiry":"2027-01-01"}`} {
		d.want(400, "InvalidValuesForRequestParameters", d.send("POST", accounts+"/one/listAccountSas", body))
	}
	d.want(400, "InvalidValuesForRequestParameters", d.send("POST", accounts+"/one/listServiceSas", `{"canonicalizedResource":"/blob/two/box","signedResource":"c","signedPermission":"r","signedExpiry":"2027-01-01"}`))
}

// template is a request with a template of these resources and parameters.
func template(parameters, resources string) string {
	return `{"properties":{"mode":"Incremental","parameters":` + parameters + `,"template":{"$schema":"s","contentVersion":"1.0.0.0",
		"parameters":{"name":{"type":"string","defaultValue":"net"},"password":{"type":"secureString","defaultValue":"hush"}},
		"resources":[` + resources + `],"outputs":{"id":{"type":"string","value":"[resourceId('Microsoft.Network/virtualNetworks', parameters('name'))]"}}}}}`
}

func network(name string) string {
	return `{"type":"Microsoft.Network/virtualNetworks","apiVersion":"2023-01-01","name":"` + name + `","location":"[resourceGroup().location]",
		"tags":{"password":"[parameters('password')]"}}`
}

func TestDeployments(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		body := template(`{"name":{"value":"n1"},"password":{"value":"s3cr3t"}}`, network("[parameters('name')]"))
		a := d.want(200, "", d.send("POST", deployments+"/d/validate", body))
		if at(a.body, "properties", "validatedResources", 0, "id") != networks+"/n1" {
			t.Errorf("validated %s", a.raw)
		}
		d.want(404, "ResourceNotFound", d.send("GET", networks+"/n1", ""))
		d.want(404, "DeploymentNotFound", d.send("GET", deployments+"/d", ""))
		d.want(404, "", d.send("HEAD", deployments+"/d", ""))

		a = d.want(201, "", d.send("PUT", deployments+"/d", body))
		if at(a.body, "properties", "provisioningState") != "Accepted" {
			t.Errorf("accepted %s", a.raw)
		}
		status := strings.TrimPrefix(a.header.Get("Azure-AsyncOperation"), "https://localhost")
		status, _, _ = strings.Cut(status, "?")
		if a := d.want(200, "", d.send("GET", status, "")); a.body["status"] != "Succeeded" || a.body["error"] != nil {
			t.Errorf("status %s", a.raw)
		}
		a = d.want(200, "", d.send("GET", deployments+"/d", ""))
		if at(a.body, "properties", "outputs", "id", "value") != networks+"/n1" || at(a.body, "properties", "outputResources", 0, "id") != networks+"/n1" ||
			at(a.body, "properties", "parameters", "name", "value") != "n1" || strings.Contains(a.raw, "s3cr3t") {
			t.Errorf("deployment %s", a.raw)
		}
		if a := d.want(200, "", d.send("GET", networks+"/n1", "")); at(a.body, "tags", "password") != "s3cr3t" || a.body["location"] != "westeurope" {
			t.Errorf("network %s", a.raw)
		}
		d.want(204, "", d.send("HEAD", deployments+"/d", ""))
		a = d.want(200, "", d.send("GET", deployments+"/d/operations", ""))
		operation, _ := at(a.body, "value", 0, "operationId").(string)
		if length(a) != 1 || at(a.body, "value", 0, "properties", "targetResource", "id") != networks+"/n1" {
			t.Errorf("operations %s", a.raw)
		}
		if a := d.want(200, "", d.send("GET", deployments+"/d/operations/"+operation, "")); at(a.body, "properties", "provisioningState") != "Succeeded" {
			t.Errorf("operation %s", a.raw)
		}
		d.want(404, "DeploymentOperationNotFound", d.send("GET", deployments+"/d/operations/none", ""))
		if a := d.want(200, "", d.send("GET", deployments, "")); length(a) != 1 {
			t.Errorf("deployments %s", a.raw)
		}
		d.want(204, "", d.send("DELETE", deployments+"/d", ""))
		d.want(404, "DeploymentNotFound", d.send("GET", deployments+"/d/operations", ""))
	})
}

// A deployment that fails on the way tells which resource it was and what to do; what came before stays.
func TestDeploymentThatFails(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(400, "InvalidTemplate", d.send("PUT", deployments+"/d", template(`{}`, network("good")+","+network("two/names"))))
	d.want(404, "ResourceNotFound", d.send("GET", networks+"/good", "")) // found out before anything was created

	const code = "InternalServerError"
	d.want(201, "", d.send("PUT", deployments+"/d", template(`{}`, network("good")+","+network("broken"))))
	a := d.want(200, "", d.send("GET", deployments+"/d", ""))
	failure := at(a.body, "properties", "error")
	if at(a.body, "properties", "provisioningState") != "Failed" || at(failure, "code") != "DeploymentFailed" || at(failure, "details", 0, "code") != code ||
		at(failure, "details", 0, "target") != networks+"/broken" || at(failure, "details", 0, "details", 0, "code") != "RecommendedAction" || strings.Contains(a.raw, "secret") {
		t.Errorf("deployment %s", a.raw)
	}
	a = d.want(200, "", d.send("GET", deployments+"/d/operations", ""))
	if length(a) != 2 || at(a.body, "value", 1, "properties", "statusMessage", "error", "code") != code {
		t.Errorf("operations %s", a.raw)
	}
	d.want(200, "", d.send("GET", networks+"/good", ""))
}

func TestRefusals(t *testing.T) {
	d := open(t, sqlite(t))
	other := "/subscriptions/99999999-2222-3333-4444-555555555555"
	large := `{"location":"` + strings.Repeat("x", arm.MaxBody) + `"}`
	for _, test := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", other, "", 404, "SubscriptionNotFound"},
		{"GET", other + "/locations", "", 404, "SubscriptionNotFound"},
		{"GET", other + "/providers", "", 404, "SubscriptionNotFound"},
		{"GET", other + "/resourceGroups/rg", "", 404, "SubscriptionNotFound"},
		{"PUT", other + "/resourceGroups/rg", here, 404, "SubscriptionNotFound"},
		{"DELETE", other + "/resourceGroups/rg", "", 404, "SubscriptionNotFound"},
		{"PUT", strings.Replace(networks, subscription, other, 1) + "/net", here, 404, "SubscriptionNotFound"},
		{"POST", other + "/providers/Microsoft.Storage/checkNameAvailability", `{"name":"free"}`, 404, "SubscriptionNotFound"},
		{"POST", strings.Replace(deployments, subscription, other, 1) + "/d/validate", template(`{}`, ""), 404, "SubscriptionNotFound"},
		{"GET", subscription + "/providers/Microsoft.Nothing", "", 404, "InvalidResourceNamespace"},

		{"PUT", subscription + "/resourceGroups/new", `{}`, 400, "LocationRequired"},
		{"PUT", subscription + "/resourceGroups/new", ``, 400, "InvalidRequestContent"},
		{"PUT", subscription + "/resourceGroups/new", `{"location":7}`, 400, "InvalidRequestContent"},
		{"PUT", subscription + "/resourceGroups/new", `{"location":"x"} {}`, 400, "InvalidRequestContent"},
		{"PUT", subscription + "/resourceGroups/new", large, 413, "RequestContentTooLarge"},
		{"PUT", subscription + "/resourceGroups/new.", here, 400, "InvalidResourceGroup"},
		{"POST", group + "/exportTemplate", `{}`, 400, "ExportTemplateNotSupported"},
		{"POST", group + "/moveResources", `{}`, 400, "MoveResourcesNotSupported"},
		{"GET", subscription + "/resourceGroups?$filter=color+eq+1", "", 400, "InvalidFilterInQueryString"},
		{"GET", subscription + "/resources?$filter=color+eq+1", "", 400, "InvalidFilterInQueryString"},
		{"GET", subscription + "/resourceGroups/new/resources", "", 404, "ResourceGroupNotFound"},
		{"GET", subscription + "/operationresults/%7B%7D", "", 404, "OperationNotFound"},
		{"PUT", subscription + "/tagNames/color", "", 400, "PredefinedTagsNotSupported"},
		{"GET", subscription + "/resourceGroups/new/providers/Microsoft.Network/virtualNetworks/none", "", 404, "ResourceGroupNotFound"},
		{"GET", networks + "/none/providers/Microsoft.Resources/tags/default", "", 404, "ResourceNotFound"},
		{"GET", group + "/providers/Microsoft.Resources/tags/other", "", 404, "ResourceNotFound"},
		{"PATCH", group + "/providers/Microsoft.Resources/tags/default", `{"operation":"Paint","properties":{"tags":{}}}`, 400, "InvalidTagsPatchOperation"},
		{"PUT", subscription + "/providers/Microsoft.Resources/tags/default", `{"properties":{"tags":{"":"b"}}}`, 400, "InvalidTag"},
		{"POST", deployments + "/d/whatIf", `{}`, 400, "WhatIfNotSupported"},
		{"POST", deployments + "/d/cancel", "", 404, "DeploymentNotFound"},
		{"POST", subscription + "/providers/Microsoft.Network/unregister", "", 400, "UnregisterProviderNotSupported"},
		{"PUT", group, `{"location":"elsewhere"}`, 409, "InvalidResourceGroupLocation"},
		{"PATCH", group, `[]`, 400, "InvalidRequestContent"},
		{"PATCH", subscription + "/resourceGroups/new", `{"tags":{}}`, 404, "ResourceGroupNotFound"},
		{"POST", group, `{}`, 405, "MethodNotAllowed"},

		{"GET", networks + "/none", "", 404, "ResourceNotFound"},
		{"PUT", networks + "/net", `{`, 400, "InvalidRequestContent"},
		{"PUT", networks + "/net", `7`, 400, "InvalidRequestContent"},
		{"PUT", strings.Replace(networks, "/rg/", "/nowhere/", 1) + "/net", here, 404, "ResourceGroupNotFound"},
		{"PUT", group + "/providers/Microsoft.Network/loadBalancers/l", here, 404, "InvalidResourceType"},

		{"GET", accounts + "/none", "", 404, "StorageAccountNotFound"},
		{"PUT", accounts + "/No-Name", here, 400, "AccountNameInvalid"},
		{"PUT", accounts + "/one", `{}`, 400, "LocationRequired"},
		{"PUT", accounts + "/one", `{"location":"x","sku":"Standard_LRS"}`, 400, "InvalidRequestContent"},
		{"PUT", strings.Replace(accounts, "/rg/", "/nowhere/", 1) + "/one", here, 404, "ResourceGroupNotFound"},

		{"PUT", deployments + "/d", `{}`, 400, "InvalidDeploymentMode"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Complete"}}`, 400, "InvalidDeploymentMode"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Incremental"}}`, 400, "InvalidDeployment"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Incremental","template":{},"templateLink":{"uri":"x"}}}`, 400, "InvalidDeployment"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Incremental","templateLink":{"uri":"http://169.254.169.254/"}}}`, 400, "InvalidContentLink"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Incremental","template":{},"parametersLink":{"uri":"x"}}}`, 400, "InvalidDeployment"},
		{"PUT", deployments + "/d", `{"properties":{"mode":"Incremental","template":"text"}}`, 400, "InvalidTemplate"},
		{"PUT", deployments + "/d", template(`{"nobody":{"value":1}}`, ""), 400, "InvalidTemplate"},
		{"PUT", deployments + "/d", template(`{"name":{"value":1}}`, ""), 400, "InvalidTemplate"},
		{"PUT", deployments + "/d", template(`{}`, `{"type":"Microsoft.Sql/servers","apiVersion":"1","name":"s"}`), 400, "InvalidTemplateDeployment"},
		{"PUT", strings.Replace(deployments, "/rg/", "/nowhere/", 1) + "/d", template(`{}`, ""), 404, "ResourceGroupNotFound"},
		{"GET", deployments + "/d/operationStatuses/s", "", 404, "DeploymentNotFound"},
		{"GET", deployments + "?$top=none", "", 400, ""},
		{"GET", deployments + "?$skipToken=none", "", 400, ""},
	} {
		t.Run(test.method+" "+test.path[len(subscription):], func(t *testing.T) {
			d.t = t
			d.want(test.status, test.code, d.send(test.method, test.path, test.body))
		})
	}
	d.t = t
	for _, list := range []string{networks, accounts, deployments} {
		if a := d.want(200, "", d.send("GET", list, "")); length(a) != 0 {
			t.Errorf("refused requests left %s", a.raw)
		}
	}
	if a := d.send("GET", subscription+"/resourceGroups", ""); length(a) != 1 {
		t.Errorf("refused requests left %s", a.raw)
	}
}

func TestTokensAndRoles(t *testing.T) {
	d := open(t, sqlite(t))
	for _, request := range [][2]string{{"GET", "/tenants"}, {"GET", "/subscriptions"}, {"GET", subscription}, {"GET", group}, {"PUT", group + "2"}, {"DELETE", group},
		{"GET", networks}, {"PUT", accounts + "/one"}, {"PUT", deployments + "/d"}, {"POST", deployments + "/d/validate"}, {"GET", "/nothing/at/all"}} {
		for _, token := range []string{"", "Bearer wrong", "Basic cmlnaHQ="} {
			d.want(401, "InvalidAuthenticationToken", d.sendAs(token, request[0], request[1], here))
		}
	}
	for _, test := range [][4]string{
		{"resourceGroups/write", "PUT", group + "2", here}, {"resourceGroups/delete", "DELETE", group, ""}, {"virtualNetworks/write", "PUT", networks + "/net", here},
		{"virtualNetworks/read", "GET", networks + "/net", ""}, {"storageAccounts/write", "PUT", accounts + "/one", here}, {"storageAccounts/read", "GET", accounts, ""},
		{"checkNameAvailability/read", "POST", subscription + "/providers/Microsoft.Storage/checkNameAvailability", `{"name":"free"}`},
		{"deployments/write", "PUT", deployments + "/d", template(`{}`, "")}, {"deployments/read", "GET", deployments + "/d", ""},
		{"deployments/validate/action", "POST", deployments + "/d/validate", template(`{}`, "")}, {"deployments/delete", "DELETE", deployments + "/d", ""},
	} {
		d.denied = test[0]
		if a := d.send(test[1], test[2], test[3]); a.status != 403 || at(a.body, "error", "code") != "AuthorizationFailed" {
			t.Errorf("%v: %d %s", test, a.status, a.raw)
		}
	}
	d.denied = ""
	if a := d.send("GET", subscription+"/resourceGroups", ""); length(a) != 1 {
		t.Errorf("requests without a right left %s", a.raw)
	}
}
