package keyvault_test

import (
	"flag"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

var update = flag.Bool("update", false, "write the lists of what is compared anew")

// Every answer of the data door holds what the published description requires, in the types it gives, and nothing that
// it doesn't know.
func TestDataPlaneAnswersAsPublished(t *testing.T) {
	check := against(t)
	keys := openapitest.Open(t, "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/keys.json")
	secrets := openapitest.Open(t, "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/secrets.json")
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	rsa := map[string]any{"kty": "RSA", "tags": map[string]string{"a": "b"}, "attributes": map[string]any{"nbf": 1700000000, "exp": 4102444800}}
	digest := b64(make([]byte, 32))
	var closed, signature, keyBlob, secretBlob any
	keep := func(to *any, path string) func(answer) { return func(a answer) { *to = a.at(path) } }
	for _, c := range []struct {
		spec         openapitest.Spec
		method, path string // the path as the description writes it; k and s are what it names
		body         func() any
		then         func(answer)
	}{
		{keys, "post", "/keys/{key-name}/create", is(rsa), nil},
		{keys, "get", "/keys/{key-name}/{key-version}", nil, nil},
		{keys, "patch", "/keys/{key-name}/{key-version}", is(map[string]any{"tags": map[string]string{"c": "d"}}), nil},
		{keys, "get", "/keys", nil, nil},
		{keys, "get", "/keys/{key-name}/versions", nil, nil},
		{keys, "post", "/keys/{key-name}/{key-version}/encrypt", is(map[string]any{"alg": "RSA-OAEP", "value": digest}), keep(&closed, "value")},
		{keys, "post", "/keys/{key-name}/{key-version}/decrypt", func() any { return map[string]any{"alg": "RSA-OAEP", "value": closed} }, nil},
		{keys, "post", "/keys/{key-name}/{key-version}/wrapkey", is(map[string]any{"alg": "RSA-OAEP-256", "value": digest}), keep(&closed, "value")},
		{keys, "post", "/keys/{key-name}/{key-version}/unwrapkey", func() any { return map[string]any{"alg": "RSA-OAEP-256", "value": closed} }, nil},
		{keys, "post", "/keys/{key-name}/{key-version}/sign", is(map[string]any{"alg": "PS256", "value": digest}), keep(&signature, "value")},
		{keys, "post", "/keys/{key-name}/{key-version}/verify", func() any { return map[string]any{"alg": "PS256", "digest": digest, "value": signature} }, nil},
		{keys, "put", "/keys/{key-name}/rotationpolicy", is(map[string]any{"attributes": map[string]any{"expiryTime": "P1Y"}}), nil},
		{keys, "get", "/keys/{key-name}/rotationpolicy", nil, nil},
		{keys, "post", "/keys/{key-name}/rotate", nil, nil},
		{keys, "post", "/rng", is(map[string]any{"count": 16}), nil},
		{keys, "post", "/keys/{key-name}/backup", nil, keep(&keyBlob, "value")},
		{keys, "delete", "/keys/{key-name}", nil, nil},
		{keys, "get", "/deletedkeys", nil, nil},
		{keys, "get", "/deletedkeys/{key-name}", nil, nil},
		{keys, "post", "/deletedkeys/{key-name}/recover", nil, func(answer) { s.data("DELETE", "kv-one", "/keys/k", nil) }},
		{keys, "delete", "/deletedkeys/{key-name}", nil, nil},
		{keys, "post", "/keys/restore", func() any { return map[string]any{"value": keyBlob} }, nil},
		{keys, "put", "/keys/{key-name}", is(map[string]any{"key": map[string]any{"kty": "oct", "k": digest}}), nil},

		{secrets, "put", "/secrets/{secret-name}", is(map[string]any{"value": "x", "contentType": "text/plain", "tags": map[string]string{"a": "b"}}), nil},
		{secrets, "get", "/secrets/{secret-name}/{secret-version}", nil, nil},
		{secrets, "patch", "/secrets/{secret-name}/{secret-version}", is(map[string]any{"contentType": "y"}), nil},
		{secrets, "get", "/secrets", nil, nil},
		{secrets, "get", "/secrets/{secret-name}/versions", nil, nil},
		{secrets, "post", "/secrets/{secret-name}/backup", nil, keep(&secretBlob, "value")},
		{secrets, "delete", "/secrets/{secret-name}", nil, nil},
		{secrets, "get", "/deletedsecrets", nil, nil},
		{secrets, "get", "/deletedsecrets/{secret-name}", nil, nil},
		{secrets, "post", "/deletedsecrets/{secret-name}/recover", nil, func(answer) { s.data("DELETE", "kv-one", "/secrets/s", nil) }},
		{secrets, "delete", "/deletedsecrets/{secret-name}", nil, nil},
		{secrets, "post", "/secrets/restore", func() any { return map[string]any{"value": secretBlob} }, nil},
	} {
		var body any
		if c.body != nil {
			body = c.body()
		}
		at := strings.NewReplacer("{key-name}", "k", "{secret-name}", "s", "/{key-version}/", "//", "/{key-version}", "/", "/{secret-version}", "/").Replace(c.path)
		check(c.spec, c.method, c.path, s.data(strings.ToUpper(c.method), "kv-one", at+"?api-version=7.5", body))
		if c.then != nil {
			c.then(s.data(strings.ToUpper(c.method), "kv-one", at+"?api-version=7.5", body))
		}
	}
	check(keys, "get", "/keys/{key-name}/{key-version}", s.data("GET", "kv-one", "/keys/none/?api-version=7.5", nil))
	check(secrets, "get", "/secrets/{secret-name}/{secret-version}", s.data("GET", "kv-one", "/secrets/none/?api-version=7.5", nil))
	openapitest.Listed(t, "testdata/published-data.txt", *update, keys, secrets)
}

// The same for Resource Manager.
func TestManagementAnswersAsPublished(t *testing.T) {
	check := against(t)
	vaultsSpec := openapitest.Open(t, "keyvault/resource-manager/Microsoft.KeyVault/stable/2023-07-01/keyvault.json")
	s := serve(t, sqlite(t))
	const named = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.KeyVault/vaults/{vaultName}"
	const deletedAt = "/subscriptions/{subscriptionId}/providers/Microsoft.KeyVault/locations/{location}/deletedVaults/{vaultName}"
	policy := map[string]any{"properties": map[string]any{"accessPolicies": []any{map[string]any{"tenantId": tenant, "objectId": owner.ObjectID,
		"permissions": map[string]any{"keys": []string{"get"}}}}}}
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"put", named, vaultRequest(map[string]any{"enablePurgeProtection": false, "networkAcls": map[string]any{"bypass": "AzureServices", "defaultAction": "Allow"}})},
		{"get", named, nil},
		{"patch", named, map[string]any{"tags": map[string]string{"a": "b"}}},
		{"put", named + "/accessPolicies/{operationKind}", policy},
		{"get", "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/Microsoft.KeyVault/vaults", nil},
		{"get", "/subscriptions/{subscriptionId}/providers/Microsoft.KeyVault/vaults", nil},
		{"post", "/subscriptions/{subscriptionId}/providers/Microsoft.KeyVault/checkNameAvailability", map[string]any{"name": "kv-one", "type": "Microsoft.KeyVault/vaults"}},
		{"delete", named, nil},
		{"get", "/subscriptions/{subscriptionId}/providers/Microsoft.KeyVault/deletedVaults", nil},
		{"get", deletedAt, nil},
		{"post", deletedAt + "/purge", nil},
	} {
		at := strings.NewReplacer("/subscriptions/{subscriptionId}", subscription, "{resourceGroupName}", "rg", "{vaultName}", "kv-one",
			"{location}", "westeurope", "{operationKind}", "add").Replace(c.path)
		check(vaultsSpec, c.method, c.path, s.manage(strings.ToUpper(c.method), at, c.body))
	}
	openapitest.Listed(t, "testdata/published.txt", *update, vaultsSpec)
}

// against compares answers with a description.
func against(t *testing.T) func(described openapitest.Spec, method, path string, a answer) {
	return func(described openapitest.Spec, method, path string, a answer) {
		t.Helper()
		described.Check(t, method, path, a.status, a.raw)
	}
}

func is(body any) func() any { return func() any { return body } }
