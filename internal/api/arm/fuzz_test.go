package arm_test

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"kluis/internal/api/arm"
)

// Whatever path is asked for, the answer names a resource that the same path means again, or says why there is none.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{depot, strings.ToUpper(depot) + "/", depot + "/openGate", group + "/providers/Contoso.Storage//depots/d",
		depot + "/providers/Contoso.Storage/depots/e", "/subscriptions/S/depots/d", "//subscriptions/S", "/providers/x/providers/y", "/subscriptions/S/resourceGroups//providers/a",
		depot + "/shelves/s/boxes/b;c/move", "/subscriptions/\x00", "/subscriptions/a%2fb"} {
		f.Add(seed)
	}
	rt, err := arm.NewRouter(arm.RouterOptions{Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), NewID: func() string { return "1" }}, providers()...)
	if err != nil {
		f.Fatal(err)
	}
	ask := func(path string) (int, string) {
		r := httptest.NewRequest("GET", "https://kluis.example"+(&url.URL{Path: path}).EscapedPath()+version, nil)
		r.Header.Set("Authorization", "Bearer yes")
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, r)
		var answer struct {
			ID    string
			Error arm.ErrorBody
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code >= 500 || w.Code != 200 && answer.Error.Code == "" {
			panic(w.Body.String())
		}
		return w.Code, answer.ID
	}
	f.Fuzz(func(t *testing.T, path string) {
		code, id := ask("/" + path)
		if upper := strings.ToUpper(path); code != 200 || len(upper) != len(path) || !strings.EqualFold(upper, path) {
			return // its letters have no two cases
		}
		if _, again := ask("/" + strings.ToUpper(path)); !strings.EqualFold(again, id) {
			t.Fatalf("%q is %s, in upper case %s", path, id, again)
		}
	})
}
