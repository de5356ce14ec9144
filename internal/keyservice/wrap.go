package keyservice

import (
	"context"
	"encoding/json"
	"strings"

	"kluis/internal/secret"
)

// Bound asks for whoever has no context: a server that opens or changes its root key, for as long as it runs.
type Bound struct {
	Services *Services
	Context  context.Context
}

// Wrap is Services.Wrap.
func (b Bound) Wrap(recipient string, plain []byte) ([]byte, error) {
	return b.Services.Wrap(b.Context, recipient, plain)
}

// Unwrap is Services.Unwrap.
func (b Bound) Unwrap(recipient string, wrapped []byte) (secret.Bytes, error) {
	return b.Services.Unwrap(b.Context, recipient, wrapped)
}

// wrapAlgorithm is what every RSA key of a key vault can do and nobody has broken.
const wrapAlgorithm = "RSA-OAEP-256"

// azureWrapped is a value that a key vault wrapped. The key is named with the version that did it, so that it still
// unwraps when the key was rotated.
type azureWrapped struct {
	KID       string `json:"kid"`
	Algorithm string `json:"alg"`
	Value     []byte `json:"value"`
}

func (s *Services) azureWrap(ctx context.Context, keyURL string, plain []byte) ([]byte, error) {
	o, err := parseKey(keyURL)
	if err != nil {
		return nil, err
	}
	value, kid, err := s.useKey(ctx, keyURL, "wrapkey", wrapAlgorithm, plain)
	if err != nil {
		return nil, err
	}
	if by, err := parseKey(kid); err != nil || by.version == "" || !by.same(o) {
		return nil, malformed(keyURL, "wrapkey")
	}
	return json.Marshal(azureWrapped{kid, wrapAlgorithm, value})
}

func (s *Services) azureUnwrap(ctx context.Context, keyURL string, wrapped []byte) (secret.Bytes, error) {
	o, err := parseKey(keyURL)
	if err != nil {
		return secret.Bytes{}, err
	}
	var w azureWrapped
	if err := json.Unmarshal(wrapped, &w); err != nil {
		return secret.Bytes{}, &Error{Kind: Malformed, Host: shown(o.host), Message: "what it is to unwrap is damaged"}
	}
	if by, err := parseKey(w.KID); err != nil || !by.same(o) {
		return secret.Bytes{}, &Error{Kind: Malformed, Host: shown(o.host), Message: "what it is to unwrap was wrapped by another key"}
	}
	return s.UnwrapKey(ctx, w.KID, w.Algorithm, w.Value)
}

func parseKey(keyURL string) (object, error) {
	o, err := parseObject(keyURL)
	if err == nil && o.kind != "keys" {
		return o, &Error{Kind: Malformed, Host: shown(o.host), Message: "the URL names a secret and not a key"}
	}
	return o, err
}

// same tells whether two URLs name the same key, of whatever version.
func (o object) same(other object) bool {
	return o.host == other.host && o.kind == other.kind && strings.EqualFold(o.name, other.name)
}
