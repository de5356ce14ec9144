package nbd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
)

// call is one request in flight. From send until done is closed it belongs to the receiver, its buffer too.
type call struct {
	command uint16
	off     int64
	buf     []byte // read: where the data goes; write: what is sent
	span    int64  // of a command without data: how much it is about
	context uint32

	pieces  pieces // read: what has arrived
	extents []Extent
	err     error
	done    chan struct{}
}

// send registers a call and writes its request. If writing fails the receiver ends the call, as it ends
// all others: nobody else may, because it could be filling the call's buffer just now.
func (c *Client) send(k *call, n uint32) error {
	c.mu.Lock()
	if c.dead != nil {
		defer c.mu.Unlock()
		return c.dead
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = k
	c.mu.Unlock()

	c.sending.Lock()
	err := c.write(appendRequest(nil, k.command, cookie, k.off, n), k)
	c.sending.Unlock()
	if err != nil {
		c.die(fmt.Errorf("send to nbd server: %w", err))
		_ = c.conn.Close()
	}
	return nil
}

// write writes a request, and what is to be written behind it. c.sending is held.
func (c *Client) write(request []byte, k *call) error {
	message := net.Buffers{request}
	if k.command == cmdWrite {
		message = append(message, k.buf)
	}
	_, err := message.WriteTo(c.conn)
	return err
}

// receive takes replies until the connection ends, then fails whatever is still in flight.
func (c *Client) receive() {
	defer close(c.finished)
	r := bufio.NewReaderSize(c.conn, 64<<10)
	var err error
	for err == nil {
		err = c.receiveOne(r)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // nothing was expected to end
	}
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead == nil {
		c.dead = fmt.Errorf("receive from nbd server: %w", err)
	}
	for cookie, k := range c.pending {
		delete(c.pending, cookie)
		k.err = c.dead
		close(k.done)
	}
}

// receiveOne takes one simple reply or one chunk. An error is the end of the connection.
func (c *Client) receiveOne(r *bufio.Reader) error {
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return err
	}
	switch be.Uint32(magic[:]) {
	case magicSimple:
		return c.receiveSimple(r)
	case magicStructured:
		return c.receiveChunk(r)
	}
	return protocolErrorf("a reply without a magic number")
}

// receiveSimple takes a simple reply. After structured replies were agreed on, a read is never answered so,
// and block status only if it failed.
func (c *Client) receiveSimple(r io.Reader) error {
	var b [12]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	errno, cookie := be.Uint32(b[:]), be.Uint64(b[4:])
	k := c.lookup(cookie)
	if k == nil || k.command == cmdRead || k.command == cmdBlockStatus && errno == 0 {
		return protocolErrorf("a simple reply where a structured one was agreed on")
	}
	if errno != 0 {
		k.err = &ServerError{Errno: errno}
	}
	c.finish(cookie, k)
	return nil
}

func (c *Client) receiveChunk(r *bufio.Reader) error {
	var b [chunkHeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	h := parseChunkHeader(b[:])
	k := c.lookup(h.cookie)
	if k == nil {
		return protocolErrorf("a reply to no request (cookie %d)", h.cookie)
	}
	if err := k.take(r, h); err != nil {
		return err
	}
	if h.flags&chunkDone == 0 {
		return nil
	}
	if k.err == nil { // an error is an answer, however little came before it
		if err := k.complete(); err != nil {
			return err
		}
	}
	c.finish(h.cookie, k)
	return nil
}

func (c *Client) lookup(cookie uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[cookie]
}

func (c *Client) finish(cookie uint64, k *call) {
	c.mu.Lock()
	delete(c.pending, cookie)
	c.mu.Unlock()
	close(k.done)
}

// take reads one chunk into the call.
func (k *call) take(r *bufio.Reader, h chunkHeader) error {
	switch {
	case h.kind == chunkNone:
		if h.length != 0 || h.flags&chunkDone == 0 {
			return protocolErrorf("an empty chunk of %d bytes, flags %#x", h.length, h.flags)
		}
		return nil
	case h.kind == chunkOffsetData && k.command == cmdRead:
		return k.takeData(r, h.length)
	case h.kind == chunkOffsetHole && k.command == cmdRead:
		return k.takeHole(r, h.length)
	case h.kind == chunkBlockStatus && k.command == cmdBlockStatus:
		return k.takeStatus(r, h.length)
	case h.kind&chunkErrorBit != 0:
		return k.takeError(r, h)
	}
	return protocolErrorf("a chunk of type %d to command %d", h.kind, k.command)
}

func (k *call) takeData(r io.Reader, length uint32) error {
	if length <= 8 {
		return protocolErrorf("a data chunk of %d bytes", length)
	}
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	part, err := k.claim(be.Uint64(b[:]), int64(length)-8)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, part)
	return err
}

