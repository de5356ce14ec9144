package keyservice_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/keyservice"
)

// world is a server on this machine that plays, by the name it is asked by, authority, key vault and transit engine. The
// real key vault is asked in cmd/kluis; here it misbehaves.
type world struct {
	*httptest.Server
	dir, port string

	mu     sync.Mutex
	asked  []string // host and path, with a token or without
	answer map[string]http.HandlerFunc
}

func newWorld(t *testing.T) *world {
	w := &world{dir: t.TempDir(), answer: map[string]http.HandlerFunc{}}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.Close)
	w.port = w.URL[strings.LastIndexByte(w.URL, ':')+1:]
	w.write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})))
	w.write(t, "secret", "s3cret\n")
	w.write(t, "token", "tok3n\n")
	w.answer["GET /tenant1/v2.0/.well-known/openid-configuration"] = func(out http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(out, `{"token_endpoint":"%[1]s/tenant1/token","authorization_endpoint":"%[1]s/tenant1/authorize","issuer":"%[1]s/tenant1"}`, w.authority())
	}
	w.answer["POST /tenant1/token"] = func(out http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_secret") != "s3cret" {
			out.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(out, `{"error":"invalid_client","error_description":"The secret has expired."}`)
			return
		}
		fmt.Fprintf(out, `{"token_type":"Bearer","expires_in":3600,"access_token":"for %s"}`, r.FormValue("scope"))
	}
	return w
}

// The certificate of httptest is for 127.0.0.1, example.com and its names.
func (w *world) authority() string { return w.URL }
func (w *world) host() string      { return "kv1.example.com:" + w.port }
func (w *world) key() string       { return "https://" + w.host() + "/keys/kek/" + strings.Repeat("a", 32) }

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serve(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	what := r.Host + r.URL.Path
	if r.Header.Get("Authorization") != "" {
		what += " with token"
	}
	w.asked = append(w.asked, what)
	answer := w.answer[r.Method+" "+r.URL.Path]
	w.mu.Unlock()
	if strings.HasPrefix(r.Host, "kv1.") && r.Header.Get("Authorization") == "" {
		audience := "https://example.com:" + w.port
		if other := w.answer["audience"]; other != nil {
			other(out, r)
			return
		}
		out.Header().Set("WWW-Authenticate", `Bearer authorization="https://elsewhere.test/tenant1", resource="`+audience+`"`)
		out.WriteHeader(http.StatusUnauthorized)
		return
	}
	if answer == nil {
		out.WriteHeader(http.StatusNotFound)
		fmt.Fprint(out, `{"error":{"code":"KeyNotFound","message":"There is none."}}`)
		return
	}
	answer(out, r)
}

// text is a file that names the key vault and the transit engine, which both answer on this machine.
func (w *world) text() string {
	return "vaults:\n  - hosts: '*.example.com:" + w.port + "'\n    authority: " + w.authority() +
		"\n    tenant: tenant1\n    client-id: me\n    secret-file: secret\n    ca-file: ca.pem\n    address: " + w.Listener.Addr().String() +
		"\ntransit:\n  - address: https://" + w.Listener.Addr().String() + "\n    token-file: token\n    ca-file: ca.pem\n"
}

func (w *world) open(t *testing.T, text string) (*keyservice.Services, error) {
	t.Helper()
	w.write(t, "services.yaml", text)
	return keyservice.Open(filepath.Join(w.dir, "services.yaml"), keyservice.Options{RetryDelay: time.Millisecond})
}

