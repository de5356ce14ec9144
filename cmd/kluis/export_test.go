package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/tooltest"
)

// exported is what the command says of what it serves.
type exported struct {
	ID        string
	Socket    string
	Decrypted bool
	Exports   []struct{ Name, URI, Encryption string }
}

// export runs `kluis recovery-point export` and returns what it says, and how it ends: after Ctrl-C, or by itself.
func (m *machine) export(ctx context.Context, t *testing.T, args ...string) (_ exported, end func(interrupt bool) error) {
	t.Helper()
	cmd := exec.CommandContext(ctx, must[string](t)(binary()), append([]string{"recovery-point", "export", "--admin", filepath.Join(m.s.dir, "admin.json"),
		"--item", vmName, "--point", "latest", "--output", "json"}, args...)...)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var e exported
	if err := json.NewDecoder(out).Decode(&e); err != nil || len(e.Exports) != 1 {
		_ = cmd.Wait()
		t.Fatalf("export says %+v, %v: %s", e, err, &errors)
	}
	return e, func(interrupt bool) error {
		if interrupt {
			_ = cmd.Process.Signal(os.Interrupt)
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, &errors)
		}
		return nil
	}
}

// Files come out of a recovery point without a restore: from a socket that other people's tools read, and by
// the script that Azure's call returns.
func TestFileRecovery(t *testing.T) {
	tooltest.Need(t, "nbdcopy", "nbdinfo", "debugfs")
	s := newServer(t, "")
	m := newMachine(t, s, 24)
	ctx := soon(t)
	item := m.enable(ctx, t)
	m.backUp(ctx, t, item)
	points := must[[]client.Point](t)(s.RecoveryPoints(ctx, item.ARMID()))
	dir := t.TempDir()

	t.Run("as the guest wrote it", func(t *testing.T) {
		e, end := m.export(ctx, t)
		if e.Decrypted || e.Exports[0].Name != "os" {
			t.Errorf("served is %+v", e)
		}
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", m.files["os"], e.Exports[0].URI)
		if out, err := exec.CommandContext(ctx, "qemu-io", "-f", "raw", "-c", "write 0 512", e.Exports[0].URI).CombinedOutput(); err == nil {
			t.Errorf("qemu-io wrote: %s", out)
		}
		if info, err := os.Stat(e.Socket); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may use the socket: %v, %v", info, err)
		}
		if err := end(true); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(e.Socket); err == nil {
			t.Error("the socket is still there")
		}
		if !strings.Contains(s.log.String(), "not served any more") {
			t.Error("the command has not revoked its mount")
		}
	})

	t.Run("decrypted", func(t *testing.T) {
		for _, disk := range []string{"os", "data"} { // LUKS2 and LUKS1
			socket, plain, file := filepath.Join(dir, disk+".sock"), filepath.Join(dir, disk), filepath.Join(dir, disk+".txt")
			e, end := m.export(ctx, t, "--disk", disk, "--decrypt", "--socket", socket)
			if e.Socket != socket || !strings.HasPrefix(e.Exports[0].Encryption, "LUKS") {
				t.Errorf("served is %+v", e)
			}
			tool(t, "nbdcopy", e.Exports[0].URI, plain)
			if err := end(true); err != nil {
				t.Error(err)
			}
			tool(t, "debugfs", "-R", fmt.Sprintf("dump /%s %s", letter, file), plain)
			if got := must[[]byte](t)(os.ReadFile(file)); string(got) != string(m.plain[disk]) {
				t.Errorf("the letter on disk %s reads %q", disk, got)
			}
		}
		var disclosed int
		for _, e := range must[[]client.AuditEvent](t)(s.AuditEvents(ctx, 0)) {
			if e.OperationName == "SecretDisclose" && e.ResultSignature == "OK" {
				disclosed++
			}
		}
		if disclosed != 2 {
			t.Errorf("%d decryptions are in the log of uses, want 2", disclosed)
		}
	})

	t.Run("script", func(t *testing.T) {
		mount := must[client.Mount](t)(s.ProvisionMount(ctx, item.ARMID(), points[0].Name, nil, false))
		script, copied := filepath.Join(dir, "mount.sh"), filepath.Join(dir, "it's a copy")
		if err := os.WriteFile(script, mount.Script.Reveal(), 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "sh", script, "copy", copied)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", m.files["os"], filepath.Join(copied, "os.raw"))
		tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", m.files["data"], filepath.Join(copied, "data.raw"))
		if err := s.RevokeMount(ctx, item.ARMID(), points[0].Name, ""); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(ctx, "sh", script, "copy", copied).CombinedOutput(); err == nil {
			t.Errorf("what was revoked can be read: %s", out)
		}
	})

	_, err := s.ProvisionMount(ctx, item.ARMID(), points[0].Name, []string{"other"}, false)
	wantProblem(t, err, "UserErrorDiskNotInRecoveryPoint", "other")
	m.searchSecrets(ctx, t, "")

	// A server that stops while somebody reads stops well, and the command says so.
	e, end := m.export(ctx, t, "--disk", "data", "--decrypt")
	s.stop()
	if err := end(false); err == nil || !strings.Contains(err.Error(), "does not serve the disk any more") {
		t.Errorf("the command ended with %v", err)
	}
	if out, err := exec.CommandContext(ctx, "nbdinfo", "--size", e.Exports[0].URI).CombinedOutput(); err == nil {
		t.Errorf("a server that is gone serves: %s", out)
	}
}
