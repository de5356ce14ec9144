package openapitest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Recording is a request that a real client sent to the real service, and what it was answered.
type Recording struct {
	Request struct {
		Method, URI string
		Body        json.RawMessage
	}
	Response struct {
		Status  int
		Headers map[string]string
		Body    any
	}
}

// Recordings are all that lie in recorded/, beside the descriptions, by the names of their files.
func Recordings(t testing.TB) map[string]Recording {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Folder(t), "recorded", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Recording{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r Recording
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = r
	}
	return all
}

// Cover fails for every key of the recorded answer that ours lacks or has with another type; in lists an element is
// compared with the one at its place, or the last. What we leave out is in not, with the reason, and must be missing.
func Cover(t testing.TB, not map[string]string, recorded, ours any) {
	t.Helper()
	c := coverage{t: t, not: not}
	c.compare("", recorded, ours)
	for key, why := range not {
		if !slices.Contains(c.used, key) {
			t.Errorf("%s is listed as missing (%s), and is not", key, why)
		}
	}
}

type coverage struct {
	t    testing.TB
	not  map[string]string
	used []string
}

func (c *coverage) compare(at string, want, got any) {
	c.t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			c.t.Errorf("%s is a %s, recorded is an object", at, typeOf(got))
			return
		}
		for key, value := range w {
			where := strings.TrimPrefix(at+"."+key, ".")
			if inner, ok := g[key]; ok {
				c.compare(where, value, inner)
			} else {
				c.missing(where)
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			c.t.Errorf("%s is a %s, recorded is a list", at, typeOf(got))
			return
		}
		for i, value := range w {
			if len(g) == 0 {
				c.missing(at + "[]")
				return
			}
			c.compare(at+"[]", value, g[min(i, len(g)-1)])
		}
	case nil: // says nothing of the type
	default:
		if typeOf(w) != typeOf(got) {
			c.t.Errorf("%s is a %s, recorded is a %s", at, typeOf(got), typeOf(w))
		}
	}
}

func (c *coverage) missing(key string) {
	if _, excused := c.not[key]; !excused {
		c.t.Errorf("%s is missing", key)
	}
	c.used = append(c.used, key)
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "list"
	}
	return "object"
}
