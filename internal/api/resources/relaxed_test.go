package resources

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStrict(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"as az splices it", `{"properties": {"mode": "Incremental", template:{"a": [1e+5, -1]}}}`, `{"properties":{"mode":"Incremental","template":{"a":[1e+5,-1]}}}`},
		{"comments", "{ // a comment: {\n\"a\": /* and: \"another\" */ true /**/ }//", `{"a":true}`},
		{"line ends in strings", "{\"a\": \"one\n\ttwo\"}", `{"a":"one\u000a\u0009two"}`},
		{"what looks like it in strings", `{"a // b": "/* c: */ \" // d", "e": null}`, `{"a // b":"/* c: */ \" // d","e":null}`},
		{"other names", `{$schema : 1, _a1: false}`, `{"$schema":1,"_a1":false}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := json.Compact(&got, strict([]byte(c.text))); err != nil {
				t.Fatalf("%v: %s", err, strict([]byte(c.text)))
			}
			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, text := range []string{`{"a": "`, `{a}`, `{/*`, `{"a": tru/**/e}`, `{'a': 1}`, `\`} {
		if json.Valid(strict([]byte(text))) {
			t.Errorf("%s became JSON", text)
		}
	}
}

// What is JSON stays as it is, and what is made of anything else is of a length that is bounded by it.
func FuzzStrict(f *testing.F) {
	for _, seed := range []string{`{"a": [true, "b\\", null]}`, `{a: "/*"} // x`, "/*", `"\`, "{\"\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := strict(text)
		if json.Valid(text) && !bytes.Equal(got, text) {
			t.Errorf("%q became %q", text, got)
		}
		if len(got) > 6*len(text) {
			t.Errorf("%d bytes became %d", len(text), len(got))
		}
	})
}
