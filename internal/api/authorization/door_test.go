package authorization_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	"kluis/internal/api/authorization"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
)

const (
	tenant = "8d1f1c52-3b5e-4d6e-9f0a-2d1c5b7a9e11"
	sub    = "/subscriptions/c0ffee00-0000-4000-8000-000000000001"
	vm     = sub + "/resourceGroups/prod/providers/Microsoft.Compute/virtualMachines/web"
	auth   = "/providers/Microsoft.Authorization/"
	reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
)

// plain keeps what the test seals as it is.
type plain struct{}

func (plain) Seal(_ string, b []byte) ([]byte, error) { return append([]byte(nil), b...), nil }
func (plain) Open(_ string, b []byte) ([]byte, error) { return append([]byte(nil), b...), nil }

// house is the door with the service behind it. A request's X-Caller is the object id of its caller.
type house struct {
	t     *testing.T
	door  http.Handler
	owner identity.Principal
	bob   identity.Principal // nobody yet
}

func open(t *testing.T) *house {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }
	s, err := identity.New(t.Context(), identity.Options{DB: databasetest.Open(t, "sqlite:"+t.TempDir()+"/db"), TenantID: tenant,
		SubscriptionID: strings.TrimPrefix(sub, "/subscriptions/"), Issuer: "https://localhost", Now: now, Seal: plain{}})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t}
	if h.owner, _, _, err = s.Bootstrap(t.Context(), "owner"); err != nil {
		t.Fatal(err)
	}
	if h.bob, _, err = s.CreatePrincipal(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	authenticate := func(ctx context.Context, r *http.Request) (context.Context, error) {
		p, err := s.Principal(ctx, r.Header.Get("X-Caller"))
		return identity.With(ctx, p), err
	}
	h.door, err = arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: uuid.NewString, LinkKey: []byte("k")},
		authorization.Provider(s), arm.Provider{Namespace: "Microsoft.Compute"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask sends a request and reads its answer into out, which may be nil. It returns status and error code.
func (h *house) ask(who identity.Principal, method, path, version, body string, out any) (int, string) {
	h.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	r := httptest.NewRequest(method, "https://localhost"+path+"?api-version="+version+"&"+strings.ReplaceAll(query, " ", "%20"), strings.NewReader(body))
	r.Header.Set("X-Caller", who.ObjectID)
	w := httptest.NewRecorder()
	h.door.ServeHTTP(w, r)
	var refusal struct{ Error struct{ Code string } }
	if w.Code >= 400 {
		if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || refusal.Error.Code == "" {
			h.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	} else if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			h.t.Errorf("%s %s: %s: %v", method, path, w.Body, err)
		}
	}
	return w.Code, refusal.Error.Code
}

type assignment struct {
	ID, Name, Type string
	Properties     struct{ RoleDefinitionID, PrincipalID, PrincipalType, Scope, CreatedOn, CreatedBy string }
}

