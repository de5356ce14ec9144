package backup_test

import (
	"os"
	"strings"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// A key is tried on the disk as it is, and nothing is kept of it, whether it fits or not.
func TestTryKey(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		const passphrase = "passphrase of web"
		h.encryptedImage(h.imageOf("web"), passphrase, cheap)
		h.putDisk("web", nil)
		h.putVM("web")
		h.plainImage(h.imageOf("plain"), 4<<20)
		h.putDisk("plain", nil)
		h.putVM("plain")
		try := func(vm, disk, key string) error {
			return second(h.TryKey(h.ctx, vmID(vm), disk, secret.New([]byte(key))))
		}
		for _, disk := range []string{"", "web", "WEB"} {
			opened, err := h.TryKey(h.ctx, vmID("web"), disk, secret.New([]byte(passphrase)))
			if err != nil || opened.Name != "web" || opened.Encryption != "LUKS1 aes-xts-plain64" || opened.FileSystem != "ext4" {
				t.Errorf("disk %q: %+v, %v", disk, opened, err)
			}
		}
		for _, c := range []struct{ vm, disk, key, code, says string }{
			{"web", "", "Passphrase of web", "EncryptionKeyDoesNotOpenDisk", "nothing was stored: the key opens none of the key slots"},
			{"web", "", passphrase + "\n", "EncryptionKeyDoesNotOpenDisk", "nothing was stored"},
			{"plain", "", passphrase, "EncryptionKeyDoesNotOpenDisk", "ext4 in plain"},
			{"web", "data", passphrase, "DiskNotFound", `no disk "data"`},
			{"mail", "", passphrase, "BCMV2VMNotFound", "mail"},
			{"web", "", "", "InvalidEncryptionKey", "empty"},
			{"web", "", strings.Repeat("x", 5<<10), "InvalidEncryptionKey", "longer"},
		} {
			err := try(c.vm, c.disk, c.key)
			h.wantProblem(err, c.code)
			if p := problem.Of(err); !strings.Contains(p.Message, c.says) || strings.Contains(err.Error()+p.Advice, passphrase) {
				t.Errorf("%v: got %v", c, err)
			}
		}
		h.check(os.Remove(h.imageOf("web")))
		h.wantProblem(try("web", "", passphrase), "UserErrorDiskImageNotFound")
		if strings.Contains(h.log.String(), "assphrase of") {
			t.Error("a key is in the log")
		}
		if !strings.Contains(h.log.String(), "a key was tried on a disk") {
			t.Error("the log does not tell that keys were tried")
		}
	})
}
