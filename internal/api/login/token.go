package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// The most that a form and a scope may hold.
const (
	maxForm  = 64 << 10
	maxScope = 2 << 10
)

// assertionType is the one kind of client_assertion there is (RFC 7523).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// The grants that there are, and the second name of one, which older clients send.
const (
	grantClient    = "client_credentials"
	grantCode      = "authorization_code"
	grantRefresh   = "refresh_token"
	grantDevice    = "urn:ietf:params:oauth:grant-type:device_code"
	grantOldDevice = "device_code"
)

// token trades what a client has for a token.
func (d *door) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	tenant, rest := split(r.URL.Path)
	if !d.isShared(tenant) {
		d.fail(w, r, http.StatusBadRequest, unknownTenant(tenant))
		return
	}
	form, err := d.readTokenForm(w, r)
	if err != nil {
		d.failWith(w, r, "", err)
		return
	}
	q, err := d.readClient(r, form)
	defer q.proof.Secret.Wipe()
	var body map[string]any
	if err == nil {
		body, err = d.grant(r, q, form, tenant != adfs && rest == "/oauth2/token")
	}
	if err != nil {
		d.failWith(w, r, q.id, err)
		return
	}
	d.options.Logger.LogAttrs(r.Context(), slog.LevelInfo, "token issued", slog.String("client", q.id), slog.String("grant", form.Get("grant_type")),
		slog.Any("audience", body["resource"]), slog.Any("principal", body["principal"]), slog.String("agent", arm.Agent(r)), slog.String("correlation", correlation(r)))
	delete(body, "principal")
	d.write(w, http.StatusOK, body)
}

// grant answers one of the grants.
func (d *door) grant(r *http.Request, q tokenClient, form url.Values, v1 bool) (map[string]any, error) {
	var s identity.Session
	var err error
	switch grant := form.Get("grant_type"); grant {
	case grantClient:
		return d.grantToApplication(r, q, form, v1)
	case grantCode:
		s, err = d.redeem(r, q, form)
	case grantRefresh:
		s, err = d.refresh(r, q, form)
	case grantDevice, grantOldDevice:
		code := form.Get("device_code")
		if code == "" && grant == grantOldDevice {
			code = form.Get("code")
		}
		s, err = d.identity.PollDevice(r.Context(), q.id, code)
	case "":
		return nil, missing("grant_type")
	default:
		return nil, oauthError{"unsupported_grant_type", 70003, "The app requested an unsupported grant type '" + clip(grant) + "'."}
	}
	if err != nil {
		return nil, err
	}
	return sessionBody(s, form.Get("client_info") == "1", v1), nil
}

