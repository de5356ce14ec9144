package login

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"regexp"
	"strings"

	"kluis/internal/problem"
)

// The pages at which people sign in. They are plain forms: they work without scripts, and a policy forbids scripts,
// frames and everything from elsewhere. One page has a script, of two lines, which presses its one button. There is no session in the browser; each sign-in asks for the password, so
// nothing but what is typed lets somebody act.

//go:embed pages
var pageFiles embed.FS

var (
	pages     = template.Must(template.ParseFS(pageFiles, "pages/*.html"))
	style     = mustRead("pages/style.css")
	styleHash = hashSource(style)

	continueScript = mustRead("pages/continue.js")
)

// page is what the templates show.
type page struct {
	Cloud, Title string
	Style        template.CSS
	CSRF         string
	Alert, Text  string

	Client      string // that asks
	Username    string
	UserCode    string
	Destination string  // where the person goes when it is done
	Fields      []field // what the destination gets
	Script      string  // that sends them there
	Password    string  // where one changes it
}

type field struct{ Name, Value string }

func mustRead(name string) string {
	text, err := pageFiles.ReadFile(name)
	if err != nil {
		panic(err) // the file is part of the program
	}
	return string(text)
}

// hashSource is how a policy names an inline style.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// show writes a page. destination, if there is one, is the one place beside this server to which its form may lead:
// browsers hold that also against the redirect that follows.
func (d *door) show(w http.ResponseWriter, status int, name, destination string, p page) {
	p.Cloud, p.Style = d.options.Name, template.CSS(style) // our own file
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name+".html", p); err != nil {
		panic(err) // these are our own templates and types
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	policy := "default-src 'none'; style-src " + styleHash + "; base-uri 'none'; frame-ancestors 'none'; form-action 'self' " + destination
	if p.Script != "" {
		policy = "script-src 'self'; " + policy
	}
	h.Set("Content-Security-Policy", strings.TrimSpace(policy))
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the browser may have gone
}

// script is what presses the button of the page that leads back.
func (d *door) script(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	_, _ = w.Write([]byte(continueScript)) // the browser may have gone
}

// sorry is the page for who can't be sent anywhere.
func (d *door) sorry(w http.ResponseWriter, status int, alert string) {
	d.show(w, status, "message", "", page{Title: "This does not work", Alert: alert})
}

// alertOf is what a person is told of an error, and the status that goes with it.
func alertOf(err error) (int, string) {
	p := problem.Of(err)
	if p == nil {
		return http.StatusInternalServerError, "Something went wrong here. Please try again."
	}
	status := http.StatusBadRequest
	switch p.Kind {
	case problem.Unauthenticated:
		status = http.StatusUnauthorized
	case problem.Unavailable:
		status = http.StatusTooManyRequests
	}
	return status, strings.TrimSpace(fromProblem(p).Text + " " + p.Advice)
}

// A form is accepted only together with the cookie that came with it, which no other site can read or set: the name
// begins with __Host-. Browsers also say where a request comes from, and that must be here.
const csrfCookie = "__Host-kluis-form"

var csrfForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// csrf is the value for the forms of this browser.
func (d *door) csrf(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(csrfCookie); err == nil && csrfForm.MatchString(c.Value) {
		return c.Value // so that two pages can be open at once
	}
	value := d.drawText()
	http.SetCookie(w, &http.Cookie{Name: csrfCookie, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return value
}

// ours reports whether a form was sent from a page of this server, in this browser.
func ours(r *http.Request) bool {
	c, err := r.Cookie(csrfCookie)
	return err == nil && csrfForm.MatchString(c.Value) && http.NewCrossOriginProtection().Check(r) == nil &&
		subtle.ConstantTimeCompare([]byte(c.Value), []byte(r.PostForm.Get("csrf"))) == 1
}

// readForm reads what a page sent, or tells the person why not.
func (d *door) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		d.sorry(w, http.StatusBadRequest, "The form can't be read.")
		return false
	}
	if !ours(r) {
		d.sorry(w, http.StatusForbidden, "The form does not come from this page, or cookies are switched off. Go back to the program and begin again.")
		return false
	}
	return true
}
