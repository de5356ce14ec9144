package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// maxAnswer bounds what is read of one answer: azcore keeps it whole in memory.
const maxAnswer = 16 << 20

// transport carries requests for azcore.
type transport struct{ http *http.Client }

// Do sends a request. Reading more than maxAnswer of the answer is an error.
func (t transport) Do(req *http.Request) (*http.Response, error) {
	resp, err := t.http.Do(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// newTransport trusts the server's own certificate authority and nobody else's, and dials the server's
// address for every name under its domain. It uses no proxy.
func newTransport(endpoint *url.URL, caFile string) (transport, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return transport{}, fmt.Errorf("read the server's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return transport{}, fmt.Errorf("read the server's certificate authority: %s holds no certificate", caFile)
	}
	port := endpoint.Port()
	if port == "" {
		port = "443"
	}
	server := net.JoinHostPort(endpoint.Hostname(), port)
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return transport{&http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 8,
			IdleConnTimeout:     90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if host, p, err := net.SplitHostPort(address); err == nil && p == port && under(host, endpoint.Hostname()) {
					address = server
				}
				return dialer.DialContext(ctx, network, address)
			},
		},
		// A redirect would carry the request, and perhaps the token, to a place nobody asked for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}
