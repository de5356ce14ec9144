package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"kluis/internal/secret"
)

// Clients is an authority for clients that are let in for some hours. Its key lives in memory only and ends
// with the process, and so does whatever it signed; nobody is told to trust it but the server that made it.
type Clients struct {
	authority pair
	o         Options
}

// Issued is a client's certificate with its key, in PEM.
type Issued struct {
	Certificate []byte
	Key         secret.Bytes
}

// NewClients makes an authority.
func NewClients(o Options) (*Clients, error) {
	if o.Now == nil {
		return nil, errors.New("certificate needs a clock")
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	s := store{Options: o}
	template, err := s.template("Kluis clients", authorityLife)
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	authority, err := s.sign(template, nil)
	if err != nil {
		return nil, fmt.Errorf("make authority for clients: %w", err)
	}
	return &Clients{authority, o}, nil
}

// Pool is what a server checks its clients' certificates with.
func (c *Clients) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.cert)
	return pool
}

// PEM is the authority's own certificate. QEMU wants it among those it trusts, to try its own certificate on.
func (c *Clients) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.authority.cert.Raw})
}

// Issue makes a certificate for a client of that name. The caller wipes its key.
func (c *Clients) Issue(name string, until time.Time) (Issued, error) {
	s := store{Options: c.o}
	template, err := s.template(name, until.Sub(c.o.Now()))
	if err != nil {
		return Issued{}, err
	}
	template.Subject = pkix.Name{CommonName: name}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	p, err := s.sign(template, &c.authority)
	if err != nil {
		return Issued{}, fmt.Errorf("make certificate of client: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return Issued{}, fmt.Errorf("marshal key of client: %w", err)
	}
	defer clear(der)
	return Issued{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}),
		secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}, nil
}

// sign makes a key and a certificate for it, signed with the authority, or with the key itself when there is none.
func (s store) sign(template *x509.Certificate, authority *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), s.Rand)
	if err != nil {
		return pair{}, fmt.Errorf("generate key: %w", err)
	}
	parent := pair{template, key}
	if authority != nil {
		parent = *authority
	}
	der, err := x509.CreateCertificate(s.Rand, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("parse certificate: %w", err)
	}
	return pair{cert, key}, nil
}
