package arm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

const (
	version = "?api-version=2024-04-01"
	group   = "/subscriptions/S/resourceGroups/G"
	depot   = group + "/providers/Contoso.Storage/depots/d1"
)

// echo answers with what the router made of the request.
func echo(name string) arm.Handler {
	return func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
		return arm.OK(map[string]any{
			"handler": name, "id": r.ID.String(), "collection": r.Collection, "action": r.Action, "filter": r.Filter,
		}), nil
	}
}

type document struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

func decode(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	var d document
	if err := r.Decode(&d); err != nil {
		return nil, err
	}
	return arm.Created(d), nil
}

func providers() []arm.Provider {
	return []arm.Provider{
		{Namespace: "Contoso.Resources", Resources: []arm.Resource{
			{Type: "subscriptions", Get: echo("get subscription"), List: echo("list subscriptions"),
				GetActions: map[string]arm.Handler{"locations": echo("locations")}},
			{Type: "resourceGroups", Get: echo("get group"), Put: echo("put group"), Head: empty, List: echo("list groups")},
			{Type: "providers", Get: echo("get provider"), List: echo("list providers"),
				Actions: map[string]arm.Handler{"register": echo("register")}},
			{Type: "tenants", List: echo("list tenants")},
		}},
		{Namespace: "Contoso.Storage", Resources: []arm.Resource{
			{Type: "Contoso.Storage", Actions: map[string]arm.Handler{"checkName": echo("check name")}},
			{Type: "Contoso.Storage/operations", List: echo("list operations")},
			{Type: "Contoso.Storage/depots", Get: echo("get depot"), Put: decode, Delete: fail, Patch: crash, List: echo("list depots"),
				Actions:    map[string]arm.Handler{"openGate": echo("open gate"), "start": start},
				GetActions: map[string]arm.Handler{"report": echo("report")}},
			{Type: "Contoso.Storage/depots/shelves/boxes", Get: echo("get box"), List: echo("list boxes"),
				Actions: map[string]arm.Handler{"move": echo("move box")}},
			{Type: "Contoso.Storage/locations", Actions: map[string]arm.Handler{"boxStatus": echo("box status")}},
		}},
	}
}

func empty(context.Context, *arm.Request) (*arm.Reply, error) { return arm.NoContent(), nil }

func start(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	return arm.Accepted(r.URL(r.ID.String()+"/operations/c;1"), r.URL(r.ID.String()+"/results/1", "t", "a b")), nil
}

func fail(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	switch r.ID.Name() {
	case "plain":
		return nil, errors.New("disk 7 of host z is broken")
	case "internal":
		return nil, problem.New(problem.Internal, "Whatever", "the text of a defect")
	case "nothing":
		return nil, nil
	}
	return nil, problem.New(problem.Conflict, "DepotNotEmpty", "The depot holds boxes.").WithTarget(r.ID.String()).
		WithAdvice("Move the boxes away.").WithCause(errors.New("a secret of the room"))
}

func crash(_ context.Context, r *arm.Request) (*arm.Reply, error) {
	if r.ID.Name() == "unencodable" {
		return arm.OK(func() {}), nil
	}
	panic("kaboom at shelf 3")
}

var caller = identity.Principal{ObjectID: "0b1e-object", AppID: "app", Name: "tester"}

// authenticate lets in whoever says "yes".
func authenticate(ctx context.Context, r *http.Request) (context.Context, error) {
	if r.Header.Get("Authorization") != "Bearer yes" {
		return ctx, problem.New(problem.Unauthenticated, "AuthenticationFailed", "No \"token\".").WithAdvice("Get one.")
	}
	return identity.With(ctx, caller), nil
}

func newRouter(t testing.TB, log io.Writer) *arm.Router {
	t.Helper()
	n := 0
	rt, err := arm.NewRouter(arm.RouterOptions{
		Authenticate:     authenticate,
		AuthorizationURI: func(r *http.Request) string { return "https://" + r.Host + "/tenant" },
		Logger:           slog.New(slog.NewJSONHandler(log, nil)),
		NewID:            func() string { n++; return fmt.Sprintf("request-%d", n) },
	}, providers()...)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// do sends a request as a known caller, without a network in between.
func do(t testing.TB, h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request(t, method, target, body))
	return w
}

