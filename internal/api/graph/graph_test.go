package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"kluis/internal/api/graph"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// people knows one application and one person beside the built-in principal.
type people struct{}

var admin = identity.Principal{ObjectID: "11111111-1111-1111-1111-111111111111", AppID: "22222222-2222-2222-2222-222222222222", Name: "admin"}

var ada = identity.Principal{ObjectID: "33333333-3333-3333-3333-333333333333", SignInName: "ada@example.com", Name: "Ada", Kind: identity.User}

func (people) Principal(_ context.Context, id string) (identity.Principal, error) {
	for _, p := range []identity.Principal{admin, identity.BackupManagementService, ada} {
		if strings.EqualFold(id, p.ObjectID) || strings.EqualFold(id, p.AppID) {
			return p, nil
		}
	}
	if id == "broken" {
		return identity.Principal{}, errors.New("a secret of the database")
	}
	return identity.Principal{}, problem.New(problem.NotFound, "PrincipalNotFound", "no %s", id)
}

func (people) UserNamed(_ context.Context, name string) (identity.Principal, error) {
	if strings.EqualFold(name, ada.SignInName) {
		return ada, nil
	}
	return identity.Principal{}, problem.New(problem.NotFound, "UserNotFound", "no %s", name)
}

func handler() http.Handler {
	return graph.Handler(people{}, graph.Options{Logger: slog.New(slog.DiscardHandler), Authenticate: func(ctx context.Context, r *http.Request) (context.Context, error) {
		if r.Header.Get("Authorization") == "" {
			return ctx, problem.New(problem.Unauthenticated, "AuthenticationFailed", "no token")
		}
		return identity.With(ctx, admin), nil
	}})
}

func TestGraph(t *testing.T) {
	h := handler()
	search := func(filter string) string {
		return "/v1.0/servicePrincipals?" + url.Values{"$filter": {filter}}.Encode()
	}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string // ids of principals, or the code of an error
	}{
		{"az looks for an application", "GET", search("servicePrincipalNames/any(c:c eq '" + admin.AppID + "')"), "", 200, admin.ObjectID},
		{"the backup service", "GET", search("servicePrincipalNames/any(c:c eq '" + identity.BackupManagementService.AppID + "')"), "", 200, identity.BackupManagementService.ObjectID},
		{"by application id", "GET", search("appId eq '" + admin.AppID + "'"), "", 200, admin.ObjectID},
		{"by object id", "GET", search("id eq '" + strings.ToUpper(admin.ObjectID) + "'"), "", 200, admin.ObjectID},
		{"an application id is no object id", "GET", search("id eq '" + admin.AppID + "'"), "", 200, ""},
		{"nobody", "GET", search("appId eq 'x'"), "", 200, ""},
		{"everybody", "GET", "/v1.0/servicePrincipals", "", 400, "Request_UnsupportedQuery"},
		{"another filter", "GET", search("appId eq 'a' or appId eq 'b'"), "", 400, "Request_UnsupportedQuery"},
		{"one", "GET", "/v1.0/servicePrincipals/" + admin.ObjectID, "", 200, admin.ObjectID},
		{"no such one", "GET", "/v1.0/servicePrincipals/" + admin.AppID, "", 404, "Request_ResourceNotFound"},
		{"az names the principals of assignments", "POST", "/v1.0/directoryObjects/getByIds", `{"ids":["` + admin.ObjectID + `","x"],"types":["user"]}`, 200, admin.ObjectID},
		{"too many", "POST", "/v1.0/directoryObjects/getByIds", `{"ids":["x"` + strings.Repeat(`,"x"`, 1000) + `]}`, 400, "Request_BadRequest"},
		{"no JSON", "POST", "/v1.0/directoryObjects/getByIds", `{`, 400, "Request_BadRequest"},
		{"me", "GET", "/v1.0/me", "", 400, "BadRequest"},
		{"users", "GET", "/v1.0/users?$filter=x", "", 200, ""},
		{"az looks for a person", "GET", "/v1.0/users?" + url.Values{"$filter": {"userPrincipalName eq 'Ada@example.com'"}}.Encode(), "", 200, ada.ObjectID},
		{"a person who is not there", "GET", "/v1.0/users?" + url.Values{"$filter": {"userPrincipalName eq 'bob'"}}.Encode(), "", 200, ""},
		{"an application is no person", "GET", "/v1.0/users?" + url.Values{"$filter": {"id eq '" + admin.ObjectID + "'"}}.Encode(), "", 200, ""},
		{"a person by object id", "GET", "/v1.0/users/" + ada.ObjectID, "", 200, ada.ObjectID},
		{"a person by name", "GET", "/v1.0/users/ada@example.com", "", 200, ada.ObjectID},
		{"no such person", "GET", "/v1.0/users/" + admin.ObjectID, "", 404, "Request_ResourceNotFound"},
		{"a person is no application", "GET", "/v1.0/servicePrincipals/" + ada.ObjectID, "", 404, "Request_ResourceNotFound"},
		{"writing", "POST", "/v1.0/servicePrincipals", "{}", 400, "Request_BadRequest"},
		{"a defect", "GET", search("appId eq 'broken'"), "", 500, "InternalServerError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			r.Header.Set("Authorization", "Bearer t")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := said(t, w.Body.Bytes()); w.Code != c.status || got != c.want {
				t.Errorf("%d %q, want %d %q", w.Code, got, c.status, c.want)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the answer tells of a defect: %s", w.Body)
			}
			r.Header.Del("Authorization")
			w = httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != 401 || said(t, w.Body.Bytes()) != "InvalidAuthenticationToken" {
				t.Errorf("without a token: %d %s", w.Code, w.Body)
			}
		})
	}
}

// said is the ids in an answer, or the code of an error.
func said(t *testing.T, body []byte) string {
	t.Helper()
	var a struct {
		ID    string
		Value []struct{ ID string }
		Error struct{ Code string }
	}
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatal(err)
	}
	all := a.ID + a.Error.Code
	for _, v := range a.Value {
		all += v.ID
	}
	return all
}
