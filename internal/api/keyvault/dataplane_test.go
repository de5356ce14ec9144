package keyvault_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	apikeyvault "kluis/internal/api/keyvault"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// The life of a key, over the wire.
func TestKeys(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := serve(t, db)
		s.putVault("kv-one")
		created := s.data("POST", "kv-one", "/keys/Kek/create", map[string]any{"kty": "RSA-HSM", "key_size": 3072, "tags": map[string]string{"a": "b"}})
		want(t, created, 200, "key.kty", "RSA", "attributes.enabled", true, "tags.a", "b", "attributes.exportable", false)
		kid := created.at("key.kid").(string)
		version := kid[strings.LastIndex(kid, "/")+1:]
		if kid != "https://kv-one."+s.suffix+"/keys/Kek/"+version || len(version) != 32 {
			t.Errorf("kid is %s", kid)
		}
		for _, path := range []string{"/keys/Kek", "/keys/kek/", "/keys/KEK/" + version, "/KEYS/Kek/" + strings.ToUpper(version)} {
			want(t, s.data("GET", "kv-one", path, nil), 200, "key.kid", kid, "key.n", created.at("key.n"))
		}

		value := b64([]byte("0123456789abcdef0123456789abcdef"))
		for _, names := range [][2]string{{"wrapkey", "unwrapkey"}, {"wrapKey", "unwrapKey"}, {"encrypt", "decrypt"}} {
			for _, at := range []string{"/keys/Kek/" + version + "/", "/keys/Kek//", "/keys/Kek/"} {
				closed := s.data("POST", "kv-one", at+names[0], map[string]any{"alg": "RSA-OAEP", "value": value})
				want(t, closed, 200, "kid", kid)
				opened := s.data("POST", "kv-one", at+names[1], map[string]any{"alg": "RSA-OAEP", "value": closed.at("value")})
				want(t, opened, 200, "kid", kid, "value", value)
			}
		}

		want(t, s.data("PATCH", "kv-one", "/keys/Kek/"+version, map[string]any{"attributes": map[string]any{"enabled": false, "exp": 4102444800}, "key_ops": []string{"wrapKey"}}),
			200, "attributes.enabled", false, "attributes.exp", float64(4102444800), "tags.a", "b")
		want(t, s.data("POST", "kv-one", "/keys/Kek//wrapkey", map[string]any{"alg": "RSA-OAEP", "value": value}), 403, "error.innererror.code", "KeyDisabled")
		s.data("PATCH", "kv-one", "/keys/Kek", map[string]any{"attributes": map[string]any{"enabled": true}})
		want(t, s.data("POST", "kv-one", "/keys/Kek//unwrapkey", map[string]any{"alg": "RSA-OAEP", "value": value}), 403, "error.innererror.code", "KeyOperationForbidden")

		blob := s.data("POST", "kv-one", "/keys/Kek/backup", nil)
		want(t, blob, 200)
		want(t, s.data("POST", "kv-one", "/keys/restore", blob.body), 409, "error.code", "Conflict")
		want(t, s.data("DELETE", "kv-one", "/keys/Kek", nil), 200, "recoveryId", "https://kv-one."+s.suffix+"/deletedkeys/Kek", "key.kid", kid)
		want(t, s.data("GET", "kv-one", "/deletedkeys/Kek", nil), 200, "key.kid", kid)
		want(t, s.data("GET", "kv-one", "/keys/Kek", nil), 404, "error.code", "KeyNotFound")
		want(t, s.data("POST", "kv-one", "/deletedkeys/Kek/recover", nil), 200, "key.kid", kid)
		s.data("DELETE", "kv-one", "/keys/Kek", nil)
		if a := s.data("DELETE", "kv-one", "/deletedkeys/Kek", nil); a.status != 204 || a.raw != "" {
			t.Errorf("purge: %d %q", a.status, a.raw)
		}
		want(t, s.data("POST", "kv-one", "/keys/restore", blob.body), 200, "key.kid", kid, "key.n", created.at("key.n"))

		ec := s.data("POST", "kv-one", "/keys/ec/create", map[string]any{"kty": "EC", "crv": "P-384"})
		want(t, ec, 200, "key.kty", "EC", "key.crv", "P-384")
		want(t, s.data("POST", "kv-one", "/keys/ec//wrapkey", map[string]any{"alg": "RSA-OAEP", "value": value}), 403, "error.innererror.code", "KeyOperationForbidden")
	})
}

