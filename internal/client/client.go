// Package client speaks to a Kluis server the way any Azure client speaks to Azure.
//
// It is the only way by which the command line, the demo and the end-to-end tests reach a server, so
// whatever they can do, a script with an Azure SDK can do too. The methods are thin: one method is one
// call of the REST API, in Azure's own paths and bodies, plus the polling that the call asks for.
//
//	Client    one server, one service principal, one subscription
//	Resource  what the Resource Manager answers: id, name, type, location and typed properties
//	Error     what it answers when it refuses: code, message and the recommended action
//
// Resources are named by armid.ID; the ...ID methods make the ids of the client's own subscription.
// Calls of the Resource Manager return when the work is done: an answer of 202 is followed through its
// Azure-AsyncOperation or Location header. A backup or a restore is the exception, as in Azure: the call
// returns the id of a job, and WaitJob follows the job.
//
// Key vaults and blobs live under names of their own (<name>.vault.<domain>). Where such names do not
// resolve the client dials the server itself: there is one listener for all of them.
package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"kluis/internal/armid"
)

// The api-versions that the client asks for.
const (
	versionResources   = "2022-09-01"
	versionKeyVault    = "2023-07-01"
	versionKeys        = "7.4"
	versionCompute     = "2024-03-01"
	versionDisks       = "2023-10-02"
	versionBackup      = "2024-04-01"
	versionStorage     = "2023-01-01"
	versionBlobs       = "2023-11-03"
	versionRoles       = "2022-04-01"
	versionLocks       = "2020-05-01"
	firstPoll          = 100 * time.Millisecond
	slowestPoll        = time.Second
	moduleName, module = "kluis", "v1"
)

// Client is a connection to one server as one service principal. It is safe for concurrent use.
type Client struct {
	admin      Admin
	endpoint   *url.URL
	credential azcore.TokenCredential
	options    policy.ClientOptions
	open       runtime.Pipeline // sends no token: for the challenges of key vaults and blobs

	mu        sync.Mutex
	pipelines map[string]runtime.Pipeline // by token scope
	scopes    map[string]string           // by data plane host: the scope its challenge asked for
}

// New makes a client; it opens no connection yet.
func New(admin Admin) (*Client, error) {
	endpoint, err := url.Parse(admin.Endpoint)
	if err != nil || endpoint.Scheme != "https" || endpoint.Host == "" {
		return nil, fmt.Errorf("endpoint %q is not an https address", admin.Endpoint)
	}
	transport, err := newTransport(endpoint, admin.CAFile)
	if err != nil {
		return nil, err
	}
	options := policy.ClientOptions{
		Cloud: cloud.Configuration{ActiveDirectoryAuthorityHost: admin.Endpoint},
		Retry: policy.RetryOptions{
			RetryDelay:    200 * time.Millisecond,
			MaxRetryDelay: 2 * time.Second,
			// A 500 is a defect, and to do it again only hides it.
			StatusCodes: []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout},
		},
		Transport: transport,
	}
	credential, err := azidentity.NewClientSecretCredential(admin.TenantID, admin.ClientID, string(admin.ClientSecret.Reveal()),
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
	if err != nil {
		return nil, fmt.Errorf("use client id and secret: %w", err)
	}
	return &Client{
		admin: admin, endpoint: endpoint, credential: credential, options: options,
		open:      runtime.NewPipeline(moduleName, module, runtime.PipelineOptions{}, &options),
		pipelines: map[string]runtime.Pipeline{},
		scopes:    map[string]string{},
	}, nil
}

// Endpoint is the server's address.
func (c *Client) Endpoint() string { return strings.TrimSuffix(c.admin.Endpoint, "/") }

// TenantID is the tenant of the client's principal.
func (c *Client) TenantID() string { return c.admin.TenantID }

// Subscription is the id of the client's subscription.
func (c *Client) Subscription() armid.ID { return armid.Subscription(c.admin.SubscriptionID) }

// ObjectID is the object id of the client's principal, which access policies name. It stands in the token.
func (c *Client) ObjectID(ctx context.Context) (string, error) {
	token, err := c.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.Endpoint() + "/.default"}})
	if err != nil {
		return "", translate(err)
	}
	parts := strings.Split(token.Token, ".")
	if len(parts) != 3 {
		return "", errors.New("read token: not a JSON web token")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errors.New("read token: not a JSON web token")
	}
	var claim struct {
		ObjectID string `json:"oid"`
	}
	if err := json.Unmarshal(claims, &claim); err != nil || claim.ObjectID == "" {
		return "", errors.New("read token: it names no object id")
	}
	return claim.ObjectID, nil
}

// ResourceID is the id of a top-level resource of a group of the client's subscription.
func (c *Client) ResourceID(group, typ, name string) armid.ID {
	return c.Subscription().Group(group).Resource(typ, name)
}

// pipeline returns the pipeline that carries tokens of the given scope.
func (c *Client) pipeline(scope string) runtime.Pipeline {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pipelines[scope]
	if !ok {
		bearer := runtime.NewBearerTokenPolicy(c.credential, []string{scope}, nil)
		p = runtime.NewPipeline(moduleName, module, runtime.PipelineOptions{PerRetry: []policy.Policy{bearer}}, &c.options)
		c.pipelines[scope] = p
	}
	return p
}

// armPipeline carries tokens for the Resource Manager.
func (c *Client) armPipeline() runtime.Pipeline { return c.pipeline(c.Endpoint() + "/.default") }

// armURL is the address of a Resource Manager path.
func (c *Client) armURL(path, version string, query url.Values) string {
	if query == nil {
		query = url.Values{}
	}
	query.Set("api-version", version)
	u := url.URL{Scheme: c.endpoint.Scheme, Host: c.endpoint.Host, Path: strings.TrimSuffix(c.endpoint.Path, "/") + path, RawQuery: query.Encode()}
	return u.String()
}

// exchange sends one request and returns the answer of a success; everything else is an error.
func exchange(ctx context.Context, p runtime.Pipeline, method, address string, body any) (*http.Response, error) {
	req, err := runtime.NewRequest(ctx, method, address)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Raw().Header.Set("Accept", "application/json")
	if body != nil {
		if err := runtime.MarshalAsJSON(req, body); err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
	}
	resp, err := p.Do(req)
	if err != nil {
		return nil, translate(err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, errorOf(resp)
	}
	return resp, nil
}

// fetch sends one request and reads the JSON of the answer into out; out nil, or an empty answer, reads
// nothing.
func fetch(ctx context.Context, p runtime.Pipeline, method, address string, body, out any) error {
	resp, err := exchange(ctx, p, method, address, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if out == nil {
		return nil
	}
	data, err := runtime.Payload(resp)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", resp.Request.URL.Path, err)
	}
	return nil
}

// get reads one resource or document.
func (c *Client) get(ctx context.Context, path, version string, query url.Values, out any) error {
	return fetch(ctx, c.armPipeline(), http.MethodGet, c.armURL(path, version, query), nil, out)
}

// do sends a change and follows it until it is done; out receives the resource, or the last answer.
func (c *Client) do(ctx context.Context, method, path, version string, body, out any) error {
	resp, err := exchange(ctx, c.armPipeline(), method, c.armURL(path, version, nil), body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	last, err := c.follow(ctx, resp, "")
	if err != nil || out == nil || len(last) == 0 {
		return err
	}
	if err := json.Unmarshal(last, out); err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	return nil
}

// follow polls an operation until it ends and returns its result. The first polls come quickly, since
// most operations are over at once.
func (c *Client) follow(ctx context.Context, resp *http.Response, final runtime.FinalStateVia) (json.RawMessage, error) {
	poller, err := runtime.NewPoller(resp, c.armPipeline(), &runtime.NewPollerOptions[json.RawMessage]{FinalStateVia: final})
	if err != nil {
		return nil, translate(err)
	}
	for delay := firstPoll; !poller.Done(); delay = min(2*delay, slowestPoll) {
		if err := pause(ctx, delay); err != nil {
			return nil, err
		}
		if _, err := poller.Poll(ctx); err != nil { //nolint:bodyclose // the pipeline has read the body whole
			return nil, translate(err)
		}
	}
	result, err := poller.Result(ctx)
	if err != nil {
		return nil, translate(err)
	}
	return result, nil
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// list reads all pages of a collection, following nextLink as long as it stays on the server.
func list[T any](ctx context.Context, c *Client, p runtime.Pipeline, address string) ([]T, error) {
	all := []T{}
	for address != "" {
		var page struct {
			Value    []T    `json:"value"`
			NextLink string `json:"nextLink"`
		}
		if err := fetch(ctx, p, http.MethodGet, address, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		next := page.NextLink
		if next != "" {
			u, err := url.Parse(next)
			if err != nil || !c.ours(u) {
				return nil, fmt.Errorf("read pages: next link %q does not lead to this server", next)
			}
			if next == address {
				return nil, errors.New("read pages: next link leads back to the same page")
			}
		}
		address = next
	}
	return all, nil
}

func (c *Client) listARM(path, version, filter string) string {
	query := url.Values{}
	if filter != "" {
		query.Set("$filter", filter)
	}
	return c.armURL(path, version, query)
}

// ours reports whether an address belongs to the server, so that a token may be sent there.
func (c *Client) ours(u *url.URL) bool {
	return u.Scheme == "https" && u.Port() == c.endpoint.Port() && under(u.Hostname(), c.endpoint.Hostname())
}

// under reports whether host is the domain or a name below it.
func under(host, domain string) bool {
	host, domain = strings.ToLower(host), strings.ToLower(domain)
	return host == domain || strings.HasSuffix(host, "."+domain)
}
