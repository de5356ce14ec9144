package recoveryservices_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/secret"
)

// blank is a disk of zeros.
type blank int64

func (b blank) Size() int64                                                 { return int64(b) }
func (b blank) ReadAt(p []byte, _ int64) (int, error)                       { clear(p); return len(p), nil }
func (b blank) NextData(context.Context, int64) (start, n int64, err error) { return int64(b), 0, nil }

const mountID = "00000000-0000-4000-8000-0000000000aa"

func mounting() *fake {
	f := world()
	f.mount = backup.Mount{ID: mountID, Point: armid.Must(item).Child("recoveryPoints", point), Decrypted: true, Created: noon, Expiry: noon.Add(12 * time.Hour),
		Disks: []backup.ExportedDisk{{Export: mountID + "/it's,os", Disk: "it's,os", Encryption: "LUKS2 aes-xts-plain64", Content: blank(1 << 20)},
			{Export: mountID + "/data.2", Disk: "data", Partition: 2, Content: blank(2 << 20)}},
		Access: backup.Access{Address: "[::1]:10809", Authority: []byte("AUTHORITY\n"), Certificate: []byte("CERTIFICATE\n"), Key: secret.New([]byte("KEY\n"))}}
	return f
}

// The mount of a recovery point, as Azure's clients ask for it and follow it.
func TestMount(t *testing.T) {
	f := mounting()
	path := item + "/recoveryPoints/" + point + "/provisionInstantItemRecovery" + version
	a := ask(t, f, "POST", path, `{"properties":{"objectType":"IaasVMILRRegistrationRequest","recoveryPointId":"`+point+`","virtualMachineId":"`+vm+`",
		"initiatorName":"iqn.1","renewExistingRegistration":false,"kluisDisks":["os"],"kluisDecrypt":true}}`)
	if a.Status != 202 || len(a.Raw) != 0 || !strings.HasPrefix(a.Header.Get("Location"), host+item+"/operationResults/"+mountID+"?") {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Raw)
	}
	if want := (backup.MountRequest{Point: f.mount.Point, Disks: []string{"os"}, Decrypted: true}); len(f.asked) != 1 || f.asked[0].Point.Key() != want.Point.Key() ||
		!slices.Equal(f.asked[0].Disks, want.Disks) || !f.asked[0].Decrypted {
		t.Errorf("the service is asked for %+v", f.asked)
	}
	for _, where := range []string{strings.TrimPrefix(a.Header.Get("Azure-AsyncOperation"), host), vault + "/backupOperations/" + mountID + version} {
		f.mount.Access.Key = secret.New([]byte("KEY\n")) // the door wipes what it was given
		status := ask(t, f, "GET", where, "")
		if status.Status != 200 {
			t.Fatalf("%d %s", status.Status, status.Raw)
		}
		golden(t, "mount", status.Raw)
	}
	f.mount.Access.Key = secret.New([]byte("KEY\n"))
	result := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get("Location"), host), "")
	text, err := base64.StdEncoding.DecodeString(at(t, result.Body, "recoveryTarget.clientScripts.0.scriptContent").(string))
	if result.Status != 200 || err != nil {
		t.Fatalf("%d %s, %v", result.Status, result.Raw, err)
	}
	checkShell(t, text)

	other := ask(t, f, "POST", path, `{"properties":{"recoveryPointId":"7"}}`)
	if other.Status != 400 || code(t, other) != "BMSUserErrorInvalidRestoreRequest" {
		t.Errorf("another recovery point: %d %s", other.Status, other.Raw)
	}
	if a := ask(t, f, "GET", item+"/operationsStatus/another"+version, ""); a.Status != 404 || code(t, a) != "ResourceNotFound" {
		t.Errorf("an operation that is not there: %d %s", a.Status, a.Raw)
	}
}

// checkShell lets a shell read the script, and looks at how it quotes names and how QEMU will read them.
func checkShell(t *testing.T, script []byte) {
	t.Helper()
	sh := exec.CommandContext(t.Context(), "sh", "-n")
	sh.Stdin = bytes.NewReader(script)
	if out, err := sh.CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v: %s", err, out)
	}
	for _, want := range []string{"AUTHORITY\nPEM\n", "CERTIFICATE\nPEM\n", "KEY\nPEM\n", "'::1' '10809'",
		`$do_disk 'it'\''s,os' '` + mountID + `/it'\''s,,os'`, "$do_disk 'data.2' '" + mountID + "/data.2'"} {
		if !bytes.Contains(script, []byte(want)) {
			t.Errorf("the script lacks %q:\n%s", want, script)
		}
	}
}

func TestRevoke(t *testing.T) {
	f := mounting()
	for _, body := range []string{"", `{"properties":{"kluisMount":"` + mountID + `"}}`} {
		door := doorTo(t, f)
		a := door("POST", item+"/recoveryPoints/"+point+"/revokeInstantItemRecovery"+version, body)
		if a.Status != 202 {
			t.Fatalf("%d %s", a.Status, a.Raw)
		}
		follow := strings.TrimPrefix(a.Header.Get("Azure-AsyncOperation"), host)
		_, id, _ := strings.Cut(follow, "/operationsStatus/")
		for _, address := range []string{follow, vault + "/backupOperations/" + id} { // the second one is az's
			if status := door("GET", address, ""); status.Status != 200 || at(t, status.Body, "status") != "Succeeded" {
				t.Errorf("%s: %d %s", address, status.Status, status.Raw)
			}
		}
	}
	if want := []string{point + " ", point + " " + mountID}; !slices.Equal(f.revoked, want) {
		t.Errorf("the service revokes %q, want %q", f.revoked, want)
	}
}
