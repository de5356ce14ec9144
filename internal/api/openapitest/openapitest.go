// Package openapitest compares answers with Azure's published OpenAPI descriptions: statuses, required members,
// types, and that nothing is sent which is not described.
//
// The descriptions are not ours to keep here. A variable names a folder with a checkout of azure-rest-api-specs;
// without it nothing is compared.
package openapitest

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const variable = "KLUIS_AZURE_SPECS"

// Spec is an OpenAPI 2 description, and where it lies, for references to its neighbours.
type Spec struct {
	dir  string
	root map[string]any
}

// Open reads a description by its path below specification; the test is skipped without a checkout.
func Open(t *testing.T, path string) Spec {
	t.Helper()
	base := os.Getenv(variable)
	if base == "" {
		t.Skipf("%s names no checkout of azure-rest-api-specs", variable)
	}
	return readSpec(t, filepath.Join(base, "specification", path))
}

func readSpec(t *testing.T, path string) Spec {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{dir: filepath.Dir(path)}
	if err := json.Unmarshal(text, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

// Check compares an answer with what the description says of its status.
func (s Spec) Check(t *testing.T, method, path string, status int, raw string) {
	t.Helper()
	name := method + " " + path
	operations, ok := s.root["paths"].(map[string]any)[path].(map[string]any)
	if !ok {
		t.Errorf("%s: the description has no such path", name)
		return
	}
	responses := operations[method].(map[string]any)["responses"].(map[string]any)
	response, ok := responses[strconv.Itoa(status)].(map[string]any)
	if !ok {
		response, ok = responses["default"].(map[string]any)
		if !ok || status < http.StatusBadRequest {
			t.Errorf("%s: the status %d is not in the description: %s", name, status, raw)
			return
		}
	}
	if schema, ok := response["schema"].(map[string]any); ok {
		var body any
		if err := json.Unmarshal([]byte(raw), &body); err != nil {
			t.Errorf("%s: the body of %d is not JSON: %q", name, status, raw)
		}
		s.match(t, name, schema, body)
	} else if raw != "" {
		t.Errorf("%s: the description has no body for %d: %s", name, status, raw)
	}
}

func (s Spec) match(t *testing.T, at string, schema map[string]any, value any) {
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

func (s Spec) matchObject(t *testing.T, at string, schema map[string]any, value map[string]any) {
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
	in     Spec
	schema map[string]any
}

// properties gathers what an object may have, also from what it is made of, and returns what it must have.
func (s Spec) properties(t *testing.T, schema map[string]any, into map[string]property) (required []string) {
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

func (s Spec) resolve(t *testing.T, ref string) (Spec, map[string]any) {
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
