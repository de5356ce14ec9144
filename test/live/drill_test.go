package live_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"kluis/internal/client"
	"kluis/test/guest"
)

// A recovery point boots and unlocks itself with its own keys; a check looks into it. Its services answer, and it reaches
// nobody, although the machine that was backed up reaches its host and what is behind it. What does not come up, or not well,
// is told, and nothing of any drill is left.
func TestDrill(t *testing.T) {
	outside := servicesOutside(t)
	w := newWorldOn(t, "drill", guest.URI, guest.Config{Devices: "<interface type='user'><model type='virtio'/></interface>", Arguments: "guest.port=7"})
	var reached, unreached string
	for _, s := range outside {
		reached += s.asked() + " && "
		unreached += "! " + s.asked() + " && "
	}
	sum, err := w.g.Run(t.Context(), reached+"cat /data/f* | sha256sum")
	if err != nil {
		t.Fatalf("a guest with a network: %v", err)
	}
	sum, _, _ = strings.Cut(sum, " ")
	p := w.point(w.begin())
	check := []string{"/bin/sh", "-c", "ip addr show eth0 | grep 10.0.2.15 && " + unreached + "cat /data/f* | sha256sum | grep " + sum}
	verdict := w.drill(p, client.DrillRequest{Port: 7, PortText: "GUEST greets", Check: check, Seconds: 120})
	if verdict.State != client.DrillPassed || verdict.BootMS <= 0 || verdict.Sign != `port 7 says "GUEST greets"` {
		t.Fatalf("the drill says %+v; want the sum %s", verdict, sum)
	}
	// What waits for its client to speak first answers, too.
	verdict = w.drill(p, client.DrillRequest{Console: " READY", Port: 8, Check: []string{"/bin/false"}, Seconds: 120})
	if verdict.State == client.DrillPassed || !strings.Contains(verdict.Reason, "code 1") {
		t.Errorf("a check that fails says %+v", verdict)
	}
	verdict = w.drill(p, client.DrillRequest{Console: "nobody says this", Port: 9, Seconds: 5})
	if verdict.State == client.DrillPassed || !strings.Contains(verdict.Reason, "nobody says this") || !strings.Contains(verdict.Reason, "Port 9 did not answer") {
		t.Errorf("signs that do not come say %+v", verdict)
	}
	for _, s := range outside {
		if n := s.calls.Load(); n != 1 {
			t.Errorf("%s was reached %d times; want once, by the machine that was backed up", s.host, n)
		}
	}
	left, err := guest.Virsh(t.Context(), "list", "--all", "--name")
	if err != nil || strings.Contains(left, "kluis-drill-"+p.Name) {
		t.Errorf("left on the host: %s %v", left, err)
	}
	w.clean()
}

// drill runs a drill of a point and returns its verdict.
func (w *world) drill(p client.Point, r client.DrillRequest) client.Drill {
	w.t.Helper()
	job, err := w.StartDrill(w.t.Context(), w.item.ARMID(), p.Name, r)
	if err == nil {
		_, err = w.WaitJob(w.t.Context(), w.vault, job, nil)
	}
	if err == nil {
		p, err = w.RecoveryPoint(w.t.Context(), w.item.ARMID(), p.Name)
	}
	if err != nil || p.Properties.Drill == nil {
		w.t.Fatalf("drill: %+v %v", p.Properties.Drill, err)
	}
	return *p.Properties.Drill
}

// service is something outside a machine. It counts its callers.
type service struct {
	host  string // as guests call it
	port  int
	calls atomic.Int64
}

// asked is a command of a guest that calls the service.
func (s *service) asked() string { return fmt.Sprintf("nc -w 5 %s %d </dev/null", s.host, s.port) }

// servicesOutside are one on the loopback of this machine, which guests with a network reach at 10.0.2.2, and one on an
// address at which others reach this machine, if it has one.
func servicesOutside(t *testing.T) []*service {
	t.Helper()
	all := []*service{newService(t, "127.0.0.1", "10.0.2.2")}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return append(all, newService(t, n.IP.String(), n.IP.String()))
		}
	}
	return all
}

func newService(t *testing.T, address, host string) *service {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &service{host: host, port: l.Addr().(*net.TCPAddr).Port}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.calls.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return s
}
