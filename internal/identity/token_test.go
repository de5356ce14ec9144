package identity_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// signIn makes a principal and a token for audience.
func signIn(t *testing.T, s *identity.Service) (identity.Principal, secret.Bytes, identity.Token) {
	t.Helper()
	p, clientSecret, err := s.CreatePrincipal(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.ClientCredentials(t.Context(), p.AppID, clientSecret, audience+"/.default")
	if err != nil {
		t.Fatal(err)
	}
	return p, clientSecret, token
}

func TestClientCredentials(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		p, clientSecret, token := signIn(t, s)
		if token.ExpiresIn != 3600 || !token.ExpiresOn.Equal(c.Now().Add(time.Hour)) || token.Audience != audience {
			t.Errorf("token = %+v", token)
		}
		got, err := s.Verify(t.Context(), token.AccessToken, "https://other", audience+"/")
		if err != nil || got != p {
			t.Errorf("Verify = %v, %v; want %v", got, err, p)
		}
		payload := claimsOf(t, token.AccessToken)
		for name, want := range map[string]any{"tid": tenant, "oid": p.ObjectID, "sub": p.ObjectID, "appid": p.AppID, "aud": audience, "iss": s.Issuer(), "idtyp": "app"} {
			if payload[name] != want {
				t.Errorf("claim %s = %v, want %v", name, payload[name], want)
			}
		}
		if _, err := s.ClientCredentials(t.Context(), strings.ToUpper(p.AppID), clientSecret, audience); err != nil {
			t.Errorf("a client id in capitals: %v", err)
		}

		refusals := []struct {
			name, id, secret, audience string
			kind                       problem.Kind
			code                       string
		}{
			{"wrong secret", p.AppID, "wrong", audience, problem.Unauthenticated, identity.CodeInvalidClient},
			{"no secret", p.AppID, "", audience, problem.Unauthenticated, identity.CodeInvalidClient},
			{"secret with more behind it", p.AppID, string(clientSecret.Reveal()) + "x", audience, problem.Unauthenticated, identity.CodeInvalidClient},
			{"unknown client", "nobody", "x", audience, problem.Unauthenticated, identity.CodeUnauthorizedClient},
			{"object id for client id", p.ObjectID, string(clientSecret.Reveal()), audience, problem.Unauthenticated, identity.CodeUnauthorizedClient},
			{"built-in", identity.BackupManagementService.AppID, "", audience, problem.Unauthenticated, identity.CodeUnauthorizedClient},
			{"no audience", p.AppID, string(clientSecret.Reveal()), "/.default", problem.Invalid, identity.CodeInvalidScope},
		}
		for _, r := range refusals {
			t.Run(r.name, func(t *testing.T) {
				token, err := s.ClientCredentials(t.Context(), r.id, secret.New([]byte(r.secret)), r.audience)
				wantCode(t, err, r.kind, r.code)
				if token.AccessToken != "" || strings.Contains(err.Error(), string(clientSecret.Reveal())) {
					t.Error("a refusal gives something away")
				}
			})
		}
	})
}

func TestAudience(t *testing.T) {
	for in, want := range map[string]string{
		"https://localhost:8443/.default": audience, "https://localhost:8443//.default": audience, "https://localhost:8443/": audience,
		"https://localhost:8443": audience, " https://vault.azure.net/.default ": "https://vault.azure.net", "": "", "/.default": "", "///": "",
	} {
		if got := identity.Audience(in); got != want {
			t.Errorf("Audience(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestVerifyTime(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		_, _, token := signIn(t, s)
		for _, step := range []struct {
			move time.Duration
			code string
		}{
			{-5*time.Minute - time.Second, identity.CodeInvalidToken},
			{time.Second, ""}, // five minutes early
			{5 * time.Minute, ""},
			{65*time.Minute - time.Second, ""}, // almost five minutes late
			{time.Second, identity.CodeExpiredToken},
			{24 * time.Hour, identity.CodeExpiredToken},
		} {
			c.Add(step.move)
			_, err := s.Verify(t.Context(), token.AccessToken, audience)
			if step.code == "" {
				if err != nil {
					t.Errorf("at %s: %v", c.Now(), err)
				}
				continue
			}
			wantCode(t, err, problem.Unauthenticated, step.code)
		}
	})
}

func TestVerifyRefuses(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		p, _, token := signIn(t, s)
		good := token.AccessToken
		parts := strings.Split(good, ".")
		payload := claimsOf(t, good)
		with := func(name string, value any) []byte {
			c := map[string]any{}
			for k, v := range payload {
				c[k] = v
			}
			if c[name] = value; value == nil {
				delete(c, name)
			}
			b, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		b64 := base64.RawURLEncoding.EncodeToString
		plain := with("", "")
		ownKey := keyID(t, s)
		ownPublic, err := json.Marshal(s.JWKS())
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		flipped := []byte(good)
		flipped[len(flipped)-20] ^= 1

		cases := []struct{ name, token, code string }{
			{"missing", "", identity.CodeMissingToken},
			{"garbage", "garbage", identity.CodeInvalidToken},
			{"huge", strings.Repeat("A", 1<<20), identity.CodeInvalidToken},
			{"two parts", parts[0] + "." + parts[1], identity.CodeInvalidToken},
			{"without signature", parts[0] + "." + parts[1] + ".", identity.CodeInvalidToken},
			{"flipped bit", string(flipped), identity.CodeInvalidToken},
			{"other payload", parts[0] + "." + b64(with("oid", "someone-else")) + "." + parts[2], identity.CodeInvalidToken},
			{"alg none", b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".", identity.CodeInvalidToken},
			{"alg none with our key id", b64([]byte(`{"alg":"none","kid":"`+ownKey+`"}`)) + "." + parts[1] + "." + parts[2], identity.CodeInvalidToken},
			{"HMAC with our public key", sign(t, jose.HS256, ownPublic, ownKey, plain), identity.CodeInvalidToken},
			{"a stranger's key", sign(t, jose.RS256, stranger, "stranger", plain), identity.CodeInvalidToken},
			{"a stranger's key under our id", sign(t, jose.RS256, stranger, ownKey, plain), identity.CodeInvalidToken},
			{"a stranger's key in the header", embedded(t, stranger, plain), identity.CodeInvalidToken},
			{"another algorithm", sign(t, jose.ES256, curve, ownKey, plain), identity.CodeInvalidToken},
			{"not a JWT but JSON", `{"payload":"e30","signatures":[]}`, identity.CodeInvalidToken},
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				got, err := s.Verify(t.Context(), c.token, audience)
				wantCode(t, err, problem.Unauthenticated, c.code)
				if got != (identity.Principal{}) {
					t.Errorf("a refused token gives %v", got)
				}
			})
		}

		for _, audiences := range [][]string{nil, {""}, {"https://vault.azure.net"}, {audience + "0"}, {"https://localhost"}} {
			_, err := s.Verify(t.Context(), good, audiences...)
			wantCode(t, err, problem.Unauthenticated, identity.CodeWrongAudience)
		}

		if err := s.DeletePrincipal(t.Context(), p.ObjectID); err != nil {
			t.Fatal(err)
		}
		_, err = s.Verify(t.Context(), good, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)
	})
}

