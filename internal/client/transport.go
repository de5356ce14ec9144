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

// newTransport trusts the server's own certificate authority and nobody else's, and dials the server's
// address for every name under its domain. It uses no proxy.
func newTransport(endpoint *url.URL, caFile string) (*http.Client, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read the server's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the server's certificate authority: %s holds no certificate", caFile)
	}
	port := endpoint.Port()
	if port == "" {
		port = "443"
	}
	server := net.JoinHostPort(endpoint.Hostname(), port)
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{
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
	}, nil
}
