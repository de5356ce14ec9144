package backup_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/proof"
	"kluis/internal/volume/volumetest"
)

// A VM that was protected in plain and is encrypted later goes on being backed up once the service may read
// its key vault. Until then the job fails with the permissions error, and nothing is lost.
func TestEncryptedLater(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		h.plainImage(h.imageOf("web"), 6<<20)
		h.putDisk("web", nil)
		h.putVM("web")
		item := h.protect("web")
		if p := h.backedUp(item); p.Verdict.State != proof.NotEncrypted {
			t.Fatalf("the verdict on the plain VM is %+v", p.Verdict)
		}

		h.encryptedImage(h.imageOf("web"), "passphrase of web", cheap)
		j := h.backUp(item, time.Time{})
		h.wantWarning(j, "UserErrorEncryptionSettingsDrift", "LUKS1 aes-xts-plain64")
		if drift := must(h.Item(h.ctx, item.ID))(t).Drift; len(drift) != 1 || drift[0].Settings != "plain" || drift[0].Bytes != "encrypted" ||
			drift[0].Disk != "web" || drift[0].Lun != -1 || drift[0].Advice == "" {
			t.Errorf("the item tells the drift %+v", drift)
		}

		kek := h.putKeyVault()
		h.putDisk("web", h.setBEK(kek, "bek-web", "passphrase of web", "web"))
		j = h.backUp(item, time.Time{})
		if j.Outcome != job.Failed || codes(j.Problems)[0] != "UserErrorKeyVaultPermissionsNotConfigured" || !strings.Contains(j.Problems[0].Advice, "Backup Management Service") {
			t.Fatalf("without permission the backup ended as %s: %+v", j.Outcome, j.Problems)
		}
		if i := must(h.Item(h.ctx, item.ID))(t); i.State != backup.ProtectionError || i.Problem == nil || i.Problem.Code != "UserErrorKeyVaultPermissionsNotConfigured" {
			t.Errorf("after the failure the item is %+v", i)
		}
		if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 2 {
			t.Errorf("after the failure there are %d points", len(points))
		}

		h.grantBackup()
		if p := h.backedUp(item); p.Verdict.State != proof.Proved || !p.Encrypted() {
			t.Errorf("the verdict on the encrypted VM is %+v", p.Verdict)
		}
		if i := must(h.Item(h.ctx, item.ID))(t); i.State != backup.Protected || i.Problem != nil || len(i.Drift) != 0 {
			t.Errorf("in the end the item is %+v", i)
		}
		if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 3 {
			t.Errorf("in the end there are %d points", len(points))
		}
		h.wantAlerts("UserErrorKeyVaultPermissionsNotConfigured Critical", "UserErrorEncryptionSettingsDrift Warning")
	})
}

// A disk that the settings call encrypted, and that is not.
func TestEncryptedNoLonger(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		h.backedUp(item)
		h.plainImage(h.imageOf("web"), 6<<20)
		h.wantWarning(h.backUp(item, time.Time{}), "UserErrorEncryptionSettingsDrift", "ext4 in plain")
		if drift := must(h.Item(h.ctx, item.ID))(t).Drift; len(drift) != 1 || drift[0].Settings != "encrypted" || drift[0].Bytes != "plain" || drift[0].Found != "ext4" {
			t.Errorf("the item tells the drift %+v", drift)
		}
		h.putDisk("web", nil) // as the advice says
		h.backedUp(item)
		if drift := must(h.Item(h.ctx, item.ID))(t).Drift; len(drift) != 0 {
			t.Errorf("the item still tells the drift %+v", drift)
		}
	})
}

// A disk whose encryption the guest is changing says so, and is proved again when that is over.
func TestConverting(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		const passphrase = "passphrase of web"
		h.encryptedImage(h.imageOf("web"), passphrase, volumetest.Options{Version: 2, PBKDF: "pbkdf2"})
		h.putDisk("web", h.setBEK(kek, "bek-web", passphrase, "web"))
		h.putVM("web")
		item := h.protect("web")
		h.backedUp(item)
		whole := must(os.ReadFile(h.imageOf("web")))(t)

		cmd := exec.Command("cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--disable-locks", "--key-file", "-", "--resilience", "none",
			"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", h.imageOf("web"))
		cmd.Stdin = strings.NewReader(passphrase)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		h.wantWarning(h.backUp(item, time.Time{}), "UserErrorEncryptionInProgress", "re-encrypting")
		if drift := must(h.Item(h.ctx, item.ID))(t).Drift; len(drift) != 1 || drift[0].Bytes != "converting" || drift[0].Settings != "encrypted" {
			t.Errorf("the item tells the drift %+v", drift)
		}
		h.wantAlerts("UserErrorEncryptionInProgress Warning")

		h.check(os.WriteFile(h.imageOf("web"), whole, 0o600))
		h.backedUp(item)
		if drift := must(h.Item(h.ctx, item.ID))(t).Drift; len(drift) != 0 {
			t.Errorf("the item still tells the drift %+v", drift)
		}
	})
}

