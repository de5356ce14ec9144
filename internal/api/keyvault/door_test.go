package keyvault_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	apikeyvault "kluis/internal/api/keyvault"
	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
	"kluis/internal/seal"
)

const (
	tenant       = "54826b22-38d6-4fb2-bad9-b7b93a3e9c5a"
	subscription = "/subscriptions/00000000-0000-0000-0000-000000000000"
	vaults       = subscription + "/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/"
)

var owner = identity.Principal{ObjectID: "6b30bdc6-696a-46fb-82d7-739c2fb147b7", AppID: "0a0a0a0a-696a-46fb-82d7-739c2fb147b7", TenantID: tenant}

type anything struct{}

func (anything) Authorize(context.Context, string, armid.ID) error { return nil }

// server is both doors and a token endpoint behind one TLS listener, as in the product.
type server struct {
	t      testing.TB
	keys   *keyvault.Service
	client *http.Client
	suffix string // "vault.localhost:port"
	log    *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serve(t testing.TB, db *database.DB) *server {
	t.Helper()
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewUnstartedServer(nil)
	_, port, _ := net.SplitHostPort(ts.Listener.Addr().String())
	s := &server{t: t, suffix: "vault.localhost:" + port, log: &syncBuffer{}}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.keys, err = keyvault.New(keyvault.Options{DB: db, Seal: root, Authorizer: anything{}, DNSSuffix: s.suffix, TenantID: tenant, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	management, err := arm.NewRouter(arm.RouterOptions{
		Authenticate: func(ctx context.Context, r *http.Request) (context.Context, error) {
			return authenticate(ctx, r, "arm")
		},
		Logger: logger, NewID: uuid.NewString,
	}, apikeyvault.Provider(s.keys))
	if err != nil {
		t.Fatal(err)
	}
	data := apikeyvault.DataPlane(s.keys, apikeyvault.Options{
		Authenticate: func(ctx context.Context, r *http.Request, vaultHost string) (context.Context, error) {
			_, resource, _ := strings.Cut(vaultHost, ".")
			return authenticate(ctx, r, "https://"+resource)
		},
		Authority: "https://localhost:" + port + "/" + tenant, Suffix: s.suffix, Logger: logger,
	})
	ts.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/"+tenant+"/oauth2/v2.0/token":
			_, _ = io.WriteString(w, strings.TrimSuffix(r.FormValue("scope"), "/.default"))
		case strings.HasPrefix(strings.ToLower(r.URL.Path), "/subscriptions"):
			management.ServeHTTP(w, r)
		default:
			data.ServeHTTP(w, r)
		}
	})
	ts.StartTLS()
	t.Cleanup(ts.Close)
	s.client = ts.Client()
	transport := s.client.Transport.(*http.Transport)
	transport.TLSClientConfig.ServerName = "example.com" // the name in the test server's certificate
	transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ts.Listener.Addr().String())
	}
	return s
}

// authenticate takes for a token what the test's token endpoint gives out: the resource it is for.
func authenticate(ctx context.Context, r *http.Request, resource string) (context.Context, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token != resource {
		return nil, problem.New(problem.Unauthenticated, "InvalidAuthenticationToken", "The token is not for %s.", resource)
	}
	return identity.With(ctx, owner), nil
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (s *server) send(method, url, token string, body any) answer {
	s.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		r = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			s.t.Fatalf("%s %s: answer is not JSON: %s", method, url, raw)
		}
	}
	return a
}

// manage calls Resource Manager.
func (s *server) manage(method, path string, body any) answer {
	s.t.Helper()
	return s.send(method, "https://localhost"+path+"?api-version=2023-07-01", "arm", body)
}

var challenge = regexp.MustCompile(`^Bearer authorization="([^"]+)", resource="([^"]+)"$`)

// data calls a key vault as the SDKs do: first without token, then with one got where the challenge says.
func (s *server) data(method, vault, path string, body any) answer {
	s.t.Helper()
	url := "https://" + vault + "." + s.suffix + path
	if !strings.Contains(path, "?") {
		url += "?api-version=7.4"
	}
	first := s.send(method, url, "", nil)
	m := challenge.FindStringSubmatch(first.header.Get("WWW-Authenticate"))
	if first.status != http.StatusUnauthorized || m == nil {
		s.t.Fatalf("%s %s without a token: %d, challenge %q", method, url, first.status, first.header.Get("WWW-Authenticate"))
	}
	if !strings.HasSuffix(vault+"."+s.suffix, strings.TrimPrefix(m[2], "https://")) {
		s.t.Errorf("the challenge's resource %s is not the domain of the key vault", m[2])
	}
	resp, err := s.client.Post(m[1]+"/oauth2/v2.0/token", "application/x-www-form-urlencoded", strings.NewReader("scope="+m[2]+"/.default"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	token, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.send(method, url, string(token), body)
}

func (s *server) putVault(name string) {
	s.t.Helper()
	all := map[string]any{"keys": []string{"all"}, "secrets": []string{"all"}}
	a := s.manage("PUT", vaults+name, map[string]any{"location": "westeurope", "properties": map[string]any{
		"tenantId": tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "softDeleteRetentionInDays": 7,
		"accessPolicies": []any{map[string]any{"tenantId": tenant, "objectId": owner.ObjectID, "permissions": all}}}})
	if a.status != http.StatusOK {
		s.t.Fatalf("PUT key vault: %d %s", a.status, a.raw)
	}
}

// at walks into JSON: "error.innererror.code".
func (a answer) at(path string) any {
	var v any = a.body
	for _, name := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func want(t testing.TB, a answer, status int, pathsAndValues ...any) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.raw)
	}
	for i := 0; i+1 < len(pathsAndValues); i += 2 {
		if got := a.at(pathsAndValues[i].(string)); got != pathsAndValues[i+1] {
			t.Errorf("%v is %v, want %v", pathsAndValues[i], got, pathsAndValues[i+1])
		}
	}
}

func sqlite(t testing.TB) *database.DB {
	t.Helper()
	return databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db")
}
