package login

import (
	"net/http"

	"kluis/internal/problem"
	"kluis/internal/secret"
)

// passwordPage is where a person gives himself another password. Administrators give the first one, and shall not know those
// that people use.
func (d *door) passwordPage(w http.ResponseWriter, r *http.Request) {
	if tenant, _ := split(r.URL.Path); !d.isShared(tenant) {
		d.sorry(w, http.StatusBadRequest, unknownTenant(tenant).Text)
		return
	}
	p := page{Title: "Change your password", CSRF: d.csrf(w, r)}
	if r.Method == http.MethodGet {
		d.show(w, http.StatusOK, "password", "", p)
		return
	}
	if !d.readForm(w, r) {
		return
	}
	p.Username = clip(r.PostForm.Get("username"))
	if err := d.changePassword(r); err != nil {
		var status int
		status, p.Alert = alertOf(err)
		d.show(w, status, "password", "", p)
		return
	}
	d.show(w, http.StatusOK, "message", "", page{Title: "Your password is changed", Text: "Sign in with it from now on. You can close this page."})
}

func (d *door) passwordURL() string { return "/" + d.identity.Tenant() + "/oauth2/password" }

func (d *door) changePassword(r *http.Request) error {
	if r.PostForm.Get("chosen") != r.PostForm.Get("again") {
		return problem.New(problem.Invalid, "PasswordsDiffer", "AADSTS50055: The two new passwords differ.").WithAdvice("Type the same one twice.")
	}
	old, chosen := secret.New([]byte(r.PostForm.Get("password"))), secret.New([]byte(r.PostForm.Get("chosen")))
	defer old.Wipe()
	defer chosen.Wipe()
	person, err := d.identity.ChangePassword(r.Context(), r.PostForm.Get("username"), old, chosen)
	d.logPerson(r, "password changed", person, "", err)
	return err
}