// What az role assignment create, list and delete send, one after the other.
func TestRoleAssignments(t *testing.T) {
	h := open(t)
	name := uuid.NewString()
	at := vm + auth + "roleAssignments/" + name
	body := `{"properties":{"roleDefinitionId":"` + sub + auth + `roleDefinitions/` + reader + `","principalId":"` + h.bob.ObjectID + `","principalType":"ServicePrincipal"}}`
	const version = "2020-04-01-preview"
	if status, code := h.ask(h.bob, "PUT", at, version, body, nil); status != 403 || code != "AuthorizationFailed" {
		t.Fatalf("by bob: %d %s", status, code)
	}
	var a assignment
	if status, _ := h.ask(h.owner, "PUT", at, version, body, &a); status != 201 || a.ID != at || a.Name != name || a.Type != "Microsoft.Authorization/roleAssignments" ||
		a.Properties.Scope != vm || a.Properties.RoleDefinitionID != sub+auth+"roleDefinitions/"+reader || a.Properties.PrincipalID != h.bob.ObjectID ||
		a.Properties.CreatedBy != h.owner.ObjectID || a.Properties.CreatedOn != "2026-11-23T12:00:00.0000000Z" {
		t.Fatalf("created: %d %+v", status, a)
	}
	if status, _ := h.ask(h.owner, "PUT", at, version, body, nil); status != 200 {
		t.Errorf("put again: %d", status)
	}
	if status, code := h.ask(h.owner, "PUT", vm+auth+"roleAssignments/"+uuid.NewString(), version, body, nil); status != 409 || code != "RoleAssignmentExists" {
		t.Errorf("twice: %d %s", status, code)
	}
	for body, want := range map[string]string{
		strings.Replace(body, reader, uuid.NewString(), 1):                             "RoleDefinitionDoesNotExist",
		strings.Replace(body, h.bob.ObjectID, uuid.NewString(), 1):                     "PrincipalNotFound",
		strings.Replace(body, `{"properties":{`, `{"properties":{"condition":"x",`, 1): "RoleAssignmentPropertyNotSupported",
	} {
		if _, code := h.ask(h.owner, "PUT", vm+auth+"roleAssignments/"+uuid.NewString(), version, body, nil); code != want {
			t.Errorf("%s: %s, want %s", body, code, want)
		}
	}
	for query, want := range map[string]int{sub + auth + "roleAssignments": 2, vm + auth + "roleAssignments?$filter=atScope()": 2, sub + auth + "roleAssignments?$filter=atScope()": 1,
		sub + auth + "roleAssignments?$filter=principalId eq '" + h.bob.ObjectID + "'":             1,
		vm + auth + "roleAssignments?$filter=atScope() and assignedTo('" + h.owner.ObjectID + "')": 1} {
		var page struct{ Value []assignment }
		if status, _ := h.ask(h.owner, "GET", query, version, "", &page); status != 200 || len(page.Value) != want {
			t.Errorf("%s: %d, %d assignments, want %d", query, status, len(page.Value), want)
		}
	}
	if status, code := h.ask(h.owner, "GET", sub+auth+"roleAssignments?$filter=color eq 'red'", version, "", nil); status != 400 || code != "UnsupportedFilter" {
		t.Errorf("an unknown filter: %d %s", status, code)
	}
	if status, _ := h.ask(h.bob, "GET", strings.ToUpper(vm)+auth+"ROLEASSIGNMENTS/"+name, version, "", &a); status != 200 || a.Name != name {
		t.Errorf("read by bob: %d", status)
	}
	if status, _ := h.ask(h.owner, "DELETE", at, version, "", &a); status != 200 || a.Name != name {
		t.Errorf("deleted: %d", status)
	}
	if status, _ := h.ask(h.owner, "DELETE", at, version, "", nil); status != 204 {
		t.Errorf("deleted again: %d", status)
	}
	if status, code := h.ask(h.owner, "GET", at, version, "", nil); status != 404 || code != "RoleAssignmentNotFound" {
		t.Errorf("afterwards: %d %s", status, code)
	}
}

func TestRoleDefinitions(t *testing.T) {
	h := open(t)
	const version = "2018-01-01-preview"
	var page struct {
		Value []struct {
			ID, Name   string
			Properties struct {
				RoleName, Type   string
				AssignableScopes []string
				Permissions      []struct {
					Actions, NotActions, DataActions, NotDataActions []string
					Condition                                        string
				}
			}
		}
	}
	for path, want := range map[string]int{sub: len(identity.Roles()), "": len(identity.Roles()), vm: len(identity.Roles())} {
		if status, _ := h.ask(h.owner, "GET", path+auth+"roleDefinitions", version, "", &page); status != 200 || len(page.Value) != want {
			t.Errorf("at %q: %d, %d roles", path, status, len(page.Value))
		}
	}
	for query, want := range map[string]int{"roleName eq 'Backup Operator'": 1, "type eq 'CustomRole'": 0, "roleName eq 'King'": 0} {
		if status, _ := h.ask(h.owner, "GET", sub+auth+"roleDefinitions?$filter="+query, version, "", &page); status != 200 || len(page.Value) != want {
			t.Errorf("%s: %d, %d roles, want %d", query, status, len(page.Value), want)
		}
	}
	h.ask(h.owner, "GET", sub+auth+"roleDefinitions?$filter=roleName eq 'Key Vault Data Access Administrator'", version, "", &page)
	r := page.Value[0]
	if r.ID != sub+auth+"roleDefinitions/"+r.Name || r.Properties.Type != "BuiltInRole" || len(r.Properties.Permissions) != 1 || r.Properties.Permissions[0].NotActions == nil ||
		!strings.Contains(r.Properties.Permissions[0].Condition, "ForAnyOfAnyValues:GuidEquals{") {
		t.Errorf("role = %+v", r)
	}
	at := sub + auth + "roleDefinitions/" + reader
	if status, _ := h.ask(h.owner, "GET", at, version, "", nil); status != 200 {
		t.Errorf("by id: %d", status)
	}
	if status, code := h.ask(h.owner, "GET", sub+auth+"roleDefinitions/"+uuid.NewString(), version, "", nil); status != 404 || code != "RoleDefinitionDoesNotExist" {
		t.Errorf("by an unknown id: %d %s", status, code)
	}
	for _, method := range []string{"PUT", "DELETE"} {
		if status, code := h.ask(h.owner, method, at, version, "{}", nil); status != 400 || code != "CustomRolesNotSupported" {
			t.Errorf("%s: %d %s", method, status, code)
		}
		if status, code := h.ask(h.bob, method, at, version, "{}", nil); status != 403 || code != "AuthorizationFailed" {
			t.Errorf("%s by bob: %d %s", method, status, code)
		}
	}
	var permissions struct{ Value []struct{ Actions []string } }
	if status, _ := h.ask(h.owner, "GET", vm+auth+"permissions", "2022-04-01", "", &permissions); status != 200 || len(permissions.Value) != 1 || permissions.Value[0].Actions[0] != "*" {
		t.Errorf("permissions: %d %+v", status, permissions)
	}
}

