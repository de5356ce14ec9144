package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// maxForm is the most that a token request may hold.
const maxForm = 64 << 10

// assertionType is the one kind of client_assertion there is (RFC 7523).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// token trades a client's secret or assertion for a token.
func (d *door) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	tenant, rest := split(r.URL.Path)
	if !d.isTenant(tenant) {
		d.fail(w, r, http.StatusBadRequest, unknownTenant(tenant))
		return
	}
	q, err := d.readTokenRequest(w, r)
	if err != nil {
		d.failWith(w, r, q.clientID, err)
		return
	}
	var t identity.Token
	if q.assertion != "" {
		t, err = d.identity.ClientAssertion(r.Context(), q.clientID, q.assertion, d.tokenEndpoints(), q.audience)
	} else {
		t, err = d.identity.ClientCredentials(r.Context(), q.clientID, q.clientSecret, q.audience)
		q.clientSecret.Wipe()
	}
	if err != nil {
		d.failWith(w, r, q.clientID, err)
		return
	}
	d.options.Logger.LogAttrs(r.Context(), slog.LevelInfo, "token issued",
		slog.String("client", q.clientID), slog.String("audience", t.Audience), slog.String("correlation", correlation(r)))
	d.write(w, http.StatusOK, tokenBody(t, tenant != adfs && rest == "/oauth2/token"))
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

type tokenRequest struct {
	clientID     string
	clientSecret secret.Bytes
	assertion    string
	audience     string
}

// readTokenRequest reads the form, and nothing from the query string: what is in a URL ends up in logs.
func (d *door) readTokenRequest(w http.ResponseWriter, r *http.Request) (q tokenRequest, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return q, oauthError{"invalid_request", 900144, "The request body is too large."}
		}
		return q, oauthError{"invalid_request", 900144, "The request body must be a form, application/x-www-form-urlencoded."}
	}
	form := r.PostForm
	q.clientID = form.Get("client_id")
	q.clientSecret = secret.New([]byte(form.Get("client_secret")))
	if user, password, ok := r.BasicAuth(); ok { // RFC 6749, 2.3.1: both are form-encoded first
		id, idErr := url.QueryUnescape(user)
		pass, passErr := url.QueryUnescape(password)
		if idErr != nil || passErr != nil {
			return q, oauthError{"invalid_request", 900144, "The client credentials in the Authorization header are malformed."}
		}
		q.clientID, q.clientSecret = id, secret.New([]byte(pass))
	}
	switch grant := form.Get("grant_type"); {
	case grant == "":
		return q, missing("grant_type")
	case grant != "client_credentials":
		return q, oauthError{"unsupported_grant_type", 70003, "The app requested an unsupported grant type '" + clip(grant) + "'. Use 'client_credentials'."}
	case q.clientID == "":
		return q, missing("client_id")
	case form.Get("client_assertion") != "" && form.Get("client_assertion_type") != assertionType:
		return q, oauthError{"invalid_request", 900144, "The request body must contain the following parameter: 'client_assertion_type', with the value '" + assertionType + "'."}
	case form.Get("client_assertion") != "":
		q.assertion = form.Get("client_assertion")
	case q.clientSecret.Len() == 0:
		return q, oauthError{"invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."}
	}
	q.audience, err = d.readAudience(form)
	return q, err
}

// readAudience takes it from resource (v1) or from scope, which is one "<audience>/.default" and
// perhaps OpenID's own words.
func (d *door) readAudience(form url.Values) (string, error) {
	if resource := form.Get("resource"); resource != "" {
		return d.checkAudience(resource)
	}
	var found []string
	for _, scope := range strings.Fields(form.Get("scope")) {
		switch scope {
		case "openid", "profile", "email", "offline_access":
		default:
			found = append(found, scope)
		}
	}
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

// authorize is where people sign in elsewhere; discovery has to name it.
func (d *door) authorize(w http.ResponseWriter, r *http.Request) {
	d.fail(w, r, http.StatusBadRequest, oauthError{"unsupported_response_type", 700054, "Only applications sign in here, with client credentials at the token endpoint."})
}

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
	var o oauthError
	status := http.StatusBadRequest
	if p := problem.Of(err); p != nil {
		o = fromProblem(p)
	} else if !errors.As(err, &o) {
		d.options.Logger.LogAttrs(r.Context(), slog.LevelError, "token request failed",
			slog.String("client", clip(clientID)), slog.String("correlation", correlation(r)), slog.String("error", err.Error()))
		o, status = oauthError{"server_error", 90033, "A transient error has occurred. Please try again."}, http.StatusInternalServerError
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
	d.options.Logger.LogAttrs(r.Context(), slog.LevelInfo, "token refused",
		slog.String("client", clip(clientID)), slog.String("code", o.Code), slog.Int("number", o.Number), slog.String("correlation", correlation(r)))
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

func clip(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}
