package certificate_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/certificate"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ensure(t *testing.T, dir, domain string, now time.Time, ips ...net.IP) (*tls.Config, string) {
	t.Helper()
	config, caFile, err := certificate.Ensure(dir, certificate.Options{Domain: domain, IPs: ips, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return config, caFile
}

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// A Go client that trusts ca.pem, and nothing else, reaches the server under each of its names.
func TestNamesOverTLS(t *testing.T) {
	for _, domain := range []string{"localhost", "backup.example.com"} {
		config, caFile := ensure(t, t.TempDir(), domain, start, net.IPv4(192, 0, 2, 7))
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.Host) }))
		server.TLS = config
		server.StartTLS()
		t.Cleanup(server.Close)

		pem, err := os.ReadFile(caFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			t.Fatal("ca.pem holds no certificate")
		}
		dial := func(host string) error {
			c := &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: host, Time: func() time.Time { return start }},
			}}
			defer c.CloseIdleConnections()
			response, err := c.Get(server.URL)
			if err != nil {
				return err
			}
			return response.Body.Close()
		}
		for _, host := range []string{domain, "localhost", "127.0.0.1", "::1", "192.0.2.7", "a." + domain, "kv1.vault." + domain, "account.blob." + domain} {
			if err := dial(host); err != nil {
				t.Errorf("domain %s: %s: %v", domain, host, err)
			}
		}
		for _, host := range []string{"example.org", "a.b.vault." + domain, "192.0.2.8"} {
			if err := dial(host); err == nil {
				t.Errorf("domain %s: the certificate is good for %s", domain, host)
			}
		}
	}
}

func TestFilesAndTheirModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	_, caFile := ensure(t, dir, "localhost", start)
	if caFile != filepath.Join(dir, "ca.pem") {
		t.Errorf("caFile = %s", caFile)
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o644, "server.key": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, mode)
		}
	}
	if all := readAll(t, dir); len(all) != 4 {
		t.Errorf("the folder holds %d files, want 4", len(all))
	}
	config, _ := ensure(t, dir, "localhost", start)
	leaf := config.Certificates[0].Leaf
	if leaf.IsCA || len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || leaf.NotAfter.Sub(start) != 365*24*time.Hour {
		t.Errorf("server certificate: CA %v, usage %v, until %s", leaf.IsCA, leaf.ExtKeyUsage, leaf.NotAfter)
	}
}

func TestRenewal(t *testing.T) {
	const day = 24 * time.Hour
	dir := t.TempDir()
	ensure(t, dir, "localhost", start)
	first := readAll(t, dir)
	step := func(name string, renewed bool, do func()) {
		t.Helper()
		before := readAll(t, dir)
		do()
		after := readAll(t, dir)
		if (before["server.pem"] != after["server.pem"]) != renewed {
			t.Errorf("%s: renewed %v, want %v", name, !renewed, renewed)
		}
		if after["ca.pem"] != first["ca.pem"] || after["ca.key"] != first["ca.key"] {
			t.Errorf("%s: the authority changed", name)
		}
	}
	step("same day", false, func() { ensure(t, dir, "localhost", start) })
	step("31 days left", false, func() { ensure(t, dir, "localhost", start.Add(334*day)) })
	step("29 days left", true, func() { ensure(t, dir, "localhost", start.Add(336*day)) })
	step("after that", false, func() { ensure(t, dir, "localhost", start.Add(337*day)) })
	step("long ended", true, func() { ensure(t, dir, "localhost", start.Add(1000*day)) })
	step("another domain", true, func() { ensure(t, dir, "example.com", start.Add(1000*day)) })
	step("another address", true, func() { ensure(t, dir, "example.com", start.Add(1000*day), net.IPv4(10, 0, 0, 1)) })
	step("an address twice", false, func() {
		ensure(t, dir, "example.com", start.Add(1000*day), net.IPv4(10, 0, 0, 1), net.IPv4(127, 0, 0, 1))
	})

	config, _ := ensure(t, dir, "example.com", start.Add(3640*day))
	leaf := config.Certificates[0].Leaf
	if !leaf.NotAfter.Equal(start.Add(3650 * day)) {
		t.Errorf("near the authority's end the server certificate ends %s", leaf.NotAfter)
	}
	_, _, err := certificate.Ensure(dir, certificate.Options{Domain: "example.com", Now: func() time.Time { return start.Add(3650 * day) }})
	if err == nil || !strings.Contains(err.Error(), "ended on") {
		t.Errorf("with an ended authority: %v", err)
	}
}

// Whatever happened to the files, the authority is never replaced behind the clients' back, and what
// can be made again is.
func TestDamage(t *testing.T) {
	ruin := func(name string, content []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	garbage := bytes.Repeat([]byte("garbage "), 10)
	badPEM := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	cases := []struct {
		name    string
		damage  func(t *testing.T, dir string)
		refused bool
	}{
		{"server.pem gone", remove("server.pem"), false},
		{"server.key gone", remove("server.key"), false},
		{"server.pem garbage", ruin("server.pem", garbage), false},
		{"server.key empty", ruin("server.key", nil), false},
		{"server.key not a key", ruin("server.key", badPEM), false},
		{"ca.key gone", remove("ca.key"), true},
		{"ca.key garbage", ruin("ca.key", garbage), true},
		{"ca.key not a key", ruin("ca.key", badPEM), true},
		{"ca.pem empty", ruin("ca.pem", nil), true},
		{"keys swapped", func(t *testing.T, dir string) {
			ruin("ca.key", []byte(readAll(t, dir)["server.key"]))(t, dir)
		}, true},
		// A crash between ca.key and ca.pem at the very first start: nobody trusts anything yet.
		{"only ca.key was written", func(t *testing.T, dir string) {
			for _, name := range []string{"ca.pem", "server.key", "server.pem"} {
				remove(name)(t, dir)
			}
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ensure(t, dir, "localhost", start)
			c.damage(t, dir)
			before := readAll(t, dir)
			config, _, err := certificate.Ensure(dir, certificate.Options{Domain: "localhost", Now: func() time.Time { return start }})
			if c.refused {
				if err == nil {
					t.Fatal("accepted")
				}
				if after := readAll(t, dir); after["ca.pem"] != before["ca.pem"] || after["ca.key"] != before["ca.key"] {
					t.Error("the authority was changed")
				}
				return
			}
			if err != nil || len(config.Certificates) != 1 {
				t.Fatalf("not mended: %v", err)
			}
		})
	}
}

func TestEnsureRefuses(t *testing.T) {
	now := func() time.Time { return start }
	if _, _, err := certificate.Ensure(t.TempDir(), certificate.Options{Now: now}); err == nil {
		t.Error("no domain: accepted")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := certificate.Ensure(file, certificate.Options{Domain: "localhost", Now: now}); err == nil {
		t.Error("a file for a folder: accepted")
	}
}
