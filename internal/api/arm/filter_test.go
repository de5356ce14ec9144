package arm

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"kluis/internal/problem"
)

func TestParseFilter(t *testing.T) {
	cases := map[string]map[string]string{
		"a eq 'b'":                {"a": "b"},
		"  A  EQ  'b'  ":          {"a": "b"},
		"a eq''":                  {"a": ""},
		"a eq 'it''s' and b eq 3": {"a": "it's", "b": "3"},
		"backupManagementType eq 'AzureIaasVM' and status eq 'Failed' and isCopy eq false": {
			"backupmanagementtype": "AzureIaasVM", "status": "Failed", "iscopy": "false"},
		"startTime eq '2026-11-23 12:00:00 PM' and x eq 'a and b eq c'": {"starttime": "2026-11-23 12:00:00 PM", "x": "a and b eq c"},
		"a eq 'b' AND a eq 'b'":           {"a": "b"},
		"properties/state eq 'x'":         {"properties/state": "x"},
		"a eq 'Ünï 漢字'":                   {"a": "Ünï 漢字"},
		"id eq 0b1e4c1e-0000-4000-8000-1": {"id": "0b1e4c1e-0000-4000-8000-1"},
		"atScope() and assignedTo('o')":   {"atscope()": "", "assignedto()": "o"},
	}
	for text, want := range cases {
		got, err := parseFilter(text)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("parseFilter(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseFilterRefuses(t *testing.T) {
	terms := make([]string, 40)
	for i := range terms {
		terms[i] = fmt.Sprintf("k%d eq 1", i)
	}
	for _, text := range []string{
		"a", "a eq", "a eq ", "a ne 'b'", "eq 'b'", "'a' eq 'b'", "a eq 'b", "a eq 'b'' ", "a eq 'b' or c eq 'd'", "a eq 'b' and", "a eq 'b' c eq 'd'",
		"a eq 'b'c", "a eq b'c'", "(a eq 'b')", "not a eq 'b'", "a eq 'b' and a eq 'c'", "startswith(a,'b') eq true", "a-b eq 'c'",
		"a\teq\t'b'", "f(", "f('a'", "f('a' b", "f(a)", "()", "('a')", "f()g()", "f() eq 'a'", "a eq '" + strings.Repeat("x", 5000) + "'", strings.Join(terms, " and "),
	} {
		got, err := parseFilter(text)
		if !problem.Is(err, "InvalidFilterInQueryString") {
			t.Errorf("parseFilter(%.60q) = %v, %v; want InvalidFilterInQueryString", text, got, err)
		}
	}
}

// Whatever is accepted means the same when it is written down plainly and read again.
func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{"a eq 'b'", "a eq 'it''s' and B eq 3", "a eq", "a eq 'b' or c", "a eq''and b eq 1", "f() and g('a')"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text)
		if err != nil {
			if problem.Of(err) == nil {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		var terms []string
		for key, value := range got {
			quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
			if function, call := strings.CutSuffix(key, "()"); call {
				terms = append(terms, function+"("+quoted+")")
			} else {
				terms = append(terms, key+" eq "+quoted)
			}
		}
		plain := strings.Join(terms, " and ")
		if len(plain) > maxFilter {
			return
		}
		if again, err := parseFilter(plain); err != nil || !maps.Equal(got, again) {
			t.Fatalf("%q is %v, but %q is %v, %v", text, got, plain, again, err)
		}
	})
}