// Whatever is wrong with a key, the recovery point says what, and what to do, and is kept.
func TestVerdicts(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		other := must(h.keys.CreateKey(h.ctx, "kv1", "other", keyvault.NewKey{Type: "RSA"}))(t)
		image := must(os.ReadFile(h.imageOf("web")))(t)
		const passphrase = "passphrase of web"
		wrapped := h.wrap(kek, passphrase)
		points := 0
		for _, c := range []struct {
			name   string
			spoil  func()
			kind   proof.Kind
			reason string
		}{
			{"BEK of another VM", func() { h.putDisk("web", h.setBEK(kek, "a", "passphrase of mail", "mail")) }, proof.WrongKey, "of the virtual machine mail"},
			{"wrong key", func() { h.putDisk("web", h.setBEK(kek, "b", "passphrase of weB", "web")) }, proof.WrongKey, "opens none of the key slots"},
			{"wrapped by another key", func() {
				h.putDisk("web", h.setSecret(kek, "c", h.wrap(other, passphrase), "Wrapped BEK", h.keys.KeyURL(kek.ID), "web"))
			}, proof.NoKey, "doesn't unwrap"},
			{"names another key", func() {
				h.putDisk("web", h.setSecret(kek, "d", wrapped, "Wrapped BEK", h.keys.KeyURL(other.ID), "web"))
			}, proof.NoKey, "the backup of the key doesn't hold the version"},
			{"not wrapped", func() {
				h.putDisk("web", h.setSecret(kek, "e", wrapped, "BEK", h.keys.KeyURL(kek.ID), "web"))
			}, proof.NoKey, "not a wrapped BEK"},
			{"damaged header", func() {
				spoilt := append([]byte(nil), image...)
				spoilt[210] ^= 0x10 // the state of the first key slot
				h.check(os.WriteFile(h.imageOf("web"), spoilt, 0o600))
				h.putDisk("web", h.setBEK(kek, "f", passphrase, "web"))
			}, proof.HeaderDamage, "damaged"},
		} {
			c.spoil()
			j := h.backUp(item, time.Time{})
			h.wantWarning(j, "UserErrorRecoveryPointNotProved", c.reason)
			points++
			p := must(h.Point(h.ctx, item.ID.Child("recoveryPoints", j.Details["Recovery Point Id"])))(t)
			// What is not wrapped leaves its key vault only in the key vault's own, sealed backup.
			if keys := must(h.PointKeys(h.ctx, item.ID.Child("recoveryPoints", p.ID)))(t); len(keys) != 1 || len(keys[0].SecretBlob) == 0 || (len(keys[0].Wrapped) == 0) != (c.name == "not wrapped") {
				t.Errorf("%s: the point keeps %+v", c.name, keys)
			}
			if d := p.Verdict.Disks[0]; p.Verdict.State != proof.Failed || d.Kind != c.kind || !strings.Contains(d.Reason, c.reason) || d.Advice == "" ||
				!strings.Contains(p.Verdict.Reason, c.reason) || p.Verdict.Advice != d.Advice {
				t.Errorf("%s: the verdict is %+v", c.name, p.Verdict)
			}
			alerts := must(h.Alerts(h.ctx, vaultID))(t)
			if a := alerts[0]; len(alerts) != points || a.Point != p.ID || a.Job != j.ID || a.Severity != backup.Critical || !strings.Contains(a.Message, c.reason) || a.Advice == "" {
				t.Errorf("%s: the newest of %d alerts is %+v", c.name, len(alerts), a)
			}
			if i := must(h.Item(h.ctx, item.ID))(t); i.LastPoint != p.ID || i.LastStatus != string(job.CompletedWithWarnings) || i.Problem == nil {
				t.Errorf("%s: the item is %+v", c.name, i)
			}
		}
		if all := must(h.Points(h.ctx, item.ID))(t); len(all) != points {
			t.Errorf("%d of %d points are listed", len(all), points)
		}
		if strings.Contains(h.log.String(), "passphrase of") {
			t.Error("a passphrase is in the log")
		}
	})
}

func (h *house) wantWarning(j job.Job, code, says string) {
	h.t.Helper()
	if j.Outcome != job.CompletedWithWarnings || len(j.Problems) != 1 || j.Problems[0].Code != code || !strings.Contains(j.Problems[0].Message, says) || j.Problems[0].Advice == "" {
		h.t.Fatalf("the job ended as %s: %+v; want a warning %s that says %q", j.Outcome, j.Problems, code, says)
	}
}

// wantAlerts compares codes and severities with the vault's alerts, newest first.
func (h *house) wantAlerts(want ...string) {
	h.t.Helper()
	var got []string
	for _, a := range must(h.Alerts(h.ctx, vaultID))(h.t) {
		got = append(got, a.Code+" "+string(a.Severity))
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		h.t.Errorf("the alerts are %v, want %v", got, want)
	}
}
