package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever gets a token for a key vault can't manage anything with it, whatever he says the server's name is.
func TestTokensAreForOneAudience(t *testing.T) {
	s := newServer(t, "")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(filepath.Join(s.dir, "tls", "ca.pem"))))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport}
	send := func(r *http.Request) (status int, body map[string]any) {
		t.Helper()
		resp := must[*http.Response](t)(c.Do(r.WithContext(soon(t))))
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	token := func(scope string) (int, string) {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {s.ClientID()}, "scope": {scope}, "client_secret": {string(s.ClientSecret().Reveal())}}
		r := must[*http.Request](t)(http.NewRequest("POST", s.Endpoint()+"/"+s.TenantID()+"/oauth2/v2.0/token", strings.NewReader(form.Encode())))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		status, body := send(r)
		text, _ := body["access_token"].(string)
		return status, text
	}
	subscriptions := func(host, bearer string) int {
		r := must[*http.Request](t)(http.NewRequest("GET", s.Endpoint()+"/subscriptions?api-version=2020-01-01", nil))
		r.Host = host
		r.Header.Set("Authorization", "Bearer "+bearer)
		status, _ := send(r)
		return status
	}
	for _, scope := range []string{s.Endpoint() + "/.default", "https://management.azure.com//.default"} {
		if _, bearer := token(scope); subscriptions("", bearer) != http.StatusOK {
			t.Errorf("a token for %s is refused", scope)
		}
	}
	for _, host := range []string{"", "vault.azure.net"} {
		if _, bearer := token("https://vault.azure.net/.default"); subscriptions(host, bearer) != http.StatusUnauthorized {
			t.Errorf("a token for key vaults manages the host %q", host)
		}
	}
	if status, bearer := token("https://graph.microsoft.com/.default"); status != http.StatusBadRequest || bearer != "" {
		t.Errorf("a token for another cloud's audience: %d", status)
	}
}
