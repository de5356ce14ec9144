package guest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const daemonSocket = "/run/libvirt/libvirt-sock"

// Proxy is a way to the libvirt daemon that a test can cut.
type Proxy struct {
	Path string // of a socket
	mu   sync.Mutex
	l    net.Listener
	open []net.Conn
}

// NewProxy makes a way to the daemon, in a folder of its own.
func NewProxy(t testing.TB) *Proxy {
	t.Helper()
	p := &Proxy{Path: filepath.Join(t.TempDir(), "sock")}
	p.Mend(t)
	t.Cleanup(p.Cut)
	return p
}

// URI is that of the host behind the proxy.
func (p *Proxy) URI() string { return URI + "?socket=" + p.Path }

// Mend opens the way again after it was cut.
func (p *Proxy) Mend(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", p.Path)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.join(near)
		}
	}()
}

func (p *Proxy) join(near net.Conn) {
	far, err := net.Dial("unix", daemonSocket)
	if err != nil {
		_ = near.Close()
		return
	}
	p.mu.Lock()
	p.open = append(p.open, near, far)
	p.mu.Unlock()
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_ = to.Close()
	}
	go carry(near, far)
	go carry(far, near)
}

// Cut closes the way and all that goes on on it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.l.Close()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

// Open lets every user through a folder of a test, and through those above it that are the test's own.
func Open(t testing.TB, dir string) {
	t.Helper()
	for top := filepath.Clean(os.TempDir()); dir != top && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
}
