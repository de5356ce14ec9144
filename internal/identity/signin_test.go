package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

const (
	azureCLI   = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	powerShell = "1950a258-227b-4e31-a9cf-717495945fc2"
	loopback   = "http://localhost:8400"
	verifier   = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
)

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// asked is what az asks for.
func asked() identity.Wanted {
	return identity.Wanted{ClientID: azureCLI, Audience: audience, Scope: audience + "/.default openid offline_access", OpenID: true, Offline: true,
		Nonce: "n-1", RedirectURI: loopback, Challenge: challenge(verifier)}
}

func payload(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	text := must(base64.RawURLEncoding.DecodeString(parts[1]))(t)
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func redemption(code string) identity.Redemption {
	return identity.Redemption{ClientID: azureCLI, Code: code, RedirectURI: loopback, Verifier: verifier}
}

func TestCode(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		ada := addAda(t, s)
		code := must(s.NewCode(t.Context(), ada, asked()))(t)
		o := must(s.Redeem(t.Context(), redemption(code)))(t)
		if p, err := s.Verify(t.Context(), o.AccessToken, audience); err != nil || p != ada {
			t.Errorf("the token is of %+v, %v", p, err)
		}
		access, id := payload(t, o.AccessToken), payload(t, o.IDToken)
		if access["idtyp"] != "user" || access["appid"] != azureCLI || access["upn"] != "ada" || access["tid"] != tenant || access["oid"] != ada.ObjectID {
			t.Errorf("access token %v", access)
		}
		if id["aud"] != azureCLI || id["nonce"] != "n-1" || id["preferred_username"] != "ada" || id["name"] != "Ada Lovelace" || id["iss"] != s.Issuer() {
			t.Errorf("id token %v", id)
		}
		_, err := s.Verify(t.Context(), o.IDToken, audience)
		wantCode(t, err, problem.Unauthenticated, identity.CodeWrongAudience)

		// The code is shown again: what came of it ends.
		_, err = s.Redeem(t.Context(), redemption(code))
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		_, err = s.Refresh(t.Context(), identity.RefreshRequest{ClientID: azureCLI, Token: o.RefreshToken})
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
	})
}

// Of many who show a code at once, one gets tokens, and the others see to it that his refresh token ends.
func TestCodeAtOnce(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		code := must(s.NewCode(t.Context(), addAda(t, s), asked()))(t)
		var mu sync.Mutex
		var got []identity.Session
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if o, err := s.Redeem(t.Context(), redemption(code)); err == nil {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, o)
				}
			})
		}
		all.Wait()
		if len(got) != 1 {
			t.Fatalf("%d got tokens", len(got))
		}
		_, err := s.Refresh(t.Context(), identity.RefreshRequest{ClientID: azureCLI, Token: got[0].RefreshToken})
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
	})
}

func TestCodesThatAreRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		ada := addAda(t, s)
		app, appSecret, err := s.CreatePrincipal(t.Context(), "portal")
		if err != nil {
			t.Fatal(err)
		}
		for name, change := range map[string]func(q *identity.Redemption){
			"wrong verifier":       func(q *identity.Redemption) { q.Verifier = strings.Repeat("a", 43) },
			"no verifier":          func(q *identity.Redemption) { q.Verifier = "" },
			"challenge for it":     func(q *identity.Redemption) { q.Verifier = challenge(verifier) },
			"another redirect URI": func(q *identity.Redemption) { q.RedirectURI = "http://localhost:8401" },
			"no redirect URI":      func(q *identity.Redemption) { q.RedirectURI = "" },
			"another program":      func(q *identity.Redemption) { q.ClientID = powerShell },
			"an application":       func(q *identity.Redemption) { q.ClientID, q.Proof.Secret = app.AppID, appSecret },
			"another resource":     func(q *identity.Redemption) { q.Audience = "https://vault.azure.net" },
			"another code":         func(q *identity.Redemption) { q.Code += "x" },
			"no code":              func(q *identity.Redemption) { q.Code = "" },
			"too late":             func(*identity.Redemption) { c.Add(5 * time.Minute) },
			"signed out":           func(*identity.Redemption) { must(0, s.EndSessions(t.Context(), ada.ObjectID))(t) },
			"password reset":       func(*identity.Redemption) { must(s.ResetPassword(t.Context(), ada.ObjectID, text(passphrase)))(t) },
			"disabled":             func(*identity.Redemption) { must(0, s.SetDisabled(t.Context(), ada.ObjectID, true))(t) },
		} {
			q := redemption(must(s.NewCode(t.Context(), ada, asked()))(t))
			change(&q)
			if _, err := s.Redeem(t.Context(), q); problem.Of(err) == nil || problem.Of(err).Code != identity.CodeInvalidGrant {
				t.Errorf("%s: %v", name, err)
			}
			must(0, s.SetDisabled(t.Context(), ada.ObjectID, false))(t)
		}
		q := redemption(must(s.NewCode(t.Context(), ada, asked()))(t))
		q.Proof.Secret = text("a program has none")
		_, err = s.Redeem(t.Context(), q)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
	})
}