// What az lock create, list, show and delete send; at a resource, with the empty parent that az writes.
func TestLocks(t *testing.T) {
	h := open(t)
	const version = "2016-09-01"
	body := `{"properties":{"level":"CanNotDelete","notes":"keep it"}}`
	for _, scope := range []string{sub, sub + "/resourceGroups/prod", strings.Replace(vm, "Microsoft.Compute/", "Microsoft.Compute//", 1)} {
		var l struct {
			ID, Name, Type string
			Properties     struct{ Level, Notes string }
		}
		at := scope + auth + "locks/keep"
		if status, code := h.ask(h.bob, "PUT", at, version, body, nil); status != 403 || code != "AuthorizationFailed" {
			t.Errorf("by bob: %d %s", status, code)
		}
		if status, _ := h.ask(h.owner, "PUT", at, version, body, &l); status != 201 || l.ID != strings.Replace(at, "//", "/", 1) || l.Properties.Level != "CanNotDelete" || l.Properties.Notes != "keep it" {
			t.Errorf("put: %d %+v", status, l)
		}
		if status, _ := h.ask(h.owner, "PUT", at, version, `{"properties":{"level":"ReadOnly"}}`, &l); status != 200 || l.Properties.Level != "ReadOnly" {
			t.Errorf("put again: %d %+v", status, l)
		}
		if status, _ := h.ask(h.owner, "GET", at, version, "", &l); status != 200 || l.Name != "keep" {
			t.Errorf("get: %d %+v", status, l)
		}
	}
	for query, want := range map[string]int{sub + auth + "locks": 3, sub + auth + "locks?$filter=atScope()": 1, vm + auth + "locks?$filter=atScope()": 3} {
		var page struct{ Value []json.RawMessage }
		if status, _ := h.ask(h.owner, "GET", query, version, "", &page); status != 200 || len(page.Value) != want {
			t.Errorf("%s: %d, %d locks", query, status, len(page.Value))
		}
	}
	if status, code := h.ask(h.owner, "PUT", vm+auth+"locks/bad", version, `{"properties":{"level":"Never"}}`, nil); status != 400 || code != "LockDefinitionInvalid" {
		t.Errorf("%d %s", status, code)
	}
	role := `{"properties":{"roleDefinitionId":"` + reader + `","principalId":"` + h.bob.ObjectID + `"}}`
	if status, code := h.ask(h.owner, "PUT", vm+auth+"roleAssignments/"+uuid.NewString(), "2022-04-01", role, nil); status != 409 || code != "ScopeLocked" {
		t.Errorf("an assignment below a lock: %d %s", status, code)
	}
	for _, want := range []int{200, 204} {
		if status, _ := h.ask(h.owner, "DELETE", sub+auth+"locks/keep", version, "", nil); status != want {
			t.Errorf("delete: %d, want %d", status, want)
		}
	}
}
