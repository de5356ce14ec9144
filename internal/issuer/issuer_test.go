package issuer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"

	"kluis/internal/issuer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// provider is somebody else's issuer, over real TLS.
type provider struct {
	*httptest.Server
	t      testing.TB
	caFile string

	mu        sync.Mutex
	now       time.Time
	keys      []jose.JSONWebKey // what it shows
	asked     int               // how often for its keys
	broken    http.HandlerFunc  // answers instead, if it is there
	discovery map[string]string
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{t: t, now: begin}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	p.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(p.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	p.discovery = map[string]string{"issuer": p.url(), "jwks_uri": p.URL + "/keys"}
	return p
}

func (p *provider) url() string { return p.URL + "/tenant" }

func (p *provider) Now() time.Time { p.mu.Lock(); defer p.mu.Unlock(); return p.now }

func (p *provider) change(f func()) { p.mu.Lock(); defer p.mu.Unlock(); f() }

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.URL.Path {
	case "/keys":
		p.asked++
		if p.broken != nil {
			p.broken(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: p.keys})
	case "/tenant/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(p.discovery)
	default:
		http.NotFound(w, r)
	}
}

// reader reads the provider's tokens.
func (p *provider) reader() *issuer.Issuer {
	p.t.Helper()
	i, err := issuer.New(issuer.Options{URL: p.url(), GroupsClaim: "groups", CAFile: p.caFile, Now: p.Now})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(i.Close)
	return i
}

// addKey shows a key, and returns it as it signs.
func (p *provider) addKey(id string, key crypto.Signer, algorithm jose.SignatureAlgorithm) jose.SigningKey {
	p.change(func() {
		p.keys = append(p.keys, jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: string(algorithm), Use: "sig"})
	})
	return jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: id}}
}

func (p *provider) claims() map[string]any {
	return map[string]any{"iss": p.url(), "sub": "ada", "aud": []string{"kluis"}, "exp": begin.Add(time.Hour).Unix(), "nbf": begin.Unix(), "groups": []string{"operators", "readers"}}
}

