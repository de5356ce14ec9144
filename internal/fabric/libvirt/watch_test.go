package libvirt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// virsh runs a program that others wrote, so that what is tested does not test itself.
func virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %s: %v: %s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

// seen collects what a watch tells.
type seen struct {
	t        *testing.T
	machines chan []fabric.Machine
	away     chan error
}

func watch(t *testing.T, h *libvirt.Host) *seen {
	s := &seen{t, make(chan []fabric.Machine), make(chan error)}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		h.Watch(ctx, libvirt.Watcher{
			Machines: func(ctx context.Context, all []fabric.Machine) error {
				select {
				case s.machines <- all:
				case <-ctx.Done():
				}
				return nil
			},
			Away: func(err error) {
				select {
				case s.away <- err:
				case <-ctx.Done():
				}
			},
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return s
}

// until waits for a list in which the machine of a name is as wanted; nil is none.
func (s *seen) until(what, name string, is func(m *fabric.Machine) bool) {
	s.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case all := <-s.machines:
			var found *fabric.Machine
			for _, m := range all {
				if m.Name == name {
					found = &m
				}
			}
			if is(found) {
				return
			}
		case err := <-s.away:
			s.t.Fatalf("wait for a machine that is %s: host away: %v", what, err)
		case <-limit:
			s.t.Fatalf("no machine is %s", what)
		}
	}
}

func state(want fabric.PowerState) func(m *fabric.Machine) bool {
	return func(m *fabric.Machine) bool { return m != nil && m.State == want }
}

func gone(m *fabric.Machine) bool { return m == nil }

// smallMachine defines a machine that starts at once and does nothing.
func smallMachine(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xml")
	text := fmt.Sprintf(`<domain type='qemu'><name>%s</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
		<devices><controller type='usb' model='none'/><memballoon model='none'/><video><model type='none'/></video></devices></domain>`, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, "define", path)
	t.Cleanup(func() { removeMachine(name) })
}

func removeMachine(name string) {
	for _, verb := range [][]string{{"destroy", name}, {"undefine", name, "--checkpoints-metadata", "--nvram"}} {
		_ = exec.Command("virsh", append([]string{"-q", "-c", "qemu:///system"}, verb...)...).Run()
	}
}

// A watch follows what is done on the host by others, and finds it again when the way there was cut.
func TestWatch(t *testing.T) {
	guest.Need(t)
	p := guest.NewProxy(t)
	h, err := libvirt.New(libvirt.Options{Name: "lab", URI: p.URI(), LiveDir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s := watch(t, h)
	name := fmt.Sprintf("kluis-watch-%d", os.Getpid())
	s.until("not there", name, gone)
	smallMachine(t, name)
	s.until("defined", name, state(fabric.Stopped))
	virsh(t, "start", name)
	s.until("running", name, state(fabric.Running))
	p.Cut()
	// A list that was read before the cut may still be on its way.
	for away := false; !away; {
		select {
		case <-s.machines:
		case err := <-s.away:
			away = true
			if err == nil {
				t.Error("away without a reason")
			}
		}
	}
	virsh(t, "destroy", name)
	p.Mend(t)
	s.until("off", name, state(fabric.Stopped))
	virsh(t, "undefine", name)
	s.until("gone", name, gone)
}