// Keys outlive the process, so tokens do; a service of another issuer or tenant refuses them.
func TestKeysAreKept(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		first := newService(t, db, c)
		_, _, token := signIn(t, first)
		again := newService(t, db, c)
		if _, err := again.Verify(t.Context(), token.AccessToken, audience); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		for _, o := range []identity.Options{
			{TenantID: tenant, Issuer: "https://elsewhere"},
			{TenantID: "5a0c3c1e-0000-4000-8000-000000000000", Issuer: audience},
		} {
			o.DB, o.SubscriptionID, o.Now, o.Seal = db, subscription, c.Now, newSealer(t)
			other, err := identity.New(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = other.Verify(t.Context(), token.AccessToken, audience)
			wantCode(t, err, problem.Unauthenticated, identity.CodeWrongIssuer)
		}

		wrong := newSealer(t)
		if _, err := identity.New(t.Context(), identity.Options{
			DB: db, TenantID: tenant, SubscriptionID: subscription, Issuer: audience, Now: c.Now, Seal: otherPlace{wrong},
		}); err == nil {
			t.Error("a sealed key opens in another place")
		}
	})
}

// otherPlace opens with a context that nothing was sealed with.
type otherPlace struct{ sealer }

func (o otherPlace) Open(context string, sealed []byte) ([]byte, error) {
	return o.sealer.Open("other/"+context, sealed)
}

func TestJWKSHoldsNoPrivateKey(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		b, err := json.Marshal(newService(t, db, newClock()).JWKS())
		if err != nil {
			t.Fatal(err)
		}
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal(b, &set); err != nil || len(set.Keys) != 1 {
			t.Fatalf("JWKS = %s, %v", b, err)
		}
		for _, name := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			if _, there := set.Keys[0][name]; there {
				t.Errorf("JWKS holds %s", name)
			}
		}
		if k := set.Keys[0]; k["kty"] != "RSA" || k["alg"] != "RS256" || k["use"] != "sig" || k["kid"] == "" {
			t.Errorf("JWKS = %s", b)
		}
	})
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func keyID(t *testing.T, s *identity.Service) string {
	t.Helper()
	set, ok := s.JWKS().(jose.JSONWebKeySet)
	if !ok {
		t.Fatalf("JWKS is a %T", s.JWKS())
	}
	return set.Keys[0].KeyID
}

func sign(t *testing.T, algorithm jose.SignatureAlgorithm, key any, kid string, payload []byte) string {
	t.Helper()
	return serialize(t, jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, &jose.SignerOptions{}, payload)
}

// embedded puts the signer's own public key into the header, where a careless verifier takes it from.
func embedded(t *testing.T, key *rsa.PrivateKey, payload []byte) string {
	t.Helper()
	return serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: key}, &jose.SignerOptions{EmbedJWK: true}, payload)
}

func serialize(t *testing.T, key jose.SigningKey, o *jose.SignerOptions, payload []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(key, o)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// No text but a token that we signed gives a principal, and none crashes Verify.
func FuzzVerify(f *testing.F) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		f.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		f.Fatal(err)
	}
	s, err := identity.New(f.Context(), identity.Options{
		DB: databasetest.Open(f, "sqlite:"+filepath.Join(f.TempDir(), "kluis.db")), TenantID: tenant, SubscriptionID: subscription,
		Issuer: audience, Now: newClock().Now, Seal: sealer{aead},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AAAA")
	f.Add(`{"payload":"e30","signatures":[{},{}]}`)
	f.Fuzz(func(t *testing.T, bearer string) {
		p, err := s.Verify(t.Context(), bearer, audience)
		if err == nil || problem.KindOf(err) != problem.Unauthenticated || p != (identity.Principal{}) {
			t.Fatalf("Verify(%q) = %v, %v", bearer, p, err)
		}
	})
}