func (p *provider) sign(key jose.SigningKey, claims map[string]any) string {
	p.t.Helper()
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTokens(t *testing.T) {
	p := newProvider(t)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := rsaKey(t, 2048)
	for name, key := range map[string]jose.SigningKey{"rsa": p.addKey("rsa", r, jose.RS256), "pss": p.addKey("pss", r, jose.PS512), "ec": p.addKey("ec", ecKey(t), jose.ES256), "ed": p.addKey("ed", edwards, jose.EdDSA)} {
		i := p.reader()
		token := p.sign(key, p.claims())
		got, err := i.Read(t.Context(), token)
		if err != nil || got.Subject != "ada" || !slices.Equal(got.Groups, []string{"operators", "readers"}) || !slices.Equal(got.Audience, []string{"kluis"}) ||
			!got.NotBefore.Equal(begin) || !got.Expiry.Equal(begin.Add(time.Hour)) || !i.Owns(token) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What is not signed by one of the issuer's own keys is no token of his, whatever it says.
func TestTokensThatAreRefused(t *testing.T) {
	p := newProvider(t)
	r := rsaKey(t, 2048)
	key := p.addKey("rsa", r, jose.RS256)
	weak := p.addKey("weak", rsaKey(t, 1024), jose.RS256)
	encrypting := rsaKey(t, 2048)
	p.change(func() {
		p.keys = append(p.keys, jose.JSONWebKey{Key: encrypting.Public(), KeyID: "enc", Use: "enc"}, jose.JSONWebKey{Key: []byte("a secret of thirty-two characters"), KeyID: "oct", Use: "sig"})
	})
	public, err := x509.MarshalPKIXPublicKey(r.Public())
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) map[string]any {
		c := p.claims()
		if c[name] = value; value == nil {
			delete(c, name)
		}
		return c
	}
	hmacBy := func(secret []byte, id string) jose.SigningKey {
		return jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: id}}
	}
	good := p.sign(key, p.claims())
	part := strings.Split(good, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"rsa"}`)) + "." + part[1] + "."
	other := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(decode(t, part[1])), "ada", "bob", 1)))
	i := p.reader()
	for name, token := range map[string]string{
		"nothing":                      "",
		"text":                         "hello",
		"no signature":                 none,
		"an empty signature":           part[0] + "." + part[1] + ".",
		"a changed payload":            part[0] + "." + other + "." + part[2],
		"HS256 by the public key":      p.sign(hmacBy(public, "rsa"), p.claims()),
		"HS256 by a key that is shown": p.sign(hmacBy([]byte("a secret of thirty-two characters"), "oct"), p.claims()),
		"an unknown key":               p.sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: rsaKey(t, 2048), KeyID: "other"}}, p.claims()),
		"another key of that name":     p.sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: rsaKey(t, 2048), KeyID: "rsa"}}, p.claims()),
		"no key named":                 p.sign(jose.SigningKey{Algorithm: jose.RS256, Key: r}, p.claims()),
		"another algorithm":            p.sign(jose.SigningKey{Algorithm: jose.RS512, Key: jose.JSONWebKey{Key: r, KeyID: "rsa"}}, p.claims()),
		"a weak key":                   p.sign(weak, p.claims()),
		"a key that encrypts":          p.sign(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: encrypting, KeyID: "enc"}}, p.claims()),
		"another issuer":               p.sign(key, with("iss", p.URL)),
		"no issuer":                    p.sign(key, with("iss", nil)),
		"no end":                       p.sign(key, with("exp", nil)),
		"a subject that is no text":    p.sign(key, with("sub", 7)),
		"groups that are no texts":     p.sign(key, with("groups", []int{1})),
		"too many groups":              p.sign(key, with("groups", make([]string, 1001))),
		"a large one":                  good + strings.Repeat("A", 17<<10),
	} {
		if got, err := i.Read(t.Context(), token); err == nil || errors.Is(err, issuer.ErrAway) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := i.Read(t.Context(), good); err != nil {
		t.Errorf("a good one: %v", err)
	}
	if i.Owns(p.sign(key, with("iss", p.URL))) || i.Owns(none) || i.Owns("") {
		t.Error("a token of somebody else, or none, is its own")
	}
}

func decode(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Keys are asked for once, and again when there is a reason; never often, whatever is sent.
func TestKeyRotation(t *testing.T) {
	p := newProvider(t)
	old := p.addKey("old", ecKey(t), jose.ES256)
	i := p.reader()
	read := func(key jose.SigningKey) error {
		_, err := i.Read(t.Context(), p.sign(key, p.claims()))
		return err
	}
	for range 3 {
		if err := read(old); err != nil || p.asked != 1 {
			t.Fatalf("asked %d times, %v", p.asked, err)
		}
	}
	fresh := p.addKey("new", ecKey(t), jose.ES256)
	for range 3 { // it may not ask again yet
		if err := read(fresh); err == nil || p.asked != 1 {
			t.Fatalf("asked %d times, %v", p.asked, err)
		}
	}
	p.change(func() { p.now = p.now.Add(30 * time.Second) })
	if err := read(fresh); err != nil || p.asked != 2 {
		t.Errorf("asked %d times, %v", p.asked, err)
	}
	p.change(func() { p.keys = p.keys[1:]; p.now = p.now.Add(time.Hour) })
	if err := read(old); err == nil || p.asked != 3 {
		t.Errorf("a key that was withdrawn: asked %d times, %v", p.asked, err)
	}

	p.change(func() {
		p.now = p.now.Add(23 * time.Hour)
		p.broken = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	})
	if err := read(fresh); err != nil {
		t.Errorf("the issuer is away, and its keys are known: %v", err)
	}
	p.change(func() { p.now = p.now.Add(time.Hour) })
	if err := read(fresh); !errors.Is(err, issuer.ErrAway) {
		t.Errorf("the issuer is away for a day: %v", err)
	}
}

func TestIssuersThatAreNotAsked(t *testing.T) {
	for name, broken := range map[string]func(p *provider){
		"away": func(p *provider) {
			p.broken = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
		},
		"somebody else": func(p *provider) { p.discovery["issuer"] = "https://evil.example" },
		"keys by http": func(p *provider) {
			p.discovery["jwks_uri"] = "http" + strings.TrimPrefix(p.discovery["jwks_uri"], "https")
		},
		"no keys": func(p *provider) { delete(p.discovery, "jwks_uri") },
		"elsewhere": func(p *provider) {
			p.broken = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://evil.example/", http.StatusFound)
			}
		},
		"no JSON": func(p *provider) {
			p.broken = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
		},
		"a large answer": func(p *provider) {
			p.broken = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) }
		},
		"too many keys": func(p *provider) {

			p.broken = func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(`{"keys":[{}` + strings.Repeat(",{}", 100) + `]}`))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t)
			key := p.addKey("k", ecKey(t), jose.ES256)
			p.change(func() { broken(p) })
			if _, err := p.reader().Read(t.Context(), p.sign(key, p.claims())); !errors.Is(err, issuer.ErrAway) {
				t.Errorf("%v", err)
			}
		})
	}
	p := newProvider(t)
	key := p.addKey("k", ecKey(t), jose.ES256)
	stranger, err := issuer.New(issuer.Options{URL: p.url(), Now: p.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Read(t.Context(), p.sign(key, p.claims())); !errors.Is(err, issuer.ErrAway) {
		t.Errorf("one whom nobody has certified: %v", err)
	}
	for name, o := range map[string]issuer.Options{"no URL": {}, "by http": {URL: "http://a.example"}, "no authorities": {URL: "https://a.example", CAFile: "none"}} {
		if _, err := issuer.New(o); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// Whatever somebody sends is refused, without a panic and without a question to the issuer for each.
func FuzzRead(f *testing.F) {
	p := newProvider(f)
	key := p.addKey("k", ecKey(f), jose.ES256)
	good := p.sign(key, p.claims())
	f.Add(good)
	f.Add(good + ".")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(`{"payload":"e30","signatures":[{},{}]}`)
	i := p.reader()
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := i.Read(t.Context(), token); err == nil && (got.Subject != "ada" || !i.Owns(token)) {
			t.Errorf("%q is %+v", token, got)
		}
		if p.asked > 1 {
			t.Errorf("asked %d times", p.asked)
		}
	})
}
