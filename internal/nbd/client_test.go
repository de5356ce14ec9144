package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"kluis/internal/tooltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts qemu-nbd on an image and returns its socket.
func serve(t *testing.T, image, format string) string {
	t.Helper()
	return serveWith(t, image, format, "--read-only")
}

func serveWritable(t *testing.T, image, format string) string {
	t.Helper()
	return serveWith(t, image, format, "--discard=unmap")
}

func serveWith(t *testing.T, image, format string, options ...string) string {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "s")
	startQEMU(t, append(options, "--format="+format, "--socket="+sock, image)...)
	return sock
}

func serveTCP(t *testing.T, image, format string, port int, options ...string) {
	t.Helper()
	startQEMU(t, append(options, "--format="+format, "--bind=127.0.0.1", "--port="+strconv.Itoa(port), image)...)
}

// startQEMU starts qemu-nbd, which ends with the test.
func startQEMU(t *testing.T, args ...string) {
	t.Helper()
	tooltest.Need(t, "qemu-nbd", "qemu-img", "qemu-io")
	pidFile := filepath.Join(t.TempDir(), "pid")
	run(t, "qemu-nbd", append([]string{"--fork", "--persistent", "--shared=8", "--pid-file=" + pidFile, "--export-name=disk"}, args...)...)
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func TestQEMU(t *testing.T) {
	dir := t.TempDir()
	raw, qcow := filepath.Join(dir, "raw"), filepath.Join(dir, "qcow2")
	const size = 40 << 20
	want := make([]byte, size)
	chacha := rand.NewChaCha8([32]byte{1})
	for _, r := range [][2]int{{0, 3 << 20}, {10<<20 + 512, 10<<20 + 70000}, {39 << 20, size}} {
		_, _ = chacha.Read(want[r[0]:r[1]])
	}
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	tooltest.Need(t, "qemu-img")
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow)
	sock := serve(t, qcow, "qcow2")

	ctx := t.Context()
	c, err := Dial(ctx, "unix", sock, "disk", ContextAllocation, ContextDirtyPrefix+"none")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != size {
		t.Errorf("size %d, want %d", c.Size(), size)
	}
	if !c.Has(ContextAllocation) || c.Has(ContextDirtyPrefix+"none") {
		t.Error("granted contexts are not those that the server has")
	}

	// Data extents hold all that is not zero, and not everything.
	got := make([]byte, size)
	var read, next int64
	for e, err := range c.BlockStatus(ctx, ContextAllocation, 0, size) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != next {
			t.Fatalf("extent at %d, want %d", e.Offset, next)
		}
		next += e.Length
		if e.Flags&StateZero != 0 {
			continue
		}
		read += e.Length
		if n, err := c.ReadAt(got[e.Offset:e.Offset+e.Length], e.Offset); err != nil {
			t.Fatalf("read %d at %d: %d, %v", e.Length, e.Offset, n, err)
		}
	}
	if next != size {
		t.Errorf("extents end at %d", next)
	}
	if !bytes.Equal(got, want) {
		t.Error("the data of the extents is not the image's")
	}
	if read > 8<<20 {
		t.Errorf("%d bytes are data", read)
	}

	t.Run("many readers", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(i)))
				p := make([]byte, 300<<10)
				for range 40 {
					n, off := r.IntN(len(p)), r.IntN(size)
					got, err := c.ReadAt(p[:n], int64(off))
					if off+n > size {
						n = size - off
						if !errors.Is(err, io.EOF) {
							t.Errorf("read over the end: %v", err)
						}
					} else if err != nil {
						t.Error(err)
					}
					if got != n || !bytes.Equal(p[:got], want[off:off+n]) {
						t.Errorf("read %d at %d returned other bytes", n, off)
					}
				}
			})
		}
		wg.Wait()
	})

	if _, err := Dial(ctx, "unix", sock, "other"); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("an export that does not exist: %v", err)
	}
	for _, err := range c.BlockStatus(ctx, "qemu:dirty-bitmap:none", 0, size) {
		if !errors.Is(err, ErrNoContext) {
			t.Errorf("block status without context: %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := c.ReadAt(got[:1], 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestReplies(t *testing.T) {
	const data = "0123456789abcdef"
	for _, test := range []struct {
		name    string
		replies *script
		want    string // content of the read of 16 bytes at 32
		err     string
	}{
		{"one chunk", new(script).chunk(1, chunkOffsetData, 1, at(32, data)), data, ""},
		{"three chunks out of order with a hole", new(script).chunk(0, chunkOffsetData, 1, at(40, data[8:])).chunk(0, chunkOffsetHole, 1, hole(32, 4)).chunk(0, chunkOffsetData, 1, at(36, data[4:8])).chunk(1, chunkNone, 1, nil), "\x00\x00\x00\x00" + data[4:], ""},
		{"server error", new(script).chunk(1, chunkError, 1, failure(5, "disk on\nfire")), "", "nbd: server reported EIO: disk on fire"},
		{"error after data", new(script).chunk(0, chunkOffsetData, 1, at(32, data)).chunk(1, chunkErrorOffset, 1, append(failure(5, ""), 0, 0, 0, 0, 0, 0, 0, 0)), "", "EIO"},
		{"unknown error number", new(script).chunk(1, chunkErrorBit|77, 1, failure(4711, "")), "", "error 4711"},
		{"a byte twice", new(script).chunk(0, chunkOffsetData, 1, at(32, data)).chunk(1, chunkOffsetHole, 1, hole(47, 1)), "", "twice"},
		{"a byte missing", new(script).chunk(1, chunkOffsetData, 1, at(32, data[:15])), "", "in part"},
		{"before the range", new(script).chunk(1, chunkOffsetData, 1, at(31, data)), "", "in reply to a read"},
		{"beyond the range", new(script).chunk(1, chunkOffsetData, 1, at(33, data)), "", "in reply to a read"},
		{"far beyond", new(script).chunk(1, chunkOffsetData, 1, at(1<<63+32, data)), "", "in reply to a read"},
		{"huge hole", new(script).chunk(1, chunkOffsetHole, 1, hole(32, 1<<32-1)), "", "in reply to a read"},
		{"wrong cookie", new(script).chunk(1, chunkOffsetData, 2, at(32, data)), "", "no request"},
		{"block status to a read", new(script).chunk(1, chunkBlockStatus, 1, status(7, 16, 0)), "", "chunk of type 5"},
		{"simple reply", &script{*bytes.NewBuffer(append(be.AppendUint32(nil, magicSimple), make([]byte, 12)...))}, "", "simple reply"},
		{"no magic", &script{*bytes.NewBufferString("what?")}, "", "magic"},
		{"error chunk too long", new(script).chunk(1, chunkError, 1, make([]byte, maxString+17)), "", "error chunk"},
		{"error message beyond its chunk", new(script).chunk(1, chunkError, 1, []byte{0, 0, 0, 5, 0, 9, 'x'}), "", "ends early"},
		{"end in the middle", &script{*bytes.NewBuffer(new(script).chunk(1, chunkOffsetData, 1, at(32, data)).Bytes()[:30])}, "", "unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(t.Context(), newCanned(new(script).ready(64).Bytes(), test.replies.Bytes()), "disk", ContextAllocation)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p := bytes.Repeat([]byte{0xee}, 16)
			_, err = c.ReadAt(p, 32)
			if test.err == "" && (err != nil || string(p) != test.want) {
				t.Errorf("read %q, %v; want %q", p, err, test.want)
			}
			if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want one with %q", err, test.err)
			}
		})
	}
}

