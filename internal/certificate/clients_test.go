package certificate_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"kluis/internal/certificate"
)

// A client's certificate is good with the authority that made it and no other, as a client's, until its time is over.
func TestClients(t *testing.T) {
	now := func() time.Time { return start }
	clients, err := certificate.NewClients(certificate.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	others, err := certificate.NewClients(certificate.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := clients.Issue("mount", start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(issued.Certificate, issued.Key.Reveal()); err != nil {
		t.Error(err)
	}
	block, _ := pem.Decode(issued.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Subject.CommonName != "mount" || cert.IsCA {
		t.Fatalf("%+v, %v", cert, err)
	}
	fromPEM := x509.NewCertPool()
	fromPEM.AppendCertsFromPEM(clients.PEM())
	for name, c := range map[string]struct {
		roots *x509.CertPool
		at    time.Time
		usage x509.ExtKeyUsage
		good  bool
	}{
		"client":    {clients.Pool(), start, x509.ExtKeyUsageClientAuth, true},
		"PEM":       {fromPEM, start, x509.ExtKeyUsageClientAuth, true},
		"late":      {clients.Pool(), start.Add(time.Hour + time.Second), x509.ExtKeyUsageClientAuth, false},
		"server":    {clients.Pool(), start, x509.ExtKeyUsageServerAuth, false},
		"authority": {others.Pool(), start, x509.ExtKeyUsageClientAuth, false},
	} {
		_, err := cert.Verify(x509.VerifyOptions{Roots: c.roots, CurrentTime: c.at, KeyUsages: []x509.ExtKeyUsage{c.usage}})
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certificate.NewClients(certificate.Options{}); err == nil {
		t.Error("an authority without a clock")
	}
}
