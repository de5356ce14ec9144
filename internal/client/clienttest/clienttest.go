// Package clienttest stands in for a server, answering what a test lined up, most of it as Azure was
// recorded to answer. It has a certificate authority, a token endpoint and the challenges of key vaults, so
// that the client under test is the whole client.
package clienttest

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

// What the stand-in's admin file names.
const (
	Tenant       = "11111111-1111-1111-1111-111111111111"
	Subscription = "22222222-2222-2222-2222-222222222222"
	ObjectID     = "44444444-4444-4444-4444-444444444444"
	clientID     = "33333333-3333-3333-3333-333333333333"
	clientSecret = "s3cret"
)

// Azure answers like the recordings: whoever has a token for the right audience gets the next of the
// answers that a test lined up for method and path; the last one again and again.
type Azure struct {
	t      testing.TB
	server *httptest.Server
	caFile string // what clients trust

	mu      sync.Mutex
	answers map[string][]answer
	seen    []Request
	scopes  []string
}

type answer struct {
	status int
	header http.Header
	body   string
}

// Request is what a client asked.
type Request struct{ Method, Host, Path, Query, Body string }

// New starts a server that stops with the test.
func New(t testing.TB) *Azure {
	t.Helper()
	a := &Azure{t: t, answers: map[string][]answer{}}
	a.server = httptest.NewUnstartedServer(a)
	a.caFile = a.certify()
	a.server.StartTLS()
	t.Cleanup(a.server.Close)
	return a
}

// Admin is how to reach the server.
func (a *Azure) Admin() client.Admin {
	return client.Admin{Endpoint: a.URL(), CAFile: a.caFile, TenantID: Tenant, SubscriptionID: Subscription,
		ClientID: clientID, ClientSecret: secret.New([]byte(clientSecret))}
}

// Client speaks to the server.
func (a *Azure) Client() *client.Client {
	a.t.Helper()
	c, err := client.New(a.Admin())
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// WriteAdmin writes the admin file of the server.
func (a *Azure) WriteAdmin(file string) {
	a.t.Helper()
	data, err := json.Marshal(map[string]string{"endpoint": a.URL(), "caFile": a.caFile, "tenantId": Tenant,
		"subscriptionId": Subscription, "clientId": clientID, "clientSecret": clientSecret})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// Close stops the server before the test ends.
func (a *Azure) Close() { a.server.Close() }

// Port is the server's port with its colon.
func (a *Azure) Port() string {
	address := a.server.Listener.Addr().String()
	return address[strings.LastIndex(address, ":"):]
}

// URL is the server's address.
func (a *Azure) URL() string { return "https://localhost" + a.Port() }

// certify makes a certificate for the names under localhost and returns the file that clients trust.
func (a *Azure) certify() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
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

// On lines up an answer; "{url}" in body and headers is the server's address.
func (a *Azure) On(methodAndPath string, status int, body string, headers ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], strings.ReplaceAll(headers[i+1], "{url}", a.URL()))
	}
	a.answers[methodAndPath] = append(a.answers[methodAndPath], answer{status, h, strings.ReplaceAll(body, "{url}", a.URL())})
}

// Requests returns what was asked, without token requests and challenges.
func (a *Azure) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Request(nil), a.seen...)
}

// Scopes returns the scopes of the tokens that were asked for.
func (a *Azure) Scopes() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.scopes...)
}

// ServeHTTP answers a request.
func (a *Azure) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.URL.Path, "/"+Tenant) {
		a.login(w, r)
		return
	}
	if r.URL.Path == "/metadata/endpoints" {
		fmt.Fprintf(w, `{"name":"Kluis","resourceManager":%q,"suffixes":{"keyVaultDns":"vault.localhost%s","storage":"localhost%[2]s"}}`, a.URL(), a.Port())
		return
	}
	body, _ := io.ReadAll(r.Body)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		if len(body) > 0 {
			a.t.Errorf("%s %s was sent without a token, but with a body", r.Method, r.URL)
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization="%s/%s", resource="https://vault.localhost%s"`, a.URL(), Tenant, a.Port()))
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer or PoP token."}}`)
		return
	}
	a.seen = append(a.seen, Request{r.Method, r.Host, r.URL.Path, r.URL.RawQuery, string(body)})
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
func (a *Azure) login(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
		_ = json.NewEncoder(w).Encode(map[string]string{
			"issuer": a.URL() + "/" + Tenant + "/v2.0", "token_endpoint": a.URL() + "/" + Tenant + "/oauth2/v2.0/token",
			"authorization_endpoint": a.URL() + "/" + Tenant + "/oauth2/v2.0/authorize",
		})
		return
	}
	if err := r.ParseForm(); err != nil {
		a.t.Error(err)
	}
	if r.PostForm.Get("client_secret") != clientSecret {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
		return
	}
	scope, _, _ := strings.Cut(r.PostForm.Get("scope"), " ")
	a.scopes = append(a.scopes, scope)
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"oid":"` + ObjectID + `","aud":"` + scope + `"}`))
	_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "expires_in": 3600, "access_token": "e30." + claims + ".sig-" + base64.RawURLEncoding.EncodeToString([]byte(scope))})
}
