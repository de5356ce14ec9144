package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"kluis/internal/certificate"
)

// Names of the certificates that QEMU and libnbd look for in a folder.
const (
	caCert     = "ca-cert.pem"
	serverCert = "server-cert.pem"
	serverKey  = "server-key.pem"
)

// exports measures our NBD client and our NBD server beside those of libnbd and QEMU, on one export whose bytes are all in
// the page cache.
func (b *bench) exports(ctx context.Context) error {
	say("an export to be read over NBD")
	tls := b.path("export-tls")
	if err := makeCertificates(tls); err != nil {
		return err
	}
	for _, secured := range []bool{false, true} {
		if err := b.readers(ctx, tls, secured); err != nil {
			return err
		}
	}
	return nil
}

// sizeOver is how large the export is. TLS takes several times as long, and a quarter tells as much.
func (b *bench) sizeOver(secured bool) int64 {
	if secured {
		return b.size / 4
	}
	return b.size
}

// makeCertificates makes a certificate of a server, under the names that all programs here look for.
func makeCertificates(dir string) error {
	if _, _, err := certificate.Ensure(dir, certificate.Options{Domain: "localhost", Now: time.Now}); err != nil {
		return err
	}
	for link, to := range map[string]string{caCert: "ca.pem", serverCert: "server.pem", serverKey: "server.key"} {
		if err := os.Symlink(to, dir+"/"+link); err != nil {
			return err
		}
	}
	return nil
}

// endpoint is where an export is offered, as our programs are told it.
type endpoint struct{ network, address, tls string }

// uri is the endpoint as libnbd's programs are told it.
func (e endpoint) uri() string {
	if e.tls == "" {
		return "nbd+unix:///disk?socket=" + e.address
	}
	_, port, _ := net.SplitHostPort(e.address)
	return "nbds://localhost:" + port + "/disk?tls-certificates=" + e.tls
}

func (e endpoint) ca() string {
	if e.tls == "" {
		return ""
	}
	return e.tls + "/" + caCert
}

// readers lets our client and nbdcopy read what qemu-nbd offers, and nbdcopy what our server offers, in turn.
func (b *bench) readers(ctx context.Context, tls string, secured bool) (err error) {
	image, size := b.path("export.img"), b.sizeOver(secured)
	if _, err := makeImage(image, size, 1, 9); err != nil {
		return err
	}
	defer func() { _ = os.Remove(image) }()
	if err := b.settle([]string{image}); err != nil {
		return err
	}
	theirs, stopTheirs, err := b.offer(ctx, tls, secured, b.qemuNBD(image))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopTheirs()) }()
	ours, stopOurs, err := b.offer(ctx, tls, secured, b.ourServer(image))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopOurs()) }()
	how := "in plain, on a socket"
	if secured {
		how = "over TLS"
	}
	var client, copied, served measured
	for round := range b.rounds {
		say("read %s: round %d of %d", how, round+1, b.rounds)
		for _, one := range []struct {
			m       *measured
			command []string
		}{
			{&copied, []string{"nbdcopy", theirs.uri(), "null:"}},
			{&client, []string{"/proc/self/exe", "read-export", theirs.network, theirs.address, "disk", theirs.ca()}},
			{&served, []string{"nbdcopy", ours.uri(), "null:"}},
		} {
			if err := b.time(ctx, one.m, nil, one.command...); err != nil {
				return err
			}
		}
	}
	rate := func(m *measured) string { return amount(int64(float64(size)/m.median().wall.Seconds())) + "/s" }
	theirRate := copied.median().wall
	b.nbd.atLeast("our NBD client reads qemu-nbd "+how, "nbdcopy, its time over ours", ratio(theirRate, client.median().wall), 0.8, rate(&client)+", "+rate(&copied))
	b.nbd.atLeast("our NBD server read by nbdcopy "+how, "qemu-nbd read by nbdcopy, its time over ours", ratio(theirRate, served.median().wall), 0.8, rate(&served)+", "+rate(&copied))
	return nil
}

// offer starts a server of NBD and waits until it answers.
func (b *bench) offer(ctx context.Context, tls string, secured bool, command func(endpoint) []string) (e endpoint, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "nbd") // a socket's path must be short
	if err != nil {
		return e, nil, err
	}
	e = endpoint{"unix", dir + "/s", ""}
	if secured {
		port, err := freePort(ctx)
		if err != nil {
			return e, nil, err
		}
		e = endpoint{"tcp", fmt.Sprintf("127.0.0.1:%d", port), tls}
	}
	words := command(e)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return e, nil, errors.Join(err, os.RemoveAll(dir))
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait() // how it ends upon a signal differs
	}()
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
		return os.RemoveAll(dir)
	}
	dialer := &net.Dialer{}
	for {
		conn, err := dialer.DialContext(ctx, e.network, e.address)
		if err == nil {
			return e, stop, conn.Close()
		}
		select {
		case <-exited:
			return e, nil, errors.Join(fmt.Errorf("%s has ended: %w", words[0], err), stop())
		case <-ctx.Done():
			return e, nil, errors.Join(context.Cause(ctx), stop())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (b *bench) qemuNBD(image string) func(endpoint) []string {
	return func(e endpoint) []string {
		command := []string{"qemu-nbd", "--persistent", "--shared=8", "--export-name=disk", "--read-only", "--format=raw"}
		if e.tls == "" {
			return append(command, "--socket="+e.address, image)
		}
		host, port, _ := net.SplitHostPort(e.address)
		return append(command, "--object=tls-creds-x509,id=tls0,endpoint=server,verify-peer=off,dir="+e.tls, "--tls-creds=tls0", "--bind="+host, "--port="+port, image)
	}
}

func (b *bench) ourServer(image string) func(endpoint) []string {
	return func(e endpoint) []string {
		return []string{"/proc/self/exe", "offer-file", e.network, e.address, image, e.tls}
	}
}
