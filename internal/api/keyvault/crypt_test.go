package keyvault_test

import (
	"crypto/sha256"
	"testing"
)

func TestSignaturesOverTheWire(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	digest := sha256.Sum256([]byte("message"))
	for alg, key := range map[string]map[string]any{"RS256": {"kty": "RSA"}, "PS256": {"kty": "RSA"}, "ES256": {"kty": "EC"}} {
		kid := s.data("POST", "kv-one", "/keys/k/create", key).at("key.kid")
		signed := s.data("POST", "kv-one", "/keys/k//sign", map[string]any{"alg": alg, "value": b64(digest[:])})
		want(t, signed, 200, "kid", kid)
		verify := map[string]any{"alg": alg, "digest": b64(digest[:]), "value": signed.at("value")}
		want(t, s.data("POST", "kv-one", "/keys/k//verify", verify), 200, "value", true)
		verify["digest"] = b64(make([]byte, 32))
		want(t, s.data("POST", "kv-one", "/keys/k//verify", verify), 200, "value", false)
	}
}

func TestSymmetricKeysOverTheWire(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	created := s.data("POST", "kv-one", "/keys/k/create", map[string]any{"kty": "oct-HSM", "key_size": 256})
	want(t, created, 200, "key.kty", "oct", "key.k", nil)
	plain := b64([]byte("0123456789abcdef"))
	closed := s.data("POST", "kv-one", "/keys/k//encrypt", map[string]any{"alg": "A256GCM", "value": plain, "aad": b64([]byte("aad"))})
	want(t, closed, 200, "kid", created.at("key.kid"), "aad", b64([]byte("aad")))
	closed.body["alg"] = "A256GCM"
	want(t, s.data("POST", "kv-one", "/keys/k//decrypt", closed.body), 200, "value", plain)
	delete(closed.body, "aad")
	want(t, s.data("POST", "kv-one", "/keys/k//decrypt", closed.body), 400, "error.code", "BadParameter")
	wrapped := s.data("POST", "kv-one", "/keys/k//wrapkey", map[string]any{"alg": "A256KW", "value": plain})
	want(t, s.data("POST", "kv-one", "/keys/k//unwrapkey", map[string]any{"alg": "A256KW", "value": wrapped.at("value")}), 200, "value", plain)

	imported := map[string]any{"kty": "oct", "k": b64(make([]byte, 16)), "key_ops": []string{"wrapKey"}}
	want(t, s.data("PUT", "kv-one", "/keys/brought", map[string]any{"key": imported}), 200, "key.kty", "oct", "key.k", nil)
}

func TestRotationOverTheWire(t *testing.T) {
	s := serve(t, sqlite(t))
	s.putVault("kv-one")
	first := s.data("POST", "kv-one", "/keys/k/create", map[string]any{"kty": "EC", "tags": map[string]string{"a": "b"}})
	none := s.data("GET", "kv-one", "/keys/k/rotationpolicy", nil)
	want(t, none, 200, "id", "https://kv-one."+s.suffix+"/keys/k/rotationpolicy", "attributes.expiryTime", nil)
	policy := map[string]any{"attributes": map[string]any{"expiryTime": "P1Y"}, "lifetimeActions": []any{
		map[string]any{"trigger": map[string]any{"timeAfterCreate": "P90D"}, "action": map[string]any{"type": "rotate"}}}}
	want(t, s.data("PUT", "kv-one", "/keys/k/rotationpolicy", policy), 200, "attributes.expiryTime", "P1Y")
	rotated := s.data("POST", "kv-one", "/keys/k/rotate", nil)
	want(t, rotated, 200, "key.crv", "P-256", "tags.a", "b", "attributes.exp", float64(1803902400))
	if rotated.at("key.kid") == first.at("key.kid") {
		t.Error("the rotated key has its old version")
	}
}