func request(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(method, "https://kluis.example:8443/", strings.NewReader(body))
	var err error
	if r.URL, err = r.URL.Parse("https://kluis.example:8443" + target); err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer yes")
	return r
}

type answer struct {
	Handler, ID, Collection, Action string
	Filter                          map[string]string
}

func TestRoutes(t *testing.T) {
	rt := newRouter(t, io.Discard)
	cases := []struct {
		method, target string
		want           answer
	}{
		{"GET", "/subscriptions" + version, answer{Handler: "list subscriptions", ID: "/", Collection: "subscriptions"}},
		{"GET", "/Subscriptions/S" + version, answer{Handler: "get subscription", ID: "/subscriptions/S"}},
		{"GET", "//subscriptions/S/" + version, answer{Handler: "get subscription", ID: "/subscriptions/S"}},
		{"GET", "/subscriptions/S/locations" + version, answer{Handler: "locations", ID: "/subscriptions/S", Action: "locations"}},
		{"GET", "/tenants" + version, answer{Handler: "list tenants", ID: "/", Collection: "tenants"}},
		{"GET", "/subscriptions/S/resourcegroups" + version, answer{Handler: "list groups", ID: "/subscriptions/S", Collection: "resourceGroups"}},
		{"PUT", "/subscriptions/S/resourcegroups/G/" + version, answer{Handler: "put group", ID: group}},
		{"GET", "/subscriptions/S/providers" + version, answer{Handler: "list providers", ID: "/subscriptions/S", Collection: "providers"}},
		{"GET", "/subscriptions/S/providers/contoso.storage" + version, answer{Handler: "get provider", ID: "/subscriptions/S/providers/Contoso.Storage"}},
		{"POST", "/subscriptions/S/providers/CONTOSO.storage/Register" + version, answer{Handler: "register", ID: "/subscriptions/S/providers/Contoso.Storage", Action: "register"}},
		{"POST", "/subscriptions/S/providers/Contoso.Storage/checkname" + version, answer{Handler: "check name", ID: "/subscriptions/S/providers/Contoso.Storage", Action: "checkName"}},
		{"GET", "/providers/Contoso.Storage/operations" + version, answer{Handler: "list operations", ID: "/", Collection: "operations"}},

		{"GET", depot + version, answer{Handler: "get depot", ID: depot}},
		{"GET", "/SUBSCRIPTIONS/S/resourcegroups/G/Providers/contoso.STORAGE/DEPOTS/d1/" + version, answer{Handler: "get depot", ID: depot}},
		{"GET", group + "/providers/Contoso.Storage/depots" + version, answer{Handler: "list depots", ID: group, Collection: "depots"}},
		{"GET", "/subscriptions/S/providers/contoso.storage/Depots/" + version, answer{Handler: "list depots", ID: "/subscriptions/S", Collection: "depots"}},
		{"POST", depot + "/OPENGATE" + version, answer{Handler: "open gate", ID: depot, Action: "openGate"}},
		{"GET", depot + "/Report" + version, answer{Handler: "report", ID: depot, Action: "report"}},
		{"GET", depot + "/shelves/A%3B1/boxes/b" + version, answer{Handler: "get box", ID: depot + "/shelves/A;1/boxes/b"}},
		{"GET", depot + "/Shelves/A;1/Boxes/b" + version, answer{Handler: "get box", ID: depot + "/shelves/A;1/boxes/b"}},
		{"GET", depot + "/shelves/A;1/boxes/" + version, answer{Handler: "list boxes", ID: depot + "/shelves/A;1", Collection: "boxes"}},
		{"POST", depot + "/shelves/s/boxes/b/move" + version, answer{Handler: "move box", ID: depot + "/shelves/s/boxes/b", Action: "move"}},
		{"POST", "/Subscriptions/S/providers/contoso.storage/locations/westeurope/BoxStatus" + version, answer{Handler: "box status", ID: "/subscriptions/S/providers/Contoso.Storage/locations/westeurope", Action: "boxStatus"}},

		{"GET", depot + "?API-Version=2022-06-01-preview", answer{Handler: "get depot", ID: depot}},
		{"GET", depot + version + "&%24filter=Kind+eq+%27a%27", answer{Handler: "get depot", ID: depot, Filter: map[string]string{"kind": "a"}}},
		{"GET", depot + version + "&$filter=box%20eq%20'c;d'%20and%20open%20eq%20true", answer{Handler: "get depot", ID: depot, Filter: map[string]string{"box": "c;d", "open": "true"}}},
		{"GET", depot + version + "&$filter=", answer{Handler: "get depot", ID: depot}},
	}
	for _, c := range cases {
		w := do(t, rt, c.method, c.target, "")
		var got answer
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
			t.Errorf("%s %s = %d %s", c.method, c.target, w.Code, w.Body)
			continue
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s %s\n got %v\nwant %v", c.method, c.target, got, c.want)
		}
	}
}

