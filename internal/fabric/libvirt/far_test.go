package libvirt_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// A machine on a host elsewhere is backed up over the network, with TLS on both ways: libvirt's and that of the disks.
// Who shows no certificate of the authority reads nothing.
func TestHostElsewhere(t *testing.T) {
	guest.Need(t)
	pki := newPKI(t)
	port := freePort(t)
	daemon := guest.NewDaemon(t, map[string]string{
		"libvirtd.conf": fmt.Sprintf("listen_tls = 1\nlisten_tcp = 0\nlisten_addr = \"127.0.0.1\"\ntls_port = \"%d\"\nauth_tls = \"none\"\nkey_file = \"%[2]s/server-key.pem\"\ncert_file = \"%[2]s/server-cert.pem\"\nca_file = \"%[2]s/ca-cert.pem\"\n", port, pki),
		"qemu.conf":     fmt.Sprintf("backup_tls_x509_cert_dir = %q\nbackup_tls_x509_verify = 1\n", pki),
	})
	lab := guest.Shared(t).On(daemon.URI())
	g := guest.NewIn(t, lab, "elsewhere", "256M", "guest.files=2")
	live := folderOfQEMU(t)
	h := newHost(t, func(o *libvirt.Options) {
		o.URI = fmt.Sprintf("qemu+tls://localhost:%d/system?pkipath=%s", port, pki)
		o.LiveDir, o.Ports = live, libvirt.Ports{First: freePort(t), Last: 65535}
	})
	vm := machineOf(t, h, g)
	var last []byte
	var since fabric.Checkpoint
	for round := range 2 {
		if _, err := g.Begin(t.Context(), "dd if=/dev/urandom of=/data/w bs=1024 count=2048; sync"); err != nil {
			t.Fatal(err)
		}
		s, err := h.Snapshot(t.Context(), vm, since)
		if err != nil {
			t.Fatal(err)
		}
		d := s.Disks()[0]
		if level := s.Consistency(); level.Level != fabric.FileSystemConsistent || d.Changed() != (round > 0) {
			t.Errorf("round %d is %+v, changed extents only: %t", round, level, d.Changed())
		}
		now, _ := copied(t, d, last)
		whole, _ := d.Whole()
		if all, _ := copied(t, whole, nil); !bytes.Equal(now, all) {
			t.Errorf("round %d: what was read is not the disk of that moment", round)
		}
		if round == 0 {
			stranger(t, g)
		}
		last, since = now, s.Checkpoint()
		end(t, s, since)
	}
	if left, err := os.ReadDir(live); err != nil || len(left) > 0 {
		t.Errorf("left in the live folder: %v %v", left, err)
	}
	missing := newHost(t, func(o *libvirt.Options) {
		o.URI = fmt.Sprintf("qemu+tls://localhost:%d/system?pkipath=%s", port, pki)
		o.LiveDir = live + "-none"
	})
	if _, err := missing.Snapshot(t.Context(), vm, since); err == nil || !strings.Contains(err.Error(), "install -d -o libvirt-qemu") {
		t.Errorf("without a live folder a backup says %v", err)
	}
}

// stranger fails if somebody without a certificate can read the disks that a job shows.
func stranger(t *testing.T, g *guest.Guest) {
	t.Helper()
	job, err := g.Virsh(t.Context(), "backup-dumpxml", g.Name)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(job, " port='")
	port, _, _ = strings.Cut(port, "'")
	out, err := exec.CommandContext(t.Context(), "qemu-img", "info", "nbd://localhost:"+port+"/vda").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "TLS") {
		t.Errorf("a stranger is told %s, %v", out, err)
	}
}

// folderOfQEMU is the live folder that a host elsewhere must have.
func folderOfQEMU(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kluis-far-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if out, err := exec.CommandContext(t.Context(), "chown", "libvirt-qemu", dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	return dir
}

// freePort is a port on which nobody listened a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint16(n)
}

// newPKI makes an authority and a certificate for both sides, under the names that QEMU and those that libvirt's clients
// look for.
func newPKI(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kluis-pki-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // QEMU is another user
		t.Fatal(err)
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	authorityKey := newCert(t, authority, authority, nil, filepath.Join(dir, "ca-cert.pem"), filepath.Join(dir, "ca-key.pem"))
	for i, side := range []string{"server", "client"} {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: side}, DNSNames: []string{"localhost"}, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		newCert(t, leaf, authority, authorityKey, filepath.Join(dir, side+"-cert.pem"), filepath.Join(dir, side+"-key.pem"))
	}
	for theirs, ours := range map[string]string{"client-cert.pem": "clientcert.pem", "client-key.pem": "clientkey.pem", "ca-cert.pem": "cacert.pem"} {
		if err := os.Symlink(theirs, filepath.Join(dir, ours)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// newCert writes a certificate and its key. One without an issuer's key signs itself.
func newCert(t *testing.T, cert, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey, certPath, keyPath string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if issuerKey == nil {
		issuerKey = key
	}
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, cert, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certPath: {Type: "CERTIFICATE", Bytes: der}, keyPath: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o644); err != nil { // of a test, and QEMU must read it
			t.Fatal(err)
		}
	}
	return key
}

// Ports are read as people write them; what makes no sense is refused.
func TestParsePorts(t *testing.T) {
	if p, err := libvirt.ParsePorts("49152-49215"); err != nil || p != (libvirt.Ports{First: 49152, Last: 49215}) {
		t.Errorf("%v, %v", p, err)
	}
	for _, text := range []string{"", "5", "0-5", "6-5", "1-65536", "a-b", "-"} {
		if p, err := libvirt.ParsePorts(text); err == nil {
			t.Errorf("%q is read as %v", text, p)
		}
	}
}
