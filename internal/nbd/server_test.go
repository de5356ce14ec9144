package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kluis/internal/tooltest"
)

// memory is a disk in memory whose holes are where its pages are zero.
type memory struct {
	data []byte
	bad  int64 // reads of this byte fail, if it isn't 0
}

const page = 64 << 10

var errBad = errors.New("secret words about the inside")

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if m.bad > 0 && off <= m.bad && m.bad < off+int64(len(p)) {
		return 0, errBad
	}
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memory) NextData(_ context.Context, off int64) (start, n int64, err error) {
	for ; off < m.Size(); off = off/page*page + page {
		end := min(off/page*page+page, m.Size())
		if p := m.data[off/page*page : end]; bytes.Count(p, []byte{0}) != len(p) {
			return off, end - off, nil
		}
	}
	return off, 0, nil
}

// patched is a disk of n bytes with data and holes of odd sizes, also at its end.
func patched(n int) *memory {
	m := &memory{data: make([]byte, n)}
	random := rand.NewChaCha8([32]byte{5})
	for off := 0; off < n; off += 1 << 20 {
		_, _ = random.Read(m.data[off:min(off+300_000, n)])
	}
	_, _ = random.Read(m.data[max(0, n-99):])
	return m
}

// offer serves disks on a socket until the test ends.
func offer(t *testing.T, o ServerOptions, exports ...Export) (s *Server, sock string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd") // names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return offerOn(t, l, o, exports...), filepath.Join(dir, "s")
}

func offerOn(t *testing.T, l net.Listener, o ServerOptions, exports ...Export) *Server {
	t.Helper()
	s := NewServer(o)
	for _, e := range exports {
		if err := s.Offer(e); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve ended with %v", err)
		}
	})
	return s
}

func mustDial(t *testing.T, sock, export string) *Client {
	t.Helper()
	c, err := Dial(t.Context(), "unix", sock, export, ContextAllocation)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestServerAndClient(t *testing.T) {
	disk := patched(70<<20 + 1001)
	_, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk}, Export{Disk: &memory{}})
	c := mustDial(t, sock, "disk")
	if c.Size() != disk.Size() || !c.ReadOnly() || !c.MultiConn() || !c.Has(ContextAllocation) {
		t.Errorf("size %d, read-only %v, multi-conn %v", c.Size(), c.ReadOnly(), c.MultiConn())
	}
	got := make([]byte, c.Size())
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk.data) {
		t.Errorf("reading it all: %v", err)
	}
	var data int64
	for e, err := range c.BlockStatus(t.Context(), ContextAllocation, 5, c.Size()-5) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Flags {
		case 0:
			data += e.Length
		case StateHole | StateZero:
			if p := disk.data[e.Offset:][:e.Length]; bytes.Count(p, []byte{0}) != len(p) {
				t.Errorf("a hole with data at %d", e.Offset)
			}
		default:
			t.Errorf("extent %+v", e)
		}
	}
	if data > 30<<20 {
		t.Errorf("%d bytes are data", data)
	}
	var wg sync.WaitGroup
	for i := range 40 { // more than may be in flight
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			p := make([]byte, 700<<10)
			for range 10 {
				n, off := 1+r.IntN(len(p)-1), r.IntN(len(disk.data)-len(p))
				if _, err := c.ReadAt(p[:n], int64(off)); err != nil || !bytes.Equal(p[:n], disk.data[off:off+n]) {
					t.Errorf("read %d at %d: %v", n, off, err)
				}
			}
		})
	}
	wg.Wait()
	if err := c.Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
	if empty := mustDial(t, sock, ""); empty.Size() != 0 {
		t.Errorf("the empty disk has %d bytes", empty.Size())
	}
	if _, err := Dial(t.Context(), "unix", sock, "other"); err == nil || !strings.Contains(err.Error(), "no such export") {
		t.Errorf("an export that is not there: %v", err)
	}
}

