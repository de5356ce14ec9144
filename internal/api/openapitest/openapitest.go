// Package openapitest compares answers with the OpenAPI descriptions that Azure publishes.
//
// The descriptions are not ours to keep: they lie in a checkout of azure-rest-api-specs that the variable
// KLUIS_AZURE_SPECS names, or in shared/reference/azure-specs beside the project; without either the tests skip. What is
// compared is the status, what must be there, types, words of enumerations that are closed, and names: a member that is
// not published fails, unless it begins with "kluis", where everything of our own stands.
//
// Where a body says what it is (a discriminator), it is compared with the description of that.
package openapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Variable names the folder that has the descriptions below specification/.
const Variable = "KLUIS_AZURE_SPECS"

// Folder finds the descriptions, or skips the test.
func Folder(t testing.TB) string {
	t.Helper()
	if base := os.Getenv(Variable); base != "" {
		return base
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		base := filepath.Join(dir, "shared", "reference", "azure-specs")
		if _, err := os.Stat(base); err == nil {
			return base
		}
	}
	t.Skipf("%s names no checkout of azure-rest-api-specs, and there is none beside the project", Variable)
	return ""
}

// Spec is a description, and where it lies, for references to its neighbours.
type Spec struct {
	dir      string
	root     map[string]any
	compared *[]string // ids of operations
}

// Open reads a description, given its path below specification/.
func Open(t testing.TB, path string) Spec {
	t.Helper()
	return read(t, filepath.Join(Folder(t), "specification", path))
}

func read(t testing.TB, path string) Spec {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{dir: filepath.Dir(path), compared: &[]string{}}
	if err := json.Unmarshal(text, &s.root); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return s
}

// Operation is one that a description publishes.
type Operation struct{ Method, Path, ID string }

// Operations are all of a description, by path and method.
func (s Spec) Operations() (all []Operation) {
	paths, _ := s.root["paths"].(map[string]any)
	for path, methods := range paths {
		for method, about := range methods.(map[string]any) {
			if o, ok := about.(map[string]any); ok {
				id, _ := o["operationId"].(string)
				all = append(all, Operation{strings.ToUpper(method), path, id})
			}
		}
	}
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method) })
	return all
}

// ID is that of the operation of a method on a path, as the description writes the path.
func (s Spec) ID(method, path string) string {
	for _, o := range s.Operations() {
		if o.Method == strings.ToUpper(method) && o.Path == path {
			return o.ID
		}
	}
	return method + " " + path
}

// Check compares an answer with what the description says of its status. The path is as the description writes it.
func (s Spec) Check(t testing.TB, method, path string, status int, raw string) {
	t.Helper()
	id := s.ID(method, path)
	for _, d := range s.Differences(t, id, status, []byte(raw)) {
		t.Errorf("%s %s (%s): %s: %s", method, path, id, d, raw)
	}
}

// Differences compares an answer of the operation with that id, and returns what differs.
func (s Spec) Differences(t testing.TB, id string, status int, raw []byte) []string {
	t.Helper()
	*s.compared = append(*s.compared, id)
	about := s.operation(id)
	if about == nil {
		return []string{"the description has no such operation"}
	}
	responses, _ := about["responses"].(map[string]any)
	response, ok := responses[strconv.Itoa(status)].(map[string]any)
	if !ok {
		if response, ok = responses["default"].(map[string]any); !ok || status < http.StatusBadRequest {
			return []string{fmt.Sprintf("the status %d is not published", status)}
		}
	}
	schema, ok := response["schema"].(map[string]any)
	switch {
	case !ok && len(raw) > 0:
		return []string{"a body where none is published"}
	case !ok:
		return nil
	}
	var body any
	if err := json.Unmarshal(raw, &body); err != nil {
		return []string{"the body is not JSON"}
	}
	c := comparison{t: t}
	c.match(s, "", schema, body)
	slices.Sort(c.found)
	return slices.Compact(c.found)
}

func (s Spec) operation(id string) map[string]any {
	paths, _ := s.root["paths"].(map[string]any)
	for _, methods := range paths {
		for _, about := range methods.(map[string]any) {
			if o, ok := about.(map[string]any); ok && o["operationId"] == id {
				return o
			}
		}
	}
	return nil
}

// Listed compares what has been compared with the descriptions with the list that is kept beside the test, for
// docs/conformance.md to name it; update writes the list anew.
func Listed(t testing.TB, path string, update bool, with ...Spec) {
	t.Helper()
	var ids []string
	for _, s := range with {
		ids = append(ids, *s.compared...)
	}
	slices.Sort(ids)
	got := []byte(strings.Join(slices.Compact(ids), "\n") + "\n")
	if update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is stale (%v); go test -update writes it anew", path, err)
	}
}

