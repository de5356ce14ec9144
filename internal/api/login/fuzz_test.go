package login_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var onThisMachine = regexp.MustCompile(`^http://(localhost|127\.0\.0\.1):[0-9]{1,5}/?$`)

// Whatever a query says, nobody is sent anywhere but to his own machine, and the page shows nothing but text of it.
func FuzzAuthorize(f *testing.F) {
	s, _, _ := newIdentity(f, base)
	h := newHandler(s, &strings.Builder{})
	for _, address := range []string{authorizeURL(), authorizeURL("response_mode", "form_post", "prompt", "none"), authorizeURL("redirect_uri", "http://127.0.0.1:1/"),
		authorizeURL("login_hint", "\"><script>"), authorizeURL("redirect_uri", "http://localhost:1@evil.example"), authorizeURL("scope", "x"), "?a=%zz", "?client_id=a&client_id=b"} {
		f.Add(address[strings.Index(address, "?")+1:])
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, base+"/common/oauth2/v2.0/authorize", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusBadRequest, http.StatusOK:
			if strings.Count(strings.ToLower(w.Body.String()), "<script") > strings.Count(w.Body.String(), `<script src="/`+tenant+`/oauth2/continue.js">`) {
				t.Errorf("a script: %s", w.Body)
			}
		case http.StatusSeeOther:
			u, err := url.Parse(w.Header().Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			if u.RawQuery = ""; !onThisMachine.MatchString(u.String()) {
				t.Errorf("sent to %s", u)
			}
		default:
			t.Errorf("%d", w.Code)
		}
	})
}
