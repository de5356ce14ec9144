package live_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"kluis/internal/client"
	"kluis/test/guest"
	"kluis/test/stage"
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
	t.Run("at rest", w.drillAtRest)
}

// A VM that was only ever disk files has no machine in its recovery point: it gets one of today's, which boots from what was
// backed up.
func (w *world) drillAtRest(t *testing.T) {
	image := filepath.Join(w.Images, "rest.raw")
	if err := os.WriteFile(image, bootDisk("SYSTEM READY"), 0o600); err != nil {
		t.Fatal(err)
	}
	rest := &world{t: t, Server: w.Server, vault: w.vault}
	disk, err := w.ImportDisk(t.Context(), w.DiskID(w.group, "rest-os"), stage.Location, image, "Linux", nil)
	if err == nil {
		_, err = w.PutVM(t.Context(), w.VMID(w.group, "rest"), client.VMOf(stage.Location, "Linux", disk))
	}
	if err == nil {
		rest.item, err = w.EnableProtection(t.Context(), w.vault, w.VMID(w.group, "rest"), "DefaultPolicy")
	}
	if err != nil {
		t.Fatal(err)
	}
	p := rest.taken(rest.begin())
	if verdict := rest.drill(p, client.DrillRequest{Console: "SYSTEM READY", Seconds: 120}); verdict.State != client.DrillPassed {
		t.Errorf("the drill says %+v", verdict)
	}
}

// bootDisk is a disk that writes a text on the serial console when it is booted, and does nothing more.
func bootDisk(text string) []byte {
	disk := make([]byte, 1<<20)
	code := []byte{
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0xbe, 0x16, 0x7c, // mov si, 0x7c16: the text, behind the code
		0xba, 0xf8, 0x03, // mov dx, 0x3f8: the serial port
		0xfc,       // cld
		0xac,       // write: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x03, // jz end
		0xee,       // out dx, al
		0xeb, 0xf8, // jmp write
		0xf4,       // end: hlt
		0xeb, 0xfd, // jmp end
	}
	copy(disk, append(code, text...))
	copy(disk[510:], []byte{0x55, 0xaa}) // so the firmware knows what it can boot
	return disk
}

// drill runs a drill of a point and returns its verdict.
func (w *world) drill(p client.Point, r client.DrillRequest) client.Drill {
	w.t.Helper()
	job, err := w.StartDrill(w.t.Context(), w.item.ARMID(), p.Name, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.verdict(job, p)
}

// verdict waits for a drill of a point and returns what came of it.
func (w *world) verdict(job string, p client.Point) client.Drill {
	w.t.Helper()
	_, err := w.WaitJob(w.t.Context(), w.vault, job, nil)
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
