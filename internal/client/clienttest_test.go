package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/client"
	"kluis/internal/secret"
)

const (
	tenant       = "11111111-1111-1111-1111-111111111111"
	subscription = "22222222-2222-2222-2222-222222222222"
)

// azure answers like the recordings: whoever has a token for the right audience gets the next of the
// answers that a test lined up for method and path.
type azure struct {
	t      *testing.T
	server *httptest.Server
	caFile string // what clients trust

	mu      sync.Mutex
	answers map[string][]answer
	seen    []request
	scopes  []string
}

type answer struct {
	status int
	header http.Header
	body   string
}

type request struct {
	method, host, path, query, body string
	token                           string
}

func newAzure(t *testing.T) (*azure, *client.Client) {
	t.Helper()
	a := &azure{t: t, answers: map[string][]answer{}}
	a.server = httptest.NewUnstartedServer(a)
	a.caFile = a.certify()
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	c, err := client.New(client.Admin{
		Endpoint: a.url(), CAFile: a.caFile, TenantID: tenant, SubscriptionID: subscription,
		ClientID: "33333333-3333-3333-3333-333333333333", ClientSecret: secret.New([]byte("s3cret")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func (a *azure) port() string {
	return a.server.Listener.Addr().String()[strings.LastIndex(a.server.Listener.Addr().String(), ":"):]
}

func (a *azure) url() string { return "https://localhost" + a.port() }

// certify makes a certificate for the names under localhost and returns the file that clients trust.
func (a *azure) certify() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost", "*.vault.localhost", "*.blob.localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	file := filepath.Join(a.t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// on lines up an answer; "{url}" in body and headers is the server's address.
func (a *azure) on(methodAndPath string, status int, body string, headers ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], strings.ReplaceAll(headers[i+1], "{url}", a.url()))
	}
	a.answers[methodAndPath] = append(a.answers[methodAndPath], answer{status, h, strings.ReplaceAll(body, "{url}", a.url())})
}

// requests returns what was asked, without token requests and challenges.
func (a *azure) requests() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]request(nil), a.seen...)
}

func (a *azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.URL.Path, "/"+tenant) {
		a.login(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		if len(body) > 0 {
			a.t.Errorf("%s %s was sent without a token, but with a body", r.Method, r.URL)
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="%s/%s", resource="https://vault.localhost%s"`, a.url(), tenant, a.port()))
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer or PoP token."}}`)
		return
	}
	a.seen = append(a.seen, request{r.Method, r.Host, r.URL.Path, r.URL.RawQuery, string(body), token})
	name := r.Method + " " + r.URL.Path
	queue := a.answers[name]
	if len(queue) == 0 {
		a.t.Errorf("nobody expected %s", name)
		w.WriteHeader(http.StatusTeapot)
		return
	}
	next := queue[0]
	if len(queue) > 1 {
		a.answers[name] = queue[1:]
	}
	for k, v := range next.header {
		w.Header()[k] = v
	}
	w.WriteHeader(next.status)
	fmt.Fprint(w, next.body)
}

// login is the token endpoint and what the identity library looks up before it.
func (a *azure) login(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"issuer": a.url() + "/" + tenant + "/v2.0", "token_endpoint": a.url() + "/" + tenant + "/oauth2/v2.0/token",
			"authorization_endpoint": a.url() + "/" + tenant + "/oauth2/v2.0/authorize",
		})
		return
	}
	if err := r.ParseForm(); err != nil {
		a.t.Error(err)
	}
	if r.PostForm.Get("client_secret") != "s3cret" {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
		return
	}
	scope, _, _ := strings.Cut(r.PostForm.Get("scope"), " ")
	a.scopes = append(a.scopes, scope)
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"oid":"44444444-4444-4444-4444-444444444444","aud":"` + scope + `"}`))
	_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "e30." + claims + ".sig-" + base64.RawURLEncoding.EncodeToString([]byte(scope))})
}

// recorded reads the body of an answer that Azure gave.
func recorded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