func (d *door) grantToApplication(r *http.Request, q tokenClient, form url.Values, v1 bool) (map[string]any, error) {
	if q.proof.Secret.Len() == 0 && q.proof.Assertion == "" {
		return nil, oauthError{"invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	audience, err := d.readAudience(form)
	if err != nil {
		return nil, err
	}
	var t identity.Token
	if q.proof.Assertion != "" {
		t, err = d.identity.ClientAssertion(r.Context(), q.id, q.proof.Assertion, q.proof.Endpoints, audience)
	} else {
		t, err = d.identity.ClientCredentials(r.Context(), q.id, q.proof.Secret, audience)
	}
	return tokenBody(t, v1), err
}

// redeem trades an authorization code. What the client says it wants must be what the code is for.
func (d *door) redeem(r *http.Request, q tokenClient, form url.Values) (identity.Session, error) {
	wanted, err := d.readWantedAgain(form)
	if err != nil {
		return identity.Session{}, err
	}
	return d.identity.Redeem(r.Context(), identity.Redemption{ClientID: q.id, Proof: q.proof, Code: form.Get("code"),
		RedirectURI: form.Get("redirect_uri"), Verifier: form.Get("code_verifier"), Audience: wanted.Audience})
}

func (d *door) refresh(r *http.Request, q tokenClient, form url.Values) (identity.Session, error) {
	wanted, err := d.readWantedAgain(form)
	if err != nil {
		return identity.Session{}, err
	}
	return d.identity.Refresh(r.Context(), identity.RefreshRequest{ClientID: q.id, Proof: q.proof, Token: form.Get("refresh_token"), Wanted: wanted})
}

// sessionBody is the answer to who acts in a person's name.
func sessionBody(s identity.Session, clientInfo, v1 bool) map[string]any {
	body := tokenBody(s.Token, v1)
	body["principal"] = s.Person.ObjectID // for the log
	body["scope"] = s.Scope
	if s.IDToken != "" {
		body["id_token"] = s.IDToken
	}
	if s.RefreshToken != "" {
		body["refresh_token"] = s.RefreshToken
	}
	if clientInfo { // MSAL's name for an account
		info, _ := json.Marshal(map[string]string{"uid": s.Person.ObjectID, "utid": s.Person.TenantID}) // strings never fail
		body["client_info"] = base64.RawURLEncoding.EncodeToString(info)
	}
	return body
}

// tokenEndpoints are what an assertion may be for, in lower case: the endpoints under the names by which the server
// was configured, never under one that a request brings along. Else whoever got an assertion that was meant for him
// could pass it on.
func (d *door) tokenEndpoints() (all []string) {
	for _, base := range d.options.Bases {
		for _, tenant := range []string{d.identity.Tenant(), "common", "organizations", adfs} {
			all = append(all, base+"/"+tenant+"/oauth2/v2.0/token", base+"/"+tenant+"/oauth2/token")
		}
		all = append(all, base+"/"+d.identity.Tenant()+"/v2.0")
	}
	for i, endpoint := range all {
		all[i] = strings.ToLower(endpoint)
	}
	return all
}

// tokenBody is the answer. Entra v1 writes its numbers as strings, and its clients read them so.
func tokenBody(t identity.Token, v1 bool) map[string]any {
	number := func(n int64) any {
		if v1 {
			return strconv.FormatInt(n, 10)
		}
		return n
	}
	return map[string]any{
		"token_type":     "Bearer",
		"access_token":   t.AccessToken,
		"expires_in":     number(int64(t.ExpiresIn)),
		"ext_expires_in": number(int64(t.ExpiresIn)),
		"expires_on":     number(t.ExpiresOn.Unix()),
		"not_before":     number(t.NotBefore.Unix()),
		"resource":       t.Audience,
	}
}

// tokenClient is who asks, and how it proves itself.
type tokenClient struct {
	id    string
	proof identity.Proof
}

// readTokenForm reads the form, and nothing from the query string: what is in a URL ends up in logs.
func (d *door) readTokenForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, oauthError{"invalid_request", 900144, "The request body is too large."}
		}
		return nil, oauthError{"invalid_request", 900144, "The request body must be a form, application/x-www-form-urlencoded."}
	}
	return r.PostForm, nil
}

// readClient takes who asks from the form, or from the header.
func (d *door) readClient(r *http.Request, form url.Values) (q tokenClient, err error) {
	q.id = form.Get("client_id")
	q.proof = identity.Proof{Secret: secret.New([]byte(form.Get("client_secret"))), Assertion: form.Get("client_assertion"), Endpoints: d.tokenEndpoints()}
	if user, password, ok := r.BasicAuth(); ok { // RFC 6749, 2.3.1: both are form-encoded first
		id, idErr := url.QueryUnescape(user)
		pass, passErr := url.QueryUnescape(password)
		if idErr != nil || passErr != nil {
			return q, oauthError{"invalid_request", 900144, "The client credentials in the Authorization header are malformed."}
		}
		q.id, q.proof.Secret = id, secret.New([]byte(pass))
	}
	switch {
	case form.Get("grant_type") == "":
		return q, missing("grant_type")
	case q.id == "":
		return q, missing("client_id")
	case q.proof.Assertion != "" && form.Get("client_assertion_type") != assertionType:
		return q, oauthError{"invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type', with the value '" + assertionType + "'."}
	}
	return q, nil
}