type comparison struct {
	t     testing.TB
	found []string
}

func (c *comparison) add(at, what string) {
	c.found = append(c.found, strings.TrimSpace(strings.TrimPrefix(at, ".")+" "+what))
}

func (c *comparison) match(s Spec, at string, schema map[string]any, value any) {
	s, schema = c.deref(s, schema)
	typ, _ := schema["type"].(string)
	switch v := value.(type) {
	case map[string]any:
		if typ != "object" && typ != "" {
			c.add(at, "is an object, published as "+typ)
		}
		c.object(s, at, schema, v)
	case []any:
		items, ok := schema["items"].(map[string]any)
		if !ok {
			c.add(at, "is a list, published as "+typ)
			return
		}
		for _, item := range v {
			c.match(s, at+"[]", items, item)
		}
	case string:
		c.scalar(at, typ, "string")
		c.word(at, schema, v)
	case float64:
		c.scalar(at, typ, "integer number")
	case bool:
		c.scalar(at, typ, "boolean")
	}
}

func (c *comparison) scalar(at, published, is string) {
	if published != "" && !slices.Contains(strings.Fields(is), published) {
		c.add(at, "is a "+strings.Fields(is)[0]+", published as "+published)
	}
}

// word compares with an enumeration that is closed; one that is a list of what was known then is not.
func (c *comparison) word(at string, schema map[string]any, v string) {
	words, _ := schema["enum"].([]any)
	about, _ := schema["x-ms-enum"].(map[string]any)
	if open, _ := about["modelAsString"].(bool); open || len(words) == 0 {
		return
	}
	if !slices.ContainsFunc(words, func(w any) bool { s, _ := w.(string); return strings.EqualFold(s, v) }) {
		c.add(at, fmt.Sprintf("is %q, which is not among the published words", v))
	}
}

func (c *comparison) object(s Spec, at string, schema, value map[string]any) {
	s, schema = c.kind(s, schema, value)
	known := map[string]property{}
	for _, name := range c.properties(s, schema, known) {
		if _, ok := value[name]; !ok {
			c.add(at+"."+name, "is required, and missing")
		}
	}
	free, _ := schema["additionalProperties"].(map[string]any)
	for name, member := range value {
		p, ok := known[name]
		switch {
		case ok:
			c.match(p.in, at+"."+name, p.schema, member)
		case free != nil:
			c.match(s, at+"."+name, free, member)
		case strings.HasPrefix(name, "kluis"):
		case len(known) > 0:
			c.add(at+"."+name, "is not published")
		}
	}
}

// kind is the description of what a body says that it is.
func (c *comparison) kind(s Spec, schema, value map[string]any) (Spec, map[string]any) {
	by, _ := schema["discriminator"].(string)
	said, _ := value[by].(string)
	if by == "" || said == "" {
		return s, schema
	}
	definitions, _ := s.root["definitions"].(map[string]any)
	for name, d := range definitions {
		found, _ := d.(map[string]any)
		value := found["x-ms-discriminator-value"]
		if (value == said || value == nil && name == said) && c.isA(s, found, schema) {
			return s, found
		}
	}
	return s, schema
}

// isA reports whether a description is made of another one: kinds of different things have the same names.
func (c *comparison) isA(s Spec, schema, of map[string]any) bool {
	if reflect.ValueOf(schema).Pointer() == reflect.ValueOf(of).Pointer() {
		return true
	}
	all, _ := schema["allOf"].([]any)
	return slices.ContainsFunc(all, func(part any) bool {
		in, found := c.deref(s, part.(map[string]any))
		return c.isA(in, found, of)
	})
}

type property struct {
	in     Spec
	schema map[string]any
}

// properties gathers what an object may have, also from what it is made of, and returns what it must have.
func (c *comparison) properties(s Spec, schema map[string]any, into map[string]property) (required []string) {
	all, _ := schema["allOf"].([]any)
	for _, part := range all {
		in, found := c.deref(s, part.(map[string]any))
		required = append(required, c.properties(in, found, into)...)
	}
	members, _ := schema["properties"].(map[string]any)
	for name, p := range members {
		into[name] = property{s, p.(map[string]any)}
	}
	names, _ := schema["required"].([]any)
	for _, n := range names {
		required = append(required, n.(string))
	}
	return required
}

func (c *comparison) deref(s Spec, schema map[string]any) (Spec, map[string]any) {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return s, schema
		}
		file, pointer, _ := strings.Cut(ref, "#")
		if file != "" {
			s = read(c.t, filepath.Join(s.dir, file))
		}
		var at any = s.root
		for name := range strings.SplitSeq(strings.Trim(pointer, "/"), "/") {
			at = at.(map[string]any)[name]
		}
		schema = at.(map[string]any)
	}
}
