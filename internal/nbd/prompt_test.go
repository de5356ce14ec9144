package nbd

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Who has read acknowledges at once, also while the kernel takes the connection for one where an answer is about to be
// sent, on which an acknowledgement may ride.
func TestPromptAcknowledgesAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, ok := promptly(conn).(prompt)
	if !ok {
		t.Fatal("a TCP connection is not prompt")
	}
	quick := func() (value int) {
		err := c.raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK) })
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	if err := c.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }); err != nil || quick() != 0 {
		t.Fatalf("acknowledgements that are held back: %v", err)
	}
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if quick() != 1 {
		t.Error("an acknowledgement is held back after a read")
	}
}
