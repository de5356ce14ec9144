package keyvault_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
)

// The table of uses has each operation that the service declares, with the permission that it declares.
func TestTheTableOfUsesHasNoGaps(t *testing.T) {
	source, err := os.ReadFile("use.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared, tested []string
	for _, m := range regexp.MustCompile(`operation\{"(\w+)", (Keys|Secrets), "(\w*)"\}`).FindAllStringSubmatch(string(source), -1) {
		if m[3] != "" { // what nobody asks for needs no permission
			declared = append(declared, strings.ToLower(m[2])+" "+m[3]+" "+m[1])
		}
	}
	for _, u := range uses {
		tested = append(tested, u.kind+" "+u.permission+" "+u.name)
	}
	slices.Sort(declared)
	slices.Sort(tested)
	if !slices.Equal(declared, tested) || len(declared) < 30 {
		t.Errorf("declared are %d:\n%s\ntested are %d:\n%s", len(declared), strings.Join(declared, "\n"), len(tested), strings.Join(tested, "\n"))
	}
	for _, u := range uses {
		if words := map[string][]string{"keys": keyWords, "secrets": secretWords}[u.kind]; !slices.Contains(words, u.permission) {
			t.Errorf("%s needs %s, which is no permission", u.name, u.permission)
		}
	}
}

// Every operation by callers with each single permission, with all of one kind, and with none: allowed exactly where
// the permission is the operation's own.
func TestPermissionsMatrix(t *testing.T) {
	r := open(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), t.TempDir())
	type caller struct {
		identity.Principal
		kind, word string
	}
	var callers []caller
	v := vaultNamed("kv-one")
	add := func(kind, word string) {
		c := caller{identity.Principal{TenantID: tenant, ObjectID: fmt.Sprintf("cccccccc-0000-0000-0000-%012d", len(callers))}, kind, word}
		var p keyvault.Permissions
		switch kind {
		case "keys":
			p.Keys = []string{word}
		case "secrets":
			p.Secrets = []string{word}
		}
		callers = append(callers, c)
		v.AccessPolicies = append(v.AccessPolicies, keyvault.AccessPolicy{TenantID: tenant, ObjectID: c.ObjectID, Permissions: p})
	}
	for _, word := range append([]string{"all"}, keyWords...) {
		add("keys", word)
	}
	for _, word := range append([]string{"all"}, secretWords...) {
		add("secrets", word)
	}
	add("nothing", "")
	if _, _, err := r.PutVault(r.alice, v); err != nil {
		t.Fatal(err)
	}
	for _, u := range uses {
		for _, c := range callers {
			err := u.do(r, identity.With(t.Context(), c.Principal))
			p := problem.Of(err)
			refused := p != nil && p.Code == "Forbidden" && len(p.Details) > 0 && p.Details[0].Code == "AccessDenied"
			if want := c.kind == u.kind && (c.word == "all" || c.word == u.permission); refused == want {
				t.Errorf("%s with %s %s: refused %v: %v", u.name, c.kind, c.word, refused, err)
			}
		}
	}
}
