package nbd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/tooltest"
)

// pki is a certificate authority with a server and a client, also as files under the names that QEMU and
// libnbd look for.
type pki struct {
	t      *testing.T
	dir    string
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	pool   *x509.CertPool
	serial int64
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	p.ca = &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	cert := p.issue(p.ca, "ca")
	p.ca, p.key = cert.Leaf, cert.PrivateKey.(*ecdsa.PrivateKey)
	p.pool.AddCert(p.ca)
	p.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "server")
	p.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "client")
	return p
}

func (p *pki) issue(c *x509.Certificate, name string) tls.Certificate {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.serial++
	c.SerialNumber = big.NewInt(p.serial)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	c.KeyUsage |= x509.KeyUsageDigitalSignature
	issuer := p.key
	if issuer == nil {
		issuer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, p.ca, key.Public(), issuer)
	if err != nil {
		p.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + "-cert.pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(p.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (p *pki) load(name string) []tls.Certificate {
	p.t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(p.dir, name+"-cert.pem"), filepath.Join(p.dir, name+"-key.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	return []tls.Certificate{cert}
}

func (p *pki) server(auth tls.ClientAuthType) *tls.Config {
	return &tls.Config{Certificates: p.load("server"), ClientAuth: auth, ClientCAs: p.pool}
}

func (p *pki) client() *tls.Config {
	return &tls.Config{Certificates: p.load("client"), RootCAs: p.pool, ServerName: "localhost"}
}

func TestTLS(t *testing.T) {
	disk := patched(5 << 20)
	p := newPKI(t)
	_, sock := offer(t, ServerOptions{TLS: p.server(tls.RequireAndVerifyClientCert)}, Export{Name: "disk", Disk: disk})
	c, err := DialTLS(t.Context(), "unix", sock, p.client(), "disk", ContextAllocation)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, c.Size())
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk.data) || !c.Has(ContextAllocation) {
		t.Errorf("read over TLS: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := Dial(t.Context(), "unix", sock, "disk"); err == nil || !strings.Contains(err.Error(), "TLS only") {
		t.Errorf("without TLS: %v", err)
	}
	stranger := newPKI(t)
	wrong := p.client()
	wrong.Certificates = stranger.load("client")
	if c, err := DialTLS(t.Context(), "unix", sock, wrong, "disk"); err == nil {
		_ = c.Close()
		t.Error("a client with a stranger's certificate was let in")
	}
	wrong = p.client()
	wrong.Certificates = nil
	if c, err := DialTLS(t.Context(), "unix", sock, wrong, "disk"); err == nil {
		_ = c.Close()
		t.Error("a client without a certificate was let in")
	}
	wrong = p.client()
	wrong.RootCAs = stranger.pool
	if _, err := DialTLS(t.Context(), "unix", sock, wrong, "disk"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server with a stranger's certificate: %v", err)
	}
	_, plain := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk})
	if _, err := DialTLS(t.Context(), "unix", plain, p.client(), "disk"); err == nil || !strings.Contains(err.Error(), "speaks no TLS") {
		t.Errorf("TLS with a server that has none: %v", err)
	}
}

func TestTLSToQEMU(t *testing.T) {
	tooltest.Need(t, "qemu-nbd")
	p := newPKI(t)
	disk := patched(2 << 20)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, disk.data, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	serveTCP(t, image, "raw", addr.Port, "--read-only", "--object", "tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,dir="+p.dir, "--tls-creds", "tls0")
	c, err := DialTLS(t.Context(), "tcp", addr.String(), p.client(), "disk", ContextAllocation)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, c.Size())
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk.data) {
		t.Errorf("read over TLS: %v", err)
	}
}

// Two clients of one authority see their own exports, and not that the other's are there.
func TestExportsOfClients(t *testing.T) {
	p := newPKI(t)
	config := p.server(tls.RequireAndVerifyClientCert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	disk := patched(2 << 20)
	offerOn(t, l, ServerOptions{TLS: config}, Export{Name: "mine", Client: "one", Disk: disk}, Export{Name: "its", Client: "two", Disk: disk}, Export{Name: "all", Disk: disk})
	for name, sees := range map[string]string{"one": "mine", "two": "its"} {
		cert := p.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, name)
		for _, export := range []string{"mine", "its", "all"} {
			c, err := DialTLS(t.Context(), "tcp", l.Addr().String(), &tls.Config{RootCAs: p.pool, ServerName: "localhost", Certificates: []tls.Certificate{cert}}, export, ContextAllocation)
			if want := export == sees || export == "all"; (err == nil) != want {
				t.Errorf("%s and the export %s: %v", name, export, err)
			}
			if err != nil {
				continue
			}
			if !bytes.Equal(readAll(t, Forwarded{c}), disk.data) {
				t.Errorf("%s reads another disk", name)
			}
			_ = c.Close()
		}
	}
	_, sock := offer(t, ServerOptions{}, Export{Name: "mine", Client: "one", Disk: disk})
	if _, err := Dial(t.Context(), "unix", sock, "mine"); err == nil {
		t.Error("an export of a client is there without a certificate")
	}
}

// readAll reads a disk through its map of data, over a second server that offers it in plain.
func readAll(t *testing.T, d Disk) []byte {
	t.Helper()
	_, sock := offer(t, ServerOptions{}, Export{Disk: d})
	c := mustDial(t, sock, "")
	all := make([]byte, c.Size())
	for e, err := range c.Source("").Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ReadAt(all[e.Offset:e.Offset+e.Length], e.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
