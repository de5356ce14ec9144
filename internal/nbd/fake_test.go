package nbd

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// script builds what a server says, for servers that no real one would be.
type script struct{ bytes.Buffer }

func (s *script) greeting() *script {
	s.Write(be.AppendUint64(nil, magicServer))
	s.Write(be.AppendUint64(nil, magicOption))
	s.Write(be.AppendUint16(nil, flagFixedNewstyle|flagNoZeroes))
	return s
}

func (s *script) option(option, kind uint32, data []byte) *script {
	b := be.AppendUint64(nil, magicOptReply)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	s.Write(append(b, data...))
	return s
}

// ready is a whole handshake for an export of the given size with base:allocation as context 7.
func (s *script) ready(size uint64) *script {
	s.greeting().option(optStructuredReply, repAck, nil)
	s.option(optSetMetaContext, repMetaContext, append(be.AppendUint32(nil, 7), ContextAllocation...))
	s.option(optSetMetaContext, repAck, nil)
	info := be.AppendUint64(be.AppendUint16(nil, infoExport), size)
	s.option(optGo, repInfo, be.AppendUint16(info, 3))
	return s.option(optGo, repAck, nil)
}

// writable is a whole handshake for an export that takes writes and zeroes.
func (s *script) writable(size uint64) *script {
	s.greeting().option(optStructuredReply, repAck, nil)
	info := be.AppendUint64(be.AppendUint16(nil, infoExport), size)
	s.option(optGo, repInfo, be.AppendUint16(info, flagHasFlags|flagSendWriteZeroes))
	return s.option(optGo, repAck, nil)
}

func (s *script) chunk(flags, kind uint16, cookie uint64, data []byte) *script {
	b := be.AppendUint32(nil, magicStructured)
	b = be.AppendUint16(b, flags)
	b = be.AppendUint16(b, kind)
	b = be.AppendUint64(b, cookie)
	b = be.AppendUint32(b, uint32(len(data)))
	s.Write(append(b, data...))
	return s
}

func at(off uint64, data string) []byte { return append(be.AppendUint64(nil, off), data...) }

func hole(off uint64, n uint32) []byte { return be.AppendUint32(be.AppendUint64(nil, off), n) }

func status(id uint32, pairs ...uint32) []byte {
	b := be.AppendUint32(nil, id)
	for _, p := range pairs {
		b = be.AppendUint32(b, p)
	}
	return b
}

func failure(errno uint32, message string) []byte {
	b := be.AppendUint16(be.AppendUint32(nil, errno), uint16(len(message)))
	return append(b, message...)
}

// canned is a connection to a server that answers the n-th request with the n-th of its replies, whatever
// was asked, and hangs up after the last.
type canned struct {
	mu      sync.Mutex
	wake    sync.Cond
	says    bytes.Buffer
	replies [][]byte
	closed  bool
}

func newCanned(handshake []byte, replies ...[]byte) *canned {
	c := &canned{replies: replies}
	c.wake.L = &c.mu
	c.says.Write(handshake)
	return c
}

func (c *canned) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.says.Len() == 0 && !c.closed {
		c.wake.Wait()
	}
	return c.says.Read(p)
}

func (c *canned) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > 4 && be.Uint32(p) == magicRequest {
		if len(c.replies) > 0 {
			c.says.Write(c.replies[0])
			c.replies = c.replies[1:]
		}
		c.closed = len(c.replies) == 0
		c.wake.Broadcast()
	}
	return len(p), nil
}

func (c *canned) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.wake.Broadcast()
	return nil
}

func (c *canned) LocalAddr() net.Addr              { return nil }
func (c *canned) RemoteAddr() net.Addr             { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }
