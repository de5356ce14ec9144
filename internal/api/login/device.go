package login

import (
	"fmt"
	"net"
	"net/http"

	"kluis/internal/identity"
	"kluis/internal/problem"
)

// deviceCode begins the sign-in of a program without a browser (RFC 8628).
func (d *door) deviceCode(w http.ResponseWriter, r *http.Request) {
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
	clientID := form.Get("client_id")
	wanted, err := d.readWanted(form)
	wanted.ClientID = clientID
	var device identity.Device
	if err == nil {
		device, err = d.identity.NewDevice(r.Context(), wanted, remote(r))
	}
	if err != nil {
		d.failWith(w, r, clientID, err)
		return
	}
	page := d.authority(r) + "/oauth2/deviceauth"
	pageName := "verification_uri"
	if rest == "/oauth2/devicecode" && tenant != adfs {
		pageName = "verification_url"
	}
	w.Header().Set("Cache-Control", "no-store")
	d.write(w, http.StatusOK, map[string]any{
		"device_code": device.Code, "user_code": device.UserCode, pageName: page, "verification_uri_complete": page + "?user_code=" + device.UserCode,
		"expires_in": int(device.Life.Seconds()), "interval": int(device.Pause.Seconds()),
		"message": fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", page, device.UserCode),
	})
}

// devicePage is where a person enters the code that a program shows, sees which program it is, and signs in. A link that
// brings the code along only fills it in: the person has to say that it is the one that he sees.
func (d *door) devicePage(w http.ResponseWriter, r *http.Request) {
	if tenant, _ := split(r.URL.Path); !d.isShared(tenant) {
		d.sorry(w, http.StatusBadRequest, unknownTenant(tenant).Text)
		return
	}
	p := page{Title: "Sign in on another device", CSRF: d.csrf(w, r)}
	if r.Method == http.MethodGet {
		p.UserCode = clipTo(r.URL.Query().Get("user_code"), 16)
		d.show(w, http.StatusOK, "code", "", p)
		return
	}
	if !d.readForm(w, r) {
		return
	}
	p.UserCode = clipTo(r.PostForm.Get("user_code"), 16)
	client, err := d.identity.DeviceClient(r.Context(), p.UserCode, remote(r))
	if err != nil {
		d.logDefect(r, err)
		var status int
		status, p.Alert = alertOf(err)
		d.show(w, status, "code", "", p)
		return
	}
	p.Client = client.Name
	switch r.PostForm.Get("action") {
	case "cancel":
		d.answerDevice(w, r, p, d.identity.DenyDevice(r.Context(), p.UserCode), "Refused", "The program is told that you did not sign in. You can close this page.")
	case "allow":
		person, err := d.signIn(r, client.ID)
		if err == nil {
			err = d.identity.AllowDevice(r.Context(), p.UserCode, person)
		}
		p.Username = clip(r.PostForm.Get("username"))
		d.answerDevice(w, r, p, err, "You are signed in", "Go back to "+client.Name+" on the other device. You can close this page.")
	default:
		d.show(w, http.StatusOK, "device", "", p)
	}
}

// answerDevice tells the person how it ended, or asks again.
func (d *door) answerDevice(w http.ResponseWriter, r *http.Request, p page, err error, title, text string) {
	if err != nil {
		d.logDefect(r, err)
		var status int
		status, p.Alert = alertOf(err)
		name := "device"
		if e := problem.Of(err); e != nil && e.Kind == problem.NotFound {
			name = "code" // somebody was faster, or it has expired
		}
		d.show(w, status, name, "", p)
		return
	}
	d.show(w, http.StatusOK, "message", "", page{Title: title, Text: text})
}

// remote is where a request comes from, as far as this server can see.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
