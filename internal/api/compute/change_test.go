package compute_test

import (
	"testing"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
)

// A PATCH changes what it names: lists and tags as a whole, null takes away.
func TestChange(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
		d.want(200, d.send("PUT", disks+"data", "", diskBody("/images/data.raw")))
		d.want(201, d.send("PUT", machines+"vm", "", vmBody("os")))

		d.want(200, d.send("PATCH", disks+"os", "", `{"tags":{"a":"1"},"sku":{"name":"Premium_LRS"}}`))
		a := d.want(200, d.send("PATCH", disks+"os", "", `{"tags":{"b":"2"},"properties":{"networkAccessPolicy":"AllowAll"}}`))
		if at(a.body, "tags", "a") != nil || at(a.body, "tags", "b") != "2" || at(a.body, "sku", "name") != "Premium_LRS" ||
			at(a.body, "properties", "networkAccessPolicy") != "AllowAll" || at(a.body, "properties", "osType") != "Linux" || at(a.body, "properties", "diskState") != "Attached" {
			t.Errorf("changed disk %s", a.raw)
		}
		a = d.want(200, d.send("PATCH", machines+"vm", "", `{"properties":{"storageProfile":{"dataDisks":[{"lun":3,"createOption":"Attach","managedDisk":{"id":"`+disks+`data"}}]},
			"hardwareProfile":{"vmSize":"Standard_D2s_v3"}}}`))
		if at(a.body, "properties", "hardwareProfile", "vmSize") != "Standard_D2s_v3" {
			t.Errorf("changed VM %s", a.raw)
		}
		if a := d.send("GET", disks+"data", "", nil); at(a.body, "properties", "diskState") != "Attached" {
			t.Errorf("the new data disk %s", a.raw)
		}
		d.want(200, d.send("PATCH", machines+"vm", "", `{"properties":{"storageProfile":{"dataDisks":null}}}`))
		if a := d.send("GET", disks+"data", "", nil); at(a.body, "properties", "diskState") != "Unattached" {
			t.Errorf("the data disk that was let go %s", a.raw)
		}
		for _, refused := range []struct {
			path, body string
			status     int
		}{
			{disks + "os", `{"location":"elsewhere"}`, 409},
			{disks + "os", `{"properties":{"creationData":{"sourceUri":"file:///images/other.raw"}}}`, 409},
			{disks + "os", `[]`, 400},
			{disks + "os", `null`, 400},
			{disks + "os", `{"properties":7}`, 400},
			{machines + "vm", `{"location":null}`, 400},
			{machines + "vm", `{"properties":{"storageProfile":{"osDisk":null}}}`, 400},
			{machines + "vm", `{"properties":{"storageProfile":{"dataDisks":[{"lun":0,"createOption":"Attach","managedDisk":{"id":"` + disks + `none"}}]}}}`, 400},
		} {
			d.want(refused.status, d.send("PATCH", refused.path, "", refused.body))
		}
		if a := d.send("GET", machines+"vm", "", nil); a.body["location"] != "westeurope" || at(a.body, "properties", "storageProfile", "osDisk", "managedDisk") == nil {
			t.Errorf("after refused changes the VM is %s", a.raw)
		}
	})
}

// Images at rest run nowhere: what needs a running VM is refused, what ends in one that rests is done already.
func TestPower(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(200, d.send("PUT", disks+"os", "", diskBody("/images/os.raw")))
	d.want(201, d.send("PUT", machines+"vm", "", vmBody("os")))
	for _, action := range []string{"start", "restart", "redeploy"} {
		if a := d.want(400, d.send("POST", machines+"vm/"+action, "", nil)); at(a.body, "error", "code") != "OperationNotSupported" {
			t.Errorf("%s: %s", action, a.raw)
		}
	}
	for _, action := range []string{"powerOff", "deallocate"} {
		d.want(200, d.send("POST", machines+"vm/"+action, "", nil))
	}
}

func TestNothingToChooseFrom(t *testing.T) {
	d := open(t, sqlite(t))
	for _, path := range []string{group + "/providers/Microsoft.Compute/availabilitySets", group + "/providers/Microsoft.Compute/virtualMachineScaleSets",
		subscription + "/providers/Microsoft.Compute/skus",
		subscription + "/providers/Microsoft.Compute/locations/westeurope/vmSizes"} {
		a := d.want(200, d.send("GET", path, "", nil))
		if value, ok := a.body["value"].([]any); !ok || len(value) != 0 {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
}
