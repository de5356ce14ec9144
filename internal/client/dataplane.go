package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// data sends one request to a key vault with the token that the key vault's challenge asks for.
func (c *Client) data(ctx context.Context, method, address string, body, out any) error {
	p, err := c.dataPipeline(ctx, method, address)
	if err != nil {
		return err
	}
	return fetch(ctx, p, method, address, body, out)
}

// dataBytes reads a blob.
func (c *Client) dataBytes(ctx context.Context, address string) ([]byte, error) {
	p, err := c.dataPipeline(ctx, http.MethodGet, address)
	if err != nil {
		return nil, err
	}
	ctx = policy.WithHTTPHeader(ctx, http.Header{"X-Ms-Version": []string{versionBlobs}})
	resp, err := exchange(ctx, p, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := runtime.Payload(resp)
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	return data, nil
}

// dataPipeline returns the pipeline for a host of the data plane. The first call to a host goes out
// without token and without body, as every Azure client does it: the answer names the token's audience.
// Only the server itself is ever asked, so whatever audience it names, the token goes to who issued it.
func (c *Client) dataPipeline(ctx context.Context, method, address string) (runtime.Pipeline, error) {
	u, err := url.Parse(address)
	if err != nil || !c.ours(u) {
		return runtime.Pipeline{}, fmt.Errorf("address %q does not belong to this server", address)
	}
	// In the path form many key vaults share the server's own host, so the first folder counts too.
	place := u.Host
	if u.Hostname() == c.endpoint.Hostname() {
		place += "/" + strings.SplitN(strings.TrimPrefix(u.Path, "/"), "/", 2)[0]
	}
	c.mu.Lock()
	scope, known := c.scopes[place]
	c.mu.Unlock()
	if !known {
		if scope, err = c.challenge(ctx, method, u); err != nil {
			return runtime.Pipeline{}, err
		}
		c.mu.Lock()
		c.scopes[place] = scope
		c.mu.Unlock()
	}
	return c.pipeline(scope), nil
}

// challenge asks without a token and returns the scope that the answer wants.
func (c *Client) challenge(ctx context.Context, method string, u *url.URL) (string, error) {
	req, err := runtime.NewRequest(ctx, method, u.String())
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	resp, err := c.open.Do(req)
	if err != nil {
		return "", translate(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusUnauthorized {
		return "", errorOf(resp)
	}
	header := resp.Header.Get("WWW-Authenticate")
	scope := scopeOf(header)
	if scope == "" {
		return "", fmt.Errorf("the challenge of %s names no audience: %q", u.Host, header)
	}
	return scope, nil
}

var challengeParameter = regexp.MustCompile(`(\w+)="?([^",\s]+)"?`)

// scopeOf reads the scope from a challenge: either named as such or as resource.
func scopeOf(header string) string {
	for _, m := range challengeParameter.FindAllStringSubmatch(header, -1) {
		switch strings.ToLower(m[1]) {
		case "scope", "resource", "resource_id":
			return strings.TrimSuffix(strings.TrimSuffix(m[2], "/.default"), "/") + "/.default"
		}
	}
	return ""
}
