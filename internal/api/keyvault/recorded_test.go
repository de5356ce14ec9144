package keyvault_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

// Each answer of ours has the status and at least the keys of the real service's answer to the same request.
func TestAnswersCoverTheRecordedOnes(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	s.putVault("kv-two")
	s.data("PUT", "kv-one", "/secrets/secret0", map[string]any{"value": "x", "tags": map[string]string{"file-encoding": "utf-8"}})
	steps := []struct {
		file string
		do   func() answer
	}{
		{"kv-vault-put-200", func() answer { return s.manage("PUT", vaults+"kv-new", recorded(t, "kv-vault-put-200").Request.Body) }},
		{"kv-key-create-401", func() answer {
			return s.send("POST", "https://kv-one."+s.suffix+"/keys/k/create?api-version=7.4-preview.1", "", nil)
		}},
		{"kv-key-create-200", func() answer {
			return s.data("POST", "kv-one", "/keys/keyname/create?api-version=7.4-preview.1", recorded(t, "kv-key-create-200").Request.Body)
		}},
		{"kv-rotationpolicy-put", func() answer {
			return s.data("PUT", "kv-one", "/keys/keyname/rotationpolicy?api-version=7.4-preview.1", recorded(t, "kv-rotationpolicy-put").Request.Body)
		}},
		{"kv-key-rotate-200", func() answer { return s.data("POST", "kv-one", "/keys/keyname/rotate?api-version=7.4-preview.1", nil) }},
		{"kv-secret-set-200", func() answer {
			return s.data("PUT", "kv-one", "/secrets/secret1", recorded(t, "kv-secret-set-200").Request.Body)
		}},
		{"kv-secret-list", func() answer { return s.data("GET", "kv-one", "/secrets", nil) }},
		{"kv-secret-versions", func() answer {
			s.data("PUT", "kv-one", "/secrets/secret1", map[string]any{"value": "new", "contentType": "test type", "tags": map[string]string{"test": "foo", "file-encoding": "utf-8"}})
			a := s.data("GET", "kv-one", "/secrets/secret1/versions", nil)
			newestLast(a)
			return a
		}},
		{"kv-recover-400", func() answer { return s.data("POST", "kv-one", "/deletedsecrets/secret1/recover", nil) }},
		{"kv-secret-delete-200", func() answer { return s.data("DELETE", "kv-one", "/secrets/secret1", nil) }},
		{"kv-secret-set-409-deleted", func() answer {
			return s.data("PUT", "kv-one", "/secrets/secret1", map[string]any{"value": "x"})
		}},
		{"kv-deletedsecret-recover-200", func() answer { return s.data("POST", "kv-one", "/deletedsecrets/secret1/recover", nil) }},
		{"kv-deletedsecret-purge-204", func() answer {
			s.data("DELETE", "kv-one", "/secrets/secret1", nil)
			return s.data("DELETE", "kv-one", "/deletedsecrets/secret1", nil)
		}},
		{"kv-vault-delete-200", func() answer { return s.manage("DELETE", vaults+"kv-two", nil) }},
		{"kv-deletedvault-get", func() answer {
			return s.manage("GET", subscription+"/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-two", nil)
		}},
	}
	for _, step := range steps {
		rec, got := recorded(t, step.file), step.do()
		if got.status != rec.Response.Status {
			t.Errorf("%s: status %d, recorded %d: %s", step.file, got.status, rec.Response.Status, got.raw)
		}
		cover(t, step.file, rec.Response.Body, any(got.body))
		for name := range rec.Response.Headers {
			if name != "x-ms-keyvault-region" && got.header.Get(name) == "" {
				t.Errorf("%s: the header %s is missing", step.file, name)
			}
		}
	}
}

type recording struct {
	Request  struct{ Body json.RawMessage }
	Response struct {
		Status  int
		Headers map[string]string
		Body    any
	}
}

func recorded(t *testing.T, name string) recording {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "recorded", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// cover fails the test for each key that is recorded and not ours, and for values of another JSON type.
func cover(t *testing.T, at string, want, got any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %T, recorded is an object", at, got)
			return
		}
		for k := range w {
			if _, ok := g[k]; !ok {
				t.Errorf("%s.%s is missing", at, k)
				continue
			}
			cover(t, at+"."+k, w[k], g[k])
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) < len(w) {
			t.Errorf("%s has %v, recorded are %d items", at, got, len(w))
			return
		}
		for i := range w {
			cover(t, at, w[i], g[i])
		}
	case float64:
		if _, ok := got.(float64); !ok {
			t.Errorf("%s is %T, recorded is a number", at, got)
		}
	case string:
		if _, ok := got.(string); !ok {
			t.Errorf("%s is %T, recorded is a string", at, got)
		}
	case bool:
		if _, ok := got.(bool); !ok {
			t.Errorf("%s is %T, recorded is a boolean", at, got)
		}
	}
}

// newestLast puts the version with a content type last, as in the recording: versions sort by their random names.
func newestLast(a answer) {
	items := a.body["value"].([]any)
	if _, has := items[0].(map[string]any)["contentType"]; has && len(items) == 2 {
		items[0], items[1] = items[1], items[0]
	}
}

// A purge is done when it answers 202, as the real service does, and can be followed to its end.
func TestPurgeOfAKeyVault(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	s.manage("DELETE", vaults+"kv-one", nil)
	deleted := subscription + "/providers/Microsoft.KeyVault/locations/westeurope/deletedVaults/kv-one"
	a := s.manage("POST", deleted+"/purge", nil)
	want(t, a, http.StatusAccepted)
	for name := range openapitest.Recordings(t)["kv-deletedvault-purge-202"].Response.Headers {
		if a.header.Get(name) == "" {
			t.Errorf("the header %s is missing", name)
		}
	}
	want(t, s.send("GET", a.header.Get("Location"), "arm", nil), http.StatusOK)
	want(t, s.manage("GET", deleted, nil), http.StatusNotFound)
	s.putVault("kv-one")
}

// Every recording of a key vault lies in testdata, where its answer is compared, or it is said why not.
func TestNoRecordingIsForgotten(t *testing.T) {
	elsewhere := map[string]string{
		"kv-deletedvault-purge-202": "compared by TestPurgeOfAKeyVault",
		"kv-recover-409":            "a deletion is over when it is answered, so no key is ever being deleted",
	}
	for name := range openapitest.Recordings(t) {
		if _, err := os.Stat(filepath.Join("testdata", "recorded", name+".json")); err != nil && strings.HasPrefix(name, "kv-") && elsewhere[name] == "" {
			t.Errorf("%s is compared with nothing", name)
		}
	}
}