func TestImportedKeyUnwrapsWhatItsOwnerWrapped(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	jwk := map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()), "d": b64(key.D.Bytes()),
		"p": b64(key.Primes[0].Bytes()), "q": b64(key.Primes[1].Bytes()), "key_ops": []string{"unwrapKey"}}
	got := s.data("PUT", "kv-one", "/keys/mine", map[string]any{"key": jwk})
	want(t, got, 200, "key.n", jwk["n"])
	if strings.Contains(got.raw, `"d"`) || strings.Contains(got.raw, jwk["d"].(string)) {
		t.Error("the answer shows the private key")
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, []byte("bek"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, s.data("POST", "kv-one", "/keys/mine//unwrapkey", map[string]any{"alg": "RSA-OAEP-256", "value": b64(wrapped)}), 200, "value", b64([]byte("bek")))

	for name, change := range map[string]map[string]any{
		"q of another key": {"q": b64(key.Primes[0].Bytes())}, "no d": {"d": nil}, "n too short": {"n": "AQAB"}, "n too long": {"n": strings.Repeat("A", 2000)},
		"e too large": {"e": b64(key.N.Bytes())}, "unknown type": {"kty": "oct"}, "not base64": {"d": "*"},
	} {
		bad := map[string]any{}
		for k, v := range jwk {
			bad[k] = v
		}
		for k, v := range change {
			bad[k] = v
		}
		a := s.data("PUT", "kv-one", "/keys/bad", map[string]any{"key": bad})
		if a.status != 400 || a.at("error.code") != "BadParameter" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}

// The life of a secret, over the wire, and in path form.
func TestSecrets(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := serve(t, db)
		s.putVault("kv-one")
		set := s.data("PUT", "kv-one", "/secrets/Bek", map[string]any{"value": "first", "contentType": "Wrapped BEK", "attributes": map[string]any{"nbf": 1, "exp": 2}})
		want(t, set, 200, "value", "first", "contentType", "Wrapped BEK", "attributes.nbf", float64(1))
		id := set.at("id").(string)
		path := id[strings.Index(id, "/secrets/"):]
		want(t, s.data("GET", "kv-one", path, nil), 200, "value", "first") // expired, but Azure still shows it
		s.data("PUT", "kv-one", "/secrets/Bek", map[string]any{"value": "second"})
		want(t, s.data("GET", "kv-one", "/secrets/Bek/", nil), 200, "value", "second", "contentType", nil)
		want(t, s.data("GET", "kv-one", path, nil), 200, "value", "first")
		patched := s.data("PATCH", "kv-one", path, map[string]any{"attributes": map[string]any{"enabled": false}, "contentType": "x", "tags": map[string]string{"t": "u"}})
		want(t, patched, 200, "attributes.enabled", false, "contentType", "x", "tags.t", "u", "value", nil)
		want(t, s.data("GET", "kv-one", path, nil), 403, "error.code", "Forbidden", "error.innererror.code", "SecretDisabled")

		token := "https://" + s.suffix
		direct := "https://localhost/keyvault/kv-one/secrets/Bek?api-version=7.4"
		want(t, s.send("GET", direct, token, nil), 200, "value", "second", "id", s.data("GET", "kv-one", "/secrets/Bek", nil).at("id"))

		blob := s.data("POST", "kv-one", "/secrets/Bek/backup", nil)
		want(t, s.data("DELETE", "kv-one", "/secrets/Bek", nil), 200, "value", nil)
		want(t, s.data("GET", "kv-one", "/deletedsecrets/Bek", nil), 200, "value", nil)
		want(t, s.data("POST", "kv-one", "/secrets/restore", blob.body), 409, "error.innererror.code", "ObjectIsDeletedButRecoverable")
		s.data("DELETE", "kv-one", "/deletedsecrets/Bek", nil)
		want(t, s.data("POST", "kv-one", "/secrets/restore", blob.body), 200, "value", nil, "attributes.enabled", true)
		want(t, s.data("GET", "kv-one", "/secrets/Bek", nil), 200, "value", "second")
		if strings.Contains(s.log.String(), "second") || !strings.Contains(s.log.String(), "GET secrets/{name}") {
			t.Error("the log holds a value, or no line for a call")
		}
	})
}