type envelope struct {
	Error arm.ErrorBody `json:"error"`
}

func readError(t *testing.T, w *httptest.ResponseRecorder) arm.ErrorBody {
	t.Helper()
	var e envelope
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Code == "" || e.Error.Message == "" {
		t.Fatalf("answer %d is not an error envelope: %s", w.Code, w.Body)
	}
	return e.Error
}

func TestRefusals(t *testing.T) {
	rt := newRouter(t, io.Discard)
	long := strings.Repeat("x", 3000)
	cases := []struct {
		name, method, target, body string
		status                     int
		code                       string
	}{
		{"no api-version", "GET", depot, "", 400, "MissingApiVersionParameter"},
		{"empty api-version", "GET", depot + "?api-version=", "", 400, "MissingApiVersionParameter"},
		{"api-version is a word", "GET", depot + "?api-version=latest", "", 400, "InvalidApiVersionParameter"},
		{"api-version with more behind it", "GET", depot + "?api-version=2024-04-01x", "", 400, "InvalidApiVersionParameter"},
		{"api-version over two lines", "GET", depot + "?api-version=2024-04-01%0a", "", 400, "InvalidApiVersionParameter"},
		{"malformed query", "GET", depot + "?api-version=%zz", "", 400, "InvalidRequestUri"},
		{"unknown namespace", "GET", group + "/providers/Contoso.Classic/depots/d" + version, "", 404, "InvalidResourceNamespace"},
		{"unknown type", "GET", group + "/providers/Contoso.Storage/barns/b" + version, "", 404, "InvalidResourceType"},
		{"unknown child type", "GET", depot + "/barns/b" + version, "", 404, "InvalidResourceType"},
		{"unknown action", "POST", depot + "/closeGate" + version, "", 404, "InvalidResourceType"},
		{"a type without its own row", "GET", depot + "/shelves/s" + version, "", 404, "InvalidResourceType"},
		{"unknown scope", "GET", "/subscriptions/S/things" + version, "", 404, "InvalidResourceType"},
		{"root", "GET", "/" + version, "", 404, "InvalidResourceType"},
		{"empty segment", "GET", "/subscriptions/S//resourceGroups/G" + version, "", 400, "InvalidRequestUri"},
		{"dots", "GET", group + "/providers/Contoso.Storage/depots/%2e%2e" + version, "", 400, "InvalidRequestUri"},
		{"encoded slash", "GET", group + "/providers/Contoso.Storage/depots/a%2Fb" + version, "", 400, "InvalidRequestUri"},
		{"encoded nul", "GET", group + "/providers/Contoso.Storage/depots/a%00b" + version, "", 400, "InvalidRequestUri"},
		{"not UTF-8", "GET", group + "/providers/Contoso.Storage/depots/a%ff" + version, "", 400, "InvalidRequestUri"},
		{"too long", "GET", "/subscriptions/" + long + version, "", 400, "InvalidRequestUri"},
		{"something else than providers", "GET", group + "/depots/d" + version, "", 404, "InvalidResourceType"},
		{"method", "POST", depot + version, "{}", 405, "MethodNotAllowed"},
		{"method of a list", "DELETE", group + "/providers/Contoso.Storage/depots" + version, "", 405, "MethodNotAllowed"},
		{"method of an action", "GET", depot + "/openGate" + version, "", 405, "MethodNotAllowed"},
		{"invented method", "BREW", depot + version, "", 405, "MethodNotAllowed"},
		{"filter", "GET", depot + version + "&$filter=a%20gt%201", "", 400, "InvalidFilterInQueryString"},
		{"top", "GET", group + "/providers/Contoso.Storage/depots" + version + "&$top=-1", "", 400, "InvalidQueryParameterValue"},
		{"skip token", "GET", group + "/providers/Contoso.Storage/depots" + version + "&$skipToken=zzz", "", 400, "InvalidQueryParameterValue"},

		{"empty body", "PUT", depot + version, "", 400, "InvalidRequestContent"},
		{"blank body", "PUT", depot + version, " \n", 400, "InvalidRequestContent"},
		{"truncated body", "PUT", depot + version, `{"name":"a"`, 400, "InvalidRequestContent"},
		{"two documents", "PUT", depot + version, `{}{}`, 400, "InvalidRequestContent"},
		{"not an object", "PUT", depot + version, `[1]`, 400, "InvalidRequestContent"},
		{"wrong type", "PUT", depot + version, `{"size":"password1"}`, 400, "InvalidRequestContent"},
		{"deep body", "PUT", depot + version, strings.Repeat("[", 100000), 400, "InvalidRequestContent"},
		{"large body", "PUT", depot + version, `{"name":"` + strings.Repeat("x", arm.MaxBody) + `"}`, 413, "RequestContentTooLarge"},
		{"large body nobody reads", "POST", depot + "/openGate" + version, strings.Repeat("x", arm.MaxBody+1), 413, "RequestContentTooLarge"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := do(t, rt, c.method, c.target, c.body)
			e := readError(t, w)
			if w.Code != c.status || e.Code != c.code {
				t.Fatalf("%s %.80s = %d %s (%s), want %d %s", c.method, c.target, w.Code, e.Code, e.Message, c.status, c.code)
			}
			if len(e.Details) == 0 || e.Details[len(e.Details)-1].Code != "RecommendedAction" {
				t.Errorf("no recommended action in %+v", e)
			}
			if c.status == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if strings.Contains(w.Body.String(), "password1") {
				t.Error("the answer repeats a value from the body")
			}
			if len(w.Body.String()) > 2000 {
				t.Errorf("the answer has %d bytes", w.Body.Len())
			}
		})
	}
}

