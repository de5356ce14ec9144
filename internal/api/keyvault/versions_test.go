package keyvault_test

import (
	"net/http"
	"strings"
	"testing"
)

// The days for which something can be recovered came with api-version 7.1: answers of 7.0 don't have them.
func TestRecoverableDaysByVersion(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv1")
	want(t, s.data(http.MethodPut, "kv1", "/secrets/s", map[string]any{"value": "v"}), http.StatusOK)
	want(t, s.data(http.MethodPost, "kv1", "/keys/k/create", map[string]any{"kty": "EC"}), http.StatusOK)
	for version, has := range map[string]bool{"7.0": false, "7.1": true, "7.6": true} {
		for _, path := range []string{"/secrets/s", "/secrets", "/secrets/s/versions", "/keys/k", "/keys", "/keys/k/versions"} {
			a := s.data(http.MethodGet, "kv1", path+"?api-version="+version, nil)
			want(t, a, http.StatusOK)
			if body := a.raw; strings.Contains(body, "recoverableDays") != has || !strings.Contains(body, "recoveryLevel") {
				t.Errorf("%s of %s answers %s", path, version, body)
			}
		}
	}
}
