package libvirt_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"testing"

	"kluis/internal/fabric"
	"kluis/internal/fabric/libvirt"
	"kluis/test/guest"
)

// A host is reached through a real sshd, by a key; one whose own key is not the one that is known is not spoken to.
func TestHostOverSSH(t *testing.T) {
	guest.Need(t)
	// Not among what make live installs: its package opens a port of the machine.
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("needs an sshd: apt-get install openssh-server")
	}
	dir, port := t.TempDir(), freePort(t)
	for _, key := range []string{"host", "client", "other"} {
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	text := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := fmt.Sprintf("[127.0.0.1]:%d ", port)
	known, wrong := write("known", at+text("host.pub")), write("wrong", at+text("other.pub"))
	startSSHD(t, port, write("sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s/host\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
		port, dir, write("authorized", text("client.pub")))))
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	through := func(transport string, query url.Values) *libvirt.Host {
		return newHost(t, func(o *libvirt.Options) {
			query.Set("keyfile", filepath.Join(dir, "client"))
			o.URI = fmt.Sprintf("qemu+%s://%s@127.0.0.1:%d/system?%s", transport, me.Username, port, query.Encode())
		})
	}
	for transport, query := range map[string]url.Values{"libssh": {"known_hosts": {known}, "sshauth": {"privkey"}}, "ssh": {"no_verify": {"1"}}} {
		h := through(transport, query)
		if _, err := h.Machines(t.Context()); err != nil || h.Local() {
			t.Errorf("%s: %v; local: %t", transport, err, h.Local())
		}
	}
	if _, err := through("libssh", url.Values{"known_hosts": {wrong}, "sshauth": {"privkey"}}).Machines(t.Context()); !fabric.IsHostKind(err, fabric.Away) {
		t.Errorf("a host with another key: %v", err)
	}
}

// startSSHD runs an sshd in the foreground, until the test is over.
func startSSHD(t *testing.T, port uint16, config string) {
	t.Helper()
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // it insists on it
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", config)
	if err := cmd.Start(); err != nil {
		stop()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Error(err)
		}
	})
	if err := guest.Eventually(t.Context(), func() (bool, error) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			err = c.Close()
		}
		return err == nil, nil
	}); err != nil {
		t.Fatal(err)
	}
}
