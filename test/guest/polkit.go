package guest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"kluis/internal/tooltest"
)

// Polkit is a polkitd of a test's own, on a bus of its own: it has the rules of the test beside those of Debian's packages,
// knows one user more than the machine, and notes what it is asked. Root may do everything, whatever the rules say.
type Polkit struct {
	User string
	dir  string
	seen int // how much of its log
}

// polkitd is where Debian has it, on nobody's path.
const polkitd = "/usr/lib/polkit-1/polkitd"

// noting is a rule that decides nothing.
const noting = `polkit.addRule(function(action, subject) { polkit.log("asked " + subject.user + " " + action.id); });
`

// busConfig is a bus on which everybody may do everything: who reaches its socket is the test.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow send_requested_reply="true"/><allow receive_sender="*"/>
  </policy>
</busconfig>
`

// NewPolkit starts a polkitd with rules that speak of a user, whom it shows with an id.
func NewPolkit(t testing.TB, rules, user string, uid int) *Polkit {
	t.Helper()
	Need(t)
	needApart(t)
	tooltest.Need(t, "dbus-daemon", polkitd)
	dir, err := os.MkdirTemp("", "kluis-polkit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // polkitd is another user
		t.Fatal(err)
	}
	p := &Polkit{User: user, dir: dir}
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	users = fmt.Appendf(users, "%s:x:%d:65534::/nonexistent:/usr/sbin/nologin\n", user, uid)
	if err := os.Mkdir(p.path("rules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"passwd": string(users), "bus.conf": fmt.Sprintf(busConfig, p.path("bus")), "rules/00-noting.rules": noting, "rules/50-kluis.rules": rules} {
		if err := os.WriteFile(p.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.run(t, "bus.log", "unix:path", exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--print-address", "--config-file="+p.path("bus.conf")))
	p.run(t, "polkitd.log", "Acquired the name", apart("-m", []mount{{p.path("rules"), "/etc/polkit-1/rules.d"}, p.users()}, polkitd))
	return p
}

// run runs a program for as long as the test lasts, from when its log says that it is ready.
func (p *Polkit) run(t testing.TB, log, ready string, cmd *exec.Cmd) {
	t.Helper()
	f, err := os.Create(p.path(log))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd.Stdout, cmd.Stderr, cmd.Env = f, f, append(os.Environ(), p.bus())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was told to end
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var said []byte
	if err := Eventually(ctx, func() (bool, error) {
		said, err = os.ReadFile(p.path(log))
		return bytes.Contains(said, []byte(ready)), err
	}); err != nil {
		t.Fatalf("%s is not ready: %v: %s", cmd, err, said)
	}
}

func (p *Polkit) path(name string) string { return filepath.Join(p.dir, name) }

// users shows a program the users that polkitd knows.
func (p *Polkit) users() mount { return mount{p.path("passwd"), "/etc/passwd"} }

// bus is the variable that leads a program to the bus.
func (p *Polkit) bus() string { return "DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + p.path("bus") }

// Daemon starts a libvirt daemon that lets everybody at its socket and asks polkit what he may do. It has a network and a filter
// of the name "default".
func (p *Polkit) Daemon(t testing.TB) *Daemon {
	t.Helper()
	d := newDaemon(t, map[string]string{"libvirtd.conf": "access_drivers = [ \"polkit\" ]\nauth_unix_rw = \"polkit\"\nunix_sock_rw_perms = \"0777\"\n"},
		func(d *Daemon) {
			d.mounts, d.env, d.unshare = append(d.mounts, p.users()), []string{p.bus()}, "-mn"
		})
	for verb, text := range map[string]string{
		"net-define":      "<network><name>default</name><bridge name='kluis0'/></network>",
		"nwfilter-define": "<filter name='default' chain='root'/>",
	} {
		if err := os.WriteFile(p.path(verb), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Virsh(t.Context(), verb, p.path(verb)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Virsh(t.Context(), "net-start", "default"); err != nil {
		t.Fatal(err)
	}
	return d
}

// Asked are the actions that polkit was asked about for its user since it was last looked.
func (p *Polkit) Asked(t testing.TB) (actions []string) {
	t.Helper()
	log, err := os.ReadFile(p.path("polkitd.log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log[p.seen:])) {
		if _, action, of := strings.Cut(strings.TrimSpace(line), "asked "+p.User+" "); of {
			actions = append(actions, action)
		}
	}
	p.seen = len(log)
	return actions
}
