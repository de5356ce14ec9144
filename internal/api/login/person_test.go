package login_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"kluis/internal/identity"
	"kluis/internal/secret"
)

const (
	azureCLI   = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	loopback   = "http://localhost:8400"
	passphrase = "correct horse battery staple"
	verifier   = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
	challenge  = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// addAda makes a person who signs in as ada.
func addAda(t *testing.T, s *identity.Service) identity.Principal {
	t.Helper()
	admin, _, _, err := s.Bootstrap(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := s.Directory().CreateUser(identity.With(t.Context(), admin), identity.NewUser{SignInName: "ada", Name: "Ada", Password: secret.New([]byte(passphrase))})
	if err != nil {
		t.Fatal(err)
	}
	return e.Principal
}

// browser is a person's: it keeps cookies, shows pages and fills in forms.
type browser struct {
	t       *testing.T
	h       http.Handler
	cookies map[string]string
	address string // of the page that it shows
	page    string
	header  http.Header
	status  int
}

func newBrowser(t *testing.T, h http.Handler) *browser {
	return &browser{t: t, h: h, cookies: map[string]string{}}
}

func (b *browser) do(r *http.Request) *browser {
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		b.cookies[c.Name] = c.Value
	}
	b.page, b.header, b.status = w.Body.String(), w.Header(), w.Code
	return b
}

func (b *browser) open(address string) *browser {
	b.address = address
	return b.do(httptest.NewRequest(http.MethodGet, address, nil))
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// submit fills in the form of the page that is shown, and sends it.
func (b *browser) submit(pairs ...string) *browser {
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(b.page, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, b.address, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// led is where the browser is sent, and what it brings along.
func (b *browser) led() url.Values {
	b.t.Helper()
	u, err := url.Parse(b.header.Get("Location"))
	if err != nil || b.status != http.StatusSeeOther || u.Scheme+"://"+u.Host != loopback {
		b.t.Fatalf("%d %v %s", b.status, b.header, b.page)
	}
	return u.Query()
}

// authorizeURL is what az opens, with changes; an empty value leaves a parameter out.
func authorizeURL(pairs ...string) string {
	q := url.Values{"client_id": {azureCLI}, "response_type": {"code"}, "redirect_uri": {loopback}, "scope": {base + "/.default openid profile offline_access"},
		"state": {"s&<1>"}, "nonce": {"n-1"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"}, "prompt": {"select_account"}}
	for i := 0; i+1 < len(pairs); i += 2 {
		if q.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			q.Del(pairs[i])
		}
	}
	return base + "/organizations/oauth2/v2.0/authorize?" + q.Encode()
}

// A person signs in to az, at last with the right password, and az fetches its tokens.
func TestAuthorizationCode(t *testing.T) {
	var log strings.Builder
	s, _, _ := newIdentity(t, base)
	ada := addAda(t, s)
	h := newHandler(s, &log)
	b := newBrowser(t, h).open(authorizeURL("login_hint", `ada"><script>`))
	if b.status != http.StatusOK || !strings.Contains(b.page, "Azure CLI") || strings.Contains(b.page, "<script") {
		t.Fatalf("%d %s", b.status, b.page)
	}
	if b.submit("username", "ada", "password", "hunter2-hunter2", "action", "allow"); b.status != http.StatusUnauthorized || !strings.Contains(b.page, "wrong") || !strings.Contains(b.page, `value="ada"`) {
		t.Errorf("wrong password: %d %s", b.status, b.page)
	}
	got := b.submit("username", "ada", "password", passphrase, "action", "allow").led()
	if got.Get("state") != "s&<1>" || got.Get("code") == "" {
		t.Fatalf("led back with %v", got)
	}
	status, body, header := send(t, h, "POST", "/organizations/oauth2/v2.0/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {azureCLI},
		"code": {got.Get("code")}, "redirect_uri": {loopback}, "code_verifier": {verifier}, "client_info": {"1"}, "scope": {base + "/.default openid profile offline_access"}})
	if status != http.StatusOK || header.Get("Cache-Control") != "no-store" || body["id_token"] == nil || body["refresh_token"] == nil || body["principal"] != nil ||
		body["scope"] != base+"/.default openid profile offline_access" {
		t.Fatalf("%d %v", status, body)
	}
	info, err := base64.RawURLEncoding.DecodeString(body["client_info"].(string))
	if err != nil || string(info) != `{"uid":"`+ada.ObjectID+`","utid":"`+tenant+`"}` {
		t.Errorf("client_info is %s, %v", info, err)
	}
	status, body, _ = send(t, h, "POST", "/"+tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {azureCLI},
		"refresh_token": {body["refresh_token"].(string)}, "scope": {"https://vault.azure.net/.default openid"}})
	if status != http.StatusOK || body["resource"] != "https://vault.azure.net" || body["id_token"] == nil || body["client_info"] != nil {
		t.Errorf("%d %v", status, body)
	}
	access, _ := body["access_token"].(string)
	if p, err := s.Verify(t.Context(), access, "https://vault.azure.net"); err != nil || p != ada {
		t.Errorf("the token is of %+v, %v", p, err)
	}
	for _, leak := range []string{"hunter2", passphrase, "eyJ", got.Get("code"), verifier} {
		if strings.Contains(log.String(), leak) {
			t.Errorf("the log holds %s", leak)
		}
	}
	for _, line := range []string{"sign-in refused", "msg=\"signed in\" principal=" + ada.ObjectID + " user=ada client=" + azureCLI, "grant=refresh_token"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log does not say %s: %s", line, &log)
		}
	}
}

// The page can't be framed, has no scripts, leads nowhere but to the client, and its form is of no use without its cookie.
func TestSignInPage(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	addAda(t, s)
	h := newHandler(s, &strings.Builder{})
	b := newBrowser(t, h).open(authorizeURL())
	css := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(b.page)
	sum := sha256.Sum256([]byte(css[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' " + loopback
	if got := b.header.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy %s, want %s", got, want)
	}
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if b.header.Get(name) != want {
			t.Errorf("%s is %q", name, b.header.Get(name))
		}
	}
	if c := b.header.Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-") || !strings.Contains(c, "Path=/; HttpOnly; Secure; SameSite=Strict") {
		t.Errorf("cookie %s", c)
	}
	old := *b
	for name, attack := range map[string]func(b *browser){
		"no cookie":       func(b *browser) { b.cookies = map[string]string{} },
		"another cookie":  func(b *browser) { b.cookies = map[string]string{"__Host-kluis-form": strings.Repeat("A", 43)} },
		"an empty cookie": func(b *browser) { b.cookies = map[string]string{"__Host-kluis-form": ""}; b.page = "" },
		"no value":        func(b *browser) { b.page = "" },
	} {
		b := old
		attack(&b)
		if b.submit("username", "ada", "password", passphrase, "action", "allow"); b.status != http.StatusForbidden || b.header.Get("Location") != "" {
			t.Errorf("%s: %d", name, b.status)
		}
	}
	r := httptest.NewRequest(http.MethodPost, b.address, strings.NewReader(url.Values{"csrf": {b.cookies["__Host-kluis-form"]}, "username": {"ada"}, "password": {passphrase}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if b.do(r); b.status != http.StatusForbidden {
		t.Errorf("from another site: %d", b.status)
	}
}

// What is wrong with client or redirect URI is told to the person, who is sent nowhere; the rest is told to the client.
func TestAuthorizationRefusals(t *testing.T) {
	s, appID, _ := newIdentity(t, base)
	h := newHandler(s, &strings.Builder{})
	for name, address := range map[string]string{
		"an unknown client":        authorizeURL("client_id", "nobody"),
		"no client":                authorizeURL("client_id", ""),
		"an application without":   authorizeURL("client_id", appID),
		"elsewhere":                authorizeURL("redirect_uri", "https://evil.example/"),
		"elsewhere, disguised":     authorizeURL("redirect_uri", "http://localhost:8400@evil.example"),
		"a script":                 authorizeURL("redirect_uri", "javascript:alert(1)"),
		"nowhere":                  authorizeURL("redirect_uri", ""),
		"two redirect URIs":        authorizeURL() + "&redirect_uri=https://evil.example/",
		"two states":               authorizeURL() + "&state=2",
		"no query":                 base + "/common/oauth2/v2.0/authorize",
		"a query that is none":     base + "/common/oauth2/v2.0/authorize?a=%zz",
		"another tenant":           base + "/5a0c3c1e-0000-4000-8000-000000000000/oauth2/v2.0/authorize?client_id=" + azureCLI,
		"elsewhere, with an error": authorizeURL("redirect_uri", "https://evil.example/", "response_type", "token"),
	} {
		if b := newBrowser(t, h).open(address); b.status != http.StatusBadRequest || b.header.Get("Location") != "" || strings.Contains(b.page, `href="`) || strings.Contains(b.page, "<form") {
			t.Errorf("%s: %d %v", name, b.status, b.header)
		}
	}
	for name, c := range map[string]struct{ address, code string }{
		"a token at once":      {authorizeURL("response_type", "token"), "unsupported_response_type"},
		"in the fragment":      {authorizeURL("response_mode", "fragment"), "invalid_request"},
		"no challenge":         {authorizeURL("code_challenge", "", "code_challenge_method", ""), "invalid_request"},
		"a plain challenge":    {authorizeURL("code_challenge", verifier, "code_challenge_method", "plain"), "invalid_request"},
		"a challenge unnamed":  {authorizeURL("code_challenge_method", ""), "invalid_request"},
		"without a page":       {authorizeURL("prompt", "none"), "interaction_required"},
		"no scope":             {authorizeURL("scope", ""), "invalid_request"},
		"only OpenID's scopes": {authorizeURL("scope", "openid"), "invalid_request"},
		"a scope of nothing":   {authorizeURL("scope", "https://elsewhere.example/.default"), "invalid_resource"},
		"two resources":        {authorizeURL("scope", base+"/.default https://vault.azure.net/.default"), "invalid_scope"},
		"another scope":        {authorizeURL("scope", base+"/everything"), "invalid_scope"},
		"a long scope":         {authorizeURL("scope", strings.Repeat("openid ", 300)), "invalid_scope"},
		"a long nonce":         {authorizeURL("nonce", strings.Repeat("n", 5000)), "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := newBrowser(t, h).open(c.address).led(); got.Get("error") != c.code || !strings.HasPrefix(got.Get("error_description"), "AADSTS") || got.Get("code") != "" {
				t.Errorf("%v, want %s", got, c.code)
			}
		})
	}
	if got := newBrowser(t, h).open(authorizeURL()).submit("action", "cancel").led(); got.Get("error") != "access_denied" || got.Get("state") != "s&<1>" {
		t.Errorf("cancelled: %v", got)
	}
}

// Who asked for the answer as a form gets one, which works without the script, too.
func TestFormPost(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	addAda(t, s)
	b := newBrowser(t, newHandler(s, &strings.Builder{})).open(authorizeURL("response_mode", "form_post")).submit("username", "ada", "password", passphrase, "action", "allow")
	if b.status != http.StatusOK || !strings.Contains(b.page, `<form method="post" action="`+loopback+`">`) || !strings.Contains(b.page, `name="code"`) ||
		!strings.Contains(b.page, `name="state" value="s&amp;&lt;1&gt;"`) || !strings.HasSuffix(b.header.Get("Content-Security-Policy"), "form-action 'self' "+loopback) || !strings.HasPrefix(b.header.Get("Content-Security-Policy"), "script-src 'self'; ") {
		t.Errorf("%d %v %s", b.status, b.header, b.page)
	}
	if b.open(base + "/" + tenant + "/oauth2/continue.js"); b.status != http.StatusOK || !strings.Contains(b.page, "submit()") || !strings.HasPrefix(b.header.Get("Content-Type"), "text/javascript") {
		t.Errorf("the script: %d %s", b.status, b.page)
	}
}

func TestSignInIsLimited(t *testing.T) {
	s, _, _ := newIdentity(t, base)
	addAda(t, s)
	b := newBrowser(t, newHandler(s, &strings.Builder{})).open(authorizeURL())
	for range 10 {
		if b.submit("username", "ada", "password", "wrong", "action", "allow"); b.status != http.StatusUnauthorized {
			t.Fatalf("%d %s", b.status, b.page)
		}
	}
	if b.submit("username", "ada", "password", passphrase, "action", "allow"); b.status != http.StatusTooManyRequests || b.header.Get("Location") != "" {
		t.Errorf("%d %v", b.status, b.header)
	}
}

// A program without a browser asks again and again, while a person enters its code elsewhere.
func TestDeviceCode(t *testing.T) {
	var log strings.Builder
	s, _, _ := newIdentity(t, base)
	ada := addAda(t, s)
	h := newHandler(s, &log)
	for _, path := range []string{"/organizations/oauth2/v2.0", "/" + tenant + "/oauth2", "/adfs/oauth2"} {
		begin := func() (device map[string]any, poll func() (int, map[string]any)) {
			status, device, _ := send(t, h, "POST", path+"/devicecode", url.Values{"client_id": {azureCLI}, "scope": {base + "/.default openid offline_access"}})
			if status != http.StatusOK || device["interval"] != 5.0 || device["expires_in"] != 900.0 {
				t.Fatalf("%d %v", status, device)
			}
			return device, func() (int, map[string]any) {
				status, body, _ := send(t, h, "POST", path+"/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {azureCLI},
					"device_code": {device["device_code"].(string)}})
				return status, body
			}
		}
		device, poll := begin()
		if status, body := poll(); status != http.StatusBadRequest || body["error"] != identity.CodePending {
			t.Errorf("%d %v", status, body)
		}
		if status, body := poll(); status != http.StatusBadRequest || body["error"] != identity.CodeSlowDown {
			t.Errorf("%d %v", status, body)
		}
		userCode := device["user_code"].(string)
		b := newBrowser(t, h).open(device["verification_uri_complete"].(string))
		if b.status != http.StatusOK || !strings.Contains(b.page, `value="`+userCode+`"`) || strings.Contains(b.page, "password") {
			t.Fatalf("%d %s", b.status, b.page)
		}
		if b.submit("user_code", "BCDF-GHJK"); b.status != http.StatusBadRequest || !strings.Contains(b.page, "no such code") {
			t.Errorf("another code: %d %s", b.status, b.page)
		}
		if b.submit("user_code", strings.ToLower(userCode)); b.status != http.StatusOK || !strings.Contains(b.page, "Azure CLI") {
			t.Fatalf("%d %s", b.status, b.page)
		}
		if b.submit("username", "ada", "password", "wrong", "action", "allow"); b.status != http.StatusUnauthorized {
			t.Errorf("wrong password: %d", b.status)
		}
		if b.submit("username", "ada", "password", passphrase, "action", "allow"); b.status != http.StatusOK || !strings.Contains(b.page, "You are signed in") {
			t.Fatalf("%d %s", b.status, b.page)
		}
		status, body := poll()
		access, _ := body["access_token"].(string)
		if p, err := s.Verify(t.Context(), access, base); status != http.StatusOK || err != nil || p != ada {
			t.Errorf("%d %v: %+v, %v", status, body, p, err)
		}
		device, poll = begin()
		b = newBrowser(t, h).open(device["verification_uri_complete"].(string)).submit("user_code", device["user_code"].(string)).submit("action", "cancel")
		if status, body := poll(); b.status != http.StatusOK || status != http.StatusBadRequest || body["error"] != identity.CodeAccessDenied {
			t.Errorf("%d, %d %v", b.status, status, body)
		}
	}
	for name, form := range map[string]url.Values{"no client": {"scope": {base + "/.default"}}, "no scope": {"client_id": {azureCLI}}, "another client": {"client_id": {"x"}, "scope": {base + "/.default"}}} {
		if status, body, _ := send(t, h, "POST", "/common/oauth2/v2.0/devicecode", form); status != http.StatusBadRequest || body["device_code"] != nil {
			t.Errorf("%s: %d %v", name, status, body)
		}
	}
	if strings.Contains(log.String(), passphrase) || strings.Contains(log.String(), "eyJ") {
		t.Error("the log tells secrets")
	}
}

// A person finds the page where he changes his password, and signs in with the new one.
func TestChangePassword(t *testing.T) {
	var log strings.Builder
	s, _, _ := newIdentity(t, base)
	addAda(t, s)
	h := newHandler(s, &log)
	link := regexp.MustCompile(`<a href="([^"]*)">Change your password`).FindStringSubmatch(newBrowser(t, h).open(authorizeURL()).page)
	b := newBrowser(t, h).open(base + link[1])
	const chosen = "a staple of correct horses"
	for name, c := range map[string]struct {
		password, chosen, again string
		status                  int
	}{
		"a wrong password": {"wrong", chosen, chosen, http.StatusUnauthorized},
		"two that differ":  {passphrase, chosen, chosen + "x", http.StatusBadRequest},
		"a short one":      {passphrase, "short", "short", http.StatusBadRequest},
		"none":             {passphrase, "", "", http.StatusBadRequest},
	} {
		if b.submit("username", "ada", "password", c.password, "chosen", c.chosen, "again", c.again); b.status != c.status || !strings.Contains(b.page, `role="alert"`) {
			t.Errorf("%s: %d %s", name, b.status, b.page)
		}
	}
	if b.submit("username", "ada", "password", passphrase, "chosen", chosen, "again", chosen); b.status != http.StatusOK || !strings.Contains(b.page, "is changed") {
		t.Fatalf("%d %s", b.status, b.page)
	}
	newBrowser(t, h).open(authorizeURL()).submit("username", "ada", "password", chosen, "action", "allow").led()
	if !strings.Contains(log.String(), "password changed") || strings.Contains(log.String(), chosen) || strings.Contains(log.String(), passphrase) {
		t.Errorf("log is %s", &log)
	}
}
