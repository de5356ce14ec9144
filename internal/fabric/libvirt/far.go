package libvirt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"libvirt.org/go/libvirtxml"

	"kluis/internal/nbd"
)

// The disks of a machine on a host elsewhere are read over the network: QEMU listens on a port of the host, speaks TLS,
// and serves whom its settings let it verify. We show the certificate with which libvirt clients show themselves, and
// believe the authority that they believe. The live folder must be on the host already, since nothing can be made
// there from here; scratch files of all machines lie in it side by side.
//
// Source: libvirt's formatbackup (server), qemu.conf (backup_tls_x509_cert_dir), "libvirt remote support" (pkipath).

// Ports are those that QEMU may listen on while it is read from, the first and the last.
type Ports struct{ First, Last uint16 }

// defaultPorts are those that libvirt's hosts keep open for migrations.
var defaultPorts = Ports{49152, 49215}

// ParsePorts reads ports as people write them: 49152-49215.
func ParsePorts(text string) (Ports, error) {
	first, last, ok := strings.Cut(text, "-")
	from, err := strconv.ParseUint(first, 10, 16)
	to, lastErr := strconv.ParseUint(last, 10, 16)
	p := Ports{uint16(from), uint16(to)}
	if !ok || err != nil || lastErr != nil || p.check() != nil {
		return Ports{}, fmt.Errorf("%q are no ports, such as 49152-49215", text)
	}
	return p, nil
}

func (p Ports) check() error {
	if p.First == 0 || p.Last < p.First {
		return fmt.Errorf("%d-%d are no ports", p.First, p.Last)
	}
	return nil
}

// server is where a job is read from.
type server struct {
	network, address string
	tls              *tls.Config
}

func (s server) dial(ctx context.Context, export string, contexts ...string) (*nbd.Client, error) {
	return nbd.DialTLS(ctx, s.network, s.address, s.tls, export, contexts...)
}

// xml describes the server to libvirt.
func (s server) xml() (*libvirtxml.DomainBackupPullServer, error) {
	if s.network == "unix" {
		return &libvirtxml.DomainBackupPullServer{UNIX: &libvirtxml.DomainBackupPullServerUNIX{Socket: s.address}}, nil
	}
	name, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	return &libvirtxml.DomainBackupPullServer{TLS: "yes", TCP: &libvirtxml.DomainBackupPullServerTCP{Name: name, Port: uint(n)}}, nil
}

// serverFor chooses where the next job is read from.
func (h *Host) serverFor(ctx context.Context, live string) (server, error) {
	if h.local {
		return server{network: "unix", address: filepath.Join(live, "nbd")}, nil
	}
	config, err := clientTLS(h.uri)
	if err != nil {
		return server{}, err
	}
	address, err := h.freePort(ctx)
	return server{"tcp", address, config}, err
}

// freePort finds a port of the host on which nobody listens. Each job asks for the next one, so that two that begin at
// the same time do not ask for the same.
func (h *Host) freePort(ctx context.Context) (address string, err error) {
	all := int(h.o.Ports.Last-h.o.Ports.First) + 1
	for range all {
		h.mu.Lock()
		port := int(h.o.Ports.First) + h.port%all
		h.port++
		h.mu.Unlock()
		address = net.JoinHostPort(h.uri.Hostname(), strconv.Itoa(port))
		if taken := listens(ctx, address); ctx.Err() != nil {
			return "", context.Cause(ctx)
		} else if !taken {
			return address, nil
		}
	}
	return "", fmt.Errorf("all ports from %d to %d of %s are taken", h.o.Ports.First, h.o.Ports.Last, h.uri.Hostname())
}

// listens reports whether somebody listens on an address. What stands between is told of when the disks are to be read.
func listens(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: portTime}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// portTime is how long somebody who listens on a port has to say so.
const portTime = 2 * time.Second

// pkiFolders are where libvirt's clients keep their certificate, its key, and the authority's certificate.
type pkiFolders struct{ cert, key, authority string }

// clientTLS is how we show ourselves to a host, and how we know it: by the files that libvirt's own clients use.
func clientTLS(uri *url.URL) (*tls.Config, error) {
	var errs []error
	for _, f := range pkiOf(uri) {
		c, err := f.read(uri.Hostname())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("disks of machines on %s are read with libvirt's client certificate: %w", uri.Hostname(), errors.Join(errs...))
}

func pkiOf(uri *url.URL) (all []pkiFolders) {
	if dir := uri.Query().Get("pkipath"); dir != "" {
		return []pkiFolders{{dir, dir, dir}}
	}
	if home, err := os.UserHomeDir(); err == nil && os.Geteuid() != 0 {
		dir := filepath.Join(home, ".pki", "libvirt")
		all = append(all, pkiFolders{dir, dir, dir})
	}
	return append(all, pkiFolders{"/etc/pki/libvirt", "/etc/pki/libvirt/private", "/etc/pki/CA"})
}

func (f pkiFolders) read(host string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(f.cert, "clientcert.pem"), filepath.Join(f.key, "clientkey.pem"))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.authority, "cacert.pem")
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return &tls.Config{ServerName: host, Certificates: []tls.Certificate{cert}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// elsewhere adds to a refusal what a host elsewhere must have, which cannot be seen from here.
func (h *Host) elsewhere(err error) error {
	if h.local || err == nil || !isRefusal(err) {
		return err
	}
	return fmt.Errorf("%w (on %s there must be the folder %s, which this makes: install -d -o libvirt-qemu -m 0700 %[3]s; and in /etc/libvirt/qemu.conf backup_tls_x509_cert_dir must name the folder of the server's certificate)",
		err, h.uri.Hostname(), h.o.LiveDir)
}
