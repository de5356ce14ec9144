package libvirt

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const usernetText = "Hub -1 (isolated0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
	"  TCP[ESTABLISHED]    28       127.0.0.1 36711       10.0.2.15    22     0     0\r\n" +
	"  TCP[HOST_FORWARD]   3       127.0.0.1 36711       10.0.2.15    22     0     0\r\n" +
	"  UDP[236 sec]       31       10.0.2.15 45678         1.2.3.4    53     0     0\r\n"

func TestParseUsernet(t *testing.T) {
	want := []forward{{"ESTABLISHED", 36711}, {"HOST_FORWARD", 36711}}
	if got := parseUsernet(usernetText); !slices.Equal(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

// phone is the end of a port that QEMU forwards: what it does with each call is the guest's doing.
func phone(t *testing.T, guest func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var held []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c)
			guest(c)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, c := range held {
			_ = c.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// That QEMU takes a call is no answer. That the guest takes and holds it is one, or that it says something; where a text
// is wanted, only that.
func TestCaller(t *testing.T) {
	silent := func(net.Conn) {}
	hangsUp := func(c net.Conn) { _ = c.Close() }
	greets := func(c net.Conn) {
		_, _ = c.Write([]byte("SSH-2.0-guest\r\n"))
		_ = c.Close()
	}
	for _, c := range []struct {
		name     string
		guest    func(net.Conn)
		accepted bool
		text     string
		want     bool
		absence  string
	}{
		{"the guest is not there", silent, false, "", false, "Port 22 did not answer within 1m0s."},
		{"the guest refuses", hangsUp, false, "", false, "Port 22 did not answer within 1m0s."},
		{"the guest takes the call and drops it", hangsUp, true, "", false, "Port 22 did not answer within 1m0s."},
		{"the guest waits for us to speak", silent, true, "", true, ""},
		{"the guest waits for us to speak, and was to speak", silent, true, "SSH-", false, `Port 22 did not say "SSH-" within 1m0s, but nothing.`},
		{"the guest greets", greets, true, "", true, ""},
		{"the guest greets as wanted", greets, true, "SSH-", true, ""},
		{"the guest greets as something else", greets, true, "220 ", false, `Port 22 did not say "220 " within 1m0s, but "SSH-2.0-guest\r\n".`},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := &caller{port: phone(t, c.guest), text: c.text, now: time.Now, accepted: func(context.Context) bool { return c.accepted }}
			defer caller.hangUp()
			got := false
			for range 4 { // a call, an answer, and both once more
				got = got || caller.answered(t.Context())
			}
			if got != c.want {
				t.Errorf("answered: %t", got)
			}
			if absence := caller.absence(22, time.Minute); !got && !strings.HasPrefix(absence, c.absence) {
				t.Errorf("it says %s", absence)
			}
		})
	}
}

// A call that is not taken is not held for ever: the guest was still booting when it began.
func TestCallerCallsAgain(t *testing.T) {
	caller := &caller{port: phone(t, func(net.Conn) {}), now: time.Now, accepted: func(context.Context) bool { return false }}
	defer caller.hangUp()
	caller.answered(t.Context())
	first := caller.conn
	if caller.answered(t.Context()); caller.conn != first || first == nil {
		t.Fatal("the call was not held")
	}
	caller.since = caller.since.Add(-ringFor)
	caller.answered(t.Context())
	if caller.answered(t.Context()); caller.conn == nil || caller.conn == first {
		t.Error("there is no second call")
	}
}