func (k *call) takeHole(r io.Reader, length uint32) error {
	if length != 12 {
		return protocolErrorf("a hole chunk of %d bytes", length)
	}
	var b [12]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	part, err := k.claim(be.Uint64(b[:]), int64(be.Uint32(b[8:])))
	if err != nil {
		return err
	}
	clear(part)
	return nil
}

// claim returns the part of the buffer for [off, off+n) of the export, and remembers that it has arrived.
func (k *call) claim(off uint64, n int64) ([]byte, error) {
	start := int64(off) - k.off
	if n <= 0 || off > 1<<62 || start < 0 || n > int64(len(k.buf)) || start > int64(len(k.buf))-n {
		return nil, protocolErrorf("%d bytes at %d in reply to a read of %d at %d", n, off, len(k.buf), k.off)
	}
	if err := k.pieces.add(start, start+n); err != nil {
		return nil, err
	}
	return k.buf[start : start+n], nil
}

func (k *call) takeStatus(r io.Reader, length uint32) error {
	if length < 12 || length%8 != 4 || length > maxStatusChunk {
		return protocolErrorf("a block status chunk of %d bytes", length)
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if id := be.Uint32(b); id != k.context {
		return nil // another context of this connection; servers answer for all of them
	}
	if len(k.extents) > 0 {
		return protocolErrorf("block status twice in one reply")
	}
	off, end := k.off, k.off+k.span
	for b = b[4:]; len(b) > 0 && off < end; b = b[8:] {
		n := int64(be.Uint32(b))
		if n == 0 {
			return protocolErrorf("an extent of no bytes")
		}
		n = min(n, end-off) // the last one may go beyond what was asked for
		k.extents = append(k.extents, Extent{off, n, be.Uint32(b[4:])})
		off += n
	}
	return nil
}

func (k *call) takeError(r *bufio.Reader, h chunkHeader) error {
	if h.length > maxString+16 {
		return protocolErrorf("an error chunk of %d bytes", h.length)
	}
	b := make([]byte, h.length)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if len(b) < 6 || int(be.Uint16(b[4:])) > len(b)-6 {
		return protocolErrorf("an error chunk of %d bytes that ends early", len(b))
	}
	if k.err == nil {
		k.err = &ServerError{be.Uint32(b), clean(b[6 : 6+int(be.Uint16(b[4:]))])}
	}
	return nil
}

// complete checks, when the last chunk is here, that the answer is whole.
func (k *call) complete() error {
	switch {
	case k.command == cmdRead && !k.pieces.cover(int64(len(k.buf))):
		return protocolErrorf("a read of %d bytes was answered in part", len(k.buf))
	case k.command == cmdBlockStatus && len(k.extents) == 0:
		return protocolErrorf("block status without an extent")
	}
	return nil
}

// pieces are the parts of a read that have arrived: sorted, apart from each other, joined where they touch.
type pieces [][2]int64

func (p *pieces) add(start, end int64) error {
	s := *p
	i := len(s)
	for i > 0 && s[i-1][0] >= end { // replies nearly always ascend, so this looks at the last first
		i--
	}
	if i > 0 && s[i-1][1] > start {
		return protocolErrorf("the same bytes of a read twice")
	}
	before, after := i > 0 && s[i-1][1] == start, i < len(s) && s[i][0] == end
	switch {
	case before && after:
		s[i-1][1] = s[i][1]
		s = append(s[:i], s[i+1:]...)
	case before:
		s[i-1][1] = end
	case after:
		s[i][0] = start
	case len(s) == maxPieces:
		return protocolErrorf("a read in more than %d pieces", maxPieces)
	default:
		s = append(s, [2]int64{})
		copy(s[i+1:], s[i:])
		s[i] = [2]int64{start, end}
	}
	*p = s
	return nil
}

func (p pieces) cover(n int64) bool {
	return n == 0 || len(p) == 1 && p[0] == [2]int64{0, n}
}