// An application keeps a secret, so it may do without a proof key, and not without the secret.
func TestCodeOfAnApplication(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newService(t, db, newClock())
		app, appSecret, err := s.CreatePrincipal(t.Context(), "portal")
		if err != nil {
			t.Fatal(err)
		}
		const uri = "https://portal.example.com/signed-in?x=1"
		if err := s.SetRedirectURIs(t.Context(), app.AppID, []string{uri, "http://localhost:3000/x", uri}); err != nil {
			t.Fatal(err)
		}
		client := must(s.ClientAt(t.Context(), app.AppID, uri))(t)
		if client.Public || client.Name != "portal" {
			t.Errorf("client is %+v", client)
		}
		w := asked()
		w.ClientID, w.RedirectURI, w.Challenge = app.AppID, uri, ""
		q := identity.Redemption{ClientID: app.AppID, RedirectURI: uri, Code: must(s.NewCode(t.Context(), addAda(t, s), w))(t)}
		_, err = s.Redeem(t.Context(), q)
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		q.Proof.Secret = appSecret
		o := must(s.Redeem(t.Context(), q))(t)
		_, err = s.Refresh(t.Context(), identity.RefreshRequest{ClientID: app.AppID, Token: o.RefreshToken})
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidClient)
		must(s.Refresh(t.Context(), identity.RefreshRequest{ClientID: app.AppID, Token: o.RefreshToken, Proof: identity.Proof{Secret: appSecret}}))(t)
		if _, err := s.ClientAt(t.Context(), app.AppID, uri+"2"); problem.Of(err) == nil {
			t.Errorf("a URI that is not registered: %v", err)
		}
	})
}

