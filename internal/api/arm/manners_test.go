package arm_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// shed is one resource in memory: a number that PUT sets and that PATCH adds one to.
type shed struct {
	mu    sync.Mutex
	there bool
	n     int
}

const sheds = group + "/providers/Contoso.Garden/sheds"

func (s *shed) provider() arm.Provider {
	reply := func() (*arm.Reply, error) {
		if !s.there {
			return nil, problem.New(problem.NotFound, "ResourceNotFound", "There is no shed.").WithAdvice("Build one.")
		}
		return arm.OK(map[string]int{"n": s.n}), nil
	}
	set := func(there bool, f func(n int) int) arm.Handler {
		return func(context.Context, *arm.Request) (*arm.Reply, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.there, s.n = there, f(s.n)
			return arm.OK(map[string]int{"n": s.n}), nil
		}
	}
	return arm.Provider{Namespace: "Contoso.Garden",
		Versions: map[string]arm.Versions{"Contoso.Garden": {"2024-04-01", "2022-06-01-preview", "2016-06-01"}, "Contoso.Garden/sheds/tools": {"2020-01-01"}},
		Resources: []arm.Resource{
			{Type: "resourceGroups", Get: echo("get group")},
			{Type: "Contoso.Garden/sheds", List: echo("list sheds"),
				Get: func(context.Context, *arm.Request) (*arm.Reply, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					return reply()
				},
				Put: set(true, func(int) int { return 0 }), Patch: set(true, func(n int) int { return n + 1 }), Delete: set(false, func(int) int { return 0 })},
			{Type: "Contoso.Garden/sheds/tools", Get: echo("get tool")},
			{Type: "Contoso.Garden/sheds/tools/parts", Get: echo("get part")},
			{Type: "Contoso.Garden/labels", Extends: true, Get: echo("get label"), List: echo("list labels")},
		}}
}

func (s *shed) router(t *testing.T, o arm.RouterOptions) *arm.Router {
	t.Helper()
	o.Authenticate = func(ctx context.Context, r *http.Request) (context.Context, error) {
		return identity.With(ctx, identity.Principal{ObjectID: r.Header.Get("Authorization")}), nil
	}
	o.Logger, o.NewID = slog.New(slog.DiscardHandler), func() string { return "1" }
	rt, err := arm.NewRouter(o, s.provider())
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// with sends a request with further headers, as name, value pairs.
func with(rt *arm.Router, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://kluis.example"+target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	return w
}

func TestAPIVersions(t *testing.T) {
	rt := (&shed{there: true}).router(t, arm.RouterOptions{})
	for _, c := range []struct {
		method, path, version string
		status                int
		code, says            string
	}{
		{"GET", sheds + "/s", "2016-06-01", 200, "", ""},
		{"GET", sheds + "/s", "2019-01-01", 200, "", ""},
		{"GET", sheds + "/s", "2024-04-01-preview", 200, "", ""},
		{"GET", sheds + "/s", "2016-05-31", 404, "InvalidResourceType", "The resource type 'sheds' could not be found in the namespace 'Contoso.Garden' for api version '2016-05-31'. The supported api-versions are '2024-04-01,2022-06-01-preview,2016-06-01'."},
		{"GET", sheds, "2024-04-02", 404, "InvalidResourceType", "supported api-versions"},
		{"PUT", sheds + "/s", "2027-01-01", 400, "NoRegisteredProviderFound", "The supported api-versions are '2024-04-01, 2022-06-01-preview, 2016-06-01'."},
		{"GET", sheds + "/s", "soon", 400, "InvalidApiVersionParameter", "The api-version 'soon' is invalid. The supported versions are '2024-04-01,2022-06-01-preview,2016-06-01'."},
		{"GET", sheds + "/s/tools/t", "2020-01-01", 200, "", ""},
		{"GET", sheds + "/s/tools/t", "2024-04-01", 404, "InvalidResourceType", "'sheds/tools'"},
		{"GET", sheds + "/s/tools/t/parts/p", "2024-04-01", 404, "InvalidResourceType", "'2020-01-01'"},
		{"GET", group, "2010-01-01", 400, "InvalidApiVersionParameter", "supported versions are"},
	} {
		w := with(rt, c.method, c.path+"?api-version="+c.version, "{}")
		if w.Code != c.status || c.code != "" && readError(t, w).Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s with %s = %d %s", c.method, c.path, c.version, w.Code, w.Body)
		}
	}
	for _, bad := range []arm.Versions{{"2024-04"}, {"2016-06-01", "2024-04-01"}} {
		_, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "" }},
			arm.Provider{Namespace: "A.B", Versions: map[string]arm.Versions{"A.B": bad}, Resources: []arm.Resource{{Type: "A.B/c"}}})
		if err == nil {
			t.Errorf("a table with the api-versions %v is accepted", bad)
		}
	}
}

