package nbd

import (
	"bytes"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kluis/internal/tooltest"
)

// startKit starts nbdkit, which ends with the test, and returns its socket. The socket is there before nbdkit is, so whoever
// connects early waits in it.
func startKit(t *testing.T, args ...string) (sock string) {
	t.Helper()
	tooltest.Need(t, "nbdkit")
	dir, err := os.MkdirTemp("", "nbd") // names of sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	sock = filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: sock})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	// LISTEN_PID must be nbdkit's own number, which nobody knows before it runs: the shell becomes nbdkit.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec nbdkit --foreground "$@"`, "nbdkit"}, args...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return sock
}

func TestNBDKit(t *testing.T) {
	p := newPKI(t)
	for name, way := range map[string]struct {
		config  *tls.Config
		options []string
	}{
		"plain": {},
		"tls":   {p.client(), []string{"--tls=require", "--tls-verify-peer", "--tls-certificates=" + p.dir}},
	} {
		t.Run(name, func(t *testing.T) {
			const size = 40 << 20
			sock := startKit(t, append(way.options, "memory", "40M")...)
			c, err := DialTLS(t.Context(), "unix", sock, way.config, "", ContextAllocation)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			want := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{3}).Read(want[3<<20+512 : 20<<20])
			if _, err := c.WriteAt(want[3<<20:20<<20], 3<<20); err != nil {
				t.Error(err)
			}
			clear(want[5<<20 : 7<<20])
			clear(want[9<<20 : 10<<20])
			for _, err := range []error{c.WriteZeroes(5<<20, 2<<20), c.Trim(9<<20, 1<<20), c.Flush()} {
				if err != nil {
					t.Error(err)
				}
			}
			got, data := make([]byte, size), int64(0)
			for e, err := range c.Source("").Extents(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				data += e.Length
				if _, err := c.ReadAt(got[e.Offset:][:e.Length], e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) || data != 14<<20 {
				t.Errorf("read other bytes than were written, in extents of %d", data)
			}
		})
	}
}

// What our server offers is read through nbdkit, a client of it that is a server to us.
func TestServerThroughNBDKit(t *testing.T) {
	tooltest.Need(t, "nbdkit")
	disk := patched(30<<20 + 512)
	p := newPKI(t)
	for name, config := range map[string]*tls.Config{"plain": nil, "tls": p.server(tls.RequireAndVerifyClientCert)} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			offerOn(t, l, ServerOptions{TLS: config}, Export{Name: "disk", Disk: disk})
			_, port, _ := net.SplitHostPort(l.Addr().String())
			args := []string{"nbd", "hostname=localhost", "port=" + port, "export=disk"}
			if config != nil {
				args = append(args, "tls=require", "tls-certificates="+p.dir)
			}
			c := mustDial(t, startKit(t, args...), "")
			if !c.ReadOnly() || c.Size() != disk.Size() {
				t.Errorf("%d bytes, read-only %v", c.Size(), c.ReadOnly())
			}
			if got := readAll(t, Forwarded{c}); !bytes.Equal(got, disk.data) {
				t.Error("read another disk")
			}
		})
	}
}
