package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kluis/internal/tooltest"
)

// Daemon is a libvirt daemon of a test's own, beside that of the machine: it sees folders of its own in the place of
// those where libvirt keeps sockets, state and settings, so that it may be killed and nobody else notices.
type Daemon struct {
	Dir     string // its folders: run is its /run/libvirt, etc its /etc/libvirt
	mounts  []mount
	unshare string // what it has of its own: mounts, and a network too if it has to do with that
	env     []string
	listens bool
	libvirt *exec.Cmd
	logs    *exec.Cmd
}

// NewDaemon starts a daemon. Settings, by the name of the file in /etc/libvirt, take the place of those of the machine; one
// that is told where to listen also does so.
func NewDaemon(t testing.TB, settings map[string]string) *Daemon {
	t.Helper()
	return newDaemon(t, settings, func(*Daemon) {})
}

func newDaemon(t testing.TB, settings map[string]string, change func(*Daemon)) *Daemon {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp("", "kluis-daemon-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &Daemon{Dir: dir, unshare: "-m", listens: strings.Contains(settings["libvirtd.conf"], "listen_")}
	for _, m := range []mount{{"run", "/run/libvirt"}, {"lib", "/var/lib/libvirt"}, {"cache", "/var/cache/libvirt"}, {"etc", "/etc/libvirt"}} {
		d.mounts = append(d.mounts, mount{filepath.Join(dir, m.own), m.place})
	}
	for _, folder := range []string{"run", "lib/qemu", "cache", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { // QEMU is another user
		t.Fatal(err)
	}
	for name, text := range settings {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	needApart(t)
	change(d)
	t.Cleanup(func() { d.stop(t) })
	if d.logs, err = d.start("virtlogd"); err != nil {
		t.Fatal(err)
	}
	if err := d.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// URI is where the daemon answers on this machine.
func (d *Daemon) URI() string {
	return "qemu:///system?socket=" + filepath.Join(d.Dir, "run", "libvirt-sock")
}

// Elsewhere are the settings of a daemon that passes for that of another machine, to which guests can move.
func Elsewhere() map[string]string {
	return map[string]string{"libvirtd.conf": "host_uuid = \"6b6c7569-732d-4e65-a773-656c73657768\"\n"}
}

// Virsh runs virsh on the daemon and returns what it says.
func (d *Daemon) Virsh(ctx context.Context, args ...string) (string, error) {
	return virsh(ctx, d.URI(), args...)
}

// mount is a file or folder that a program sees in the place of another.
type mount struct{ own, place string }

// needApart skips a test where nothing can be shown to a program alone.
func needApart(t testing.TB) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "-m", "true").CombinedOutput(); err != nil {
		tooltest.Missing(t, "a daemon of its own needs a mount namespace: %s", out)
	}
}

// apart is a program that sees what it is shown, and nobody else does.
func apart(unshare string, mounts []mount, program ...string) *exec.Cmd {
	const script = `set -e
mount --make-rprivate /
mkdir -p /run/libvirt
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
PATH=$PATH:/usr/sbin
exec "$@"`
	args := []string{unshare, "sh", "-c", script, "apart"}
	for _, m := range mounts {
		args = append(args, m.own, m.place)
	}
	return exec.Command("unshare", slices.Concat(args, []string{"--"}, program)...)
}

func (d *Daemon) start(program string, args ...string) (*exec.Cmd, error) {
	cmd := apart(d.unshare, d.mounts, append([]string{program, "-p", filepath.Join(d.Dir, program+".pid")}, args...)...)
	cmd.Env = append(os.Environ(), d.env...)
	log, err := os.OpenFile(filepath.Join(d.Dir, program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, cmd.Start()
}

// Kill kills libvirtd, and leaves the guests running.
func (d *Daemon) Kill() error {
	if err := d.libvirt.Process.Kill(); err != nil {
		return err
	}
	_ = d.libvirt.Wait() // it was killed
	return nil
}

// Again starts libvirtd, and waits until it answers.
func (d *Daemon) Again(ctx context.Context) (err error) {
	var args []string
	if d.listens {
		args = append(args, "--listen")
	}
	if d.libvirt, err = d.start("libvirtd", args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = Eventually(ctx, func() (bool, error) {
		_, err := d.Virsh(ctx, "version")
		return err == nil, nil
	})
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(d.Dir, "libvirtd.log"))
		return fmt.Errorf("libvirtd does not answer: %w: %s", err, log)
	}
	return nil
}

// stop ends both programs. Their guests have been removed before.
func (d *Daemon) stop(t testing.TB) {
	for _, cmd := range []*exec.Cmd{d.libvirt, d.logs} {
		if cmd == nil || cmd.ProcessState != nil {
			continue
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
			continue
		}
		_ = cmd.Wait() // what it makes of the signal is its own affair
	}
}

// KillAsJobBegins kills libvirtd when it has noted that a backup of a guest begins, and before it has noted more of it: QEMU
// is held meanwhile, without whose answers it does not come so far. A beginning that is not seen soon was missed; it is
// killed all the same.
func (d *Daemon) KillAsJobBegins(ctx context.Context, g *Guest) error {
	qemu, err := d.qemuOf(g)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		status, err := os.ReadFile(filepath.Join(d.Dir, "run", "qemu", g.Name+".xml"))
		if err != nil || !bytes.Contains(status, []byte("async='backup'")) {
			continue
		}
		err = syscall.Kill(qemu, syscall.SIGSTOP)
		if err == nil {
			err = errors.Join(d.Kill(), syscall.Kill(qemu, syscall.SIGCONT))
		}
		return err
	}
	return d.Kill()
}

// KillQEMU kills the QEMU of a guest of this daemon, and no other.
func (d *Daemon) KillQEMU(g *Guest) error {
	qemu, err := d.qemuOf(g)
	if err != nil {
		return err
	}
	return syscall.Kill(qemu, syscall.SIGKILL)
}

func (d *Daemon) qemuOf(g *Guest) (pid int, err error) {
	text, err := os.ReadFile(filepath.Join(d.Dir, "run", "qemu", g.Name+".pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