func TestConditions(t *testing.T) {
	s := &shed{}
	rt := s.router(t, arm.RouterOptions{})
	const one = sheds + "/one" + version
	want := func(status int, w *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		t.Helper()
		if w.Code != status {
			t.Fatalf("%d, want %d: %s", w.Code, status, w.Body)
		}
		if status == http.StatusPreconditionFailed && readError(t, w).Code != "PreconditionFailed" {
			t.Errorf("412 says %s", w.Body)
		}
		return w
	}
	want(404, with(rt, "HEAD", one, ""))
	want(412, with(rt, "PUT", one, "{}", "If-Match", "*"))
	want(200, with(rt, "PUT", one, "{}", "If-None-Match", "*"))
	want(412, with(rt, "PUT", one, "{}", "If-None-Match", "*"))
	tag := want(200, with(rt, "GET", one, "")).Header().Get("ETag")
	if head := want(204, with(rt, "HEAD", one, "")); head.Header().Get("ETag") != tag || tag == "" || head.Body.Len() > 0 {
		t.Errorf("HEAD tells the tag %q, GET %q", head.Header().Get("ETag"), tag)
	}
	want(200, with(rt, "PATCH", one, "{}", "If-Match", `"other", `+tag))
	want(412, with(rt, "PATCH", one, "{}", "If-Match", tag))
	want(412, with(rt, "DELETE", one, "", "If-Match", tag))
	if s.n != 1 {
		t.Errorf("a change whose condition did not hold was made: %d", s.n)
	}
	want(200, with(rt, "DELETE", one, "", "If-Match", with(rt, "GET", one, "").Header().Get("ETag")))
	want(404, with(rt, "GET", one, ""))
}

// Of those who read the same state and change it under that condition, one wins, whoever else is about.
func TestConditionsExcludeEachOther(t *testing.T) {
	s := &shed{there: true}
	rt := s.router(t, arm.RouterOptions{})
	tag := with(rt, "GET", sheds+"/one"+version, "").Header().Get("ETag")
	codes := make([]int, 16)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() { codes[i] = with(rt, "PATCH", sheds+"/ONE"+version, "{}", "If-Match", tag).Code })
	}
	all.Wait()
	won := 0
	for _, code := range codes {
		if code == http.StatusOK {
			won++
		}
	}
	if won != 1 || s.n != 1 {
		t.Errorf("%d changes were made under one tag, %v", s.n, codes)
	}
}

func TestThrottle(t *testing.T) {
	now := time.Unix(0, 0)
	rt := (&shed{there: true}).router(t, arm.RouterOptions{Limits: arm.Limits{Reads: 3, Writes: 1}, Now: func() time.Time { return now }})
	left := func(status int, w *httptest.ResponseRecorder, name string, want string) {
		t.Helper()
		if got := w.Header().Get("X-Ms-Ratelimit-Remaining-" + name); w.Code != status || got != want {
			t.Fatalf("%d with %q left, want %d with %q: %s", w.Code, got, status, want, w.Body)
		}
	}
	const one = sheds + "/one" + version
	for i := 2; i >= 0; i-- {
		left(200, with(rt, "GET", one, ""), "Subscription-Reads", strconv.Itoa(i))
	}
	refused := with(rt, "GET", one, "")
	left(429, refused, "Subscription-Reads", "0")
	if e := readError(t, refused); e.Code != "TooManyRequests" || refused.Header().Get("Retry-After") != "20" || !strings.Contains(e.Message, "'20' seconds") {
		t.Errorf("429 says %+v, wait %s", e, refused.Header().Get("Retry-After"))
	}
	left(200, with(rt, "PUT", one, "{}"), "Subscription-Writes", "0") // kinds are counted apart,
	left(200, with(rt, "GET", one, "", "Authorization", "another"), "Subscription-Reads", "2")
	left(200, with(rt, "DELETE", one, ""), "Subscription-Deletes", "") // and what has no limit not at all
	now = now.Add(20 * time.Second)
	left(404, with(rt, "GET", one, ""), "Subscription-Reads", "0")
	now = now.Add(-time.Hour) // a clock that is set back gives nothing
	left(429, with(rt, "GET", one, ""), "Subscription-Reads", "0")
	now = now.Add(24 * time.Hour) // and a long rest no more than a full minute's worth
	left(404, with(rt, "GET", one, ""), "Subscription-Reads", "2")
	if _, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "" }, Limits: arm.Limits{Reads: 1}}); err == nil {
		t.Error("limits without a clock are accepted")
	}
}

func TestMediaType(t *testing.T) {
	rt := (&shed{there: true}).router(t, arm.RouterOptions{})
	for media, status := range map[string]int{"": 200, "application/json": 200, "application/json; charset=utf-8": 200, "application/merge-patch+json": 200,
		"application/x-www-form-urlencoded": 415, "text/plain": 415, "nonsense;;": 415} {
		w := with(rt, "PATCH", sheds+"/one"+version, "{}", "Content-Type", media)
		if w.Code != status || status == 415 && readError(t, w).Code != "UnsupportedMediaType" {
			t.Errorf("%q = %d %s", media, w.Code, w.Body)
		}
	}
	if w := with(rt, "GET", sheds+"/one"+version, "", "Content-Type", "text/plain"); w.Code != 200 {
		t.Errorf("a request without a body is refused for the type of its body: %d", w.Code)
	}
}

// A resource that extends another is found by its own type, and the list of such by what they extend.
func TestExtensionResources(t *testing.T) {
	rt := (&shed{there: true}).router(t, arm.RouterOptions{})
	for path, want := range map[string]string{
		strings.ToLower(sheds) + "/One/providers/contoso.garden/LABELS/l": `"id":"/subscriptions/s/resourceGroups/g/providers/Contoso.Garden/sheds/One/providers/Contoso.Garden/labels/l"`,
		sheds + "/One/providers/Contoso.Garden/labels":                    `"id":"` + sheds + `/One"`,
		group + "/providers/Contoso.Garden/labels":                        `"id":"` + group + `"`,
		group + "/providers/Contoso.Garden//labels/l":                     `"handler":"get label"`, // as az writes it
		group + "/providers/Contoso.Garden/labels//l":                     `"handler":"get label"`, // and az backup
	} {
		if w := with(rt, "GET", path+version, ""); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s = %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/One/providers/Contoso.Garden/sheds/Two", "/One/providers/Contoso.Garden/sheds"} { // sheds belong to nobody
		if w := with(rt, "GET", sheds+path+version, ""); w.Code != 404 || readError(t, w).Code != "InvalidResourceType" {
			t.Errorf("%s = %d %s", path, w.Code, w.Body)
		}
	}
	if w := with(rt, "GET", sheds+"/One/providers/Contoso.Nothing/labels/l"+version, ""); w.Code != 404 || readError(t, w).Code != "InvalidResourceNamespace" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestClientRequestID(t *testing.T) {
	rt := (&shed{there: true}).router(t, arm.RouterOptions{})
	for wanted, echoed := range map[string]string{"": "c1", "true": "c1", "false": ""} {
		w := with(rt, "GET", sheds+"/one"+version, "", "X-Ms-Client-Request-Id", "c1", "X-Ms-Return-Client-Request-Id", wanted)
		if got := w.Header().Get("X-Ms-Client-Request-Id"); got != echoed {
			t.Errorf("x-ms-return-client-request-id %q gives %q", wanted, got)
		}
	}
}

// A link to the next page that was changed in any byte, or made with another key, is refused.
func TestSkipTokenIsAuthentic(t *testing.T) {
	n := 300
	_, token, _ := strings.Cut(get(t, lister(t, &n), numbers+version).NextLink, "skipToken=")
	token, _, _ = strings.Cut(token, "&")
	for i := range token {
		other := byte('A')
		if token[i] == other {
			other = 'B'
		}
		changed := token[:i] + string(other) + token[i+1:]
		if w := do(t, lister(t, &n), "GET", numbers+version+"&$skipToken="+changed, ""); w.Code != 400 {
			t.Fatalf("token with byte %d changed = %d", i, w.Code)
		}
	}
	other, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }, LinkKey: []byte("another")},
		arm.Provider{Namespace: "N.S", Resources: []arm.Resource{{Type: "N.S/numbers", List: func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
			return arm.List(r, make([]int, n)), nil
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	if w := do(t, other, "GET", numbers+version+"&$skipToken="+token, ""); w.Code != 400 {
		t.Errorf("a token of another key is taken: %d", w.Code)
	}
}
