package compute_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	api "kluis/internal/api/compute"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
	"kluis/internal/secret"
)

// locksmith opens every disk with the one key, and notes what it was asked.
type locksmith struct{ asked []string }

func (l *locksmith) TryKey(_ context.Context, vm armid.ID, disk string, key secret.Bytes) (backup.OpenedDisk, error) {
	l.asked = append(l.asked, vm.Name()+" "+disk)
	if string(key.Reveal()) != "right" {
		return backup.OpenedDisk{}, problem.New(problem.Conflict, "EncryptionKeyDoesNotOpenDisk", "No.").WithAdvice("Try another.")
	}
	return backup.OpenedDisk{Name: "os", Encryption: "LUKS1", FileSystem: "ext4"}, nil
}

func TestTryEncryptionKey(t *testing.T) {
	keys := &locksmith{}
	d := openWith(t, sqlite(t), keys)
	const path = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm1/kluisTryEncryptionKey"
	a := d.send(http.MethodPost, path, "", `{"disk":"os","key":"cmlnaHQ="}`)
	if a.status != 200 || a.body["disk"] != "os" || a.body["encryption"] != "LUKS1" || a.body["fileSystem"] != "ext4" {
		t.Errorf("the right key: %d %s", a.status, a.raw)
	}
	if a := d.send(http.MethodPost, path, "", `{"key":"d3Jvbmc="}`); a.status != 409 || !strings.Contains(a.raw, "EncryptionKeyDoesNotOpenDisk") {
		t.Errorf("the wrong key: %d %s", a.status, a.raw)
	}
	if a := d.send(http.MethodPost, path, "", `{"key":"not in base64!"}`); a.status != 400 || strings.Contains(a.raw, "not in base64!") {
		t.Errorf("no base64: %d %s", a.status, a.raw)
	}
	if got := strings.Join(keys.asked, ", "); got != "vm1 os, vm1 " {
		t.Errorf("asked was %q", got)
	}
}

var _ api.Keys = (*locksmith)(nil)