// A chunked body has no length to look at; reading it ends at the limit all the same.
func TestLargeBodyWithoutLength(t *testing.T) {
	rt := newRouter(t, io.Discard)
	r := httptest.NewRequest("PUT", depot+version, io.MultiReader(strings.NewReader(`{"name":"`), strings.NewReader(strings.Repeat("x", arm.MaxBody))))
	r.Header.Set("Authorization", "Bearer yes")
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)
	if e := readError(t, w); w.Code != http.StatusRequestEntityTooLarge || e.Code != "RequestContentTooLarge" {
		t.Fatalf("got %d %s", w.Code, e.Code)
	}
}

func TestAllow(t *testing.T) {
	rt := newRouter(t, io.Discard)
	for target, want := range map[string]string{
		depot: "GET, HEAD, PUT, PATCH, DELETE", group: "GET, HEAD, PUT", depot + "/start": "POST",
		group + "/providers/Contoso.Storage/depots": "GET",
	} {
		if got := do(t, rt, "BREW", target+version, "").Header().Get("Allow"); got != want {
			t.Errorf("Allow of %s = %q, want %q", target, got, want)
		}
	}
}

func TestNobodyGetsPastTheRouter(t *testing.T) {
	var log strings.Builder
	rt := newRouter(t, &log)
	for _, target := range []string{depot + version, "/", "/nonsense", depot, group + "/providers/No.Such/type/x" + version} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"} {
			w := httptest.NewRecorder()
			rt.ServeHTTP(w, httptest.NewRequest(method, "https://kluis.example:8443"+target, nil))
			challenge := w.Header().Get("WWW-Authenticate")
			if w.Code != http.StatusUnauthorized || !strings.HasPrefix(challenge, `Bearer authorization_uri="https://kluis.example:8443/tenant", error="invalid_token"`) {
				t.Errorf("%s %s = %d, challenge %q", method, target, w.Code, challenge)
			}
			if method != "HEAD" {
				readError(t, w)
			}
		}
	}
}

