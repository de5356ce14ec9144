package compute_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
)

var keyVault = group.Resource("Microsoft.KeyVault/vaults", "kv1")

const (
	secretURL = "https://kv1.vault.localhost:8443/secrets/%s/0123456789abcdef0123456789abcdef"
	keyURL    = "https://kv1.vault.localhost:8443/keys/kek/fedcba9876543210fedcba9876543210"
)

func settings(secret string, kek bool) string {
	s := fmt.Sprintf(`"diskEncryptionKey":{"secretUrl":"`+secretURL+`","sourceVault":{"id":%q}}`, secret, keyVault)
	if kek {
		s += fmt.Sprintf(`,"keyEncryptionKey":{"keyUrl":%q,"sourceVault":{"id":%q}}`, keyURL, keyVault)
	}
	return s
}

// encryptedDisk is one that was encrypted in a single pass.
func (h *host) encryptedDisk(name, settings string) compute.Disk {
	d := document[compute.Disk](h.t, `{"location":"westeurope","properties":{"creationData":{"createOption":"Import","sourceUri":%q},
		"encryptionSettingsCollection":{"enabled":true,"encryptionSettingsVersion":"1.1","encryptionSettings":[{%s}]}}}`, h.file(name, 1<<20), settings)
	d.ID = diskID(name)
	return d
}

func wantEncryption(disk string, lun int, secret string, kek bool) compute.DiskEncryption {
	e := compute.DiskEncryption{DiskID: diskID(disk), Lun: lun, Name: disk, SecretURL: fmt.Sprintf(secretURL, secret), SecretVault: keyVault}
	if kek {
		e.KeyURL, e.KeyVault = keyURL, keyVault
	}
	return e
}

func TestEncryption(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		for name, s := range map[string]string{"os1": settings("one", true), "data1": settings("two", false)} {
			if _, _, err := h.PutDisk(ctx, h.encryptedDisk(name, s)); err != nil {
				t.Fatal(err)
			}
		}
		h.mustPutDisk("plain")
		h.mustPutDisk("os2")
		disabled := h.encryptedDisk("disabled", settings("three", true))
		disabled.Properties.EncryptionSettings.Enabled = false
		if _, _, err := h.PutDisk(ctx, disabled); err != nil {
			t.Fatal(err)
		}
		h.mustPutVM(h.vm("single", "os1", "plain", "data1"))
		dual := h.vm("dual", "os2", "disabled")
		dual.Properties.StorageProfile.OSDisk.EncryptionSettings = document[*compute.EncryptionSettings](t, `{"enabled":true,%s}`, settings("four", true))
		h.mustPutVM(dual)
		h.mustPutDisk("os3")
		off := h.vm("off", "os3")
		off.Properties.StorageProfile.OSDisk.EncryptionSettings = document[*compute.EncryptionSettings](t, `{"enabled":false,%s}`, settings("five", true))
		h.mustPutVM(off)

		for vm, want := range map[string][]compute.DiskEncryption{
			"single": {wantEncryption("os1", -1, "one", true), wantEncryption("data1", 1, "two", false)},
			"dual":   {wantEncryption("os2", -1, "four", true)},
			"off":    nil,
		} {
			got, err := h.Encryption(ctx, vmID(vm))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", vm, diff)
			}
		}
		_, err := h.Encryption(ctx, vmID("none"))
		wantProblem(t, err, problem.NotFound, "ResourceNotFound")

		view, err := h.InstanceView(ctx, vmID("single"))
		if err != nil {
			t.Fatal(err)
		}
		agent := view.VMAgent.Statuses
		if len(agent) != 1 || agent[0].DisplayStatus != "Not Ready" {
			t.Errorf("agent %+v", agent)
		}
		if s := view.Statuses; len(s) != 2 || s[0].Code != "ProvisioningState/succeeded" || s[1].Code != "PowerState/deallocated" {
			t.Errorf("statuses %+v", s)
		}
		var shown []string
		for _, d := range view.Disks {
			shown = append(shown, fmt.Sprint(d.Name, len(d.EncryptionSettings), d.Statuses[len(d.Statuses)-1].Code))
		}
		if got := strings.Join(shown, " "); got != "os11EncryptionState/encrypted plain0ProvisioningState/succeeded data11EncryptionState/encrypted" {
			t.Errorf("disks %s", got)
		}
	})
}

