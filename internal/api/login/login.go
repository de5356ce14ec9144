// Package login is where clients get tokens and learn what there is: the token endpoints, their
// discovery documents, and the description of this cloud.
//
// Clients come with three habits, and each finds what it asks for:
//
//   - Entra v2: /{tenant}/oauth2/v2.0/token with scope=<audience>/.default (azidentity, Terraform).
//   - Entra v1: /{tenant}/oauth2/token with resource=<audience>.
//   - AD FS: the same below /adfs, without a tenant; older az needs it, because with an Entra-style
//     authority it asks a public host whether the authority is genuine.
//
// All lead to the same principals and the same tokens; common and organizations mean the one tenant that there is.
// Applications get theirs for a secret, or for an assertion that a certificate's key has signed (RFC 7523). People sign in at a
// page: they are sent there by a program with a browser (authorization code with a proof key, RFC 7636), or type in
// the code that a program without one shows (RFC 8628); the program fetches the tokens, and with a refresh token more of
// them. Errors are OAuth's ({"error":…,"error_description":"AADSTS…"}), not Resource Manager's.
//
// Nothing here needs a token, so nothing here tells more than a client needs in order to get one.
// Discovery documents name the host that the client used, and clients insist on that; tokens name the
// issuer that the server was configured with.
package login

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"kluis/internal/identity"
)

// Options says how this cloud is reached. Bases is required. Now, NewID and Logger may be nil: errors then carry neither
// time nor trace id, and nothing is logged.
type Options struct {
	Base        func(r *http.Request) string // https://host that the client used; nil: from the request
	Bases       []string                     // https://host of each name by which the server was configured, the first one first
	Takes       func(audience string) bool   // whether something here takes tokens of that audience; nil: yes
	Name        string                       // of the cloud, in its description; "" is "Kluis"
	ARMAudience string                       // audience of Resource Manager; "" is the base
	KeyVaultDNS string                       // what follows a key vault's name: "vault.localhost:8443"
	StorageDNS  string                       // what follows a storage account's name and ".blob.": "localhost:8443"

	Now    func() time.Time
	NewID  func() string
	Rand   io.Reader // nil: crypto/rand
	Logger *slog.Logger
}

// Handler answers the paths that Owns reports.
func Handler(s *identity.Service, o Options) http.Handler {
	if o.Base == nil {
		o.Base = func(r *http.Request) string { return "https://" + r.Host }
	}
	if o.Name == "" {
		o.Name = "Kluis"
	}
	if o.Takes == nil {
		o.Takes = func(string) bool { return true }
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &door{s, o}
	routes := map[string]http.HandlerFunc{
		"POST /oauth2/v2.0/token":                    d.token,
		"POST /oauth2/token":                         d.token,
		"GET /oauth2/v2.0/authorize":                 d.authorize,
		"GET /oauth2/authorize":                      d.authorize,
		"POST /oauth2/v2.0/authorize":                d.authorize,
		"POST /oauth2/authorize":                     d.authorize,
		"POST /oauth2/v2.0/devicecode":               d.deviceCode,
		"POST /oauth2/devicecode":                    d.deviceCode,
		"GET /oauth2/continue.js":                    d.script,
		"GET /oauth2/password":                       d.passwordPage,
		"POST /oauth2/password":                      d.passwordPage,
		"GET /oauth2/deviceauth":                     d.devicePage,
		"POST /oauth2/deviceauth":                    d.devicePage,
		"GET /v2.0/.well-known/openid-configuration": d.configuration,
		"GET /.well-known/openid-configuration":      d.configuration,
		"GET /discovery/v2.0/keys":                   d.keys,
		"GET /discovery/keys":                        d.keys,
		"GET /discovery/instance":                    d.instance,
		"GET /endpoints":                             d.metadata,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
		_, rest := split(r.URL.Path)
		if h := routes[r.Method+" "+rest]; Owns(r.URL.Path) && h != nil {
			h(w, r)
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if Owns(r.URL.Path) && routes[method+" "+rest] != nil {
				w.Header().Set("Allow", method)
				d.fail(w, r, http.StatusMethodNotAllowed, oauthError{"invalid_request", 900561, "The endpoint only accepts " + method + " requests."})
				return
			}
		}
		d.fail(w, r, http.StatusNotFound, oauthError{"invalid_request", 900971, "There is no such endpoint."})
	})
}

type door struct {
	identity *identity.Service
	options  Options
}

// The first segment of a path of ours: AD FS, Entra's shared tenants, a tenant's GUID or domain, or
// the metadata. Words like "secrets" and "subscriptions", which begin paths of other doors, don't fit.
var first = regexp.MustCompile(`^(adfs|common|organizations|metadata|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-z-]+(\.[0-9a-z-]+)+)$`)

