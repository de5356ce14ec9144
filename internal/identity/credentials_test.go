package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

const endpoint = audience + "/" + tenant + "/oauth2/v2.0/token"

// certify makes a certificate of its own for a key, good from a day before the clock begins to a year after.
func certify(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	begin := newClock().now
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ci"}, NotBefore: begin.AddDate(0, 0, -1), NotAfter: begin.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// must is the value of a call that must not fail: must(f())(t).
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestCredentials(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		ctx, s := t.Context(), newService(t, db, c)
		p, first, err := s.CreatePrincipal(ctx, "ci")
		if err != nil {
			t.Fatal(err)
		}
		c.Add(time.Second) // credentials are listed by their age
		second, secondSecret, err := s.AddSecret(ctx, p.AppID, "laptop", c.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		all := must(s.Credentials(ctx, p.ObjectID))(t)
		if len(all) != 2 || all[1] != second || all[1].Name != "laptop" {
			t.Errorf("credentials are %+v", all)
		}
		must(s.ClientCredentials(ctx, p.AppID, first, audience))(t)
		must(s.ClientCredentials(ctx, p.AppID, secondSecret, audience))(t)

		c.Add(time.Hour)
		_, err = s.ClientCredentials(ctx, p.AppID, secondSecret, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		token, err := s.ClientCredentials(ctx, p.AppID, first, audience)
		if err != nil {
			t.Errorf("a secret suffers from the end of another: %v", err)
		}

		if err := s.SetDisabled(ctx, p.AppID, true); err != nil {
			t.Fatal(err)
		}
		_, err = s.ClientCredentials(ctx, p.AppID, first, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeUnauthorizedClient)
		_, err = s.Verify(ctx, token.AccessToken, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidToken)
		if err := s.SetDisabled(ctx, p.AppID, false); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(ctx, token.AccessToken, audience); err != nil {
			t.Errorf("enabled again: %v", err)
		}

		if err := s.RemoveCredential(ctx, p.AppID, all[0].ID); err != nil {
			t.Fatal(err)
		}
		_, err = s.ClientCredentials(ctx, p.AppID, first, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		wantCode(t, s.RemoveCredential(ctx, p.AppID, all[0].ID), problem.NotFound, "CredentialNotFound")
		_, _, err = s.AddSecret(ctx, p.AppID, "late", c.Now())
		wantCode(t, err, problem.Invalid, "InvalidCredential")
		for range 19 {
			if _, _, err := s.AddSecret(ctx, p.AppID, "", time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err = s.AddSecret(ctx, p.AppID, "", time.Time{})
		wantCode(t, err, problem.Conflict, "TooManyCredentials")
	})
}

func TestCertificatesThatAreRefused(t *testing.T) {
	s := newService(t, databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "kluis.db")), newClock())
	p, _, err := s.CreatePrincipal(t.Context(), "ci")
	if err != nil {
		t.Fatal(err)
	}
	small := must(rsa.GenerateKey(rand.Reader, 1024))(t)
	other := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	for name, certificate := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "a large one": make([]byte, 17<<10), "a small key": certify(t, small), "another curve": certify(t, other),
		"a private key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(other))(t)}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.AddCertificate(t.Context(), p.AppID, "", certificate, time.Time{})
			wantCode(t, err, problem.Invalid, "KeyCredentialInvalidCertificate")
		})
	}
}

