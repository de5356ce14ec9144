package libvirt

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// QEMU accepts a connection for the guest whether the guest listens or not, and only then calls it: that QEMU accepts is
// no sign. A sign is a byte that the guest says; or that by QEMU's own table the guest has accepted, and still holds,
// the connection. So protocols in which the client speaks first need no knowledge here, and of the others a text can be
// wanted.

// caller calls the port of a drilled machine until the guest takes the call.
type caller struct {
	port     int    // of the loopback, forwarded to the guest's
	text     string // that the guest must say; empty: it need not say anything
	now      func() time.Time
	accepted func(context.Context) bool // does the guest hold a connection that came to the port

	conn  net.Conn // the call; nil if there is none
	since time.Time
	heard []byte // in this call
	last  []byte // in the last one in which anything was
}

const (
	// ringFor is how long a call is held that the guest does not take: one that is still booting may have missed it.
	ringFor = 3 * time.Second
	// listenFor is how long one look at a call takes.
	listenFor = 100 * time.Millisecond
	// maxHeard is how much is listened to in a call, maxQuoted how much of it is told.
	maxHeard, maxQuoted = 64 << 10, 100
)

// answered reports whether the guest has taken a call, and said what is wanted. It is asked again and again.
func (c *caller) answered(ctx context.Context) bool {
	if c.conn == nil {
		c.dial(ctx)
		return false
	}
	open := c.listen()
	if len(c.heard) > 0 && bytes.Contains(c.heard, []byte(c.text)) {
		return true
	}
	taken := open && c.accepted(ctx)
	if !open || !taken && c.now().Sub(c.since) > ringFor {
		c.hangUp()
	}
	return taken && c.text == ""
}

func (c *caller) dial(ctx context.Context) {
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))); err == nil {
		c.conn, c.since = conn, c.now()
	}
}

// listen hears what the guest has said by now, and reports whether it may say more.
func (c *caller) listen() (open bool) {
	if err := c.conn.SetReadDeadline(c.now().Add(listenFor)); err != nil {
		return false
	}
	part := make([]byte, 4096)
	for len(c.heard) < maxHeard {
		n, err := c.conn.Read(part)
		c.heard = append(c.heard, part[:n]...)
		if err != nil {
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return false
}

// hangUp ends the call, if there is one.
func (c *caller) hangUp() {
	if c.conn == nil {
		return
	}
	_ = c.conn.Close() // nothing was written
	if len(c.heard) > 0 {
		c.last = c.heard
	}
	c.conn, c.heard = nil, nil
}

// absence says what did not come.
func (c *caller) absence(port int, limit time.Duration) string {
	const where = " It was asked at the address that a machine gets by DHCP."
	if c.text == "" {
		return fmt.Sprintf("Port %d did not answer within %s.", port, limit) + where
	}
	said := "nothing"
	if heard := cmp.Or(string(c.heard), string(c.last)); heard != "" {
		said = strconv.Quote(heard[:min(len(heard), maxQuoted)])
	}
	return fmt.Sprintf("Port %d did not say %q within %s, but %s.", port, c.text, limit, said) + where
}

// forwarded is the port of the loopback that QEMU forwards to the guest.
func (t *trial) forwarded(ctx context.Context) (int, error) {
	table, err := t.monitor(ctx, "info usernet")
	if err != nil {
		return 0, err
	}
	for _, c := range parseUsernet(table) {
		if c.state == "HOST_FORWARD" {
			return c.port, nil
		}
	}
	return 0, errors.New("QEMU forwards no port to the machine")
}

// accepted reports whether the guest holds a connection that came to the forwarded port.
func (t *trial) accepted(ctx context.Context) bool {
	table, err := t.monitor(ctx, "info usernet")
	if err != nil {
		t.h.o.Log.Debug("ask for the connections of a drill", "machine", t.d.Name, "error", err)
	}
	for _, c := range parseUsernet(table) {
		if c.state == "ESTABLISHED" && c.port == t.caller.port {
			return true
		}
	}
	return false
}

// forward is a line of QEMU's table of a network: "TCP[HOST_FORWARD] 13 127.0.0.1 36711 10.0.2.15 22 0 0".
type forward struct {
	state string
	port  int // at which it comes, on this machine
}

// parseUsernet reads the table. What is no line of it is left out.
func parseUsernet(table string) (all []forward) {
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		if len(words) != 8 {
			continue
		}
		state, tcp := strings.CutPrefix(words[0], "TCP[")
		state, whole := strings.CutSuffix(state, "]")
		port, err := strconv.ParseUint(words[3], 10, 16)
		if tcp && whole && err == nil {
			all = append(all, forward{state, int(port)})
		}
	}
	return all
}
