package main

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"kluis/internal/backup"
	"kluis/internal/certificate"
	"kluis/internal/nbd"
)

// exportNothing is the setting that serves no disks.
const exportNothing = "none"

// exports is the NBD server of recovery points. It speaks TLS with the server's own certificate and lets in only
// whoever holds a certificate that it made for a mount; each sees the disks of that mount and no others. It
// listens from the first mount on.
type exports struct {
	listen    string
	domain    string
	authority []byte // what clients trust, in PEM
	clients   *certificate.Clients
	server    *nbd.Server
	log       *slog.Logger

	mu      sync.Mutex
	closed  bool
	address string     // where it listens; empty until it does
	ended   chan error // of Serve
}

var _ backup.Exports = (*exports)(nil)

func newExports(c config, own *tls.Config, caFile string, log *slog.Logger) (*exports, error) {
	authority, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	clients, err := certificate.NewClients(certificate.Options{Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	insist := own.Clone()
	insist.NextProtos = nil
	insist.ClientAuth, insist.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
	insist.SessionTicketsDisabled = true // a certificate that is over opens nothing
	return &exports{listen: c.Export, domain: c.Domain, authority: append(authority, clients.PEM()...), clients: clients, log: log,
		server: nbd.NewServer(nbd.ServerOptions{TLS: insist, Connections: 256, Logger: log})}, nil
}

// Offer implements backup.Exports.
func (e *exports) Offer(mount string, until time.Time, disks []backup.ExportedDisk) (_ backup.Access, err error) {
	address, err := e.start()
	if err != nil {
		return backup.Access{}, err
	}
	issued, err := e.clients.Issue(mount, until)
	if err != nil {
		return backup.Access{}, err
	}
	for i, d := range disks {
		if err := e.server.Offer(nbd.Export{Name: d.Export, Description: d.Encryption, Disk: d, Client: mount}); err != nil {
			issued.Key.Wipe()
			e.Withdraw(mount, disks[:i])
			return backup.Access{}, err
		}
	}
	return backup.Access{Address: address, Authority: e.authority, Certificate: issued.Certificate, Key: issued.Key}, nil
}

// Withdraw implements backup.Exports.
func (e *exports) Withdraw(_ string, disks []backup.ExportedDisk) {
	for _, d := range disks {
		e.server.Withdraw(d.Export)
	}
}

// start listens, unless it does already, and returns the address for clients.
func (e *exports) start() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.address != "" || e.closed {
		return e.address, nil
	}
	l, err := net.Listen("tcp", e.listen)
	if err != nil {
		return "", fmt.Errorf("listen for clients of recovery points: %w", err)
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "", errors.Join(err, l.Close())
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = e.domain
	}
	e.address, e.ended = net.JoinHostPort(host, port), make(chan error, 1)
	go func() { e.ended <- e.server.Serve(l) }()
	e.log.Info("disks of recovery points are served", "address", e.address)
	return e.address, nil
}

// Close ends listener and connections.
func (e *exports) Close() error {
	e.mu.Lock()
	e.closed = true
	ended := e.ended
	e.mu.Unlock()
	err := e.server.Close()
	if ended != nil {
		if served := <-ended; !errors.Is(served, nbd.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	return err
}
