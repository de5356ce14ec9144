package login

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// maxState bounds what clients get back unread.
const maxState = 4 << 10

// authorization is a client's request that a person sign in (RFC 6749, 4.1.1, with OpenID Connect's additions).
type authorization struct {
	wanted          identity.Wanted
	responseType    string
	responseMode    string
	challenge       string
	challengeMethod string
	state           string
	prompt          string
	hint            string // the person's name, perhaps
}

// parseAuthorization takes the query apart. Nothing in it is checked but that nothing is said twice.
func parseAuthorization(query string) (a authorization, values url.Values, err error) {
	if values, err = url.ParseQuery(query); err != nil {
		return a, nil, oauthError{"invalid_request", 90014, "The query can't be read."}
	}
	for name, all := range values {
		if len(all) > 1 {
			return a, nil, oauthError{"invalid_request", 90014, "The parameter '" + clip(name) + "' is there more than once."}
		}
	}
	a = authorization{
		wanted:       identity.Wanted{ClientID: strings.ToLower(values.Get("client_id")), RedirectURI: values.Get("redirect_uri"), Nonce: values.Get("nonce")},
		responseType: values.Get("response_type"), responseMode: values.Get("response_mode"), challenge: values.Get("code_challenge"),
		challengeMethod: values.Get("code_challenge_method"), state: values.Get("state"), prompt: values.Get("prompt"), hint: values.Get("login_hint"),
	}
	return a, values, nil
}

// authorize shows the page at which a person signs in to a client, and takes its answer. As long as client and
// redirect URI don't fit each other, nobody is sent anywhere.
func (d *door) authorize(w http.ResponseWriter, r *http.Request) {
	if tenant, _ := split(r.URL.Path); !d.isShared(tenant) {
		d.sorry(w, http.StatusBadRequest, unknownTenant(tenant).Text)
		return
	}
	a, values, err := parseAuthorization(r.URL.RawQuery)
	if err != nil {
		d.sorry(w, http.StatusBadRequest, err.Error())
		return
	}
	client, err := d.identity.ClientAt(r.Context(), a.wanted.ClientID, a.wanted.RedirectURI)
	if err != nil {
		d.logDefect(r, err)
		status, alert := alertOf(err)
		if status != http.StatusInternalServerError {
			status = http.StatusBadRequest
		}
		d.sorry(w, status, alert)
		return
	}
	if err := d.checkAuthorization(&a, client, values); err != nil {
		d.sendBack(w, r, a, client, oauthFields(err))
		return
	}
	p := page{Title: "Sign in", Client: client.Name, Password: d.passwordURL(), Username: clip(a.hint), Destination: origin(a.wanted.RedirectURI), CSRF: d.csrf(w, r)}
	if r.Method == http.MethodGet {
		d.show(w, http.StatusOK, "signin", p.Destination, p)
		return
	}
	if !d.readForm(w, r) {
		return
	}
	if r.PostForm.Get("action") == "cancel" {
		d.sendBack(w, r, a, client, oauthFields(oauthError{"access_denied", 65004, "The person refused to sign in."}))
		return
	}
	code, err := d.signInFor(r, a.wanted)
	if err != nil {
		var status int
		status, p.Alert = alertOf(err)
		p.Username = clip(r.PostForm.Get("username"))
		d.show(w, status, "signin", p.Destination, p)
		return
	}
	d.sendBack(w, r, a, client, []field{{"code", code}})
}

// checkAuthorization fills in what is wanted. Its errors go back to the client.
func (d *door) checkAuthorization(a *authorization, client identity.Client, values url.Values) error {
	if len(a.state) > maxState || len(a.wanted.Nonce) > maxState {
		a.state = ""
		return oauthError{"invalid_request", 90014, "state or nonce is too long."}
	}
	switch a.responseMode {
	case "", "query", "form_post":
	default:
		return oauthError{"invalid_request", 901002, "The response mode '" + clip(a.responseMode) + "' is not supported. Use 'query' or 'form_post'."}
	}
	if a.responseType != "code" {
		return oauthError{"unsupported_response_type", 700054, "The response type '" + clip(a.responseType) + "' is not supported. Use 'code'."}
	}
	if err := client.CheckChallenge(a.challenge, a.challengeMethod); err != nil {
		return err
	}
	if a.prompt == "none" {
		return oauthError{"interaction_required", 50058, "Nobody signs in here without a page."}
	}
	wanted, err := d.readWanted(values)
	if err != nil {
		return err
	}
	wanted.ClientID, wanted.RedirectURI, wanted.Nonce, wanted.Challenge = client.ID, a.wanted.RedirectURI, a.wanted.Nonce, a.challenge
	a.wanted = wanted
	return nil
}

// signInFor checks who somebody is, by the form, and makes the code for the client.
func (d *door) signInFor(r *http.Request, w identity.Wanted) (code string, err error) {
	person, err := d.signIn(r, w.ClientID)
	if err != nil {
		return "", err
	}
	return d.identity.NewCode(r.Context(), person, w)
}

// signIn checks name and password of a form, and writes into the log what came of it.
func (d *door) signIn(r *http.Request, clientID string) (identity.Principal, error) {
	password := secret.New([]byte(r.PostForm.Get("password")))
	defer password.Wipe()
	person, err := d.identity.SignIn(r.Context(), r.PostForm.Get("username"), password)
	d.logPerson(r, "signed in", person, clientID, err)
	return person, err
}

// logPerson writes down what came of it when somebody showed a password. A name that is nobody's is not written down: it
// may be a password that was typed into the wrong field.
func (d *door) logPerson(r *http.Request, done string, person identity.Principal, clientID string, err error) {
	level, message, code, text := slog.LevelInfo, done, "", ""
	if p := problem.Of(err); p != nil {
		message, code = "sign-in refused", p.Code
	} else if err != nil {
		level, message, text = slog.LevelError, "sign-in failed", err.Error()
	}
	d.options.Logger.LogAttrs(r.Context(), level, message, slog.String("principal", person.ObjectID), slog.String("user", person.SignInName),
		slog.String("client", clip(clientID)), slog.String("from", remote(r)), slog.String("code", code), slog.String("error", text))
}

// sendBack leads the person back to the client, with what it asked for or with an error.
func (d *door) sendBack(w http.ResponseWriter, r *http.Request, a authorization, client identity.Client, fields []field) {
	if a.state != "" {
		fields = append(fields, field{"state", a.state})
	}
	if a.responseMode == "form_post" {
		d.show(w, http.StatusOK, "post", origin(a.wanted.RedirectURI), page{Title: "Nearly done", Client: client.Name,
			Destination: a.wanted.RedirectURI, Fields: fields, Script: "/" + d.identity.Tenant() + "/oauth2/continue.js"})
		return
	}
	u, err := url.Parse(a.wanted.RedirectURI)
	if err != nil {
		panic(err) // it was checked
	}
	query := u.Query()
	for _, f := range fields {
		query.Set(f.Name, f.Value)
	}
	u.RawQuery = query.Encode()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

func oauthFields(err error) []field {
	e := asOAuth(err)
	return []field{{"error", e.Code}, {"error_description", e.Error()}}
}

// origin is the part of a URL that policies name.
func origin(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		panic(err) // it was checked
	}
	return u.Scheme + "://" + u.Host
}