func TestListsAreReadPageByPage(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	for _, name := range []string{"b", "a", "D", "c", "e"} {
		s.data("PUT", "kv-one", "/secrets/"+name, map[string]any{"value": "x"})
		s.data("PUT", "kv-one", "/secrets/paged", map[string]any{"value": "x"})
	}
	read := func(path string) (names []string, pages int) {
		next := "https://kv-one." + s.suffix + path + "?api-version=7.4&maxresults=2"
		for next != "" {
			a := s.send("GET", next, "https://"+s.suffix, nil)
			want(t, a, 200)
			for _, item := range a.at("value").([]any) {
				names = append(names, strings.TrimPrefix(item.(map[string]any)["id"].(string), "https://kv-one."+s.suffix+"/secrets/"))
			}
			pages++
			next, _ = a.at("nextLink").(string)
		}
		return names, pages
	}
	if names, pages := read("/secrets"); strings.Join(names, " ") != "a b c D e paged" || pages != 3 {
		t.Errorf("secrets: %v in %d pages", names, pages)
	}
	versions, pages := read("/secrets/paged/versions")
	if len(versions) != 5 || pages != 3 {
		t.Errorf("versions: %v in %d pages", versions, pages)
	}
	s.data("DELETE", "kv-one", "/secrets/D", nil)
	if names, _ := read("/secrets"); strings.Join(names, " ") != "a b c e paged" {
		t.Errorf("after a delete: %v", names)
	}
	if names, _ := read("/deletedsecrets"); strings.Join(names, " ") != "D" {
		t.Errorf("deleted: %v", names)
	}
}