// claim is a payload of an assertion that is good, with changes.
func claim(p identity.Principal, now time.Time, changes map[string]any) []byte {
	all := map[string]any{"iss": p.AppID, "sub": p.AppID, "aud": endpoint, "jti": rand.Text(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	for name, value := range changes {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return b
}

func headers(pairs ...any) *jose.SignerOptions {
	o := &jose.SignerOptions{}
	for i := 0; i < len(pairs); i += 2 {
		o.WithHeader(jose.HeaderKey(pairs[i].(string)), pairs[i+1])
	}
	return o
}

func TestClientAssertion(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		ctx, s := t.Context(), newService(t, db, c)
		p, _, err := s.CreatePrincipal(ctx, "ci")
		if err != nil {
			t.Fatal(err)
		}
		rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
		ecKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
		rsaCertificate, ecCertificate := certify(t, rsaKey), certify(t, ecKey)
		registered := must(s.AddCertificate(ctx, p.AppID, "rsa", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rsaCertificate}), time.Time{}))(t)
		if !registered.Expires.Equal(newClock().now.AddDate(1, 0, 0)) || len(registered.Thumbprint) != 40 {
			t.Errorf("registered %+v", registered)
		}
		must(s.AddCertificate(ctx, p.AppID, "ec", ecCertificate, time.Time{}))(t)
		_, err = s.AddCertificate(ctx, p.AppID, "again", ecCertificate, time.Time{})
		wantCode(t, err, problem.Conflict, "KeyCredentialExists")

		b64 := base64.RawURLEncoding.EncodeToString
		sum1, sum256, ecSum := sha1.Sum(rsaCertificate), sha256.Sum256(rsaCertificate), sha256.Sum256(ecCertificate)
		x5t := headers("x5t", b64(sum1[:]))
		try := func(text string) (identity.Token, error) {
			return s.ClientAssertion(ctx, p.AppID, text, []string{endpoint}, audience)
		}
		signed := func(changes map[string]any) string {
			return serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, x5t, claim(p, c.Now(), changes))
		}

		for name, text := range map[string]string{
			"RS256, x5t":        signed(nil),
			"PS256, x5t#S256":   serialize(t, jose.SigningKey{Algorithm: jose.PS256, Key: rsaKey}, headers("x5t#S256", b64(sum256[:])), claim(p, c.Now(), nil)),
			"ES256":             serialize(t, jose.SigningKey{Algorithm: jose.ES256, Key: ecKey}, headers("x5t#S256", b64(ecSum[:])), claim(p, c.Now(), nil)),
			"kid":               serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, headers("kid", registered.Thumbprint), claim(p, c.Now(), nil)),
			"padded x5t":        serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, headers("x5t", base64.URLEncoding.EncodeToString(sum1[:])), claim(p, c.Now(), nil)),
			"a clock behind":    signed(map[string]any{"nbf": c.Now().Add(5 * time.Minute).Unix()}),
			"a day, and slack":  signed(map[string]any{"exp": c.Now().Add(24*time.Hour + 4*time.Minute).Unix()}),
			"several audiences": signed(map[string]any{"aud": []string{"https://other", endpoint + "/"}}),
		} {
			token, err := try(text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got, err := s.Verify(ctx, token.AccessToken, audience); err != nil || got != p {
				t.Errorf("%s: token of %v, %v", name, got, err)
			}
		}

		stranger := must(rsa.GenerateKey(rand.Reader, 2048))(t)
		for name, text := range map[string]string{
			"nothing":            "x",
			"a long one":         string(make([]byte, 20<<10)),
			"no thumbprint":      serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, headers(), claim(p, c.Now(), nil)),
			"bad thumbprint":     serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, headers("x5t", "!"), claim(p, c.Now(), nil)),
			"another's key":      serialize(t, jose.SigningKey{Algorithm: jose.RS256, Key: stranger}, x5t, claim(p, c.Now(), nil)),
			"HMAC":               serialize(t, jose.SigningKey{Algorithm: jose.HS256, Key: rsaCertificate}, x5t, claim(p, c.Now(), nil)),
			"RS512":              serialize(t, jose.SigningKey{Algorithm: jose.RS512, Key: rsaKey}, x5t, claim(p, c.Now(), nil)),
			"another issuer":     signed(map[string]any{"iss": "someone"}),
			"another subject":    signed(map[string]any{"sub": "someone"}),
			"another server":     signed(map[string]any{"aud": "https://elsewhere/oauth2/v2.0/token"}),
			"no audience":        signed(map[string]any{"aud": nil}),
			"no end":             signed(map[string]any{"exp": nil}),
			"no jti":             signed(map[string]any{"jti": nil}),
			"over":               signed(map[string]any{"exp": c.Now().Add(-5 * time.Minute).Unix()}),
			"a year":             signed(map[string]any{"exp": c.Now().AddDate(1, 0, 0).Unix()}),
			"not yet":            signed(map[string]any{"nbf": c.Now().Add(6 * time.Minute).Unix()}),
			"made in the future": signed(map[string]any{"iat": c.Now().Add(6 * time.Minute).Unix()}),
		} {
			_, err := try(text)
			if p := problem.Of(err); p == nil || p.Code != identity.CodeInvalidClient || p.Advice == "" {
				t.Errorf("%s: %v", name, err)
			}
		}

		once := signed(nil)
		must(try(once))(t)
		_, err = try(once)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		if _, err := s.ClientAssertion(ctx, p.AppID, once, []string{endpoint}, "https://vault.azure.net"); err != nil {
			t.Errorf("for another audience: %v", err)
		}

		c.Add(366 * 24 * time.Hour)
		_, err = try(signed(nil))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
	})
}