func TestBlockStatusReplies(t *testing.T) {
	second := new(script).chunk(1, chunkBlockStatus, 2, status(7, 48, 0)).Bytes() // to whoever asks again
	for _, test := range []struct {
		name    string
		replies *script
		want    []Extent
		err     string
	}{
		{"joined and cut", new(script).chunk(1, chunkBlockStatus, 1, status(7, 16, 0, 16, 0, 100, 3)), []Extent{{0, 32, 0}, {32, 32, 3}}, ""},
		{"in two answers", new(script).chunk(1, chunkBlockStatus, 1, status(7, 16, 0)), []Extent{{0, 64, 0}}, ""},
		{"another context too", new(script).chunk(0, chunkBlockStatus, 1, status(8, 64, 1)).chunk(1, chunkBlockStatus, 1, status(7, 64, 3)), []Extent{{0, 64, 3}}, ""},
		{"another context after it", new(script).chunk(0, chunkBlockStatus, 1, status(7, 64, 3)).chunk(1, chunkBlockStatus, 1, status(8, 64, 1)), []Extent{{0, 64, 3}}, ""},
		{"the same context twice", new(script).chunk(0, chunkBlockStatus, 1, status(7, 64, 3)).chunk(1, chunkBlockStatus, 1, status(7, 64, 1)), nil, "twice"},
		{"an extent of nothing", new(script).chunk(1, chunkBlockStatus, 1, status(7, 0, 0, 64, 0)), nil, "no bytes"},
		{"no extent", new(script).chunk(1, chunkNone, 1, nil), nil, "without an extent"},
		{"odd length", new(script).chunk(1, chunkBlockStatus, 1, status(7, 64)), nil, "status chunk"},
		{"too long", new(script).chunk(1, chunkBlockStatus, 1, make([]byte, maxStatusChunk+8)), nil, "status chunk"},
		{"simple error", &script{*bytes.NewBuffer(append(be.AppendUint32(nil, magicSimple), 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 1))}, nil, "EINVAL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := New(t.Context(), newCanned(new(script).ready(64).Bytes(), test.replies.Bytes(), second), "disk", ContextAllocation)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var got []Extent
			for e, err := range c.BlockStatus(t.Context(), ContextAllocation, 0, 64) {
				if err != nil {
					if test.err == "" || !strings.Contains(err.Error(), test.err) {
						t.Errorf("error %v, want %q", err, test.err)
					}
					return
				}
				got = append(got, e)
			}
			if test.err != "" || len(got) != len(test.want) {
				t.Fatalf("extents %v, want %v, error %q", got, test.want, test.err)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("extent %d is %v, want %v", i, got[i], test.want[i])
				}
			}
		})
	}
}