// OpenID's own words in a scope; what else stands there names a resource.
const (
	scopeOpenID  = "openid"
	scopeOffline = "offline_access"
)

func isOpenIDScope(word string) bool {
	return word == scopeOpenID || word == scopeOffline || word == "profile" || word == "email"
}

// readWanted takes from a request what a client wants of a person: tokens for one resource, which is named by resource
// (v1), or by scope, with /.default or /user_impersonation, which mean the same here. Clients of v1 get everything unasked.
func (d *door) readWanted(values url.Values) (w identity.Wanted, err error) {
	w.Scope = values.Get("scope")
	if len(w.Scope) > maxScope {
		return w, oauthError{identity.CodeInvalidScope, 70011, "The scope is too long."}
	}
	if resource := values.Get("resource"); resource != "" {
		w.OpenID, w.Offline = true, true
		w.Audience, err = d.checkAudience(resource)
		return w, err
	}
	words := strings.Fields(w.Scope)
	w.OpenID, w.Offline = slices.Contains(words, scopeOpenID), slices.Contains(words, scopeOffline)
	for _, word := range slices.DeleteFunc(words, isOpenIDScope) {
		resource, found := strings.CutSuffix(word, "/.default")
		if !found {
			resource, found = strings.CutSuffix(word, "/user_impersonation")
		}
		if !found {
			return w, oauthError{identity.CodeInvalidScope, 70011, "The provided value for scope '" + clip(word) + "' is not valid. It ends in '/.default' or '/user_impersonation'."}
		}
		audience, err := d.checkAudience(resource)
		if err != nil {
			return w, err
		}
		if w.Audience != "" && w.Audience != audience {
			return w, oauthError{identity.CodeInvalidScope, 70011, "The provided value for the input parameter 'scope' names more than one resource."}
		}
		w.Audience = audience
	}
	if w.Audience == "" {
		return w, missing("scope")
	}
	return w, nil
}

// readWantedAgain is readWanted where a client may leave out the resource: it means the same as before.
func (d *door) readWantedAgain(values url.Values) (identity.Wanted, error) {
	if values.Get("resource") == "" && !slices.ContainsFunc(strings.Fields(values.Get("scope")), func(word string) bool { return !isOpenIDScope(word) }) {
		return identity.Wanted{}, nil
	}
	return d.readWanted(values)
}

// readAudience takes it from resource (v1) or from scope, which is one "<audience>/.default" and
// perhaps OpenID's own words.
func (d *door) readAudience(form url.Values) (string, error) {
	if resource := form.Get("resource"); resource != "" {
		return d.checkAudience(resource)
	}
	found := slices.DeleteFunc(strings.Fields(form.Get("scope")), isOpenIDScope)
	switch {
	case len(found) == 0:
		return "", missing("scope")
	case len(found) > 1:
		return "", oauthError{identity.CodeInvalidScope, 70011, "The provided value for the input parameter 'scope' names more than one resource."}
	case !strings.HasSuffix(found[0], "/.default"):
		return "", oauthError{identity.CodeInvalidScope, 1002012, "The provided value for scope '" + clip(found[0]) + "' is not valid. Client credential flows must have a scope value with '/.default' suffixed to the resource identifier."}
	}
	return d.checkAudience(found[0])
}

// checkAudience wants something that takes tokens here.
func (d *door) checkAudience(resource string) (string, error) {
	audience := identity.Audience(resource)
	if audience == "" || !d.options.Takes(audience) {
		return "", oauthError{"invalid_resource", 500011, "The resource principal named '" + clip(resource) + "' was not found in the tenant."}
	}
	return audience, nil
}

func notPrintable(r rune) bool { return r <= 0x20 || r >= 0x7f }

// Authenticate returns a function that reads the bearer token of a request and puts its principal in
// the context, for doors that need one. The audiences are those that the door accepts.
func Authenticate(s *identity.Service, audiences func(r *http.Request) []string) func(context.Context, *http.Request) (context.Context, error) {
	return func(ctx context.Context, r *http.Request) (context.Context, error) {
		p, err := s.Verify(ctx, Bearer(r), audiences(r)...)
		if err != nil {
			return ctx, err
		}
		return identity.With(ctx, p), nil
	}
}