// Failing in somebody's name is refused after a while, but keeps nobody out who can prove himself.
func TestFailedLoginsAreLimited(t *testing.T) {
	c := newClock()
	s := newService(t, databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "kluis.db")), c)
	p, clientSecret, _ := signIn(t, s)
	other, _, _ := signIn(t, s)
	fail := func(appID string) string {
		_, err := s.ClientCredentials(t.Context(), appID, secret.New([]byte("wrong")), audience)
		return problem.Of(err).Code
	}
	for range 20 {
		if code := fail(p.AppID); code != identity.CodeInvalidClient {
			t.Fatalf("code %s", code)
		}
	}
	if code := fail(p.AppID); code != identity.CodeTryLater {
		t.Errorf("the 21st failure has the code %s", code)
	}
	if code := fail(other.AppID); code != identity.CodeInvalidClient {
		t.Errorf("another client's failure has the code %s", code)
	}
	if _, err := s.ClientCredentials(t.Context(), p.AppID, clientSecret, audience); err != nil {
		t.Errorf("the right secret: %v", err)
	}
	c.Add(3 * time.Second)
	if code := fail(p.AppID); code != identity.CodeInvalidClient {
		t.Errorf("later the code is %s", code)
	}
}

// A key that was replaced is believed until its last token has expired, also by a process that did not replace it.
func TestKeyRotation(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		ctx := t.Context()
		s, bystander := newService(t, db, c), newService(t, db, c)
		_, clientSecret, old := signIn(t, s)
		p := must(s.Verify(ctx, old.AccessToken, audience))(t)
		keep := func(s *identity.Service) {
			t.Helper()
			if err := s.KeepKeys(ctx); err != nil {
				t.Fatal(err)
			}
		}
		first := keyID(t, s)
		c.Add(identity.DefaultKeyLife - time.Hour)
		if keep(s); keyID(t, s) != first {
			t.Error("the key was replaced too early")
		}
		last := must(s.ClientCredentials(ctx, p.AppID, clientSecret, audience))(t)
		c.Add(time.Hour)
		if keep(s); keyID(t, s) == first {
			t.Error("the key was not replaced")
		}
		if _, err := s.Verify(ctx, last.AccessToken, audience); err != nil {
			t.Errorf("a token of the old key: %v", err)
		}
		fresh := must(s.ClientCredentials(ctx, p.AppID, clientSecret, audience))(t)
		if _, err := bystander.Verify(ctx, fresh.AccessToken, audience); err != nil {
			t.Errorf("a token of the new key, to another process: %v", err)
		}
		if n := keyCount(t, s); n != 2 {
			t.Errorf("%d keys are shown", n)
		}
		c.Add(4 * time.Hour)
		if keep(s); keyCount(t, s) != 1 || keyID(t, s) == first {
			t.Errorf("%d keys are left", keyCount(t, s))
		}
	})
}

func keyCount(t *testing.T, s *identity.Service) int {
	t.Helper()
	return len(s.JWKS().(jose.JSONWebKeySet).Keys)
}

// No text but an assertion that the certificate's key has signed gives a token, and none crashes.
func FuzzClientAssertion(f *testing.F) {
	s := newService(f, databasetest.Open(f, "sqlite:"+filepath.Join(f.TempDir(), "kluis.db")), newClock())
	p, _, err := s.CreatePrincipal(f.Context(), "ci")
	if err != nil {
		f.Fatal(err)
	}
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(f)
	registered := must(s.AddCertificate(f.Context(), p.AppID, "", certify(f, key), time.Time{}))(f)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJFUzI1NiIsImtpZCI6IiJ9.e30.AAAA")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"`+registered.Thumbprint+`"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(claim(p, newClock().now, nil)) + ".AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := s.ClientAssertion(t.Context(), p.AppID, text, []string{endpoint}, audience)
		if err == nil || token.AccessToken != "" || problem.Of(err) == nil {
			t.Fatalf("%q gives %v, %v", text, token, err)
		}
	})
}
