package keyvault_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The published OpenAPI descriptions are not ours to keep here. This variable names a folder with a checkout of
// azure-rest-api-specs; without it nothing is compared.
const specsVariable = "KLUIS_AZURE_SPECS"

// Every answer of the data door holds what the published description requires, in the types it gives, and nothing that
// it doesn't know.
func TestDataPlaneAnswersAsPublished(t *testing.T) {
	keys := openSpec(t, "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/keys.json")
	secrets := openSpec(t, "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/secrets.json")
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	rsa := map[string]any{"kty": "RSA", "tags": map[string]string{"a": "b"}, "attributes": map[string]any{"nbf": 1700000000, "exp": 4102444800}}
	digest := b64(make([]byte, 32))
	var closed, signature, keyBlob, secretBlob any
	keep := func(to *any, path string) func(answer) { return func(a answer) { *to = a.at(path) } }
	for _, c := range []struct {
		spec         spec
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
		c.spec.check(t, c.method, c.path, s.data(strings.ToUpper(c.method), "kv-one", at+"?api-version=7.5", body))
		if c.then != nil {
			c.then(s.data(strings.ToUpper(c.method), "kv-one", at+"?api-version=7.5", body))
		}
	}
	keys.check(t, "get", "/keys/{key-name}/{key-version}", s.data("GET", "kv-one", "/keys/none/?api-version=7.5", nil))
	secrets.check(t, "get", "/secrets/{secret-name}/{secret-version}", s.data("GET", "kv-one", "/secrets/none/?api-version=7.5", nil))
}

// The same for Resource Manager.
func TestManagementAnswersAsPublished(t *testing.T) {
	vaultsSpec := openSpec(t, "keyvault/resource-manager/Microsoft.KeyVault/stable/2023-07-01/keyvault.json")
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
		vaultsSpec.check(t, c.method, c.path, s.manage(strings.ToUpper(c.method), at, c.body))
	}
}

func is(body any) func() any { return func() any { return body } }

// spec is an OpenAPI 2 description, and where it lies, for references to its neighbours.
type spec struct {
	dir  string
	root map[string]any
}

func openSpec(t *testing.T, path string) spec {
	t.Helper()
	base := os.Getenv(specsVariable)
	if base == "" {
		t.Skipf("%s names no checkout of azure-rest-api-specs", specsVariable)
	}
	return readSpec(t, filepath.Join(base, "specification", path))
}

func readSpec(t *testing.T, path string) spec {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := spec{dir: filepath.Dir(path)}
	if err := json.Unmarshal(text, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

// check compares an answer with what the description says of its status.
func (s spec) check(t *testing.T, method, path string, a answer) {
	t.Helper()
	name := method + " " + path
	operations, ok := s.root["paths"].(map[string]any)[path].(map[string]any)
	if !ok {
		t.Errorf("%s: the description has no such path", name)
		return
	}
	responses := operations[method].(map[string]any)["responses"].(map[string]any)
	response, ok := responses[fmt.Sprint(a.status)].(map[string]any)
	if !ok {
		response, ok = responses["default"].(map[string]any)
		if !ok || a.status < http.StatusBadRequest {
			t.Errorf("%s: the status %d is not in the description: %s", name, a.status, a.raw)
			return
		}
	}
	if schema, ok := response["schema"].(map[string]any); ok {
		s.match(t, name, schema, any(a.body))
	} else if a.raw != "" {
		t.Errorf("%s: the description has no body for %d: %s", name, a.status, a.raw)
	}
}

func (s spec) match(t *testing.T, at string, schema map[string]any, value any) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		in, found := s.resolve(t, ref)
		in.match(t, at, found, value)
		return
	}
	typ, _ := schema["type"].(string)
	switch v := value.(type) {
	case map[string]any:
		if typ != "object" && typ != "" {
			t.Errorf("%s is an object, published as %s", at, typ)
		}
		s.matchObject(t, at, schema, v)
	case []any:
		items, ok := schema["items"].(map[string]any)
		if !ok {
			t.Errorf("%s is a list, published as %s", at, typ)
			return
		}
		for _, item := range v {
			s.match(t, at+"[]", items, item)
		}
	case string:
		mustBe(t, at, typ, "string", value)
	case float64:
		mustBe(t, at, typ, "integer number", value)
	case bool:
		mustBe(t, at, typ, "boolean", value)
	}
}

func mustBe(t *testing.T, at, published, want string, value any) {
	t.Helper()
	if published != "" && !strings.Contains(want, published) {
		t.Errorf("%s is %v, published as %s", at, value, published)
	}
}

func (s spec) matchObject(t *testing.T, at string, schema map[string]any, value map[string]any) {
	t.Helper()
	known := map[string]property{}
	required := s.properties(t, schema, known)
	for _, name := range required {
		if _, ok := value[name]; !ok {
			t.Errorf("%s.%s is required, and missing", at, name)
		}
	}
	free, _ := schema["additionalProperties"].(map[string]any)
	for name, member := range value {
		p, ok := known[name]
		switch {
		case ok:
			p.in.match(t, at+"."+name, p.schema, member)
		case free != nil:
			s.match(t, at+"."+name, free, member)
		case len(known) > 0:
			t.Errorf("%s.%s is not published", at, name)
		}
	}
}

type property struct {
	in     spec
	schema map[string]any
}

// properties gathers what an object may have, also from what it is made of, and returns what it must have.
func (s spec) properties(t *testing.T, schema map[string]any, into map[string]property) (required []string) {
	t.Helper()
	if all, ok := schema["allOf"].([]any); ok {
		for _, part := range all {
			in, found := s, part.(map[string]any)
			if ref, ok := found["$ref"].(string); ok {
				in, found = s.resolve(t, ref)
			}
			required = append(required, in.properties(t, found, into)...)
		}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		for name, p := range properties {
			into[name] = property{s, p.(map[string]any)}
		}
	}
	if names, ok := schema["required"].([]any); ok {
		for _, n := range names {
			required = append(required, n.(string))
		}
	}
	return required
}

func (s spec) resolve(t *testing.T, ref string) (spec, map[string]any) {
	t.Helper()
	file, pointer, _ := strings.Cut(ref, "#")
	in := s
	if file != "" {
		in = readSpec(t, filepath.Join(s.dir, file))
	}
	var at any = in.root
	for _, name := range strings.Split(strings.Trim(pointer, "/"), "/") {
		at = at.(map[string]any)[name]
	}
	return in, at.(map[string]any)
}
