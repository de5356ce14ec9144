package compute_test

import (
	"strings"
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

// An extension is kept as it is sent, but for its protected settings: those are nowhere afterwards.
func TestExtensions(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
		d.want(201, d.send("PUT", machines+"vm", "", vmBody("os")))
		const path = machines + "vm/extensions/AzureDiskEncryptionForLinux"
		const body = `{"location":"westeurope","properties":{"publisher":"Microsoft.Azure.Security","type":"AzureDiskEncryptionForLinux","typeHandlerVersion":"1.1",
			"settings":{"EncryptionOperation":"EnableEncryption","VolumeType":"All"},"protectedSettings":{"Passphrase":"open sesame"},"PROTECTEDSETTINGSFromKeyVault":{"secretUrl":"open sesame"}}}`
		answers := []answer{d.want(201, d.send("PUT", path, "", body)), d.want(200, d.send("PUT", path, "", body)), d.want(200, d.send("GET", path, "", nil)),
			d.want(200, d.send("PATCH", path, "", `{"properties":{"protectedSettings":{"Passphrase":"open sesame"},"autoUpgradeMinorVersion":true}}`))}
		for _, a := range answers {
			if at(a.body, "properties", "settings", "VolumeType") != "All" || at(a.body, "properties", "provisioningState") != "Succeeded" ||
				at(a.body, "properties", "typeHandlerVersion") != "1.1" || strings.Contains(a.raw, "sesame") {
				t.Errorf("extension %s", a.raw)
			}
		}
		if at(answers[3].body, "properties", "autoUpgradeMinorVersion") != true {
			t.Errorf("changed: %s", answers[3].raw)
		}
		a := d.want(200, d.send("GET", machines+"vm/extensions", "", nil))
		if value, _ := a.body["value"].([]any); len(value) != 1 || strings.Contains(a.raw, "sesame") {
			t.Errorf("list %s", a.raw)
		}
		a = d.want(200, d.send("GET", machines+"vm", "$expand=instanceView", nil))
		if value, _ := a.body["resources"].([]any); len(value) != 1 || at(a.body, "properties", "instanceView") == nil || strings.Contains(a.raw, "sesame") {
			t.Errorf("the VM with its extension: %s", a.raw)
		}
		const untyped = `{"location":"westeurope","properties":{"publisher":"Microsoft.Azure.Security","settings":{"EncryptionOperation":"DisableEncryption"}}}`
		if a := d.want(200, d.send("PUT", path, "", untyped)); at(a.body, "properties", "type") != "AzureDiskEncryptionForLinux" {
			t.Errorf("put again without a type: %s", a.raw)
		}
		d.want(400, d.send("PUT", machines+"vm/extensions/other", "", untyped))
		d.want(200, d.send("DELETE", path, "", nil))
		d.want(204, d.send("DELETE", path, "", nil))
		d.want(201, d.send("PUT", path, "", body))
		d.want(200, d.send("DELETE", machines+"vm", "", nil))
		d.want(404, d.send("GET", path, "", nil))
		d.want(201, d.send("PUT", machines+"vm", "", vmBody("os")))
		if a := d.want(200, d.send("GET", machines+"vm/extensions", "", nil)); !strings.Contains(a.raw, `"value":[]`) {
			t.Errorf("a new VM of the name has %s", a.raw)
		}
	})
}