// Owns reports whether a path belongs to this door.
func Owns(path string) bool {
	tenant, rest := split(path)
	if !first.MatchString(tenant) {
		return false
	}
	if tenant == "metadata" {
		return rest == "/endpoints"
	}
	for _, prefix := range []string{"/oauth2/", "/v2.0/", "/.well-known/", "/discovery/"} {
		if strings.HasPrefix(rest, prefix) {
			return true
		}
	}
	return false
}

// split cuts a path into its first segment and the rest, both in lower case.
func split(path string) (tenant, rest string) {
	path = strings.ToLower(strings.Trim(path, "/"))
	tenant, rest, _ = strings.Cut(path, "/")
	return tenant, "/" + rest
}

const adfs = "adfs"

// authority is the URL below which the endpoints are that the client asked for.
func (d *door) authority(r *http.Request) string {
	if tenant, _ := split(r.URL.Path); tenant == adfs {
		return d.options.Base(r) + "/" + adfs
	}
	return d.options.Base(r) + "/" + d.identity.Tenant()
}

// configuration is OpenID discovery. Its issuer must be on the host that the client used, or MSAL
// refuses it; it equals the tokens' issuer when the client uses the name that the server knows.
func (d *door) configuration(w http.ResponseWriter, r *http.Request) {
	tenant, rest := split(r.URL.Path)
	if !d.isShared(tenant) {
		d.fail(w, r, http.StatusBadRequest, unknownTenant(tenant))
		return
	}
	authority := d.authority(r)
	version, keys := "/v2.0", "/discovery/v2.0/keys"
	if !strings.HasPrefix(rest, "/v2.0/") && tenant != adfs {
		version, keys = "", "/discovery/keys"
	}
	issuer := authority + "/v2.0"
	if tenant == adfs {
		issuer, keys = authority, "/discovery/keys"
	}
	d.write(w, http.StatusOK, map[string]any{
		"issuer":                                issuer,
		"authorization_endpoint":                authority + "/oauth2" + version + "/authorize",
		"token_endpoint":                        authority + "/oauth2" + version + "/token",
		"jwks_uri":                              authority + keys,
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": []string{"RS256", "PS256", "ES256"},
		"device_authorization_endpoint":                    authority + "/oauth2" + version + "/devicecode",
		"code_challenge_methods_supported":                 []string{"S256"},
		"grant_types_supported":                            []string{grantClient, grantCode, grantRefresh, grantDevice},
		"response_types_supported":                         []string{"code"},
		"response_modes_supported":                         []string{"query", "form_post"},
		"subject_types_supported":                          []string{"public"},
		"id_token_signing_alg_values_supported":            []string{"RS256"},
		"scopes_supported":                                 []string{scopeOpenID, "profile", scopeOffline},
		"claims_supported":                                 []string{"sub", "iss", "aud", "exp", "iat", "nbf", "nonce", "tid", "oid", "appid", "ver", "name", "preferred_username", "upn"},
	})
}

func (d *door) keys(w http.ResponseWriter, _ *http.Request) {
	d.write(w, http.StatusOK, d.identity.JWKS())
}

// instance answers clients that ask whether an authority is genuine: the one on this host is.
func (d *door) instance(w http.ResponseWriter, r *http.Request) {
	base := d.options.Base(r)
	own, err := url.Parse(base)
	asked, askedErr := url.Parse(r.URL.Query().Get("authorization_endpoint"))
	if err != nil || askedErr != nil || asked.Host != "" && !strings.EqualFold(asked.Host, own.Host) {
		d.fail(w, r, http.StatusBadRequest, oauthError{"invalid_instance", 50049, "Unknown or invalid instance."})
		return
	}
	d.write(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": base + "/" + d.identity.Tenant() + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata": []map[string]any{
			{"preferred_network": own.Host, "preferred_cache": own.Host, "aliases": []string{own.Host}},
		},
	})
}

func (d *door) isTenant(tenant string) bool {
	return tenant == adfs || strings.EqualFold(tenant, d.identity.Tenant())
}

// isShared also knows the names that mean whatever tenant somebody is of: here is one.
func (d *door) isShared(tenant string) bool {
	return d.isTenant(tenant) || tenant == "common" || tenant == "organizations"
}

// drawText draws something that nobody guesses.
func (d *door) drawText() string {
	b := make([]byte, 32)
	if _, err := io.ReadFull(d.options.Rand, b); err != nil {
		panic(err) // without randomness there is nothing to be done
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (d *door) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // these are our own types
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
