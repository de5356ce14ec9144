package login_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	armclient "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"kluis/internal/api/arm"
	"kluis/internal/api/login"
	"kluis/internal/certificate"
	"kluis/internal/identity"
)

// world is a server over real TLS with its own authority: the login door and a router with one type.
type world struct {
	url, appID, secret string
	http               *http.Client
	identity           *identity.Service
}

func newWorld(t *testing.T) world {
	t.Helper()
	config, caFile, err := certificate.Ensure(t.TempDir(), certificate.Options{Domain: "localhost", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.TLS = config
	address := "https://localhost:" + server.Listener.Addr().String()[strings.LastIndex(server.Listener.Addr().String(), ":")+1:]
	s, appID, secret := newIdentityAt(t, address, time.Now)
	server.Config.Handler = newDoors(t, s, address)
	server.StartTLS()
	t.Cleanup(server.Close)

	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return world{address, appID, secret, &http.Client{Transport: transport}, s}
}

func newDoors(t *testing.T, s *identity.Service, address string) http.Handler {
	t.Helper()
	widget := arm.Resource{
		Type: "Contoso.Test/widgets",
		Get: func(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
			if err := s.Authorize(ctx, "Contoso.Test/widgets/read", r.ID); err != nil {
				return nil, err
			}
			p, _ := identity.From(ctx)
			return arm.OK(map[string]string{"id": r.ID.String(), "caller": p.Name}), nil
		},
		Actions: map[string]arm.Handler{"spin": func(_ context.Context, r *arm.Request) (*arm.Reply, error) {
			operation := r.URL(r.ID.String() + "/operations/1")
			return arm.Accepted(operation, operation), nil
		}},
	}
	operation := arm.Resource{
		Type: "Contoso.Test/widgets/operations",
		Get: func(context.Context, *arm.Request) (*arm.Reply, error) {
			return arm.OK(map[string]string{"status": "Succeeded"}), nil
		},
	}
	router, err := arm.NewRouter(arm.RouterOptions{
		Authenticate: login.Authenticate(s, func(*http.Request) []string { return []string{address} }),
		Logger:       slog.New(slog.DiscardHandler), NewID: func() string { return "id" },
	}, arm.Provider{Namespace: "Contoso.Test", Resources: []arm.Resource{widget, operation}})
	if err != nil {
		t.Fatal(err)
	}
	door := login.Handler(s, login.Options{Bases: []string{address}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if login.Owns(r.URL.Path) {
			door.ServeHTTP(w, r)
			return
		}
		router.ServeHTTP(w, r)
	})
}

const widget = "/subscriptions/" + subscription + "/resourceGroups/g/providers/Contoso.Test/widgets/w"

func (w world) options() azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: w.http, Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: w.url, Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Audience: w.url, Endpoint: w.url}}},
	}
}

// Azure's own Go client signs in, in the Entra and in the AD FS way, and calls a resource with the token.
func TestAzureClient(t *testing.T) {
	w := newWorld(t)
	for _, authority := range []string{tenant, "adfs"} {
		t.Run(authority, func(t *testing.T) {
			credential, err := azidentity.NewClientSecretCredential(authority, w.appID, w.secret,
				&azidentity.ClientSecretCredentialOptions{ClientOptions: w.options(), DisableInstanceDiscovery: true})
			if err != nil {
				t.Fatal(err)
			}
			client, err := armclient.NewClient("test", "v1.0.0", credential,
				&armclient.ClientOptions{ClientOptions: w.options(), DisableRPRegistration: true})
			if err != nil {
				t.Fatal(err)
			}
			call := func(method, path string) *http.Response {
				t.Helper()
				request, err := runtime.NewRequest(t.Context(), method, w.url+path+"?api-version=2024-04-01")
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Pipeline().Do(request)
				if err != nil {
					t.Fatal(err)
				}
				return response
			}

			response := call(http.MethodGet, widget)
			var body map[string]string
			if err := runtime.UnmarshalAsJSON(response, &body); err != nil || response.StatusCode != http.StatusOK || body["caller"] != "admin" || body["id"] != widget {
				t.Errorf("GET = %d %v, %v", response.StatusCode, body, err)
			}

			response = call(http.MethodGet, "/subscriptions/other/providers/Contoso.Test/widgets/w")
			var refused *azcore.ResponseError
			if err := runtime.NewResponseError(response); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden || refused.ErrorCode != "AuthorizationFailed" {
				t.Errorf("GET of another subscription = %v", err)
			}

			poller, err := runtime.NewPoller[struct{}](call(http.MethodPost, widget+"/spin"), client.Pipeline(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := poller.Poll(t.Context()); err != nil || !poller.Done() {
				t.Errorf("the operation is not done: %v", err)
			}
		})
	}
	t.Run("wrong secret", func(t *testing.T) {
		credential, err := azidentity.NewClientSecretCredential(tenant, w.appID, "wrong",
			&azidentity.ClientSecretCredentialOptions{ClientOptions: w.options(), DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{w.url + "/.default"}})
		var failed *azidentity.AuthenticationFailedError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), "AADSTS7000215") {
			t.Errorf("got %v", err)
		}
	})
}

// The way of az with an AD FS-style authority, with nothing but forms.
func TestPlainFormsInTheWayOfAz(t *testing.T) {
	w := newWorld(t)
	read := func(response *http.Response, err error) (int, map[string]any) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		var body map[string]any
		if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, body
	}
	_, discovery := read(w.http.Get(w.url + "/adfs/.well-known/openid-configuration"))
	endpoint, _ := discovery["token_endpoint"].(string)
	status, body := read(w.http.PostForm(endpoint, url.Values{
		"client_id": {w.appID}, "client_secret": {w.secret}, "grant_type": {"client_credentials"}, "scope": {w.url + "/.default"}, "client_info": {"1"},
	}))
	token, _ := body["access_token"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token = %d %v", status, body)
	}
	get := func(token string) (int, map[string]any) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+widget+"?api-version=2024-04-01", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		return read(w.http.Do(request))
	}
	if status, body := get(token); status != http.StatusOK || body["caller"] != "admin" {
		t.Errorf("with the token: %d %v", status, body)
	}
	if status, _ := get(""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}

	_, body = read(w.http.PostForm(endpoint, url.Values{
		"client_id": {w.appID}, "client_secret": {w.secret}, "grant_type": {"client_credentials"}, "scope": {"https://vault.azure.net/.default"},
	}))
	other, _ := body["access_token"].(string)
	status, body = get(other)
	e, _ := body["error"].(map[string]any)
	if status != http.StatusUnauthorized || e["code"] != identity.CodeWrongAudience {
		t.Errorf("with a token for the key vault: %d %v", status, body)
	}
}

// Azure's own Go client signs in with a certificate, whose assertion it makes in two ways.
func TestAzureClientWithCertificate(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.identity.AddCertificate(t.Context(), w.appID, "", der, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, authority := range []string{tenant, "adfs"} {
		credential, err := azidentity.NewClientCertificateCredential(authority, w.appID, []*x509.Certificate{certificate}, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: w.options(), DisableInstanceDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{w.url + "/.default"}})
		if err != nil {
			t.Errorf("%s: %v", authority, err)
			continue
		}
		if p, err := w.identity.Verify(t.Context(), token.Token, w.url); err != nil || p.AppID != w.appID {
			t.Errorf("%s: token of %v, %v", authority, p, err)
		}
	}
}