func (w *world) services(t *testing.T) *keyservice.Services {
	t.Helper()
	s, err := w.open(t, w.text())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOnlyNamedHostsAreAsked(t *testing.T) {
	w := newWorld(t)
	s := w.services(t)
	for _, u := range []string{
		"https://kv1.example.org:" + w.port + "/keys/kek", "https://kv1.example.com/keys/kek", "https://example.com:" + w.port + "/keys/kek",
		"https://a.kv1.example.com:" + w.port + "/keys/kek", "https://127.0.0.1:" + w.port + "/keys/kek", "https://kv1.example.com.evil.test:" + w.port + "/keys/kek",
		"http://" + w.host() + "/keys/kek", "https://u@" + w.host() + "/keys/kek", "https://" + w.host() + "/keys/kek?x=1", "https://" + w.host() + "/keys/..%2f..",
		"https://" + w.host() + "/certificates/c", "https://" + w.host() + "/keys/a/b/c", "", "https://", "::",
	} {
		if s.Knows(u) {
			t.Errorf("%s is known", u)
		}
		if kind := keyservice.KindOf(s.Key(t.Context(), u)); kind != keyservice.NotConfigured && kind != keyservice.Malformed {
			t.Errorf("%s: kind %d", u, kind)
		}
	}
	if !s.Knows(w.key()) || !s.Knows("https://KV1.example.com:"+w.port+"/keys/kek") {
		t.Error("the key vault that is named is not known")
	}
	if _, err := s.Wrap(t.Context(), "transit:https://other.test/v1/transit/keys/k", nil); keyservice.KindOf(err) != keyservice.NotConfigured {
		t.Errorf("transit elsewhere: %v", err)
	}
	none, err := keyservice.Open("", keyservice.Options{})
	if err != nil || none.Knows(w.key()) {
		t.Errorf("without a file: %v", err)
	}
	if len(w.asked) > 0 {
		t.Errorf("somebody was asked: %v", w.asked)
	}
}

// answers a request for the key with what a test says.
func (w *world) onKey(status int, header http.Header, body string) {
	w.answer["GET "+strings.TrimPrefix(w.key(), "https://"+w.host())] = func(out http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			out.Header()[k] = v
		}
		out.WriteHeader(status)
		fmt.Fprint(out, body)
	}
}

// Whatever a key vault answers is an error of its kind, bounded, in one line, and no place that it names is gone to.
func TestWhatAKeyVaultAnswers(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		want   keyservice.Kind
		says   string
	}{
		"fine":       {200, nil, `{"key":{}}`, 0, ""},
		"denied":     {403, nil, `{"error":{"code":"Forbidden","message":"No.","innererror":{"code":"AccessDenied"}}}`, keyservice.Denied, "AccessDenied: No"},
		"disabled":   {403, nil, `{"error":{"code":"Forbidden","message":"It is off.","innererror":{"code":"KeyDisabled"}}}`, keyservice.Refused, "KeyDisabled"},
		"not there":  {404, nil, `{"error":{"code":"KeyNotFound","message":"A key\nwith (name/id) kek."}}`, keyservice.NotFound, "A key with"},
		"bad":        {400, nil, `{"error":{"code":"BadParameter","message":"x"}}`, keyservice.Refused, "BadParameter"},
		"away":       {503, nil, `{}`, keyservice.Unreachable, "503"},
		"redirect":   {302, http.Header{"Location": {"https://127.0.0.1:1/stolen"}}, ``, keyservice.Malformed, "302"},
		"long":       {403, nil, `{"error":{"code":"Forbidden","message":"` + long + `"}}`, keyservice.Denied, "…"},
		"not JSON":   {200, nil, `<html>`, keyservice.Malformed, "not what the API documents"},
		"an error":   {500, nil, long, keyservice.Unreachable, "500"},
		"no such op": {405, nil, ``, keyservice.Malformed, "405"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.onKey(c.status, c.header, c.body)
			err := w.services(t).Key(t.Context(), w.key())
			if c.want == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if keyservice.KindOf(err) != c.want || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 600 || strings.Contains(err.Error(), "\n") {
				t.Errorf("kind %d, %v", keyservice.KindOf(err), err)
			}
		})
	}
}

// A key vault may ask for a token for itself and for nothing else, and gets one only from the authority of its entry.
func TestTheAudienceIsAboveTheHost(t *testing.T) {
	for _, resource := range []string{"https://management.azure.com", "https://1.example.com", "https://ample.com", "http://example.com", "", "https://kv1.example.com/x"} {
		w := newWorld(t)
		w.answer["audience"] = func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("WWW-Authenticate", `Bearer authorization="https://x", resource="`+resource+`"`)
			out.WriteHeader(http.StatusUnauthorized)
		}
		err := w.services(t).Key(t.Context(), w.key())
		if keyservice.KindOf(err) != keyservice.Malformed {
			t.Errorf("audience %q: %v", resource, err)
		}
		for _, asked := range w.asked {
			if strings.Contains(asked, "token") {
				t.Errorf("audience %q: asked %v", resource, w.asked)
			}
		}
	}
}

func TestCredentialsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.write(t, "secret", "an old one")
	err := w.services(t).Key(t.Context(), w.key())
	if keyservice.KindOf(err) != keyservice.Unauthenticated || !strings.Contains(err.Error(), "The secret has expired") || strings.Contains(err.Error(), "an old one") {
		t.Errorf("kind %d, %v", keyservice.KindOf(err), err)
	}
	w.Close()
	if err := w.services(t).Key(t.Context(), w.key()); keyservice.KindOf(err) != keyservice.Unreachable {
		t.Errorf("with nobody there: kind %d, %v", keyservice.KindOf(err), err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	w := newWorld(t)
	good := w.text()
	for name, change := range map[string]func(string) string{
		"unknown setting": func(s string) string { return s + "bogus: 1\n" },
		"no pattern":      func(s string) string { return strings.Replace(s, "*.example.com", "*", 1) },
		"too wide":        func(s string) string { return strings.Replace(s, "*.example.com", "*.com", 1) },
		"inner star":      func(s string) string { return strings.Replace(s, "*.example.com", "kv.*.com", 1) },
		"plain authority": func(s string) string { return strings.Replace(s, "authority: https", "authority: http", 1) },
		"no tenant":       func(s string) string { return strings.Replace(s, "tenant: tenant1", "tenant: ''", 1) },
		"no secret":       func(s string) string { return strings.Replace(s, "secret-file: secret\n", "secret-file: ''\n", 1) },
		"both": func(s string) string {
			return strings.Replace(s, "secret-file", "certificate-file: c\n    secret-file", 1)
		},
		"absent secret": func(s string) string { return strings.Replace(s, "secret-file: secret", "secret-file: gone", 1) },
		"no CA":         func(s string) string { return strings.Replace(s, "ca.pem", "secret", 1) },
		"no token":      func(s string) string { return strings.Replace(s, "token-file: token", "token-file: ''", 1) },
	} {
		if _, err := w.open(t, change(good)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	if err := os.Chmod(filepath.Join(w.dir, "secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t, good); !errors.Is(err, keyservice.ErrExposed) {
		t.Errorf("a secret that others can read: %v", err)
	}
}

// transit answers as the documentation of the transit engine says: the real one is not at hand where these tests run.
func (w *world) transit(t *testing.T) {
	read := func(r *http.Request) (in struct{ Plaintext, Ciphertext string }) {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		return in
	}
	guard := func(f http.HandlerFunc) http.HandlerFunc {
		return func(out http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Vault-Token") != "tok3n" {
				out.WriteHeader(http.StatusForbidden)
				fmt.Fprint(out, `{"errors":["permission denied"]}`)
				return
			}
			f(out, r)
		}
	}
	w.answer["POST /v1/team/transit/encrypt/kluis"] = guard(func(out http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(out, `{"request_id":"1","data":{"ciphertext":"vault:v1:%s","key_version":1}}`, read(r).Plaintext)
	})
	w.answer["POST /v1/team/transit/decrypt/kluis"] = guard(func(out http.ResponseWriter, r *http.Request) {
		text, ok := strings.CutPrefix(read(r).Ciphertext, "vault:v1:")
		if !ok {
			out.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(out, `{"errors":["invalid ciphertext: no prefix"]}`)
			return
		}
		fmt.Fprintf(out, `{"data":{"plaintext":"%s"}}`, text)
	})
}

func TestTransit(t *testing.T) {
	w := newWorld(t)
	w.transit(t)
	s := w.services(t)
	recipient := "transit:https://" + w.Listener.Addr().String() + "/v1/team/transit/keys/kluis"
	wrapped, err := s.Wrap(t.Context(), recipient, []byte("plain"))
	if err != nil || string(wrapped) != "vault:v1:"+base64.StdEncoding.EncodeToString([]byte("plain")) {
		t.Fatalf("wrapped %q, %v", wrapped, err)
	}
	plain, err := s.Unwrap(t.Context(), recipient, wrapped)
	if err != nil || !bytes.Equal(plain.Reveal(), []byte("plain")) {
		t.Errorf("unwrapped %q, %v", plain.Reveal(), err)
	}
	if _, err := s.Unwrap(t.Context(), recipient, []byte("damaged")); keyservice.KindOf(err) != keyservice.Refused {
		t.Errorf("damaged: %v", err)
	}
	w.write(t, "token", "another") // read anew for each call
	if _, err := s.Unwrap(t.Context(), recipient, wrapped); keyservice.KindOf(err) != keyservice.Denied || strings.Contains(err.Error(), "another") {
		t.Errorf("another token: %v", err)
	}
	for _, bad := range []string{"", "age1x", "transit:http://h/v1/transit/keys/k", "transit:https://h/transit/keys/k", "transit:https://h/v1/transit/keys/", "transit:https://h/v1/../keys/k", "transit:https://h/v1/a/keys/b/keys/c"} {
		if _, err := s.Wrap(t.Context(), bad, nil); keyservice.KindOf(err) != keyservice.Malformed {
			t.Errorf("recipient %q: %v", bad, err)
		}
	}
}
