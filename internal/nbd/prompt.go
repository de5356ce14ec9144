package nbd

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// prompt is a TCP connection that acknowledges what it has read before it waits for more.
//
// QEMU before 8.1 leaves Nagle's algorithm on: it keeps the end of an answer back until what went before is
// acknowledged, and Linux waits 40 ms with that if it expects to send data soon, as a client that asks and
// asks again does. A read of 4 KiB over TLS took 44 ms for that reason, and takes 0.1 ms so.
type prompt struct {
	*net.TCPConn
	raw syscall.RawConn
}

// promptly makes a connection prompt. Sockets of other kinds know no acknowledgements.
func promptly(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn // it is closed; whoever uses it will be told
	}
	return prompt{tcp, raw}
}

// Read implements net.Conn. The kernel forgets the option as soon as a request is sent, so it is set each time.
func (p prompt) Read(b []byte) (int, error) {
	_ = p.raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) // without it we are slow, not wrong
	})
	return p.TCPConn.Read(b)
}
