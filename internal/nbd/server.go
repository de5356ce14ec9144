package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Disk is what a Server offers. It is read from many goroutines and must not change.
type Disk interface {
	io.ReaderAt
	Size() int64
	// NextData returns a range at or after off that may hold anything but zeros, and before which, from off
	// on, there are only holes; n is 0 if there is none. The range may go on behind its end.
	NextData(ctx context.Context, off int64) (start, n int64, err error)
}

// Export is a disk under a name.
type Export struct {
	Name        string // at most 4096 bytes; may be empty, which is what clients ask for who name nothing
	Description string // for people; may be empty
	Disk        Disk
	// Client is the common name of the certificate that a client must have been let in with to see the export;
	// for all others it isn't there. Empty: everybody may.
	Client string
}

// ServerOptions are what a Server needs to know.
type ServerOptions struct {
	// TLS makes the server insist on an upgrade. Set its ClientAuth to let in only known certificates.
	TLS *tls.Config
	// Connections is how many there may be at once; 0 means 64. One more is closed at once.
	Connections int
	Logger      *slog.Logger
}

// ErrServerClosed is what Serve returns after Close.
var ErrServerClosed = errors.New("nbd: server is closed")

// Limits of a connection.
const (
	inFlight  = 16               // requests
	pieceSize = 256 << 10        // the buffer of one; longer replies go in pieces
	slowest   = 30 * time.Second // for a whole handshake
)

// Server offers disks read-only. Its methods may be called from many goroutines.
type Server struct {
	tls *tls.Config
	max int
	log *slog.Logger

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	exports   map[string]Export
	listeners map[net.Listener]bool
	conns     map[*serverConn]bool
}

// NewServer makes a server that offers nothing yet.
func NewServer(o ServerOptions) *Server {
	s := &Server{
		tls: o.TLS, max: o.Connections, log: o.Logger,
		exports: map[string]Export{}, listeners: map[net.Listener]bool{}, conns: map[*serverConn]bool{},
	}
	if s.max == 0 {
		s.max = 64
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Offer begins to offer a disk.
func (s *Server) Offer(e Export) error {
	if len(e.Name) > maxString || len(e.Description) > maxString {
		return errors.New("nbd: name or description of an export is too long")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.exports[e.Name]; ok {
		return fmt.Errorf("nbd: there is an export %q already", e.Name)
	}
	s.exports[e.Name] = e
	return nil
}

// Withdraw ends the offer, and the connections of those who use it. When it returns the disk is not read any
// more.
func (s *Server) Withdraw(name string) {
	s.mu.Lock()
	delete(s.exports, name)
	var users []*serverConn
	for c := range s.conns {
		if c.uses(name) {
			users = append(users, c)
		}
	}
	s.mu.Unlock()
	for _, c := range users {
		_ = c.raw.Close()
		<-c.finished
	}
}

// Serve takes connections until the listener fails, or Close closes it; then it returns ErrServerClosed.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.listeners, l)
	}()
	for {
		conn, err := l.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return ErrServerClosed
		}
		if err != nil {
			return fmt.Errorf("take nbd connections: %w", err)
		}
		s.take(conn)
	}
}

// take begins to serve a connection, if there is room for one more.
func (s *Server) take(conn net.Conn) {
	c := &serverConn{s: s, raw: conn, conn: conn, finished: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.max {
		_ = conn.Close()
		return
	}
	s.conns[c] = true
	s.wg.Go(func() {
		defer close(c.finished)
		if err := c.serve(); err != nil && s.ctx.Err() == nil && !errors.Is(err, io.EOF) {
			s.log.Info("nbd connection ended", "client", conn.RemoteAddr(), "error", err)
		}
		_ = conn.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
}

// Close ends listeners and connections, and waits for them.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.raw.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// all returns the exports by name.
func (s *Server) all() []Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Export
	for _, name := range slices.Sorted(maps.Keys(s.exports)) {
		all = append(all, s.exports[name])
	}
	return all
}

// serverConn is one client's connection.
type serverConn struct {
	s        *Server
	raw      net.Conn
	conn     net.Conn // raw, or TLS over it
	finished chan struct{}

	// What was negotiated.
	export     Export
	chosen     bool // s.mu guards it and, until then, export
	noZeroes   bool
	structured bool
	status     bool   // base:allocation was granted,
	statusOf   string // for this export

	sending sync.Mutex // one reply, or one chunk of one, at a time on the wire
}

// uses tells whether a client has chosen an export. s.mu is held.
func (c *serverConn) uses(name string) bool { return c.chosen && c.export.Name == name }

func (c *serverConn) serve() error {
	late := time.AfterFunc(slowest, func() { _ = c.raw.Close() })
	err := c.negotiate()
	late.Stop()
	if err != nil || !c.chosen {
		return err
	}
	return c.answer()
}