// Where a sign-in must never lead to.
func TestRedirects(t *testing.T) {
	s := newService(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db"), newClock())
	app, _, err := s.CreatePrincipal(t.Context(), "portal")
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{loopback, loopback + "/", "http://127.0.0.1:1", "http://localhost:65535"} {
		must(s.ClientAt(t.Context(), strings.ToUpper(azureCLI), good))(t)
	}
	for _, bad := range []string{"", "http://localhost", "http://localhost:", "http://localhost:0", "http://localhost:65536", "http://localhost:08400", "https://localhost:8400",
		"http://localhost:8400@evil.example", "http://localhost:8400.evil.example", "http://localhost.evil.example:8400", "http://evil.example:8400", "http://evil.example/?http://localhost:8400",
		"http://localhost:8400/x", "http://localhost:8400//evil.example", "http://localhost:8400\\@evil.example", "http://localhost:8400#x", "http://localhost:8400?x", "HTTP://localhost:8400",
		"http://user@localhost:8400", "//localhost:8400", "javascript:alert(1)//localhost:8400", "http://127.0.0.2:8400", "http://[::1]:8400", " http://localhost:8400", "http://localhost:8400\n",
		"http://localhost:+8400", "http://localhost:8400:8401", "urn:ietf:wg:oauth:2.0:oob"} {
		if _, err := s.ClientAt(t.Context(), azureCLI, bad); problem.Of(err) == nil {
			t.Errorf("a sign-in may lead to %q: %v", bad, err)
		}
		if _, err := s.ClientAt(t.Context(), app.AppID, bad); problem.Of(err) == nil {
			t.Errorf("a sign-in of an application may lead to %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"http://portal.example.com", "https://", "https://*.example.com", "https://a@example.com", "https://example.com/#x", "example.com", "https://example.com/ x",
		"javascript:alert(1)", "http://127.0.0.1.example.com/", "https://example.com/" + strings.Repeat("x", 1024)} {
		wantCode(t, s.SetRedirectURIs(t.Context(), app.AppID, []string{bad}), problem.Invalid, "InvalidRedirectURI")
	}
	wantCode(t, s.SetRedirectURIs(t.Context(), app.AppID, make([]string, 21)), problem.Invalid, "InvalidRedirectURI")
	_, err = s.ClientAt(t.Context(), "nobody", loopback)
	wantCode(t, err, problem.Unauthenticated, identity.CodeUnauthorizedClient)
}

func TestChallenges(t *testing.T) {
	for _, c := range []struct {
		challenge, method string
		public, ok        bool
	}{
		{challenge(verifier), "S256", true, true}, {challenge(verifier), "S256", false, true}, {"", "", false, true},
		{"", "", true, false}, {verifier, "plain", true, false}, {verifier, "", true, false}, {challenge(verifier), "s256", true, false},
		{"short", "S256", true, false}, {challenge(verifier) + "=", "S256", true, false}, {"", "S256", false, false},
	} {
		if err := (identity.Client{Public: c.public}).CheckChallenge(c.challenge, c.method); (err == nil) != c.ok {
			t.Errorf("%q by %q, public %t: %v", c.challenge, c.method, c.public, err)
		}
	}
}

func TestRefreshTokens(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		ada := addAda(t, s)
		begin := func() string {
			return must(s.Redeem(t.Context(), redemption(must(s.NewCode(t.Context(), ada, asked()))(t))))(t).RefreshToken
		}
		use := func(token string, w identity.Wanted) (identity.Session, error) {
			return s.Refresh(t.Context(), identity.RefreshRequest{ClientID: azureCLI, Token: token, Wanted: w})
		}
		refused := func(token, why string) {
			t.Helper()
			if _, err := use(token, identity.Wanted{}); problem.Of(err) == nil || problem.Of(err).Code != identity.CodeInvalidGrant {
				t.Errorf("%s: %v", why, err)
			}
		}
		first := begin()
		second := must(use(first, identity.Wanted{Audience: "https://vault.azure.net", Scope: "https://vault.azure.net/.default"}))(t)
		if second.Audience != "https://vault.azure.net" || second.IDToken != "" || second.RefreshToken == "" || second.RefreshToken == first {
			t.Errorf("another resource: %+v", second)
		}
		again := must(use(first, identity.Wanted{}))(t) // a client asks for two resources at once
		if again.Audience != audience || again.IDToken == "" {
			t.Errorf("the same resource: %+v", again)
		}
		c.Add(time.Minute)
		refused(first, "used again, later")
		refused(second.RefreshToken, "of a family in which one was used again")
		refused(again.RefreshToken, "of that family, too")

		other := begin()
		_, err := s.Refresh(t.Context(), identity.RefreshRequest{ClientID: powerShell, Token: other})
		wantCode(t, err, problem.Unauthenticated, identity.CodeInvalidGrant)
		refused(other[1:], "tampered with")
		for range 5 {
			c.Add(6 * 24 * time.Hour)
			if o, err := use(other, identity.Wanted{}); err == nil {
				other = o.RefreshToken
			} else if c.Now().Before(newClock().Now().Add(29 * 24 * time.Hour)) {
				t.Fatal(err)
			}
		}
		refused(other, "a month after the sign-in")
		idle := begin()
		c.Add(7 * 24 * time.Hour)
		refused(idle, "not used for a week")

		for name, end := range map[string]func(){
			"signed out":     func() { must(0, s.EndSessions(t.Context(), ada.ObjectID))(t) },
			"password reset": func() { must(s.ResetPassword(t.Context(), ada.ObjectID, text(passphrase)))(t) },
			"disabled": func() {
				must(0, s.SetDisabled(t.Context(), ada.ObjectID, true))(t)
				must(0, s.SetDisabled(t.Context(), ada.ObjectID, false))(t)
			},
			"deleted": func() {
				must(0, s.DeletePrincipal(t.Context(), ada.ObjectID))(t)
				ada = addAda(t, s)
			},
		} {
			o := must(s.Redeem(t.Context(), redemption(must(s.NewCode(t.Context(), ada, asked()))(t))))(t)
			end()
			refused(o.RefreshToken, name)
			if _, err := s.Verify(t.Context(), o.AccessToken, audience); problem.Of(err) == nil || problem.Of(err).Kind != problem.Unauthenticated {
				t.Errorf("the token of who was %s: %v", name, err)
			}
		}
	})
}

func TestDevices(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		c := newClock()
		s := newService(t, db, c)
		ada := addAda(t, s)
		begin := func() identity.Device {
			return must(s.NewDevice(t.Context(), identity.Wanted{ClientID: azureCLI, Audience: audience, OpenID: true, Offline: true}, "192.0.2.1"))(t)
		}
		poll := func(clientID, code, want string) {
			t.Helper()
			_, err := s.PollDevice(t.Context(), clientID, code)
			wantCode(t, err, problem.Unauthenticated, want)
		}
		d := begin()
		poll(azureCLI, d.Code, identity.CodePending)
		c.Add(4 * time.Second)
		poll(azureCLI, d.Code, identity.CodeSlowDown)
		c.Add(5 * time.Second)
		poll(azureCLI, d.Code, identity.CodePending)
		poll(powerShell, d.Code, identity.CodeInvalidGrant)
		poll(azureCLI, d.Code[1:], identity.CodeInvalidGrant)
		poll("nobody", d.Code, identity.CodeUnauthorizedClient)

		typed := strings.ToLower(strings.ReplaceAll(d.UserCode, "-", " "))
		if client, err := s.DeviceClient(t.Context(), typed, "192.0.2.1"); err != nil || client.Name != "Azure CLI" {
			t.Errorf("the client is %+v, %v", client, err)
		}
		must(0, s.AllowDevice(t.Context(), typed, ada))(t)
		wantCode(t, s.AllowDevice(t.Context(), typed, ada), problem.NotFound, identity.CodeInvalidGrant)
		o := must(s.PollDevice(t.Context(), azureCLI, d.Code))(t)
		if p, err := s.Verify(t.Context(), o.AccessToken, audience); err != nil || p != ada || o.RefreshToken == "" || o.IDToken == "" {
			t.Errorf("signed in %+v, %v", p, err)
		}
		poll(azureCLI, d.Code, identity.CodeInvalidGrant)

		d = begin()
		must(0, s.DenyDevice(t.Context(), d.UserCode))(t)
		poll(azureCLI, d.Code, identity.CodeAccessDenied)

		d = begin()
		must(0, s.AllowDevice(t.Context(), d.UserCode, ada))(t)
		must(0, s.EndSessions(t.Context(), ada.ObjectID))(t)
		poll(azureCLI, d.Code, identity.CodeInvalidGrant)

		d = begin()
		c.Add(15 * time.Minute)
		poll(azureCLI, d.Code, identity.CodeExpired)
		wantCode(t, s.AllowDevice(t.Context(), d.UserCode, ada), problem.NotFound, identity.CodeInvalidGrant)
		_, err := s.NewDevice(t.Context(), identity.Wanted{ClientID: "nobody", Audience: audience}, "192.0.2.1")
		wantCode(t, err, problem.Unauthenticated, identity.CodeUnauthorizedClient)
	})
}

// Who tries codes, or begins again and again, has to wait, and keeps nobody elsewhere waiting.
func TestTryingUserCodes(t *testing.T) {
	s := newService(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db"), newClock())
	w := identity.Wanted{ClientID: azureCLI, Audience: audience}
	d := must(s.NewDevice(t.Context(), w, "192.0.2.1"))(t)
	for range 20 {
		_, err := s.DeviceClient(t.Context(), "BCDF-GHJK", "192.0.2.1")
		wantCode(t, err, problem.NotFound, identity.CodeInvalidGrant)
	}
	_, err := s.DeviceClient(t.Context(), d.UserCode, "192.0.2.1")
	wantCode(t, err, problem.Unavailable, identity.CodeTryLater)
	must(s.DeviceClient(t.Context(), d.UserCode, "192.0.2.2"))(t)
	for range 19 {
		must(s.NewDevice(t.Context(), w, "192.0.2.1"))(t)
	}
	_, err = s.NewDevice(t.Context(), w, "192.0.2.1")
	wantCode(t, err, problem.Unavailable, identity.CodeTryLater)
	must(s.NewDevice(t.Context(), w, "192.0.2.2"))(t)
}
