package login_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"kluis/internal/api/login"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
)

const (
	tenant       = "8d1f1c52-3b5e-4d6e-9f0a-2d1c5b7a9e11"
	subscription = "c0ffee00-0000-4000-8000-000000000001"
	base         = "https://localhost:8443"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func now() time.Time { return start }

type sealer struct{ cipher.AEAD }

func (s sealer) Seal(context string, plain []byte) ([]byte, error) {
	return s.AEAD.Seal(nil, nil, plain, []byte(context)), nil
}

func (s sealer) Open(context string, sealed []byte) ([]byte, error) {
	return s.AEAD.Open(nil, nil, sealed, []byte(context))
}

// newIdentity makes a service on a database of its own, with its administrator.
func newIdentity(t testing.TB, issuer string) (s *identity.Service, appID, clientSecret string) {
	t.Helper()
	return newIdentityAt(t, issuer, now)
}

// newIdentityAt does so for clients that have a clock of their own.
func newIdentityAt(t testing.TB, issuer string, now func() time.Time) (s *identity.Service, appID, clientSecret string) {
	t.Helper()
	block, err := aes.NewCipher([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	s, err = identity.New(t.Context(), identity.Options{
		DB: databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "kluis.db")), TenantID: tenant, SubscriptionID: subscription,
		Issuer: issuer, Now: now, Seal: sealer{aead},
	})
	if err != nil {
		t.Fatal(err)
	}
	admin, secret, _, err := s.Bootstrap(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	return s, admin.AppID, string(secret.Reveal())
}

func newHandler(s *identity.Service, log *strings.Builder) http.Handler {
	n := 0
	return login.Handler(s, login.Options{
		Bases: []string{base}, Takes: func(audience string) bool { return audience == base || audience == "https://vault.azure.net" }, ARMAudience: "https://management.example", KeyVaultDNS: "vault.localhost:8443", StorageDNS: "localhost:8443",
		Now: now, NewID: func() string { n++; return fmt.Sprint("trace-", n) }, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
}

func send(t *testing.T, h http.Handler, method, target string, form url.Values, headers ...string) (int, map[string]any, http.Header) {
	t.Helper()
	r := httptest.NewRequest(method, base+target, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s %s = %d %s", method, target, w.Code, w.Body)
	}
	return w.Code, body, w.Header()
}

func TestTokens(t *testing.T) {
	var log strings.Builder
	s, appID, clientSecret := newIdentity(t, base)
	h := newHandler(s, &log)
	form := func(pairs ...string) url.Values {
		v := url.Values{"grant_type": {"client_credentials"}, "client_id": {appID}, "client_secret": {clientSecret}}
		for i := 0; i+1 < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	cases := []struct {
		name, path string
		form       url.Values
		audience   string
		v1         bool
	}{
		{"v2", "/" + tenant + "/oauth2/v2.0/token", form("scope", base+"/.default"), base, false},
		{"v2 in capitals, with a slash", "/" + strings.ToUpper(tenant) + "/OAuth2/v2.0/Token/", form("scope", base+"/.default"), base, false},
		{"double slash", "/" + tenant + "/oauth2/v2.0/token", form("scope", base+"//.default"), base, false},
		{"with OpenID's scopes", "/" + tenant + "/oauth2/v2.0/token", form("scope", "openid offline_access https://vault.azure.net/.default profile"), "https://vault.azure.net", false},
		{"v1", "/" + tenant + "/oauth2/token", form("resource", base+"/"), base, true},
		{"AD FS", "/adfs/oauth2/v2.0/token", form("scope", base+"/.default", "client_info", "1", "claims", "{}"), base, false},
		{"AD FS v1", "/adfs/oauth2/token", form("resource", base), base, false},
		{"the tenant that everybody is of", "/common/oauth2/v2.0/token", form("scope", base+"/.default"), base, false},
		{"the tenant of all organizations", "/organizations/oauth2/v2.0/token", form("scope", base+"/.default"), base, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			status, body, header := send(t, h, "POST", c.path, c.form)
			if status != http.StatusOK || body["token_type"] != "Bearer" || header.Get("Cache-Control") != "no-store" {
				t.Fatalf("%d %v %v", status, body, header)
			}
			want := any(3600.0)
			if c.v1 {
				want = "3600"
			}
			if body["expires_in"] != want {
				t.Errorf("expires_in = %#v, want %#v", body["expires_in"], want)
			}
			access, _ := body["access_token"].(string)
			if p, err := s.Verify(t.Context(), access, c.audience); err != nil || p.AppID != appID {
				t.Errorf("token is for %v, %v", p, err)
			}
		})
	}
	t.Run("basic", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/", nil)
		r.SetBasicAuth(url.QueryEscape(appID), url.QueryEscape(clientSecret))
		status, body, _ := send(t, h, "POST", "/"+tenant+"/oauth2/v2.0/token",
			url.Values{"grant_type": {"client_credentials"}, "scope": {base + "/.default"}}, "Authorization", r.Header.Get("Authorization"))
		if status != http.StatusOK {
			t.Errorf("%d %v", status, body)
		}
	})
	if strings.Contains(log.String(), clientSecret) || strings.Contains(log.String(), "eyJ") || !strings.Contains(log.String(), "client="+appID) {
		t.Errorf("log is %s", &log)
	}
}

func TestTokenRefusals(t *testing.T) {
	var log strings.Builder
	s, appID, clientSecret := newIdentity(t, base)
	h := newHandler(s, &log)
	with := func(pairs ...string) url.Values {
		v := url.Values{"grant_type": {"client_credentials"}, "client_id": {appID}, "client_secret": {clientSecret}, "scope": {base + "/.default"}}
		for i := 0; i+1 < len(pairs); i += 2 {
			if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
				v.Del(pairs[i])
			}
		}
		return v
	}
	v2 := "/" + tenant + "/oauth2/v2.0/token"
	cases := []struct {
		name, path string
		form       url.Values
		status     int
		code       string
		number     int
	}{
		{"wrong secret", v2, with("client_secret", "wrong-secret-hunter2"), 401, "invalid_client", 7000215},
		{"no secret", v2, with("client_secret", ""), 401, "invalid_client", 7000218},
		{"assertion without its type", v2, with("client_assertion", "eyJ"), 400, "invalid_request", 900144},
		{"malformed assertion", v2, with("client_assertion", "eyJ", "client_assertion_type", assertionType), 401, "invalid_client", 50027},
		{"unknown client", v2, with("client_id", "nobody"), 400, "unauthorized_client", 700016},
		{"no client", v2, with("client_id", ""), 400, "invalid_request", 900144},
		{"no grant", v2, with("grant_type", ""), 400, "invalid_request", 900144},
		{"password grant", v2, with("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		{"no scope", v2, with("scope", ""), 400, "invalid_request", 900144},
		{"only OpenID's scopes", v2, with("scope", "openid profile"), 400, "invalid_request", 900144},
		{"scope without default", v2, with("scope", base+"/user_impersonation"), 400, "invalid_scope", 1002012},
		{"two scopes", v2, with("scope", base+"/.default https://vault.azure.net/.default"), 400, "invalid_scope", 70011},
		{"only default", v2, with("scope", "/.default"), 400, "invalid_resource", 500011},
		{"control character", v2, with("resource", "https://a\x00b"), 400, "invalid_resource", 500011},
		{"long resource", v2, with("resource", "https://"+strings.Repeat("a", 600)), 400, "invalid_resource", 500011},
		{"resource of another cloud", v2, with("scope", "https://graph.example/.default"), 400, "invalid_resource", 500011},
		{"other tenant", "/5a0c3c1e-0000-4000-8000-000000000000/oauth2/v2.0/token", with(), 400, "invalid_request", 90002},
		{"tenant by a name", "/contoso.example/oauth2/token", with(), 400, "invalid_request", 90002},
		{"large form", v2, with("junk", strings.Repeat("x", 100<<10)), 400, "invalid_request", 900144},
		{"nothing", v2, nil, 400, "invalid_request", 900144},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			status, body, _ := send(t, h, "POST", c.path, c.form, "Client-Request-Id", "corr-1")
			codes, _ := body["error_codes"].([]any)
			if status != c.status || body["error"] != c.code || len(codes) != 1 || codes[0] != float64(c.number) {
				t.Fatalf("%d %v, want %d %s %d", status, body, c.status, c.code, c.number)
			}
			description, _ := body["error_description"].(string)
			if !strings.HasPrefix(description, fmt.Sprintf("AADSTS%d: ", c.number)) || strings.Contains(description, "hunter2") || len(description) > 800 {
				t.Errorf("description %q", description)
			}
			if body["correlation_id"] != "corr-1" || body["timestamp"] != "2026-11-23 12:00:00Z" || body["trace_id"] == nil {
				t.Errorf("body %v", body)
			}
			if body["access_token"] != nil {
				t.Error("a refusal carries a token")
			}
		})
	}
	t.Run("credentials in the URL", func(t *testing.T) {
		if status, body, _ := send(t, h, "POST", v2+"?"+with().Encode(), nil); status != http.StatusBadRequest {
			t.Errorf("%d %v", status, body)
		}
	})
	t.Run("wrong secret by basic", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/", nil)
		r.SetBasicAuth(appID, "hunter2")
		status, body, header := send(t, h, "POST", v2, with("client_id", "", "client_secret", ""), "Authorization", r.Header.Get("Authorization"))
		if status != http.StatusUnauthorized || body["error"] != "invalid_client" || !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%d %v %v", status, body, header)
		}
		r.SetBasicAuth("%zz", "x")
		if status, body, _ := send(t, h, "POST", v2, with(), "Authorization", r.Header.Get("Authorization")); status != http.StatusBadRequest || body["error"] != "invalid_request" {
			t.Errorf("malformed: %d %v", status, body)
		}
	})
	t.Run("method", func(t *testing.T) {
		if status, body, header := send(t, h, "GET", v2, nil); status != http.StatusMethodNotAllowed || header.Get("Allow") != "POST" || body["error"] != "invalid_request" {
			t.Errorf("%d %v %v", status, body, header)
		}
	})
	for _, leak := range []string{clientSecret, "hunter2", "eyJ"} {
		if strings.Contains(log.String(), leak) {
			t.Errorf("the log holds %s", leak)
		}
	}
}

// A database that is gone is our fault, and nobody outside learns more.
func TestTokenInternalError(t *testing.T) {
	var log strings.Builder
	db := databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "kluis.db"))
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	s, err := identity.New(t.Context(), identity.Options{DB: db, TenantID: tenant, SubscriptionID: subscription, Issuer: base, Now: now, Seal: sealer{aead}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	status, body, _ := send(t, newHandler(s, &log), "POST", "/adfs/oauth2/token",
		url.Values{"grant_type": {"client_credentials"}, "client_id": {"a"}, "client_secret": {"b"}, "resource": {base}})
	if status != http.StatusInternalServerError || body["error"] != "server_error" || strings.Contains(fmt.Sprint(body), "sql") {
		t.Errorf("%d %v", status, body)
	}
	if !strings.Contains(log.String(), "database is closed") {
		t.Errorf("log is %s", &log)
	}
}

func TestDiscovery(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	h := newHandler(s, &strings.Builder{})
	cases := []struct{ path, issuer, token, keys string }{
		{"/" + tenant + "/v2.0/.well-known/openid-configuration", s.Issuer(), base + "/" + tenant + "/oauth2/v2.0/token", base + "/" + tenant + "/discovery/v2.0/keys"},
		{"/common/v2.0/.well-known/openid-configuration", s.Issuer(), base + "/" + tenant + "/oauth2/v2.0/token", base + "/" + tenant + "/discovery/v2.0/keys"},
		{"/" + tenant + "/.well-known/openid-configuration", s.Issuer(), base + "/" + tenant + "/oauth2/token", base + "/" + tenant + "/discovery/keys"},
		{"/adfs/.well-known/openid-configuration", base + "/adfs", base + "/adfs/oauth2/v2.0/token", base + "/adfs/discovery/keys"},
	}
	for _, c := range cases {
		status, body, _ := send(t, h, "GET", c.path, nil)
		if status != http.StatusOK || body["issuer"] != c.issuer || body["token_endpoint"] != c.token || body["jwks_uri"] != c.keys || body["authorization_endpoint"] == nil {
			t.Errorf("%s = %d %v", c.path, status, body)
		}
		keys, err := url.Parse(c.keys)
		if err != nil {
			t.Fatal(err)
		}
		if status, body, _ := send(t, h, "GET", keys.Path, nil); status != http.StatusOK || len(body["keys"].([]any)) != 1 {
			t.Errorf("%s = %d %v", c.keys, status, body)
		}
		if !login.Owns(c.path) || !login.Owns(keys.Path) {
			t.Errorf("%s or its keys are not owned", c.path)
		}
	}
	if status, body, _ := send(t, h, "GET", "/5a0c3c1e-0000-4000-8000-000000000000/v2.0/.well-known/openid-configuration", nil); status != http.StatusBadRequest || body["error"] != "invalid_request" {
		t.Errorf("unknown tenant = %d %v", status, body)
	}
	if status, _, _ := send(t, h, "GET", "/subscriptions/oauth2/token", nil); status != http.StatusNotFound {
		t.Errorf("a path of another door = %d", status)
	}
}

func TestInstanceDiscovery(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	h := newHandler(s, &strings.Builder{})
	path := "/common/discovery/instance?api-version=1.1&authorization_endpoint="
	status, body, _ := send(t, h, "GET", path+url.QueryEscape(base+"/"+tenant+"/oauth2/v2.0/authorize"), nil)
	if status != http.StatusOK || body["tenant_discovery_endpoint"] != base+"/"+tenant+"/v2.0/.well-known/openid-configuration" || len(body["metadata"].([]any)) != 1 {
		t.Errorf("%d %v", status, body)
	}
	for _, bad := range []string{"https://login.example/x", "https://[::1"} {
		if status, body, _ := send(t, h, "GET", path+url.QueryEscape(bad), nil); status != http.StatusBadRequest || body["error"] != "invalid_instance" {
			t.Errorf("%s = %d %v", bad, status, body)
		}
	}
}

func TestMetadata(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	h := newHandler(s, &strings.Builder{})
	get := func(version string) []byte {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", base+"/metadata/endpoints?api-version="+version, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s = %d %s", version, w.Code, w.Body)
		}
		return w.Body.Bytes()
	}
	var one map[string]any
	if err := json.Unmarshal(get("2022-09-01"), &one); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"name", "portal", "resourceManager", "authentication", "microsoftGraphResourceId", "graph", "graphAudience",
		"batch", "media", "gallery", "vmImageAliasDoc", "sqlManagement", "activeDirectoryDataLake", "suffixes"} {
		if one[name] == nil || one[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
	authentication, _ := one["authentication"].(map[string]any)
	if fmt.Sprint(authentication["audiences"]) != "[https://management.example "+base+"]" || authentication["identityProvider"] != "AAD" ||
		authentication["loginEndpoint"] != base || authentication["tenant"] != "common" {
		t.Errorf("authentication = %v", authentication)
	}
	suffixes, _ := one["suffixes"].(map[string]any)
	for name, want := range map[string]string{"keyVaultDns": "vault.localhost:8443", "storage": "localhost:8443"} {
		if suffixes[name] != want {
			t.Errorf("suffix %s = %v, want %s", name, suffixes[name], want)
		}
	}
	for _, name := range []string{"sqlServerHostname", "mhsmDns", "acrLoginServer"} {
		if suffixes[name] == nil {
			t.Errorf("suffix %s is missing", name)
		}
	}
	for _, version := range []string{"2018-05-01", "2019-05-01", "2020-06-01"} {
		var list []map[string]any
		if err := json.Unmarshal(get(version), &list); err != nil || len(list) != 1 || list[0]["resourceManager"] != base {
			t.Errorf("%s = %v, %v", version, list, err)
		}
	}
	var old map[string]any
	if err := json.Unmarshal(get("2015-01-01"), &old); err != nil || old["graphEndpoint"] != base || old["galleryEndpoint"] == nil || old["authentication"] == nil {
		t.Errorf("2015-01-01 = %v, %v", old, err)
	}
}

func TestOwns(t *testing.T) {
	for path, want := range map[string]bool{
		"/metadata/endpoints": true, "/Metadata/Endpoints/": true, "/metadata/other": false,
		"/" + tenant + "/oauth2/v2.0/token": true, "/" + strings.ToUpper(tenant) + "/OAUTH2/token": true, "/common/discovery/instance": true,
		"/adfs/.well-known/openid-configuration": true, "/adfs/oauth2/token": true, "/contoso.example/oauth2/token": true,
		"/": false, "": false, "/adfs": false, "/subscriptions/oauth2/x": false, "/secrets/oauth2/token": false, "/keys/discovery/keys": false,
		"/subscriptions/" + tenant + "/oauth2/token": false, "/" + tenant + "/other": false, "/providers/v2.0/x": false, "/deletedsecrets/discovery/x": false,
	} {
		if got := login.Owns(path); got != want {
			t.Errorf("Owns(%q) = %v", path, got)
		}
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer  abc ": "abc", "BEARER abc": "abc", "Basic abc": "", "Bearer": "", "": "", "abc": "",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", header)
		if got := login.Bearer(r); got != want {
			t.Errorf("Bearer of %q = %q, want %q", header, got, want)
		}
	}
}

