package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	listens bool
	libvirt *exec.Cmd
	logs    *exec.Cmd
}

// NewDaemon starts a daemon. Settings, by the name of the file in /etc/libvirt, are added to those of the machine; one
// with settings of its own for libvirtd.conf also listens on the network.
func NewDaemon(t testing.TB, settings map[string]string) *Daemon {
	t.Helper()
	Need(t)
	dir, err := os.MkdirTemp("", "kluis-daemon-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &Daemon{Dir: dir, listens: settings["libvirtd.conf"] != ""}
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
	if out, err := exec.CommandContext(t.Context(), "unshare", "-m", "true").CombinedOutput(); err != nil {
		tooltest.Missing(t, "a daemon of its own needs a mount namespace: %s", out)
	}
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

// apart shows a program the daemon's folders in the place of the machine's.
const apart = `set -e
mount --make-rprivate /
mkdir -p /run/libvirt
mount --bind "$0/run" /run/libvirt
mount --bind "$0/lib" /var/lib/libvirt
mount --bind "$0/cache" /var/cache/libvirt
mount --bind "$0/etc" /etc/libvirt
PATH=$PATH:/usr/sbin
exec "$@"`

func (d *Daemon) start(program string, args ...string) (*exec.Cmd, error) {
	args = append([]string{"-m", "sh", "-c", apart, d.Dir, program, "-p", filepath.Join(d.Dir, program+".pid")}, args...)
	cmd := exec.Command("unshare", args...)
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
		_, err := virsh(ctx, d.URI(), "version")
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

// KillQEMU kills the QEMU of a guest of this daemon, and no other.
func (d *Daemon) KillQEMU(g *Guest) error {
	pid, err := os.ReadFile(filepath.Join(d.Dir, "run", "qemu", g.Name+".pid"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		return err
	}
	return syscall.Kill(n, syscall.SIGKILL)
}
