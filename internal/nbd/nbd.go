// Package nbd speaks the Network Block Device protocol, as a client and as a server.
//
// A Client is one connection to one export. It reads, asks which ranges hold data, and writes where the
// server lets it. It speaks the fixed newstyle handshake, insists on structured replies (every server worth
// reading a backup from has them: QEMU, nbdkit), and asks for meta contexts by name:
//
//	base:allocation            what is a hole, what reads as zero
//	qemu:dirty-bitmap:<name>   what changed since the bitmap began
//
// A Server offers disks for reading, under names: a recovery point as a disk that a machine can boot from,
// through a qcow2 overlay that takes its writes. Every server and client here speaks plain or, after
// the upgrade in the handshake, TLS.
//
// Words. An export is a disk that a server offers. A cookie names a request in flight. A chunk is one
// piece of a structured reply; a reply ends with the chunk that carries the flag done.
//
// Invariants of the Server. The client is not trusted either: what it asks for is checked before anything is
// done or allocated, a connection has a fixed number of requests in flight with a buffer each and is not
// read from while they are all busy, and there is a fixed number of connections. Nothing is ever
// written to a disk. With TLS, nothing but TLS is spoken, and what is offered is told only behind it.
//
// Invariants of the Client. Many goroutines may call a Client at once; their requests are in flight together and
// replies may come in any order. The server is not trusted: every length it sends is checked against a
// limit before memory is taken for it, every byte of a read must be answered exactly once, and block
// status must make progress. After a violation, or when the connection is lost, the Client is dead:
// it never reconnects, because a snapshot that is read over two connections may be two snapshots.
package nbd

import (
	"errors"
	"fmt"
)

// Contexts that servers offer.
const (
	ContextAllocation  = "base:allocation"
	ContextDirtyPrefix = "qemu:dirty-bitmap:"
)

// Flags of an Extent. What a flag means depends on the context.
const (
	StateHole  uint32 = 1 << 0 // base:allocation: nothing is allocated here
	StateZero  uint32 = 1 << 1 // base:allocation: reads as zeros
	StateDirty uint32 = 1 << 0 // qemu:dirty-bitmap: changed
)

// Extent is a range of the export and its state in one context.
type Extent struct {
	Offset, Length int64
	Flags          uint32
}

// ErrNoContext is returned by BlockStatus for a context that the server did not grant.
var ErrNoContext = errors.New("nbd: server did not grant the meta context")

// ErrClosed is returned by calls on a Client that was closed here.
var ErrClosed = errors.New("nbd: client is closed")

// ProtocolError says that the other side broke the protocol. The connection is not usable any more.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string { return "nbd: peer broke the protocol: " + e.What }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{fmt.Sprintf(format, args...)}
}

// HandshakeError is a server's refusal during the handshake, e.g. of an export it does not have.
type HandshakeError struct {
	Option  string // what was asked for
	Code    uint32 // NBD_REP_ERR_…
	Message string // the server's words, cleaned; may be empty
}

func (e *HandshakeError) Error() string {
	s := fmt.Sprintf("nbd: server refused %s (code %#x)", e.Option, e.Code)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// ServerError is a server's answer that one request failed. The connection goes on.
type ServerError struct {
	Errno   uint32 // NBD's error numbers, which are Linux's
	Message string // the server's words, cleaned; may be empty
}

func (e *ServerError) Error() string {
	name, ok := errnoNames[e.Errno]
	if !ok {
		name = fmt.Sprintf("error %d", e.Errno)
	}
	if e.Message != "" {
		return "nbd: server reported " + name + ": " + e.Message
	}
	return "nbd: server reported " + name
}

var errnoNames = map[uint32]string{
	1: "EPERM", 5: "EIO", 12: "ENOMEM", 22: "EINVAL", 28: "ENOSPC", 75: "EOVERFLOW", 95: "ENOTSUP", 108: "ESHUTDOWN",
}
