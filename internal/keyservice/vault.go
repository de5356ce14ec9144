package keyservice

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"kluis/internal/secret"
)

const apiVersion = "7.4"

// vaults are the key vaults of one entry of the file: they share credentials and trust.
type vaults struct {
	hosts      pattern
	credential azcore.TokenCredential
	options    policy.ClientOptions

	mu     sync.Mutex
	scopes map[string]string // by host: what its challenge asked for
}

// object is a key or a secret, or a version of it.
type object struct {
	host, kind, name, version string
}

var (
	objectName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	objectVersion = regexp.MustCompile(`^[0-9A-Za-z]{1,64}$`)
)

const maxURL = 1024

func parseObject(text string) (object, error) {
	bad := &Error{Kind: Malformed, Message: "the URL is not of the form https://{vault}/keys|secrets/{name}/{version}"}
	if len(text) > maxURL {
		return object{}, bad
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return object{}, bad
	}
	bad.Host = clip(u.Host)
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || parts[0] != "keys" && parts[0] != "secrets" || !objectName.MatchString(parts[1]) {
		return object{}, bad
	}
	o := object{host: hostOf(u), kind: parts[0], name: parts[1]}
	if len(parts) == 3 {
		if o.version = parts[2]; !objectVersion.MatchString(o.version) {
			return object{}, bad
		}
	}
	return o, nil
}

func (o object) word() string { return strings.TrimSuffix(o.kind, "s") + " " + o.name }

// unversioned is the object as a whole.
func (o object) unversioned() object {
	o.version = ""
	return o
}

func (o object) url(operation ...string) string {
	path := "/" + o.kind + "/" + o.name
	if o.version != "" {
		path += "/" + o.version
	}
	for _, op := range operation {
		path += "/" + op
	}
	return vaultURL(o.host, path, "")
}

func vaultURL(host, path, query string) string {
	return "https://" + shown(host) + path + "?api-version=" + apiVersion + query
}

// Secret is what is read of a secret.
type Secret struct {
	ContentType string
	Tags        map[string]string
	Value       secret.Bytes
}

// Secret reads a secret, in the version that its URL names or the newest.
func (s *Services) Secret(ctx context.Context, rawURL string) (Secret, error) {
	var answer struct {
		Value       string            `json:"value"`
		ContentType string            `json:"contentType"`
		Tags        map[string]string `json:"tags"`
	}
	err := s.call(ctx, rawURL, "reading", http.MethodGet, object.url, nil, &answer)
	return Secret{answer.ContentType, answer.Tags, secret.New([]byte(answer.Value))}, err
}

// Key looks whether a key is there, in the version that its URL names or in any.
func (s *Services) Key(ctx context.Context, rawURL string) error {
	return s.call(ctx, rawURL, "reading", http.MethodGet, object.url, nil, &struct{}{})
}

// BackUp returns the key vault's backup of a key or secret with all its versions. It is opaque to all but key vaults.
func (s *Services) BackUp(ctx context.Context, rawURL string) ([]byte, error) {
	var answer struct {
		Value string `json:"value"`
	}
	err := s.call(ctx, rawURL, "backup", http.MethodPost, func(o object, _ ...string) string { return o.unversioned().url("backup") }, struct{}{}, &answer)
	if err != nil {
		return nil, err
	}
	blob, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(answer.Value, "="))
	if err != nil || len(blob) == 0 {
		return nil, malformed(rawURL, "backup")
	}
	return blob, nil
}

// Restore gives a key vault's backup back to the key vault in which the URL lies, and returns the URL of what came of it.
func (s *Services) Restore(ctx context.Context, rawURL string, blob []byte) (string, error) {
	var answer struct {
		ID  string `json:"id"`
		Key struct {
			KID string `json:"kid"`
		} `json:"key"`
	}
	err := s.call(ctx, rawURL, "restore", http.MethodPost, func(o object, _ ...string) string { return vaultURL(o.host, "/"+o.kind+"/restore", "") },
		map[string]string{"value": base64.RawURLEncoding.EncodeToString(blob)}, &answer)
	return answer.ID + answer.Key.KID, err
}

// UnwrapKey unwraps a value with the key of that URL.
func (s *Services) UnwrapKey(ctx context.Context, keyURL, algorithm string, wrapped []byte) (secret.Bytes, error) {
	value, _, err := s.useKey(ctx, keyURL, "unwrapkey", algorithm, wrapped)
	return secret.New(value), err
}

func (s *Services) useKey(ctx context.Context, keyURL, operation, algorithm string, value []byte) (out []byte, kid string, err error) {
	var answer struct {
		KID   string `json:"kid"`
		Value string `json:"value"`
	}
	body := map[string]string{"alg": algorithm, "value": base64.RawURLEncoding.EncodeToString(value)}
	if err := s.call(ctx, keyURL, operation, http.MethodPost, func(o object, _ ...string) string { return o.url(operation) }, body, &answer); err != nil {
		return nil, "", err
	}
	if out, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(answer.Value, "=")); err != nil || len(out) == 0 {
		return nil, "", malformed(keyURL, operation)
	}
	return out, answer.KID, nil
}

// Missing tries all that a backup does with a key and a secret, and returns the permissions that it lacks. That one call is
// denied is a finding; any other failure is an error.
func (s *Services) Missing(ctx context.Context, keyURL, secretURL string) (keys, secrets []string, err error) {
	list := func(rawURL string) error {
		return s.call(ctx, rawURL, "listing", http.MethodGet, func(o object, _ ...string) string { return vaultURL(o.host, "/"+o.kind, "&maxresults=1") }, nil, &struct{}{})
	}
	for _, try := range []struct {
		to         *[]string
		permission string
		call       func() error
	}{
		{&keys, "get", func() error { return s.Key(ctx, keyURL) }},
		{&keys, "list", func() error { return list(keyURL) }},
		{&keys, "backup", func() error { _, err := s.BackUp(ctx, keyURL); return err }},
		{&secrets, "get", func() error { v, err := s.Secret(ctx, secretURL); v.Value.Wipe(); return err }},
		{&secrets, "list", func() error { return list(secretURL) }},
		{&secrets, "backup", func() error { _, err := s.BackUp(ctx, secretURL); return err }},
	} {
		err := try.call()
		if KindOf(err) == Denied {
			*try.to = append(*try.to, try.permission)
		} else if err != nil {
			return nil, nil, err
		}
	}
	return keys, secrets, nil
}

func malformed(rawURL, operation string) error {
	o, _ := parseObject(rawURL)
	return &Error{Kind: Malformed, Host: shown(o.host), Operation: operation, Message: "the answer is not what the API documents"}
}

// call sends one request of the data plane of the key vault in which an object lies.
func (s *Services) call(ctx context.Context, rawURL, operation, method string, address func(object, ...string) string, body, answer any) error {
	o, err := parseObject(rawURL)
	if err != nil {
		return err
	}
	v := s.vaultsOf(o.host)
	if v == nil {
		return notConfigured(o.host)
	}
	scope, err := v.scope(ctx, o.host)
	if err != nil {
		return err
	}
	bearer := runtime.NewBearerTokenPolicy(v.credential, []string{scope}, nil)
	p := runtime.NewPipeline(moduleName, moduleVersion, runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, &v.options)
	return request{operation: operation + " of " + o.word(), method: method, url: address(o), body: body, answer: answer}.do(ctx, p)
}

// scope is what tokens for a host are to be for. The first call to it goes out without a token, as every Azure client
// does it, and the answer names the audience.
func (v *vaults) scope(ctx context.Context, host string) (string, error) {
	v.mu.Lock()
	scope, known := v.scopes[host]
	v.mu.Unlock()
	if known {
		return scope, nil
	}
	req, err := runtime.NewRequest(ctx, http.MethodGet, vaultURL(host, "/keys", ""))
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	resp, err := openPipeline(v.options).Do(req)
	if err != nil {
		return "", failed(host, "", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusUnauthorized {
		data, _ := runtime.Payload(resp)
		return "", refused(host, "asking for whom tokens are to be", resp.StatusCode, data)
	}
	if scope, err = scopeOf(host, resp.Header.Get("WWW-Authenticate")); err != nil {
		return "", &Error{Kind: Malformed, Host: shown(host), Message: err.Error()}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.scopes[host] = scope
	return scope, nil
}

var challengeParameter = regexp.MustCompile(`(\w+)="?([^",\s]+)"?`)

// scopeOf reads a challenge. The audience must be a domain above the host: one that names another's would get a token that
// opens something else.
func scopeOf(host, challenge string) (string, error) {
	for _, m := range challengeParameter.FindAllStringSubmatch(challenge, -1) {
		if name := strings.ToLower(m[1]); name != "resource" && name != "scope" {
			continue
		}
		audience := strings.TrimSuffix(strings.TrimSuffix(m[2], "/.default"), "/")
		u, err := url.Parse(audience)
		if err != nil || u.Scheme != "https" || u.Host == "" || !strings.HasSuffix(host, "."+hostOf(u)) {
			return "", fmt.Errorf("its challenge asks for a token for %q, which is not a domain above its own", clip(audience))
		}
		return audience + "/.default", nil
	}
	return "", errors.New("it asks for no token: is it a key vault?")
}
