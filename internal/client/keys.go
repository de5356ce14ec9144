package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"kluis/internal/secret"
)

// Key is a key of a key vault: the public half and its attributes.
type Key struct {
	Key struct {
		KID    string   `json:"kid"`
		Type   string   `json:"kty"`
		N      string   `json:"n,omitempty"`
		E      string   `json:"e,omitempty"`
		KeyOps []string `json:"key_ops,omitempty"`
	} `json:"key"`
	KID        string            `json:"kid,omitempty"` // in lists, instead of Key
	Attributes Attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
}

// ID is the key's URL, with its version where the server gave one.
func (k Key) ID() string {
	if k.Key.KID != "" {
		return k.Key.KID
	}
	return k.KID
}

// Secret is a secret of a key vault. Value is filled by SecretValue alone.
type Secret struct {
	ID          string            `json:"id"`
	ContentType string            `json:"contentType,omitempty"`
	Attributes  Attributes        `json:"attributes"`
	Tags        map[string]string `json:"tags,omitempty"`
	Value       secret.Bytes      `json:"-"`
}

// Attributes are the dates and switches of a key or secret; times are Unix seconds.
type Attributes struct {
	Enabled       bool   `json:"enabled"`
	Created       int64  `json:"created,omitempty"`
	Updated       int64  `json:"updated,omitempty"`
	Expires       int64  `json:"exp,omitempty"`
	RecoveryLevel string `json:"recoveryLevel,omitempty"`
}

// Wrapping algorithms of a KEK.
const (
	RSAOAEP    = "RSA-OAEP"
	RSAOAEP256 = "RSA-OAEP-256"
)

// CreateKey makes an RSA key, or a new version of it.
func (c *Client) CreateKey(ctx context.Context, vaultURI, name string, bits int) (Key, error) {
	var k Key
	body := map[string]any{"kty": "RSA", "key_size": bits}
	err := c.data(ctx, http.MethodPost, dataURL(vaultURI, "keys", name, "create"), body, &k)
	return k, err
}

// Key reads the newest version of a key.
func (c *Client) Key(ctx context.Context, vaultURI, name string) (Key, error) {
	var k Key
	err := c.data(ctx, http.MethodGet, dataURL(vaultURI, "keys", name), nil, &k)
	return k, err
}

// Keys lists the keys of a key vault.
func (c *Client) Keys(ctx context.Context, vaultURI string) ([]Key, error) {
	return listData[Key](ctx, c, dataURL(vaultURI, "keys"))
}

// WrapKey wraps value with the key whose URL is given, by alg.
func (c *Client) WrapKey(ctx context.Context, keyURL, alg string, value secret.Bytes) ([]byte, error) {
	return c.useKey(ctx, keyURL, "wrapkey", alg, value.Reveal())
}

// UnwrapKey undoes WrapKey.
func (c *Client) UnwrapKey(ctx context.Context, keyURL, alg string, wrapped []byte) (secret.Bytes, error) {
	value, err := c.useKey(ctx, keyURL, "unwrapkey", alg, wrapped)
	return secret.New(value), err
}

func (c *Client) useKey(ctx context.Context, keyURL, operation, alg string, value []byte) ([]byte, error) {
	body := map[string]any{"alg": alg, "value": base64.RawURLEncoding.EncodeToString(value)}
	var answer struct {
		Value string `json:"value"`
	}
	if err := c.data(ctx, http.MethodPost, dataURL(keyURL, operation), body, &answer); err != nil {
		return nil, err
	}
	out, err := base64.RawURLEncoding.DecodeString(answer.Value)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: not base64url", operation)
	}
	return out, nil
}

// SetSecret writes a secret, or a new version of it.
func (c *Client) SetSecret(ctx context.Context, vaultURI, name string, value secret.Bytes, contentType string, tags map[string]string) (Secret, error) {
	body := map[string]any{"value": string(value.Reveal()), "contentType": contentType, "tags": tags}
	var s Secret
	err := c.data(ctx, http.MethodPut, dataURL(vaultURI, "secrets", name), body, &s)
	return s, err
}

// Secret reads the newest version of a secret, without its value.
func (c *Client) Secret(ctx context.Context, vaultURI, name string) (Secret, error) {
	var s Secret
	err := c.data(ctx, http.MethodGet, dataURL(vaultURI, "secrets", name), nil, &s)
	return s, err
}

// SecretValue reads the newest version of a secret with its value.
func (c *Client) SecretValue(ctx context.Context, vaultURI, name string) (Secret, error) {
	var wire struct {
		Secret
		Value string `json:"value"`
	}
	err := c.data(ctx, http.MethodGet, dataURL(vaultURI, "secrets", name), nil, &wire)
	wire.Secret.Value = secret.New([]byte(wire.Value))
	return wire.Secret, err
}

// Secrets lists the secrets of a key vault.
func (c *Client) Secrets(ctx context.Context, vaultURI string) ([]Secret, error) {
	return listData[Secret](ctx, c, dataURL(vaultURI, "secrets"))
}

// A Kind is a sort of content of a key vault: what keys and secrets have in common is done for either.
type Kind string

// The kinds.
const (
	KindKey    Kind = "keys"
	KindSecret Kind = "secrets"
)

// BackUpContent returns the backup of all versions of a key or secret, sealed by the server.
func (c *Client) BackUpContent(ctx context.Context, vaultURI string, kind Kind, name string) (string, error) {
	var answer struct {
		Value string `json:"value"`
	}
	err := c.data(ctx, http.MethodPost, dataURL(vaultURI, string(kind), name, "backup"), nil, &answer)
	return answer.Value, err
}

// RestoreContent brings a key or secret back from a backup, under its old name, and returns its URL.
func (c *Client) RestoreContent(ctx context.Context, vaultURI string, kind Kind, backup string) (string, error) {
	var answer struct {
		ID  string `json:"id"`
		Key struct {
			KID string `json:"kid"`
		} `json:"key"`
	}
	err := c.data(ctx, http.MethodPost, dataURL(vaultURI, string(kind), "restore"), map[string]string{"value": backup}, &answer)
	return answer.ID + answer.Key.KID, err
}

// DeleteContent puts a key or secret into soft delete.
func (c *Client) DeleteContent(ctx context.Context, vaultURI string, kind Kind, name string) error {
	return c.data(ctx, http.MethodDelete, dataURL(vaultURI, string(kind), name), nil, nil)
}

// PurgeContent destroys a key or secret in soft delete.
func (c *Client) PurgeContent(ctx context.Context, vaultURI string, kind Kind, name string) error {
	return c.data(ctx, http.MethodDelete, dataURL(vaultURI, "deleted"+string(kind), name), nil, nil)
}

// dataURL joins the address of a key vault, or of a key, with a path.
func dataURL(base string, path ...string) string {
	for i, p := range path {
		path[i] = url.PathEscape(p)
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.Join(path, "/") + "?api-version=" + versionKeys
}

func listData[T any](ctx context.Context, c *Client, address string) ([]T, error) {
	p, err := c.dataPipeline(ctx, http.MethodGet, address)
	if err != nil {
		return nil, err
	}
	return list[T](ctx, c, p, address)
}
