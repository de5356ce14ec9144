package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kluis/internal/backup"
	"kluis/internal/certificate"
	"kluis/internal/nbd"
)

// text is a disk that holds a text.
type text struct{ *bytes.Reader }

func (d text) NextData(_ context.Context, off int64) (start, n int64, err error) {
	return off, max(0, d.Size()-off), nil
}

// The server of recovery points listens when it is needed, gives each mount its own disks, and leaves nothing
// running, whoever is connected.
func TestExports(t *testing.T) {
	defer goleak.VerifyNone(t)
	own, caFile, err := certificate.Ensure(t.TempDir(), certificate.Options{Domain: "localhost", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newExports(config{Export: "127.0.0.1:0", Domain: "localhost"}, own, caFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if e.address != "" {
		t.Errorf("it listens on %s before anybody wants it", e.address)
	}
	offer := func(mount string) (backup.Access, []backup.ExportedDisk) {
		t.Helper()
		disks := []backup.ExportedDisk{{Export: mount + "/os", Content: text{bytes.NewReader([]byte(mount))}}}
		a, err := e.Offer(mount, time.Now().Add(time.Hour), disks)
		if err != nil {
			t.Fatal(err)
		}
		return a, disks
	}
	dial := func(a backup.Access, export string) (*nbd.Client, error) {
		t.Helper()
		pair, err := tls.X509KeyPair(a.Certificate, a.Key.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.Authority)
		host, _, err := net.SplitHostPort(a.Address)
		if err != nil {
			t.Fatal(err)
		}
		return nbd.DialTLS(t.Context(), "tcp", a.Address, &tls.Config{RootCAs: roots, ServerName: host, Certificates: []tls.Certificate{pair}}, export)
	}
	one, disks := offer("one")
	two, _ := offer("two")
	if one.Address != two.Address {
		t.Errorf("it listens on %s and %s", one.Address, two.Address)
	}
	if _, err := e.Offer("one", time.Now().Add(time.Hour), disks); err == nil {
		t.Error("a disk is offered twice")
	}
	if _, err := dial(one, "two/os"); err == nil {
		t.Error("one mount reads the disks of another")
	}
	c, err := dial(one, "one/os")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 3)
	if _, err := c.ReadAt(got, 0); err != nil || string(got) != "one" {
		t.Errorf("read %q, %v", got, err)
	}
	e.Withdraw("one", disks)
	if _, err := c.ReadAt(got, 0); err == nil {
		t.Error("what was withdrawn can be read")
	}
	other, err := dial(two, "two/os")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := other.ReadAt(got, 0); err == nil {
		t.Error("a server that is closed serves")
	}
}
