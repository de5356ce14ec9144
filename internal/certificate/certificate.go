// Package certificate keeps the server's own certificate authority and server certificate in a folder.
//
// Clients of this server are told to trust one file, ca.pem, once. The authority therefore lives for
// ten years and is never replaced by itself, while the server certificate lives for one year and is
// made anew at a start when it is about to end or no longer names what it should.
//
//	ca.pem  ca.key  server.pem  server.key
//
// Clients is another authority, of those that the server lets in for some hours; it is kept in no file.
//
// Keys are ECDSA P-256 in files that only the owner reads. A file is written to a temporary name,
// synced and renamed, so a crash leaves the old file or the new one. A damaged file is an error and
// never a reason to make a new authority: that would lock every client out.
package certificate

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 365 * 24 * time.Hour
	renewBefore   = 30 * 24 * time.Hour
	backdate      = time.Hour // for clients whose clock is behind
)

// Options says what the server is called. Now is required.
type Options struct {
	Domain string   // "localhost", or the domain under which vaults and accounts get their names
	IPs    []net.IP // further addresses; 127.0.0.1 and ::1 are always there
	Now    func() time.Time
	Rand   io.Reader // nil: crypto/rand
}

// Ensure returns the TLS configuration of the server and the path of the file that clients trust.
// It makes what is missing in dir and renews the server certificate when less than 30 days are left.
func Ensure(dir string, o Options) (config *tls.Config, caFile string, err error) {
	if o.Domain == "" || o.Now == nil {
		return nil, "", errors.New("certificate needs a domain and a clock")
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("make certificate folder: %w", err)
	}
	s := store{dir, o}
	authority, err := s.authority()
	if err != nil {
		return nil, "", err
	}
	server, err := s.server(authority)
	if err != nil {
		return nil, "", err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{server.cert.Raw, authority.cert.Raw}, PrivateKey: server.key, Leaf: server.cert}},
	}, filepath.Join(dir, "ca.pem"), nil
}

// Names returns the DNS names in the server certificate. A wildcard stands for one label, so the
// hosts of vaults and accounts have their own.
func Names(domain string) []string {
	names := []string{domain, "localhost", "*." + domain, "*.vault." + domain, "*.blob." + domain}
	slices.Sort(names)
	return slices.Compact(names)
}

type store struct {
	dir string
	Options
}

type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (s store) authority() (pair, error) {
	p, err := s.read("ca")
	if err == nil {
		if !s.Now().Before(p.cert.NotAfter) {
			return pair{}, fmt.Errorf("the certificate authority in %s ended on %s; move its files away to get a new one, which every client must then trust", s.dir, p.cert.NotAfter.Format(time.DateOnly))
		}
		return p, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || s.exists("ca.pem") {
		return pair{}, fmt.Errorf("read certificate authority: %w", err)
	}
	template, err := s.template("Kluis local certificate authority", authorityLife)
	if err != nil {
		return pair{}, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return s.make("ca", template, nil)
}

func (s store) server(authority pair) (pair, error) {
	p, err := s.read("server")
	switch {
	case err == nil && s.current(p, authority):
		return p, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errDamaged):
		return pair{}, fmt.Errorf("read server certificate: %w", err)
	}
	template, err := s.template(s.Domain, serverLife)
	if err != nil {
		return pair{}, err
	}
	if template.NotAfter.After(authority.cert.NotAfter) {
		template.NotAfter = authority.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.DNSNames, template.IPAddresses = Names(s.Domain), s.addresses()
	return s.make("server", template, &authority)
}

// current reports whether a server certificate can be used as it is.
func (s store) current(p, authority pair) bool {
	now := s.Now()
	return p.cert.CheckSignatureFrom(authority.cert) == nil &&
		!now.Before(p.cert.NotBefore) && now.Add(renewBefore).Before(p.cert.NotAfter) &&
		slices.Equal(p.cert.DNSNames, Names(s.Domain)) &&
		slices.EqualFunc(p.cert.IPAddresses, s.addresses(), net.IP.Equal)
}

func (s store) addresses() []net.IP {
	all := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, ip := range s.IPs {
		if !slices.ContainsFunc(all, ip.Equal) {
			all = append(all, ip)
		}
	}
	return all
}

func (s store) template(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(s.Rand, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	now := s.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"Kluis"}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
	}, nil
}

// make signs a certificate with the authority, or with its own key when there is none, and stores it.
// The key goes first: a key without a certificate is made again, a certificate without a key is not.
func (s store) make(name string, template *x509.Certificate, authority *pair) (pair, error) {
	p, err := s.sign(template, authority)
	if err != nil {
		return pair{}, fmt.Errorf("%s: %w", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return pair{}, fmt.Errorf("marshal key of %s: %w", name, err)
	}
	defer clear(keyDER)
	if err := s.write(name+".key", "PRIVATE KEY", keyDER, 0o600); err != nil {
		return pair{}, err
	}
	if err := s.write(name+".pem", "CERTIFICATE", p.cert.Raw, 0o644); err != nil {
		return pair{}, err
	}
	return p, nil
}

// errDamaged marks a pair of files that is there but can't be used. A server's is made again.
var errDamaged = errors.New("damaged")

func (s store) read(name string) (pair, error) {
	certDER, err := s.readPEM(name+".pem", "CERTIFICATE")
	if err != nil {
		return pair{}, err
	}
	keyDER, err := s.readPEM(name+".key", "PRIVATE KEY")
	if err != nil {
		return pair{}, err
	}
	defer clear(keyDER)
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return pair{}, fmt.Errorf("%s.pem is %w: %w", name, errDamaged, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return pair{}, fmt.Errorf("%s.key is %w", name, errDamaged) // the cause might quote the key
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return pair{}, fmt.Errorf("%s.key is %w: it does not belong to %s.pem", name, errDamaged, name)
	}
	return pair{cert, key}, nil
}

func (s store) readPEM(name, kind string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is %w: it holds no PEM block %s", filepath.Join(s.dir, name), errDamaged, strings.ToLower(kind))
	}
	return block.Bytes, nil
}

func (s store) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(s.dir, name))
	return err == nil
}

// write replaces a file whole or not at all, durably.
func (s store) write(name, kind string, der []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(s.dir, "."+name+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	if err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), filepath.Join(s.dir, name)); err != nil {
		return err
	}
	return syncFolder(s.dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
