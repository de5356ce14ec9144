package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
)

// session is what a handshake agreed on.
type session struct {
	size     int64
	flags    uint16 // of the export
	contexts map[string]uint32
}

// upgrade asks for TLS and does its handshake. All that was agreed on before is forgotten on both sides.
func upgrade(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	if err := expectAck(conn, optStartTLS, "TLS", nil); err != nil {
		return nil, err
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls with nbd server: %w", err)
	}
	return secured, nil
}

// choose brings a connection that was greeted into the transmission phase.
func choose(rw io.ReadWriter, export string, contexts []string) (session, error) {
	if len(export) > maxString {
		return session{}, errors.New("nbd: export name is too long")
	}
	if err := expectAck(rw, optStructuredReply, "structured replies", nil); err != nil {
		return session{}, err
	}
	s := session{contexts: map[string]uint32{}}
	if len(contexts) > 0 {
		if err := s.setMetaContexts(rw, export, contexts); err != nil {
			return session{}, err
		}
	}
	if err := s.goTransmit(rw, export); err != nil {
		return session{}, err
	}
	return s, nil
}

// greet exchanges the flags of both sides.
func greet(rw io.ReadWriter) error {
	var b [18]byte
	if _, err := io.ReadFull(rw, b[:]); err != nil {
		return fmt.Errorf("read nbd greeting: %w", err)
	}
	if be.Uint64(b[:]) != magicServer || be.Uint64(b[8:]) != magicOption {
		return protocolErrorf("the greeting is not that of a newstyle server")
	}
	flags := be.Uint16(b[16:])
	if flags&flagFixedNewstyle == 0 {
		return protocolErrorf("the server does not speak fixed newstyle")
	}
	return write(rw, be.AppendUint32(nil, uint32(flags&(flagFixedNewstyle|flagNoZeroes))))
}

// setMetaContexts asks for contexts; what the server does not have is simply not granted.
func (s *session) setMetaContexts(rw io.ReadWriter, export string, contexts []string) error {
	data := appendString(nil, export)
	data = be.AppendUint32(data, uint32(len(contexts)))
	for _, c := range contexts {
		if len(c) > maxString {
			return errors.New("nbd: meta context name is too long")
		}
		data = appendString(data, c)
	}
	if err := write(rw, appendOption(nil, optSetMetaContext, data)); err != nil {
		return err
	}
	return eachReply(rw, optSetMetaContext, "the meta contexts", func(kind uint32, data []byte) error {
		if kind != repMetaContext || len(data) < 4 {
			return protocolErrorf("a reply of type %d and %d bytes to the meta contexts", kind, len(data))
		}
		name, id := string(data[4:]), be.Uint32(data)
		for _, c := range contexts {
			if c == name {
				s.contexts[name] = id
				return nil
			}
		}
		return protocolErrorf("a meta context that was not asked for: %q", clean(data[4:]))
	})
}

// goTransmit chooses the export and learns its size. It asks for no block size, so the server has to
// take any offset and length (or refuses, with a code that says so).
func (s *session) goTransmit(rw io.ReadWriter, export string) error {
	if err := write(rw, appendOption(nil, optGo, be.AppendUint16(appendString(nil, export), 0))); err != nil {
		return err
	}
	seen := false
	err := eachReply(rw, optGo, fmt.Sprintf("export %q", export), func(kind uint32, data []byte) error {
		if kind != repInfo || len(data) < 2 {
			return protocolErrorf("a reply of type %d and %d bytes to the choice of an export", kind, len(data))
		}
		if be.Uint16(data) != infoExport {
			return nil // names, descriptions, block sizes: a client may ignore them
		}
		if len(data) != 12 {
			return protocolErrorf("export information of %d bytes", len(data))
		}
		size := be.Uint64(data[2:])
		if size > math.MaxInt64 {
			return protocolErrorf("an export of %d bytes", size)
		}
		s.size, s.flags, seen = int64(size), be.Uint16(data[10:]), true
		return nil
	})
	if err == nil && !seen {
		err = protocolErrorf("no size for the export")
	}
	return err
}

// expectAck sends an option that is answered by nothing but yes or no.
func expectAck(rw io.ReadWriter, option uint32, what string, data []byte) error {
	if err := write(rw, appendOption(nil, option, data)); err != nil {
		return err
	}
	return eachReply(rw, option, what, func(kind uint32, _ []byte) error {
		return protocolErrorf("a reply of type %d to %s", kind, what)
	})
}

// eachReply calls f for every reply to an option until the server acknowledges or refuses it.
func eachReply(r io.Reader, option uint32, what string, f func(kind uint32, data []byte) error) error {
	for range maxOptReplies {
		var h struct {
			Magic                uint64
			Option, Kind, Length uint32
		}
		if err := binary.Read(r, be, &h); err != nil {
			return fmt.Errorf("read nbd reply to %s: %w", what, err)
		}
		switch {
		case h.Magic != magicOptReply:
			return protocolErrorf("a reply without its magic number")
		case h.Option != option:
			return protocolErrorf("a reply to option %d after option %d", h.Option, option)
		case h.Length > maxOptReply:
			return protocolErrorf("a reply of %d bytes in the handshake", h.Length)
		}
		data := make([]byte, h.Length)
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("read nbd reply to %s: %w", what, err)
		}
		if h.Kind == repAck {
			return nil
		}
		if h.Kind&repErrorBit != 0 {
			return &HandshakeError{what, h.Kind, clean(data)}
		}
		if err := f(h.Kind, data); err != nil {
			return err
		}
	}
	return protocolErrorf("more than %d replies to %s", maxOptReplies, what)
}

func write(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write to nbd server: %w", err)
	}
	return nil
}