func TestHandshakeRefusals(t *testing.T) {
	ack := func() *script { return new(script).greeting().option(optStructuredReply, repAck, nil) }
	for _, test := range []struct {
		name string
		says *script
		err  string
	}{
		{"not nbd", &script{*bytes.NewBufferString("SSH-2.0-OpenSSH_9.2p1 Debian")}, "greeting"},
		{"oldstyle", &script{*bytes.NewBuffer(append(be.AppendUint64(nil, magicServer), "\x00\x00\x42\x02\x81\x86\x12\x53xx"...))}, "newstyle"},
		{"no structured replies", new(script).greeting().option(optStructuredReply, repErrorBit|1, nil), "structured replies"},
		{"tls required", new(script).greeting().option(optStructuredReply, repErrorBit|5, []byte("use TLS")), "use TLS"},
		{"reply to another option", new(script).greeting().option(optGo, repAck, nil), "reply to option 7"},
		{"reply too long", new(script).greeting().option(optStructuredReply, 99, make([]byte, maxOptReply+1)), "bytes in the handshake"},
		{"context nobody asked for", ack().option(optSetMetaContext, repMetaContext, append(be.AppendUint32(nil, 7), "x:y"...)), "not asked for"},
		{"no size", ack().option(optSetMetaContext, repAck, nil).option(optGo, repAck, nil), "no size"},
		{"a size beyond reason", new(script).ready(1 << 63), "export of"},
		{"silence", new(script), "EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn := newCanned(test.says.Bytes())
			conn.closed = true
			_, err := New(t.Context(), conn, "disk", ContextAllocation)
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want one with %q", err, test.err)
			}
		})
	}
	t.Run("endless replies", func(t *testing.T) {
		s := ack()
		for range maxOptReplies + 1 {
			s.option(optSetMetaContext, repMetaContext, append(be.AppendUint32(nil, 7), ContextAllocation...))
		}
		if _, err := New(t.Context(), newCanned(s.Bytes()), "disk", ContextAllocation); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("error %v", err)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			cancel()
			_, _ = io.Copy(io.Discard, conn)
		}
	}()
	if _, err := Dial(ctx, "unix", l.Addr().String(), "disk"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestCloseEndsReadsInFlight(t *testing.T) {
	client, server := net.Pipe()
	go func() {
		_, _ = server.Write(new(script).ready(64).Bytes())
	}()
	requests := make(chan struct{}, 16)
	go func() {
		b := make([]byte, 1)
		for {
			if _, err := server.Read(b); err != nil {
				return
			}
			select {
			case requests <- struct{}{}:
			default:
			}
		}
	}()
	c, err := New(t.Context(), client, "disk", ContextAllocation)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() {
		_, err := c.ReadAt(make([]byte, 8), 0)
		result <- err
	}()
	<-requests
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("read ended with %v", err)
	}
	_ = server.Close()
}

// FuzzServer lets a client meet a server that says anything at all. It must not panic, hang, or take
// memory that the server did not pay for; whatever it returns as read must be complete.
func FuzzServer(f *testing.F) {
	ready := new(script).ready(64).Bytes()
	f.Add(ready, new(script).chunk(1, chunkOffsetData, 1, at(0, strings.Repeat("x", 64))).Bytes())
	f.Add(ready, new(script).chunk(0, chunkOffsetHole, 1, hole(32, 32)).chunk(1, chunkOffsetHole, 1, hole(0, 32)).Bytes())
	f.Add(ready, new(script).chunk(1, chunkBlockStatus, 1, status(7, 32, 3, 100, 0)).Bytes())
	f.Add(ready, new(script).chunk(1, chunkError, 1, failure(5, "x")).Bytes())
	f.Add([]byte("NBDMAGIC"), []byte{})
	f.Fuzz(func(t *testing.T, hello, reply []byte) {
		rw := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(hello), io.Discard}
		if greet(rw) != nil {
			return
		}
		if _, err := choose(rw, "disk", []string{ContextAllocation}); err != nil {
			return
		}
		c, err := New(t.Context(), newCanned(hello, reply), "disk", ContextAllocation)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 64)
		if n, err := c.ReadAt(p, 0); err == nil && n != len(p) {
			t.Errorf("read %d bytes without an error", n)
		}
		_ = c.Close()

		c, err = New(t.Context(), newCanned(hello, reply), "disk", ContextAllocation)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var next int64
		for e, err := range c.BlockStatus(t.Context(), ContextAllocation, 0, min(c.Size(), 64)) {
			if err != nil {
				return
			}
			if e.Offset != next || e.Length <= 0 {
				t.Fatalf("extent %v after %d", e, next)
			}
			next += e.Length
		}
	})
}
