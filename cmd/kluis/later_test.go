package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/volume/volumetest"
)

// run runs a command of the CLI against the server.
func (s *server) run(ctx context.Context, t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(ctx, must[string](t)(binary()), args...)
	cmd.Env = append(os.Environ(), "KLUIS_ADMIN="+filepath.Join(s.dir, "admin.json"), "KLUIS_RESOURCE_GROUP="+group)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	return out.String(), said.String(), err
}

// mustRun runs a command that has to succeed and say something.
func (s *server) mustRun(ctx context.Context, t *testing.T, says string, args ...string) {
	t.Helper()
	out, said, err := s.run(ctx, t, args...)
	if err != nil || !strings.Contains(out, says) {
		t.Fatalf("kluis %s ended with %v and said %q and %q; want %q", strings.Join(args, " "), err, out, said, says)
	}
}

// mustFail runs a command that has to be refused with a code.
func (s *server) mustFail(ctx context.Context, t *testing.T, code string, args ...string) string {
	t.Helper()
	out, said, err := s.run(ctx, t, args...)
	if err == nil || !strings.Contains(said, code) || !strings.Contains(said, "Recommended action: ") {
		t.Fatalf("kluis %s ended with %v and said %q and %q; want %s", strings.Join(args, " "), err, out, said, code)
	}
	return said
}

// A VM that was protected in plain and is encrypted later: its backups say that the settings lag behind; the
// key is taken in, and only if it opens the disk; backups fail for as long as the service may not read the key
// vault, and go on when it may. All of it by commands.
func TestEncryptedLater(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		ctx := soon(t)
		must[client.Group](t)(s.PutGroup(ctx, group, location))
		m := &machine{s: s, passphrase: map[string]string{"os": "passphrase " + hexOf(16)}}
		m.makeKeyVault(ctx, t)
		m.kek = must[client.Key](t)(s.CreateKey(ctx, m.kv.Properties.VaultURI, "kek1", 2048))
		image := filepath.Join(s.images, "web1.raw")
		if err := volumetest.MakeFileSystem(ctx, image, 24<<20, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		s.mustRun(ctx, t, vmName, "vm", "register", vmName, "--os-disk", image, "--location", location)
		s.mustRun(ctx, t, "vault1", "vault", "create", "vault1", "--redundancy", "local", "--location", location)
		s.mustRun(ctx, t, vmName, "item", "enable", vmName)
		s.mustRun(ctx, t, "Completed", "backup", "now", vmName)

		if err := os.Remove(image); err != nil {
			t.Fatal(err)
		}
		makeVolume(ctx, t, image, "raw", 24, m.passphrase["os"], []byte("letter"), volumetest.Options{Version: 2})
		s.mustRun(ctx, t, "UserErrorEncryptionSettingsDrift", "backup", "now", vmName)
		s.mustRun(ctx, t, "plain by its settings, encrypted by its bytes (LUKS2", "item", "show", vmName)
		s.mustRun(ctx, t, "failed LUKS2 aes-xts-plain64 the disk is encrypted, and the recovery point has no key for it", "recovery-point", "show", "latest", "--item", vmName)

		file := filepath.Join(t.TempDir(), "passphrase")
		set := []string{"vm", "encryption", "set", vmName, "--passphrase-file", file, "--key-vault", kvName, "--kek", "kek1"}
		write := func(passphrase string) {
			if err := os.WriteFile(file, []byte(passphrase), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("wrong " + m.passphrase["os"])
		if said := s.mustFail(ctx, t, "EncryptionKeyDoesNotOpenDisk", set...); strings.Contains(said, m.passphrase["os"]) {
			t.Errorf("the refusal shows the key: %s", said)
		}
		if secrets := must[[]client.Secret](t)(s.Secrets(ctx, m.kv.Properties.VaultURI)); len(secrets) != 0 {
			t.Errorf("a wrong passphrase left %d secrets", len(secrets))
		}
		if d := must[client.Disk](t)(s.Disk(ctx, s.DiskID(group, vmName+"-os"))); d.Properties.EncryptionSettingsCollection != nil {
			t.Error("a wrong passphrase left encryption settings")
		}

		write(m.passphrase["os"] + "\n") // as editors leave it
		s.mustRun(ctx, t, "LUKS2 aes-xts-plain64", set...)
		secrets := must[[]client.Secret](t)(s.Secrets(ctx, m.kv.Properties.VaultURI))
		if len(secrets) != 1 || secrets[0].ContentType != "Wrapped BEK" || secrets[0].Tags["DiskEncryptionKeyEncryptionKeyURL"] != m.kek.ID() ||
			secrets[0].Tags["DiskEncryptionKeyFileName"] != "LinuxPassPhraseFileName" || secrets[0].Tags["MachineName"] != vmName {
			t.Errorf("the key was kept as %+v", secrets)
		}
		if vm := must[client.VM](t)(s.VM(ctx, s.VMID(group, vmName))); vm.Properties.StorageProfile.OSDisk.EncryptionSettings == nil {
			t.Error("the VM does not name the key of its OS disk")
		}

		s.mustFail(ctx, t, "UserErrorKeyVaultPermissionsNotConfigured", "backup", "now", vmName)
		s.mustRun(ctx, t, "UserErrorKeyVaultPermissionsNotConfigured", "item", "show", vmName)
		s.mustRun(ctx, t, "", "keyvault", "grant-backup", kvName)
		s.mustRun(ctx, t, "Completed", "backup", "now", vmName)
		s.mustRun(ctx, t, "proved LUKS2 aes-xts-plain64 ext4", "recovery-point", "show", "latest", "--item", vmName)
		if out, _, _ := s.run(ctx, t, "item", "show", vmName); strings.Contains(out, "Drift") {
			t.Errorf("the item still drifts: %s", out)
		}
		item := must[[]client.Item](t)(s.Items(ctx, s.RecoveryVaultID(group, "vault1")))[0]
		if points := must[[]client.Point](t)(s.RecoveryPoints(ctx, item.ARMID())); len(points) != 3 {
			t.Errorf("%d recovery points, want 3", len(points))
		}
		out, _, err := s.run(ctx, t, "alert", "list", "--item", vmName)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err != nil || len(lines) != 3 || !strings.Contains(lines[1], "Critical") || !strings.Contains(lines[1], "UserErrorKeyVaultPermissionsNotConfigured") ||
			!strings.Contains(lines[2], "Warning") || !strings.Contains(lines[2], "UserErrorEncryptionSettingsDrift") {
			t.Errorf("the alerts are (%v):\n%s", err, out)
		}
		m.searchSecrets(ctx, t, url)
	})
}
