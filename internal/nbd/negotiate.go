package nbd

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of a client's part of the handshake.
const (
	maxOption  = 64 << 10 // bytes of one
	maxOptions = 256
	maxQueries = 256 // meta contexts in one option
)

// allocationID is the number by which base:allocation goes in replies.
const allocationID = 1

// negotiate does the server's part of the handshake. It ends with an export chosen, or without one if the
// client has gone.
func (c *serverConn) negotiate() error {
	hello := be.AppendUint64(nil, magicServer)
	hello = be.AppendUint64(hello, magicOption)
	if err := c.send(be.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(c.conn, flags[:]); err != nil {
		return err
	}
	if f := be.Uint32(flags[:]); f&^(flagFixedNewstyle|flagNoZeroes) != 0 || f&flagFixedNewstyle == 0 {
		return protocolErrorf("client flags %#x", f)
	} else if f&flagNoZeroes != 0 {
		c.noZeroes = true
	}
	for range maxOptions {
		done, err := c.option()
		if err != nil || done {
			return err
		}
	}
	return protocolErrorf("more than %d options", maxOptions)
}

// option takes one option and answers it. It reports whether the handshake is over.
func (c *serverConn) option() (done bool, err error) {
	var h struct {
		Magic          uint64
		Option, Length uint32
	}
	if err := binary.Read(c.conn, be, &h); err != nil {
		return false, err
	}
	if h.Magic != magicOption || h.Length > maxOption {
		return false, protocolErrorf("option %d of %d bytes, magic %#x", h.Option, h.Length, h.Magic)
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(c.conn, data); err != nil {
		return false, err
	}
	if c.needsTLS() && h.Option != optStartTLS && h.Option != optAbort {
		if h.Option == optExportName { // knows no refusal
			return false, errors.New("nbd: client does not upgrade to TLS")
		}
		return false, c.refuse(h.Option, repErrTLSRequired, "this server speaks TLS only")
	}
	switch h.Option {
	case optExportName:
		return true, c.chooseOldWay(string(data))
	case optAbort:
		return true, c.reply(h.Option, repAck, nil)
	case optList:
		return false, c.list(data)
	case optStartTLS:
		return false, c.startTLS(data)
	case optInfo, optGo:
		return c.info(h.Option, data)
	case optStructuredReply:
		if len(data) != 0 {
			return false, c.refuse(h.Option, repErrInvalid, "this option has no data")
		}
		c.structured = true
		return false, c.reply(h.Option, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		return false, c.metaContexts(h.Option, data)
	}
	return false, c.refuse(h.Option, repErrUnsupported, "this option is not known")
}

func (c *serverConn) needsTLS() bool {
	_, secured := c.conn.(*tls.Conn)
	return c.s.tls != nil && !secured
}

func (c *serverConn) send(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

func (c *serverConn) reply(option, kind uint32, data []byte) error {
	return c.send(appendOptReply(nil, option, kind, data))
}

func (c *serverConn) refuse(option, kind uint32, why string) error {
	return c.reply(option, kind, []byte(why))
}

// pick makes an export the connection's, so that whoever withdraws it finds the connection.
func (c *serverConn) pick(name string) (Export, bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	e, ok := c.s.exports[name]
	ok = ok && c.sees(e)
	if ok {
		c.export, c.chosen = e, true
		c.status = c.status && c.statusOf == name
	}
	return e, ok
}

// exportNamed returns an export that the client may see.
func (c *serverConn) exportNamed(name string) (Export, bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	e, ok := c.s.exports[name]
	return e, ok && c.sees(e)
}

// sees tells whether an export is for this client. A certificate counts only if it was verified.
func (c *serverConn) sees(e Export) bool {
	if e.Client == "" {
		return true
	}
	secured, ok := c.conn.(*tls.Conn)
	if !ok {
		return false
	}
	chains := secured.ConnectionState().VerifiedChains
	return len(chains) > 0 && chains[0][0].Subject.CommonName == e.Client
}

// exportFlags are the same for every export: nothing can be written, so what a flush or a second
// connection sees is always the same.
const exportFlags = flagHasFlags | flagReadOnly | flagSendFlush | flagSendFUA | flagCanMultiConn

func (c *serverConn) chooseOldWay(name string) error {
	e, ok := c.pick(name)
	if !ok {
		return fmt.Errorf("nbd: client asked for export %q", clean([]byte(name)))
	}
	b := be.AppendUint64(nil, uint64(e.Disk.Size()))
	b = be.AppendUint16(b, exportFlags)
	if !c.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	return c.send(b)
}

func (c *serverConn) list(data []byte) error {
	if len(data) != 0 {
		return c.refuse(optList, repErrInvalid, "this option has no data")
	}
	for _, e := range c.s.all() {
		if !c.sees(e) {
			continue
		}
		if err := c.reply(optList, repServer, append(appendString(nil, e.Name), e.Description...)); err != nil {
			return err
		}
	}
	return c.reply(optList, repAck, nil)
}

func (c *serverConn) startTLS(data []byte) error {
	switch {
	case len(data) != 0:
		return c.refuse(optStartTLS, repErrInvalid, "this option has no data")
	case c.s.tls == nil:
		return c.refuse(optStartTLS, repErrPolicy, "this server speaks no TLS")
	case !c.needsTLS():
		return c.refuse(optStartTLS, repErrInvalid, "this is TLS already")
	}
	if err := c.reply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	secured := tls.Server(c.raw, c.s.tls)
	if err := secured.HandshakeContext(c.s.ctx); err != nil {
		return fmt.Errorf("tls with nbd client: %w", err)
	}
	c.conn, c.structured, c.status = secured, false, false
	return nil
}

// info describes an export and, as answer to optGo, chooses it.
func (c *serverConn) info(option uint32, data []byte) (done bool, err error) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(be.Uint16(rest)) {
		return false, c.refuse(option, repErrInvalid, "the option is cut off")
	}
	e, ok := c.exportNamed(name)
	if ok && option == optGo {
		e, ok = c.pick(name)
	}
	if !ok {
		return false, c.refuse(option, repErrUnknown, "there is no such export")
	}
	b := be.AppendUint64(be.AppendUint16(nil, infoExport), uint64(e.Disk.Size()))
	err = c.reply(option, repInfo, be.AppendUint16(b, exportFlags))
	if err == nil {
		b = be.AppendUint32(be.AppendUint16(nil, infoBlockSize), 1)
		err = c.reply(option, repInfo, be.AppendUint32(be.AppendUint32(b, 64<<10), maxRead))
	}
	if err == nil {
		err = c.reply(option, repAck, nil)
	}
	return option == optGo, err
}

// metaContexts answers which contexts there are, or grants those that are asked for: we have one.
func (c *serverConn) metaContexts(option uint32, data []byte) error {
	if !c.structured {
		return c.refuse(option, repErrInvalid, "structured replies come first")
	}
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 {
		return c.refuse(option, repErrInvalid, "the option is cut off")
	}
	queries := be.Uint32(rest)
	if queries > maxQueries {
		return c.refuse(option, repErrTooBig, "too many contexts")
	}
	wanted := queries == 0 && option == optListMetaContext
	rest = rest[4:]
	for range queries {
		var query string
		if query, rest, ok = cutString(rest); !ok {
			return c.refuse(option, repErrInvalid, "the option is cut off")
		}
		wanted = wanted || query == ContextAllocation || query == "base:" && option == optListMetaContext
	}
	if len(rest) != 0 {
		return c.refuse(option, repErrInvalid, "the option is too long")
	}
	if _, ok := c.exportNamed(name); !ok {
		return c.refuse(option, repErrUnknown, "there is no such export")
	}
	if option == optSetMetaContext {
		c.status, c.statusOf = wanted, name
	}
	if wanted {
		if err := c.reply(option, repMetaContext, append(be.AppendUint32(nil, allocationID), ContextAllocation...)); err != nil {
			return err
		}
	}
	return c.reply(option, repAck, nil)
}

// cutString cuts a counted string off.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 4 || be.Uint32(b) > maxString || int(be.Uint32(b)) > len(b)-4 {
		return "", nil, false
	}
	n := int(be.Uint32(b))
	return string(b[4 : 4+n]), b[4+n:], true
}
