package keyservice

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
)

// maxAnswer bounds what is read of one answer. The largest is the backup of a key with all its versions.
const maxAnswer = 16 << 20

const moduleName, moduleVersion = "kluis", "v1"

// transport carries requests, to the hosts that it may ask and to no others.
type transport struct {
	http *http.Client
	may  func(host string) bool
}

// Do implements policy.Transporter.
func (t transport) Do(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" || !t.may(hostOf(req.URL)) {
		return nil, notConfigured(hostOf(req.URL))
	}
	resp, err := t.http.Do(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// newTransport trusts roots. instead may name another address for a host; empty leaves it.
func newTransport(roots *x509.CertPool, may func(host string) bool, instead func(host string) string) transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return transport{may: may, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: tryTimeout,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if other := instead(address); other != "" {
					address = other
				}
				return dialer.DialContext(ctx, network, address)
			},
		},
		// A redirect would carry the request, and perhaps the token, to a place nobody named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// clientOptions bound how long one waits for a service that is away: some seconds, not minutes.
func clientOptions(t transport, o Options) policy.ClientOptions {
	return policy.ClientOptions{Transport: t, Retry: policy.RetryOptions{
		MaxRetries: retries, TryTimeout: tryTimeout, RetryDelay: o.RetryDelay, MaxRetryDelay: 8 * o.RetryDelay,
		StatusCodes: []int{http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout},
	}}
}

// openPipeline sends no token.
func openPipeline(o policy.ClientOptions) runtime.Pipeline {
	return runtime.NewPipeline(moduleName, moduleVersion, runtime.PipelineOptions{}, &o)
}

// request is one call of a key service.
type request struct {
	operation    string // for errors: "backup of key kek"
	method, url  string
	header       map[string]string
	body, answer any
}

// do sends a request and reads its answer. Every failure is an *Error.
func (r request) do(ctx context.Context, p runtime.Pipeline) error {
	req, err := runtime.NewRequest(ctx, r.method, r.url)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Raw().Header.Set("Accept", "application/json")
	for name, value := range r.header {
		req.Raw().Header.Set(name, value)
	}
	if r.body != nil {
		sent, err := json.Marshal(r.body)
		if err != nil {
			return fmt.Errorf("write request: %w", err)
		}
		if err := req.SetBody(streaming.NopCloser(bytes.NewReader(sent)), "application/json"); err != nil {
			return fmt.Errorf("write request: %w", err)
		}
	}
	host := hostOf(req.Raw().URL)
	resp, err := p.Do(req)
	if err != nil {
		return failed(host, r.operation, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := runtime.Payload(resp)
	if err != nil {
		return failed(host, r.operation, err)
	}
	defer clear(data)
	if resp.StatusCode != http.StatusOK {
		return refused(host, r.operation, resp.StatusCode, data)
	}
	if err := json.Unmarshal(data, r.answer); err != nil {
		return &Error{Kind: Malformed, Host: shown(host), Operation: r.operation, Message: "the answer is not what the API documents"}
	}
	return nil
}