// Bearer returns the bearer token of a request, or "".
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// failWith answers with an error of this package or of identity.
func (d *door) failWith(w http.ResponseWriter, r *http.Request, clientID string, err error) {
	o, status := asOAuth(err), http.StatusBadRequest
	if o.Code == codeServerError {
		d.logDefect(r, err)
		status = http.StatusInternalServerError
	}
	if o.Code == identity.CodeTryLater {
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "30")
	}
	if o.Code == identity.CodeInvalidClient {
		status = http.StatusUnauthorized
		if r.Header.Get("Authorization") != "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
		}
	}
	level := slog.LevelInfo
	if o.Code == identity.CodePending || o.Code == identity.CodeSlowDown {
		level = slog.LevelDebug // devices ask every few seconds
	}
	d.options.Logger.LogAttrs(r.Context(), level, "token refused",
		slog.String("client", clip(clientID)), slog.String("code", o.Code), slog.Int("number", o.Number), slog.String("agent", arm.Agent(r)), slog.String("correlation", correlation(r)))
	d.fail(w, r, status, o)
}

// oauthError is an error as token endpoints write it.
type oauthError struct {
	Code   string // OAuth's
	Number int    // Entra's, AADSTS…
	Text   string
}

func (e oauthError) Error() string { return fmt.Sprintf("AADSTS%d: %s", e.Number, e.Text) }

func missing(name string) oauthError {
	return oauthError{"invalid_request", 900144, "The request body must contain the following parameter: '" + name + "'."}
}

func unknownTenant(tenant string) oauthError {
	return oauthError{"invalid_request", 90002, "Tenant '" + clip(tenant) + "' not found. Check to make sure you have the correct tenant ID."}
}

const codeServerError = "server_error"

// asOAuth is an error of this package or of identity as OAuth has it. Of any other nobody outside learns more.
func asOAuth(err error) oauthError {
	var o oauthError
	if p := problem.Of(err); p != nil {
		return fromProblem(p)
	}
	if errors.As(err, &o) {
		return o
	}
	return oauthError{codeServerError, 90033, "A transient error has occurred. Please try again."}
}

// logDefect writes down an error that is nobody's fault but ours.
func (d *door) logDefect(r *http.Request, err error) {
	if asOAuth(err).Code == codeServerError {
		d.options.Logger.LogAttrs(r.Context(), slog.LevelError, "sign-in failed", slog.String("correlation", correlation(r)), slog.String("error", err.Error()))
	}
}

// fromProblem splits Entra's number from an identity problem's message.
func fromProblem(p *problem.Error) oauthError {
	number, text, found := strings.Cut(strings.TrimPrefix(p.Message, "AADSTS"), ": ")
	n, err := strconv.Atoi(number)
	if !found || err != nil {
		return oauthError{p.Code, 50000, p.Message}
	}
	return oauthError{p.Code, n, text}
}

func (d *door) fail(w http.ResponseWriter, r *http.Request, status int, e oauthError) {
	body := map[string]any{"error": e.Code, "error_codes": []int{e.Number}, "correlation_id": correlation(r)}
	description := e.Error()
	if d.options.NewID != nil {
		trace := d.options.NewID()
		body["trace_id"] = trace
		description += " Trace ID: " + trace
	}
	if d.options.Now != nil {
		now := d.options.Now().UTC().Format("2006-01-02 15:04:05Z")
		body["timestamp"] = now
		description += " Timestamp: " + now
	}
	body["error_description"] = description
	d.write(w, status, body)
}

// correlation is the client's own id of the request, if it sent a sane one.
func correlation(r *http.Request) string {
	id := r.Header.Get("Client-Request-Id")
	if len(id) > 128 || strings.ContainsFunc(id, notPrintable) {
		return ""
	}
	return id
}

func clip(s string) string { return clipTo(s, 200) }

func clipTo(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}
