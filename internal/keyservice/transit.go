package keyservice

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"kluis/internal/secret"
)

// transit is the server of OpenBao or HashiCorp Vault of one entry of the file.
type transit struct {
	host      string
	token     string // its file
	namespace string
	pipeline  runtime.Pipeline
}

// transitKey is a key of a transit engine: where the engine is mounted, and the key's name.
type transitKey struct{ mount, name string }

var transitPart = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_.-]{0,127}$`)

// transitOf reads a recipient, transit:https://{host}/v1/{mount}/keys/{name}, and finds who is to be asked.
func (s *Services) transitOf(recipient string) (*transit, transitKey, error) {
	text, ok := strings.CutPrefix(recipient, transitPrefix)
	u, err := url.Parse(text)
	if !ok || len(text) > maxURL || err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, transitKey{}, &Error{Kind: Malformed, Message: "a recipient is written azure-key-vault:https://{vault}/keys/{name} or transit:https://{host}/v1/{mount}/keys/{name}"}
	}
	path := strings.TrimPrefix(u.Path, "/v1/")
	mount, name, ok := strings.Cut(path, "/keys/")
	parts := append(strings.Split(mount, "/"), name)
	for _, part := range parts {
		ok = ok && transitPart.MatchString(part)
	}
	if !ok || path == u.Path {
		return nil, transitKey{}, &Error{Kind: Malformed, Host: clip(u.Host), Message: "the URL is not of the form https://{host}/v1/{mount}/keys/{name}"}
	}
	for _, t := range s.transits {
		if t.host == hostOf(u) {
			return t, transitKey{mount, name}, nil
		}
	}
	return nil, transitKey{}, notConfigured(hostOf(u))
}

func (t *transit) encrypt(ctx context.Context, key transitKey, plain []byte) ([]byte, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if err := t.call(ctx, key, "encrypt", map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plain)}, &answer); err != nil {
		return nil, err
	}
	if answer.Data.Ciphertext == "" {
		return nil, t.malformed("encrypt")
	}
	return []byte(answer.Data.Ciphertext), nil
}

func (t *transit) decrypt(ctx context.Context, key transitKey, wrapped []byte) (secret.Bytes, error) {
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	if err := t.call(ctx, key, "decrypt", map[string]string{"ciphertext": string(wrapped)}, &answer); err != nil {
		return secret.Bytes{}, err
	}
	if len(answer.Data.Plaintext) == 0 {
		return secret.Bytes{}, t.malformed("decrypt")
	}
	return secret.New(answer.Data.Plaintext), nil
}

func (t *transit) malformed(operation string) error {
	return &Error{Kind: Malformed, Host: shown(t.host), Operation: operation, Message: "the answer is not what the API documents"}
}

func (t *transit) call(ctx context.Context, key transitKey, operation string, body, answer any) error {
	token, err := t.readToken()
	if err != nil {
		return &Error{Kind: Unauthenticated, Host: shown(t.host), Operation: operation, Message: err.Error(), Err: err}
	}
	header := map[string]string{"X-Vault-Token": token, "X-Vault-Request": "true"}
	if t.namespace != "" {
		header["X-Vault-Namespace"] = t.namespace
	}
	err = request{operation: operation + " by key " + key.name, method: http.MethodPost, header: header,
		url: "https://" + shown(t.host) + "/v1/" + key.mount + "/" + operation + "/" + key.name, body: body, answer: answer}.do(ctx, t.pipeline)
	if e, ok := errors.AsType[*Error](err); ok && e.Kind == Denied { // a token that has expired is denied like one that lacks a policy
		e.Message = "the token is not valid any more, or its policy does not allow it: " + e.Message
	}
	return err
}

func (t *transit) readToken() (string, error) {
	text, err := readSecret(t.token)
	if err != nil {
		return "", fmt.Errorf("token-file: %w", err)
	}
	defer clear(text)
	return string(bytes.TrimSpace(text)), nil
}