func TestBadCalls(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	s.data("PUT", "kv-one", "/secrets/s", map[string]any{"value": "x"})
	large := strings.Repeat("v", 25<<10+1)
	cases := []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"GET", "/secrets/none", nil, 404, "SecretNotFound"},
		{"GET", "/secrets/s/0123456789abcdef0123456789abcdef", nil, 404, "SecretNotFound"},
		{"GET", "/secrets/s/short", nil, 400, "BadParameter"},
		{"GET", "/secrets/under_score", nil, 400, "BadParameter"},
		{"GET", "/certificates", nil, 404, "NotFound"},
		{"GET", "/", nil, 404, "NotFound"},
		{"GET", "//", nil, 404, "NotFound"},
		{"POST", "/secrets/s", map[string]any{}, 405, "MethodNotSupported"},
		{"GET", "/secrets?api-version=1", nil, 400, "BadParameter"},
		{"GET", "/secrets?api-version=", nil, 400, "BadParameter"},
		{"GET", "/secrets?api-version=7.4&maxresults=26", nil, 400, "BadParameter"},
		{"GET", "/secrets?api-version=7.4&$skiptoken=*", nil, 400, "BadParameter"},
		{"GET", "/secrets?api-version=7.4&%zz", nil, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": large}, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": strings.Repeat(large, 11)}, 413, "RequestEntityTooLarge"},
		{"PUT", "/secrets/s", map[string]any{}, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": 5}, 400, "BadParameter"},
		{"PUT", "/secrets/s", `{"value": "x"`, 400, "BadParameter"},
		{"PUT", "/secrets/s", nil, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": "x", "attributes": map[string]any{"nbf": 9, "exp": 3}}, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": "x", "attributes": map[string]any{"exp": 1 << 60}}, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": "x", "tags": map[string]string{"": "x"}}, 400, "BadParameter"},
		{"PUT", "/secrets/s", map[string]any{"value": "x", "contentType": strings.Repeat("c", 256)}, 400, "BadParameter"},
		{"POST", "/secrets/restore", map[string]any{"value": "AAAA"}, 400, "BadParameter"},
		{"POST", "/secrets/restore", map[string]any{"value": "*"}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "oct", "key_size": 512}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "OKP"}, 400, "BadParameter"},
		{"POST", "/keys/k/rotate?api-version=7.2", nil, 405, "MethodNotSupported"},
		{"GET", "/secrets?api-version=7.7", nil, 400, "BadParameter"},
		{"POST", "/rng", map[string]any{"count": 0}, 400, "BadParameter"},
		{"POST", "/keys/k//release", map[string]any{"target": "x"}, 400, "NotSupported"},
		{"PUT", "/keys/k/rotationpolicy", map[string]any{"lifetimeActions": []any{map[string]any{"action": map[string]any{"type": "Rotate"}}}}, 400, "BadParameter"},
		{"PUT", "/keys/k/rotationpolicy", map[string]any{"attributes": map[string]any{"expiryTime": "P1D"}}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "RSA", "key_size": 1024}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "RSA", "key_size": 1 << 30}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "RSA", "public_exponent": 3}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "EC", "crv": "P-256K"}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "EC", "key_ops": []string{"wrapKey"}}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "RSA", "key_ops": []string{"fly"}}, 400, "BadParameter"},
		{"POST", "/keys/k/create", map[string]any{"kty": "RSA", "attributes": map[string]any{"exportable": true}}, 400, "BadParameter"},
		{"GET", "/keys/none", nil, 404, "KeyNotFound"},
		{"GET", "/deletedkeys/none", nil, 404, "KeyNotFound"},
		{"POST", "/deletedsecrets/s/recover", nil, 400, "MethodNotAllowed"},
	}
	for _, c := range cases {
		a := s.data(c.method, "kv-one", c.path, c.body)
		message, _ := a.at("error.message").(string)
		if a.status != c.status || a.at("error.code") != c.code || len(message) < 20 {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, a.status, a.raw, c.status, c.code)
		}
		if strings.Contains(a.raw, "vvvvvvvv") {
			t.Errorf("%s %s: the answer repeats the value", c.method, c.path)
		}
	}
	want(t, s.data("GET", "kv-none", "/secrets", nil), 404, "error.code", "VaultNotFound")
	want(t, s.data("GET", "a--b", "/secrets", nil), 404, "error.code", "VaultNotFound")
	want(t, s.send("GET", "https://elsewhere/secrets?api-version=7.4", "x", nil), 404, "error.code", "NotFound")
	want(t, s.send("GET", "https://a.b."+s.suffix+"/secrets?api-version=7.4", "x", nil), 404, "error.code", "NotFound")
	wrong := s.send("GET", "https://kv-one."+s.suffix+"/secrets?api-version=7.4", "https://elsewhere", nil)
	want(t, wrong, 401, "error.code", "Unauthorized")
	if wrong.header.Get("WWW-Authenticate") == "" || !strings.HasPrefix(wrong.at("error.message").(string), "AKV10022") {
		t.Errorf("a wrong token: %v %s", wrong.header, wrong.raw)
	}
}

// A defect in one call is a clean 500 for that call, and its text stays in the log.
func TestPanicIsAnAnswer(t *testing.T) {
	s := serve(t, sqlite(t))
	h := apikeyvault.DataPlane(s.keys, apikeyvault.Options{Suffix: "v.x", Authenticate: func(context.Context, *http.Request, string) (context.Context, error) {
		panic("the reason")
	}})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "https://kv-one.v.x/secrets?api-version=7.4", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "the reason") || !strings.Contains(w.Body.String(), "InternalServerError") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// No path, however odd, gets past the door in another way than the table says.
func FuzzPath(f *testing.F) {
	s := serve(f, sqlite(f))
	h := apikeyvault.DataPlane(s.keys, apikeyvault.Options{Suffix: "v.x", Authenticate: func(ctx context.Context, r *http.Request, _ string) (context.Context, error) {
		return authenticate(ctx, r, "t")
	}})
	for _, seed := range []string{"/keys", "/keys/n//wrapkey", "/keyvault/kv-one/secrets/s/", "/secrets/../x", "/deletedkeys/a/recover", "/%2f/"} {
		f.Add("GET", "kv-one.v.x", seed)
		f.Add("POST", "localhost", seed)
	}
	f.Fuzz(func(t *testing.T, method, host, path string) {
		r := httptest.NewRequest("GET", "https://x/?api-version=7.4", strings.NewReader("{}"))
		r.Method, r.Host, r.URL.Path = method, host, path
		r.Header.Set("Authorization", "Bearer t")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 {
			t.Fatalf("%q %q %q: %d %s", method, host, path, w.Code, w.Body)
		}
	})
}