func TestReplies(t *testing.T) {
	rt := newRouter(t, io.Discard)
	w := do(t, rt, "PUT", depot+version, `{"name":"<a & b>","size":3,"unknown":{}}`)
	if w.Code != http.StatusCreated || w.Body.String() != `{"name":"<a & b>","size":3}`+"\n" || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("PUT = %d %q %v", w.Code, w.Body, w.Header())
	}
	w = do(t, rt, "HEAD", group+version, "")
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "" {
		t.Errorf("HEAD = %d %q %v", w.Code, w.Body, w.Header())
	}
	w = do(t, rt, "POST", depot+"/start"+version, "{}")
	want := map[string]string{
		"Azure-AsyncOperation": "https://kluis.example:8443" + depot + "/operations/c;1" + version,
		"Location":             "https://kluis.example:8443" + depot + "/results/1" + version + "&t=a+b",
		"Retry-After":          "1", "Content-Length": "0",
	}
	for name, value := range want {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s = %q, want %q", name, got, value)
		}
	}
	if w.Code != http.StatusAccepted || w.Body.Len() != 0 {
		t.Errorf("202 = %d %q", w.Code, w.Body)
	}
}

func TestHeaders(t *testing.T) {
	rt := newRouter(t, io.Discard)
	send := func(correlation, client string) http.Header {
		r := httptest.NewRequest("GET", depot+version, nil)
		r.Header.Set("Authorization", "Bearer yes")
		r.Header.Set("X-Ms-Correlation-Request-Id", correlation)
		r.Header.Set("X-Ms-Client-Request-Id", client)
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, r)
		return w.Header()
	}
	h := send("8b0a6f9c-1d2e-4f3a-9b4c-5d6e7f8a9b0c", "client.7")
	for name, want := range map[string]string{
		"X-Ms-Request-Id": "request-1", "X-Ms-Correlation-Request-Id": "8b0a6f9c-1d2e-4f3a-9b4c-5d6e7f8a9b0c", "X-Ms-Client-Request-Id": "client.7",
		"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1", "X-Content-Type-Options": "nosniff",
		"Strict-Transport-Security": "max-age=31536000; includeSubDomains",
	} {
		if h.Get(name) != want {
			t.Errorf("%s = %q, want %q", name, h.Get(name), want)
		}
	}
	for _, insane := range []string{"", "a b", strings.Repeat("x", 129), "a\r\nb", "é"} {
		h := send(insane, insane)
		if id := h.Get("X-Ms-Correlation-Request-Id"); id != h.Get("X-Ms-Request-Id") || id == "" {
			t.Errorf("correlation id %q became %q, want the request's id", insane, id)
		}
		if _, there := h["X-Ms-Client-Request-Id"]; there {
			t.Errorf("client request id %q is echoed", insane)
		}
	}
}

func TestErrors(t *testing.T) {
	named := func(name string) string {
		return group + "/providers/Contoso.Storage/depots/" + name + version
	}
	var log strings.Builder
	rt := newRouter(t, &log)

	w := do(t, rt, "DELETE", named("d1"), "")
	want := `{"error":{"code":"DepotNotEmpty","message":"The depot holds boxes.","target":"` + depot +
		`","details":[{"code":"RecommendedAction","message":"Move the boxes away."}]}}` + "\n"
	if w.Code != http.StatusConflict || w.Body.String() != want || w.Header().Get("X-Ms-Failure-Cause") != "service" {
		t.Errorf("problem = %d %s", w.Code, w.Body)
	}
	if w := do(t, rt, "GET", "/subscriptions/S/things"+version, ""); w.Header().Get("X-Ms-Failure-Cause") != "gateway" {
		t.Error("an error of the router is not the gateway's")
	}

	for method, names := range map[string][]string{"DELETE": {"plain", "internal", "nothing"}, "PATCH": {"panic", "unencodable"}} {
		for _, name := range names {
			log.Reset()
			w := do(t, rt, method, named(name), "")
			e := readError(t, w)
			id := w.Header().Get("X-Ms-Correlation-Request-Id")
			if w.Code != http.StatusInternalServerError || e.Code != "InternalServerError" || !strings.Contains(e.Message, id) {
				t.Errorf("%s: %d %+v, want InternalServerError with %s", name, w.Code, e, id)
			}
			for _, leak := range []string{"disk 7", "defect", "kaboom", "goroutine", "handler of", "func()"} {
				if strings.Contains(w.Body.String(), leak) {
					t.Errorf("%s: the answer says %q", name, leak)
				}
			}
			if !strings.Contains(log.String(), `"level":"ERROR"`) || !strings.Contains(log.String(), `"correlation":"`+id+`"`) {
				t.Errorf("%s: log is %s", name, &log)
			}
		}
	}
}