// Who fails again and again in a client's name is told to wait; the client itself is let in.
func TestTooManyFailures(t *testing.T) {
	var log strings.Builder
	s, appID, clientSecret := newIdentity(t, base)
	h := newHandler(s, &log)
	try := func(clientSecret string) (int, map[string]any, http.Header) {
		return send(t, h, "POST", "/"+tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {appID},
			"client_secret": {clientSecret}, "scope": {base + "/.default"}})
	}
	for range 20 {
		if status, body, _ := try("wrong"); status != http.StatusUnauthorized {
			t.Fatalf("%d %v", status, body)
		}
	}
	status, body, header := try("wrong")
	if status != http.StatusTooManyRequests || body["error"] != identity.CodeTryLater || header.Get("Retry-After") == "" {
		t.Errorf("%d %v %v", status, body, header)
	}
	if status, body, _ := try(clientSecret); status != http.StatusOK {
		t.Errorf("the right secret: %d %v", status, body)
	}
}

// An assertion that a client made for another server is no good here, also if the request names that server as its host.
func TestAssertionForAnotherServer(t *testing.T) {
	var log strings.Builder
	s, appID, _ := newIdentity(t, base)
	h := newHandler(s, &log)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.AddCertificate(t.Context(), appID, "", der, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	path := "/" + tenant + "/oauth2/v2.0/token"
	try := func(host, audience string) (int, map[string]any) {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", c.Thumbprint))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: appID, Subject: appID, Audience: jwt.Audience{audience}, ID: rand.Text(),
			Expiry: jwt.NewNumericDate(start.Add(time.Minute))}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {appID}, "client_assertion_type": {assertionType},
			"client_assertion": {text}, "scope": {base + "/.default"}}
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Host = host
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		return w.Code, body
	}
	if status, body := try("localhost:8443", base+path); status != http.StatusOK {
		t.Errorf("for this server: %d %v", status, body)
	}
	if status, body := try("elsewhere.example", "https://elsewhere.example"+path); status != http.StatusUnauthorized || fmt.Sprint(body["error_codes"]) != "[700023]" {
		t.Errorf("for another server: %d %v", status, body)
	}
}