func TestEncryptionRefused(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h, ctx := newHost(t, db), t.Context()
		good := settings("one", true)
		for name, s := range map[string]string{
			"no secret":              ``,
			"not a URL":              strings.Replace(good, "https://kv1", "%zz", 1),
			"not https":              strings.Replace(good, "https", "http", 1),
			"no version":             strings.Replace(good, "/0123456789abcdef0123456789abcdef", "", 1),
			"a key for a secret":     strings.Replace(good, "/secrets/", "/keys/", 1),
			"another vault's secret": strings.Replace(good, "kv1.vault", "kv2.vault", 1),
			"another vault's key":    strings.Replace(good, "https://kv1.vault.localhost:8443/keys", "https://kv2.vault.localhost:8443/keys", 1),
			"not a key vault":        strings.Replace(good, "Microsoft.KeyVault/vaults", "Microsoft.Compute/disks", 1),
		} {
			t.Run(name, func(t *testing.T) {
				_, _, err := h.PutDisk(ctx, h.encryptedDisk("disk", s))
				wantProblem(t, err, problem.Invalid, "InvalidParameter")
			})
		}
		d := h.encryptedDisk("disk", good)
		d.Properties.EncryptionSettings.Settings = nil
		_, _, err := h.PutDisk(ctx, d)
		wantProblem(t, err, problem.Invalid, "InvalidParameter")
	})
}

func TestUnknownMembersComeBackUnchanged(t *testing.T) {
	const sent = `{"extra":{"big":12345678901234567890,"list":[1,{"a":null}]},"location":"x","properties":{"more":true,"creationData":{"createOption":"Import","securityType":"q"}}}`
	d := document[compute.Disk](t, "%s", sent)
	got := wire(t, d)
	want := document[map[string]any](t, "%s", sent)
	if diff := cmp.Diff(want["extra"], got["extra"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b, err := d.MarshalJSON()
	if err != nil || !strings.Contains(string(b), "12345678901234567890") || !strings.Contains(string(b), `"securityType":"q"`) {
		t.Errorf("document %s, %v", b, err)
	}
	for _, bad := range []string{`[]`, `"x"`, `1`, `{"properties":[]}`, `{"id":"not an id"}`, `{"tags":{"a":1}}`} {
		if err := new(compute.VM).UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s was taken for a VM", bad)
		}
	}
}

// Who may change a disk or a VM must have a right to the key vault, too, to name its keys: they are handed to the VM. What
// is named already may be put back.
func TestNamingKeysIsAuthorized(t *testing.T) {
	h, ctx := newHost(t, databasetest.Open(t, "sqlite:"+t.TempDir()+"/db")), t.Context()
	disk, err := func() (compute.Disk, error) {
		d, _, err := h.PutDisk(ctx, h.encryptedDisk("os", settings("one", true)))
		return d, err
	}()
	if err != nil {
		t.Fatal(err)
	}
	vm := h.mustPutVM(h.vm("vm", "os"))
	h.denied = "Microsoft.KeyVault/vaults/deploy/action"
	if _, _, err := h.PutDisk(ctx, disk); err != nil {
		t.Errorf("put back what was got: %v", err)
	}
	body := fmt.Sprintf(`{"properties":{"encryptionSettingsCollection":{"enabled":true,"encryptionSettings":[{%s}]}}}`, settings("two", true))
	withKeys := vm
	withKeys.Properties.StorageProfile.OSDisk.EncryptionSettings = document[*compute.EncryptionSettings](t, `{"enabled":true,%s}`, settings("two", true))
	for what, do := range map[string]func() error{
		"a new disk":     func() error { _, _, err := h.PutDisk(ctx, h.encryptedDisk("new", settings("one", true))); return err },
		"a disk changed": func() error { _, err := h.ChangeDisk(ctx, disk.ID, []byte(body)); return err },
		"a VM put":       func() error { _, _, err := h.PutVM(ctx, withKeys); return err },
		"a VM changed": func() error {
			_, err := h.ChangeVM(ctx, vm.ID, fmt.Appendf(nil, `{"properties":{"storageProfile":{"osDisk":{"encryptionSettings":{"enabled":true,%s}}}}}`, settings("two", true)))
			return err
		},
	} {
		if err := do(); !problem.Is(err, "AuthorizationFailed") {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.denied = ""
	if _, _, err := h.PutVM(ctx, withKeys); err != nil {
		t.Fatal(err)
	}
	h.denied = "Microsoft.KeyVault/vaults/deploy/action"
	another := fmt.Appendf(nil, `{"properties":{"storageProfile":{"osDisk":{"encryptionSettings":{"diskEncryptionKey":{"secretUrl":%q}}}}}}`, fmt.Sprintf(secretURL, "three"))
	if _, err := h.ChangeVM(ctx, vm.ID, another); !problem.Is(err, "AuthorizationFailed") {
		t.Errorf("another secret of the same key vault: %v", err)
	}
	if _, err := h.ChangeVM(ctx, vm.ID, []byte(`{"tags":{"a":"b"}}`)); err != nil {
		t.Errorf("another change: %v", err)
	}
}