func TestAbortStaysAnAbort(t *testing.T) {
	rt, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }},
		arm.Provider{Namespace: "N.S", Resources: []arm.Resource{{Type: "N.S/a", Get: func(context.Context, *arm.Request) (*arm.Reply, error) { panic(http.ErrAbortHandler) }}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p := recover()
		if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("recovered %v", p)
		}
	}()
	do(t, rt, "GET", "/subscriptions/s/providers/N.S/a/b"+version, "")
	t.Error("the abort did not get through")
}

func TestLog(t *testing.T) {
	var log strings.Builder
	rt := newRouter(t, &log)
	r := request(t, "GET", strings.ToLower(depot)+version+"&sig=hunter2&$filter=a%20eq%20'hunter2'", "")
	r.Header.Set("User-Agent", "az/2.45 \n msg=x é"+strings.Repeat("x", 1000))
	rt.ServeHTTP(httptest.NewRecorder(), r)
	var line map[string]any
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatalf("not one line of JSON: %v: %s", err, &log)
	}
	for name, want := range map[string]any{
		"msg": "request", "level": "INFO", "method": "GET", "operation": "Contoso.Storage/depots/read", "status": 200.0,
		"resource":  "/subscriptions/s/resourceGroups/g/providers/Contoso.Storage/depots/d1",
		"principal": caller.ObjectID, "name": caller.Name, "correlation": "request-1", "request": "request-1",
		"agent": "az/2.45 ? msg=x ?" + strings.Repeat("x", 238),
	} {
		if line[name] != want {
			t.Errorf("%s = %v, want %v", name, line[name], want)
		}
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log holds the query: %s", &log)
	}
}

func TestClientGone(t *testing.T) {
	var log strings.Builder
	rt, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.NewJSONHandler(&log, nil)), NewID: func() string { return "1" }},
		arm.Provider{Namespace: "N.S", Resources: []arm.Resource{{Type: "N.S/a", Get: func(ctx context.Context, _ *arm.Request) (*arm.Reply, error) {
			return nil, fmt.Errorf("read: %w", ctx.Err())
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequest("GET", "/subscriptions/s/providers/N.S/a/b"+version, nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer yes")
	rt.ServeHTTP(httptest.NewRecorder(), r)
	if !strings.Contains(log.String(), `"status":499`) || strings.Contains(log.String(), "ERROR") {
		t.Errorf("log is %s", &log)
	}
}

func TestStatus(t *testing.T) {
	for kind, want := range map[problem.Kind]int{
		problem.Internal: 500, problem.Invalid: 400, problem.Unauthenticated: 401, problem.Denied: 403, problem.NotFound: 404,
		problem.Conflict: 409, problem.TooLarge: 413, problem.Unsupported: 400, problem.Unavailable: 503,
	} {
		if got := arm.Status(fmt.Errorf("do: %w", problem.New(kind, "C", "m"))); got != want {
			t.Errorf("kind %d is %d, want %d", kind, got, want)
		}
	}
}

func TestTableIsChecked(t *testing.T) {
	o := arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }}
	bad := map[string][]arm.Provider{
		"namespace twice": {{Namespace: "A.B"}, {Namespace: "a.b"}},
		"type twice":      {{Namespace: "A.B", Resources: []arm.Resource{{Type: "A.B/c"}, {Type: "A.B/C"}}}},
		"other namespace": {{Namespace: "A.B", Resources: []arm.Resource{{Type: "A.C/c"}}}},
		"empty segment":   {{Namespace: "A.B", Resources: []arm.Resource{{Type: "A.B//c"}}}},
	}
	for name, providers := range bad {
		if _, err := arm.NewRouter(o, providers...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := arm.NewRouter(arm.RouterOptions{}); err == nil {
		t.Error("a router without Authenticate is accepted")
	}
}
