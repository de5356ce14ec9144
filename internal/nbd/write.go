package nbd

import (
	"errors"
	"fmt"
)

// ErrReadOnly is returned by writes to an export that the server offers read-only.
var ErrReadOnly = errors.New("nbd: export is read-only")

// ReadOnly reports whether the server offers the export for reading only.
func (c *Client) ReadOnly() bool { return c.flags&flagReadOnly != 0 }

// MultiConn reports whether several connections to the export show the same bytes.
func (c *Client) MultiConn() bool { return c.flags&flagCanMultiConn != 0 }

// WriteAt writes p at off. What was written is durable after the next Flush.
func (c *Client) WriteAt(p []byte, off int64) (int, error) {
	if err := c.writable(off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+maxWrite)]
		if err := c.do(&call{command: cmdWrite, off: off + int64(done), buf: part}, uint32(len(part))); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// WriteZeroes makes [off, off+n) read as zeros, as a hole where the server can.
func (c *Client) WriteZeroes(off, n int64) error {
	return c.each(cmdWriteZeroes, flagSendWriteZeroes, "zeroes", off, n)
}

// Trim tells the server that nobody needs what is in [off, off+n) any more; what is read there afterwards
// is not defined.
func (c *Client) Trim(off, n int64) error { return c.each(cmdTrim, flagSendTrim, "trim", off, n) }

// Flush returns when all writes that have returned are durable.
func (c *Client) Flush() error {
	if c.flags&flagSendFlush == 0 {
		return nil // such a server keeps nothing back
	}
	return c.do(&call{command: cmdFlush}, 0)
}

// each sends a command without data for a range, in pieces.
func (c *Client) each(command, flag uint16, what string, off, n int64) error {
	if err := c.writable(off, n); err != nil {
		return err
	}
	if c.flags&flag == 0 {
		return fmt.Errorf("nbd: server knows no %s: %w", what, errors.ErrUnsupported)
	}
	for end := off + n; off < end; {
		span := min(end-off, maxStatusSpan)
		if err := c.do(&call{command: command, off: off, span: span}, uint32(span)); err != nil {
			return err
		}
		off += span
	}
	return nil
}

func (c *Client) writable(off, n int64) error {
	if c.ReadOnly() {
		return ErrReadOnly
	}
	if off < 0 || n < 0 || off > c.size || n > c.size-off {
		return fmt.Errorf("nbd: write of %d bytes at %d to an export of %d", n, off, c.size)
	}
	return nil
}

// do sends a call and waits for its end.
func (c *Client) do(k *call, n uint32) error {
	k.done = make(chan struct{})
	if err := c.send(k, n); err != nil {
		return err
	}
	<-k.done
	return k.err
}
