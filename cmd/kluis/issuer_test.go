package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
)

// A second server is the issuer: who has a token of it acts here as the principal that trusts him, as long as it does, with
// the roles of that principal; also when the issuer has changed the key that signs.
func TestIssuerOutside(t *testing.T) {
	o := newServer(t, "")
	other := must[client.Admin](t)(client.ReadAdmin(filepath.Join(o.dir, "admin.json")))
	s := newServer(t, "", "--oidc-issuer", other.Endpoint+"/"+other.TenantID+"/v2.0", "--oidc-audience", other.Endpoint, "--oidc-ca-file", other.CAFile)
	s.shell("kluis group create prod; kluis group create hidden; kluis principal create partner --role Reader -g prod")
	subject := must[string](t)(o.ObjectID(soon(t)))
	groups := func(token string) string {
		t.Helper()
		return get(t, s, s.Subscription().String()+"/resourceGroups?api-version=2021-04-01", token)
	}
	token := tokenOf(t, o, other)
	if got := groups(token); !strings.Contains(got, "InvalidAuthenticationToken") || !strings.Contains(got, "No principal trusts") {
		t.Errorf("nobody trusts it: %s", got)
	}
	var added client.Credential
	if err := json.Unmarshal([]byte(s.shell("kluis principal trust partner --subject "+subject+" -o json")), &added); err != nil {
		t.Fatal(err)
	}
	if out := s.shell("kluis principal show partner"); !strings.Contains(out, "subject "+subject) {
		t.Errorf("show prints %s", out)
	}
	if got := groups(token); !strings.Contains(got, `"prod"`) || strings.Contains(got, "hidden") {
		t.Errorf("the groups of partner: %s", got)
	}
	o.shell("kluis principal rotate-signing-key")
	if got := groups(token); !strings.Contains(got, `"prod"`) {
		t.Errorf("the key before: %s", got)
	}
	if got := groups(token[:len(token)-8] + "AAAAAAAA"); !strings.Contains(got, "InvalidAuthenticationToken") {
		t.Errorf("a forged token: %s", got)
	}
	s.shell("kluis principal untrust partner " + added.KeyID + "; kluis user create ada --generate-password --role Reader -g hidden; kluis principal trust ada --subject " + subject)
	if got := groups(token); !strings.Contains(got, `"hidden"`) || strings.Contains(got, `"prod"`) {
		t.Errorf("the groups of ada: %s", got)
	}
	s.shell("kluis user disable ada")
	if got := groups(token); !strings.Contains(got, "InvalidAuthenticationToken") {
		t.Errorf("who trusts it is disabled: %s", got)
	}
	if got := get(t, o, o.Subscription().String()+"/resourceGroups?api-version=2021-04-01", tokenOf(t, s, must[client.Admin](t)(client.ReadAdmin(filepath.Join(s.dir, "admin.json"))))); !strings.Contains(got, "InvalidAuthenticationToken") {
		t.Errorf("the issuer believes who believes it: %s", got)
	}
}

// browse is a plain client of a server.
func browse(t *testing.T, s *server) *http.Client {
	t.Helper()
	admin := must[client.Admin](t)(client.ReadAdmin(filepath.Join(s.dir, "admin.json")))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(admin.CAFile)))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: (&net.Dialer{}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// tokenOf is a token of a server's first principal, for that server.
func tokenOf(t *testing.T, s *server, admin client.Admin) string {
	t.Helper()
	response := must[*http.Response](t)(browse(t, s).PostForm(admin.Endpoint+"/"+admin.TenantID+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"},
		"client_id": {admin.ClientID}, "client_secret": {string(admin.ClientSecret.Reveal())}, "scope": {admin.Endpoint + "/.default"}}))
	defer response.Body.Close()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil || body.Token == "" {
		t.Fatalf("%s %v", response.Status, err)
	}
	return body.Token
}

// get returns what a server answers to a token.
func get(t *testing.T, s *server, path, token string) string {
	t.Helper()
	r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, s.Endpoint()+path, nil))
	r.Header.Set("Authorization", "Bearer "+token)
	response := must[*http.Response](t)(browse(t, s).Do(r))
	defer response.Body.Close()
	return string(must[[]byte](t)(io.ReadAll(response.Body)))
}