func TestServerRefusesWrites(t *testing.T) {
	disk := patched(1 << 20)
	before := bytes.Clone(disk.data)
	_, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk})
	c := mustDial(t, sock, "disk")
	c.flags = c.flags&^flagReadOnly | flagSendTrim | flagSendWriteZeroes // a client that doesn't listen
	for name, err := range map[string]error{"zeroes": c.WriteZeroes(0, 10), "trim": c.Trim(0, 10), "write": func() error {
		_, err := c.WriteAt(make([]byte, 100_000), 7)
		return err
	}()} {
		var refused *ServerError
		if !errors.As(err, &refused) || refused.Errno != errnoPermission {
			t.Errorf("%s: %v", name, err)
		}
	}
	got := make([]byte, len(before)) // the connection goes on
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, before) {
		t.Errorf("read after it: %v", err)
	}
}

func TestServerSaysWhatCannotBeRead(t *testing.T) {
	disk := patched(3 << 20)
	disk.bad = 1<<20 + 290_000 // in the second piece of a long read
	_, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk})
	c := mustDial(t, sock, "disk")
	p := make([]byte, 1<<20)
	var failed *ServerError
	if err := c.do(&call{command: cmdRead, off: 1 << 20, buf: p}, 1<<20); !errors.As(err, &failed) || failed.Errno != errnoIO || strings.Contains(err.Error(), errBad.Error()) {
		t.Errorf("read of what is damaged: %v", err)
	}
	if n, err := c.ReadAt(p, 1<<20); n != readPiece || !errors.As(err, &failed) || !bytes.Equal(p[:n], disk.data[1<<20:][:n]) {
		t.Errorf("read of what is damaged in its second piece: %d, %v", n, err)
	}
	if _, err := c.ReadAt(p, 2<<20); err != nil || !bytes.Equal(p, disk.data[2<<20:]) {
		t.Errorf("read of what is not: %v", err)
	}
	if err := c.do(&call{command: cmdRead, off: 3<<20 - 1, buf: p[:2]}, 2); !errors.As(err, &failed) || failed.Errno != errnoInvalid {
		t.Errorf("read over the end: %v", err)
	}
}

func TestServerWithdraws(t *testing.T) {
	s, sock := offer(t, ServerOptions{}, Export{Name: "one", Disk: patched(1 << 20)}, Export{Name: "two", Disk: patched(1 << 20)})
	if err := s.Offer(Export{Name: "one"}); err == nil {
		t.Error("a name was taken twice")
	}
	one, two := mustDial(t, sock, "one"), mustDial(t, sock, "two")
	s.Withdraw("one")
	s.Withdraw("none")
	if _, err := one.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("what was withdrawn can be read")
	}
	if _, err := two.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if _, err := Dial(t.Context(), "unix", sock, "one"); err == nil {
		t.Error("what was withdrawn can be chosen")
	}
}

func TestServerLimitsConnections(t *testing.T) {
	_, sock := offer(t, ServerOptions{Connections: 2}, Export{Name: "disk", Disk: patched(1 << 20)})
	first := mustDial(t, sock, "disk")
	mustDial(t, sock, "disk")
	if _, err := Dial(t.Context(), "unix", sock, "disk"); err == nil {
		t.Error("a third connection")
	}
	if _, err := first.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("the first connection suffers: %v", err)
	}
}

// A client that asks and never takes the answers does not keep the server from ending.
func TestServerClosesUponDeafClients(t *testing.T) {
	s, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: patched(8 << 20)})
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := greet(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := choose(conn, "disk", nil); err != nil {
		t.Fatal(err)
	}
	for cookie := range uint64(inFlight) {
		if _, err := conn.Write(appendRequest(nil, cmdRead, cookie, 0, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Serve(nopListener{}); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
}

type nopListener struct{ net.Listener }

func (nopListener) Close() error { return nil }

func TestServerToOldClients(t *testing.T) {
	disk := patched(1 << 20)
	_, sock := offer(t, ServerOptions{}, Export{Name: "disk", Disk: disk})
	for _, flags := range []uint32{flagFixedNewstyle, flagFixedNewstyle | flagNoZeroes} {
		conn, err := net.Dial("unix", sock)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		read := func(n int) []byte {
			b := make([]byte, n)
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
			return b
		}
		read(18)
		b := appendOption(be.AppendUint32(nil, flags), optExportName, []byte("disk"))
		b = appendRequest(b, cmdRead, 1, 5, 600_000)
		b = appendRequest(b, cmdRead, 2, 1<<20, 1)
		if _, err := conn.Write(appendRequest(b, cmdDisconnect, 3, 0, 0)); err != nil {
			t.Fatal(err)
		}
		if size := be.Uint64(read(10)); size != 1<<20 {
			t.Errorf("size %d", size)
		}
		if flags&flagNoZeroes == 0 {
			read(124)
		}
		for range 2 { // in any order
			h := read(16)
			switch be.Uint64(h[8:]) {
			case 1:
				if got := read(600_000); be.Uint32(h[4:]) != 0 || !bytes.Equal(got, disk.data[5:600_005]) {
					t.Error("not what is on the disk")
				}
			case 2:
				if be.Uint32(h[4:]) != errnoInvalid {
					t.Errorf("read over the end: error %d", be.Uint32(h[4:]))
				}
			}
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the good-bye: %d bytes, %v", n, err)
		}
	}
}

// interoperate lets other people's clients read a disk: libnbd by its address, and QEMU.
func interoperate(t *testing.T, disk *memory, uri string, qemu ...string) {
	t.Helper()
	tooltest.Need(t, "qemu-img", "nbdinfo", "nbdcopy")
	dir := t.TempDir()
	copied, converted := filepath.Join(dir, "nbdcopy"), filepath.Join(dir, "qemu")
	run(t, "nbdcopy", uri, copied)
	run(t, "qemu-img", append(append([]string{"convert", "-O", "raw"}, qemu...), converted)...)
	for _, path := range []string{copied, converted} {
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, disk.data) {
			t.Errorf("%s: another disk, %v", path, err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "nbdinfo", "--map", "--totals", uri).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("hole,zero")) {
		t.Errorf("nbdinfo --map: %v: %s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), "nbdinfo", "--list", uri).CombinedOutput()
	for _, words := range []string{`export="disk"`, "the description", "is_read_only: true", "can_multi_conn: true", "base:allocation"} {
		if err != nil || !bytes.Contains(out, []byte(words)) {
			t.Errorf("nbdinfo --list without %q: %v: %s", words, err, out)
		}
	}
}

func TestServerWithOtherClients(t *testing.T) {
	disk := patched(30<<20 + 512)
	export := Export{Name: "disk", Description: "the description", Disk: disk}
	t.Run("unix", func(t *testing.T) {
		_, sock := offer(t, ServerOptions{}, export)
		uri := "nbd+unix:///disk?socket=" + sock
		interoperate(t, disk, uri, "-f", "raw", uri)
		image := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(image, disk.data, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, image)
		if out, err := exec.CommandContext(t.Context(), "qemu-io", "-f", "raw", "-c", "write 0 512", uri).CombinedOutput(); err == nil {
			t.Errorf("qemu-io wrote: %s", out)
		}
	})
	t.Run("tcp", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		offerOn(t, l, ServerOptions{}, export)
		uri := fmt.Sprintf("nbd://%s/disk", l.Addr())
		interoperate(t, disk, uri, "-f", "raw", uri)
	})
	t.Run("tls", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pki := newPKI(t)
		offerOn(t, l, ServerOptions{TLS: pki.server(tls.RequireAndVerifyClientCert)}, export)
		_, port, _ := net.SplitHostPort(l.Addr().String())
		interoperate(t, disk, fmt.Sprintf("nbds://localhost:%s/disk?tls-certificates=%s", port, pki.dir),
			"--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+pki.dir, "--image-opts",
			"driver=nbd,server.type=inet,server.host=localhost,server.port="+port+",export=disk,tls-creds=tls0")
	})
}
