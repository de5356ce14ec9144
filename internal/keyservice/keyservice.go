// Package keyservice speaks with services outside this server that keep keys: Azure key vaults (or those of another
// Kluis), and the transit engine of OpenBao and HashiCorp Vault.
//
// Two things are asked of them. The keys and secrets of a VM may lie in a key vault outside: they are read, backed up and
// restored there (vault.go). And the identity that opens this server's root key may be wrapped by a key outside, so
// that it need not lie on the server's disk (wrap.go, transit.go).
//
//	key service   what is outside: a key vault or a transit engine
//	host pattern  which hosts one entry of the file stands for: kv1.vault.azure.net, or *.vault.azure.net
//	recipient     the name of a key that wraps: azure-key-vault:URL or transit:URL
//
// What must hold:
//
//   - Deny by default. The URLs of keys and secrets stand in the settings of VMs, so whoever may change a VM chooses
//     them. Only hosts that the server's operator named in the file are asked; no redirect is followed, no proxy used,
//     no address taken from an answer.
//   - A credential goes to the authority of its entry and nowhere else, and a token only to a host for which it was
//     issued: the audience that a key vault's challenge names must be a domain above the vault's own.
//   - Answers are bounded, waiting is bounded, and what an answer says of an error is clipped before it is shown.
//   - Whatever is a secret in an answer becomes secret.Bytes; it stands in no error.
//
// The wire is Key Vault's REST API 7.4 and the transit secrets engine's HTTP API, version 1.
package keyservice

import (
	"context"
	"net/url"
	"strings"
	"time"

	"kluis/internal/secret"
)

// Options are what Open takes from outside beside the file.
type Options struct {
	// RetryDelay is how long the first repetition waits; each further one waits twice as long. Zero means half a second.
	RetryDelay time.Duration
}

// How often a call is tried again, and how long one try may take.
const (
	retries    = 3
	tryTimeout = 20 * time.Second
	firstDelay = 500 * time.Millisecond
)

// Services are the key services of one file. Without a file there are none, and every URL is refused. It is safe for
// concurrent use.
type Services struct {
	vaults   []*vaults
	transits []*transit
}

// Knows tells whether the URL of a key or secret lies in a key vault that may be asked.
func (s *Services) Knows(rawURL string) bool {
	o, err := parseObject(rawURL)
	return err == nil && s.vaultsOf(o.host) != nil
}

func (s *Services) vaultsOf(host string) *vaults {
	for _, v := range s.vaults {
		if v.hosts.match(host) {
			return v
		}
	}
	return nil
}

// The prefixes of recipients.
const (
	azurePrefix   = "azure-key-vault:"
	transitPrefix = "transit:"
)

// Wrap encrypts a short value to a recipient. What it returns is for Unwrap with the same recipient.
func (s *Services) Wrap(ctx context.Context, recipient string, plain []byte) ([]byte, error) {
	if u, ok := strings.CutPrefix(recipient, azurePrefix); ok {
		return s.azureWrap(ctx, u, plain)
	}
	t, key, err := s.transitOf(recipient)
	if err != nil {
		return nil, err
	}
	return t.encrypt(ctx, key, plain)
}

// Unwrap returns what Wrap was given.
func (s *Services) Unwrap(ctx context.Context, recipient string, wrapped []byte) (secret.Bytes, error) {
	if u, ok := strings.CutPrefix(recipient, azurePrefix); ok {
		return s.azureUnwrap(ctx, u, wrapped)
	}
	t, key, err := s.transitOf(recipient)
	if err != nil {
		return secret.Bytes{}, err
	}
	return t.decrypt(ctx, key, wrapped)
}

// hostOf is host and port of an address, in the form in which they are compared.
func hostOf(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Port() == "" {
		host = strings.TrimSuffix(host, ":") + ":443"
	}
	return host
}

// shown is a host as people write it.
func shown(host string) string { return strings.TrimSuffix(host, ":443") }
