package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"sync"
	"time"
)

// Client is a connection to one export. Its methods may be called from many goroutines.
type Client struct {
	session
	conn net.Conn

	sending sync.Mutex // one request at a time on the wire

	mu      sync.Mutex
	cookie  uint64
	pending map[uint64]*call
	dead    error // set once; why no request can be answered any more

	finished chan struct{} // closed when the receiver is gone
}

// Dial connects to a server ("unix" or "tcp") and chooses an export. Contexts that the server does not
// have are left out; see Has. ctx bounds connecting and handshake, not the Client's life.
func Dial(ctx context.Context, network, addr, export string, contexts ...string) (*Client, error) {
	return DialTLS(ctx, network, addr, nil, export, contexts...)
}

// DialTLS is Dial with an upgrade to TLS before anything is asked for. The config names the server, and
// holds our certificate if the server wants one. Without a config it is Dial.
func DialTLS(ctx context.Context, network, addr string, config *tls.Config, export string, contexts ...string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to nbd server: %w", err)
	}
	return start(ctx, conn, config, export, contexts)
}

// New does the handshake on a connection made by the caller. The Client owns conn, also after an error.
func New(ctx context.Context, conn net.Conn, export string, contexts ...string) (*Client, error) {
	return start(ctx, conn, nil, export, contexts)
}

func start(ctx context.Context, conn net.Conn, config *tls.Config, export string, contexts []string) (*Client, error) {
	conn = promptly(conn)
	raw := conn
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	var s session
	err := greet(conn)
	if err == nil && config != nil {
		var secured net.Conn
		if secured, err = upgrade(ctx, conn, config); err == nil {
			conn = secured
		}
	}
	if err == nil {
		s, err = choose(conn, export, contexts)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	c := &Client{session: s, conn: conn, pending: map[uint64]*call{}, finished: make(chan struct{})}
	go c.receive()
	return c, nil
}

// Size is the export's length in bytes.
func (c *Client) Size() int64 { return c.size }

// Has reports whether the server granted a meta context.
func (c *Client) Has(context string) bool { _, ok := c.contexts[context]; return ok }

// ReadAt reads len(p) bytes from off, as io.ReaderAt has it. A dead connection ends it; Close does too.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("nbd: negative offset")
	}
	var eof error
	if off >= c.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	if rest := c.size - off; int64(len(p)) > rest {
		p, eof = p[:rest], io.EOF
	}
	n, err := c.read(p, off)
	if err != nil {
		return n, err
	}
	return n, eof
}

// read asks for its pieces in order, with some of them in flight, and returns how much it has up to the first that
// failed. It waits for all that it has asked for: their buffers are the receiver's until then.
func (c *Client) read(p []byte, off int64) (n int, err error) {
	var flying []*call
	for sent := 0; ; {
		for err == nil && sent < len(p) && len(flying) < readAhead {
			part := p[sent:min(len(p), sent+readPiece)]
			k := &call{command: cmdRead, off: off + int64(sent), buf: part, done: make(chan struct{})}
			if err = c.send(k, uint32(len(part))); err == nil {
				flying, sent = append(flying, k), sent+len(part)
			}
		}
		if len(flying) == 0 {
			return n, err
		}
		k := flying[0]
		flying = flying[1:]
		<-k.done
		if err == nil {
			if err = k.err; err == nil {
				n += len(k.buf)
			}
		}
	}
}

// BlockStatus yields the extents of [off, off+n) in a context, ascending, without gaps, joined where
// neighbours have the same flags. An error is the last thing it yields.
func (c *Client) BlockStatus(ctx context.Context, context string, off, n int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		id, ok := c.contexts[context]
		if !ok {
			yield(Extent{}, fmt.Errorf("%w: %s", ErrNoContext, context))
			return
		}
		if off < 0 || n < 0 || off > c.size || n > c.size-off {
			yield(Extent{}, fmt.Errorf("nbd: block status of %d bytes at %d in an export of %d", n, off, c.size))
			return
		}
		var last Extent
		for end := off + n; off < end; {
			extents, err := c.status(ctx, id, off, min(end-off, maxStatusSpan))
			if err != nil {
				yield(Extent{}, err)
				return
			}
			for _, e := range extents {
				off = e.Offset + e.Length
				if last.Length > 0 && last.Flags == e.Flags {
					last.Length += e.Length
					continue
				}
				if last.Length > 0 && !yield(last, nil) {
					return
				}
				last = e
			}
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// status asks once. The answer covers at least one byte from off and nothing beyond off+n.
func (c *Client) status(ctx context.Context, id uint32, off, n int64) ([]Extent, error) {
	k := &call{command: cmdBlockStatus, off: off, span: n, context: id, done: make(chan struct{})}
	if err := c.send(k, uint32(n)); err != nil {
		return nil, err
	}
	select {
	case <-k.done:
		return k.extents, k.err
	case <-ctx.Done():
		return nil, ctx.Err() // the answer will be received, and dropped with k
	}
}

// Done is closed when the connection is over, whoever ended it.
func (c *Client) Done() <-chan struct{} { return c.finished }

// Close says good-bye, ends the connection and waits for the receiver. Requests in flight fail with ErrClosed.
func (c *Client) Close() error {
	c.die(ErrClosed)
	// A server that reads nothing must not hold us up: the good-bye is a courtesy.
	late := time.AfterFunc(time.Second, func() { _ = c.conn.Close() })
	c.sending.Lock()
	_, _ = c.conn.Write(appendRequest(nil, cmdDisconnect, 0, 0, 0))
	c.sending.Unlock()
	late.Stop()
	err := c.conn.Close()
	<-c.finished
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// die remembers the first reason why the client is of no use any more.
func (c *Client) die(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead == nil {
		c.dead = why
	}
}
