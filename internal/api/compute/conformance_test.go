package compute_test

import (
	"flag"
	"net/http"
	"strings"
	"testing"

	"kluis/internal/api/openapitest"
)

var update = flag.Bool("update", false, "write the list of what is compared anew")

// The answers hold what the published descriptions require, in the types that they give, and nothing that is not in them.
// What needs a machine that runs, such as a restart, is compared as the refusal that a machine at rest gives. The
// description of disks says nothing of refusals.
func TestAnswersAsPublished(t *testing.T) {
	machine := openapitest.Open(t, "compute/resource-manager/Microsoft.Compute/ComputeRP/stable/2024-03-01/virtualMachine.json")
	disk := openapitest.Open(t, "compute/resource-manager/Microsoft.Compute/DiskRP/stable/2023-10-02/disk.json")
	snapshot := openapitest.Open(t, "compute/resource-manager/Microsoft.Compute/DiskRP/stable/2023-10-02/snapshot.json")
	d := open(t, sqlite(t))
	const (
		all        = "/subscriptions/{subscriptionId}"
		in         = all + "/resourceGroups/{resourceGroupName}"
		vms        = "/providers/Microsoft.Compute/virtualMachines"
		vm         = in + vms + "/{vmName}"
		extension  = vm + "/extensions/{vmExtensionName}"
		extensions = vm + "/extensions"
		of         = "/providers/Microsoft.Compute"
		named      = in + of + "/disks/{diskName}"
		kept       = in + of + "/snapshots/{snapshotName}"
		script     = `{"location":"westeurope","properties":{"publisher":"Microsoft.Azure.Security","type":"AzureDiskEncryption","typeHandlerVersion":"2.2","settings":{"a":"b"},"protectedSettings":{"c":"d"}}}`
	)
	for _, c := range []struct {
		described    openapitest.Spec
		method, path string // as the description writes it
		query, body  string
		status       int
	}{
		{disk, "put", named, "", diskBody("/images/os.raw"), 200},
		{disk, "get", named, "", "", 200},
		{disk, "patch", named, "", `{"tags":{"a":"b"}}`, 200},
		{disk, "get", in + of + "/disks", "", "", 200},
		{disk, "get", all + of + "/disks", "", "", 200},
		{disk, "post", named + "/beginGetAccess", "", `{"access":"Read","durationInSeconds":60}`, 202},
		{disk, "post", named + "/endGetAccess", "", "", 200},

		{snapshot, "put", kept, "", copyBody(disks + "one"), 202},
		{snapshot, "put", kept, "", copyBody(disks + "one"), 200},
		{snapshot, "get", kept, "", "", 200},
		{snapshot, "patch", kept, "", `{"tags":{"a":"b"}}`, 200},
		{snapshot, "get", in + of + "/snapshots", "", "", 200},
		{snapshot, "get", all + of + "/snapshots", "", "", 200},
		{snapshot, "post", kept + "/beginGetAccess", "", `{"access":"Read","durationInSeconds":60}`, 202},
		{snapshot, "post", kept + "/endGetAccess", "", "", 200},
		{snapshot, "delete", kept, "", "", 200},
		{snapshot, "delete", kept, "", "", 204},

		{machine, "put", vm, "", vmBody("one"), 201},
		{machine, "put", vm, "", vmBody("one"), 200},
		{machine, "get", vm, "", "", 200},
		{machine, "get", vm, "$expand=instanceView", "", 200},
		{machine, "patch", vm, "", `{"tags":{"a":"b"}}`, 200},
		{machine, "put", extension, "", script, 201},
		{machine, "put", extension, "", script, 200},
		{machine, "get", extension, "", "", 200},
		{machine, "patch", extension, "", `{"tags":{"a":"b"}}`, 200},
		{machine, "get", extensions, "", "", 200},
		{machine, "get", vm, "$expand=instanceView", "", 200},
		{machine, "get", vm + "/instanceView", "", "", 200},
		{machine, "get", in + vms, "", "", 200},
		{machine, "get", all + vms, "", "", 200},
		{machine, "get", all + vms, "$expand=instanceView", "", 200},
		{machine, "get", vm + "/vmSizes", "", "", 200},
		{machine, "post", vm + "/deallocate", "", "", 200},
		{machine, "post", vm + "/powerOff", "", "", 200},
		{machine, "post", vm + "/start", "", "", 400},
		{machine, "post", vm + "/restart", "", "", 400},
		{machine, "post", vm + "/redeploy", "", "", 400},
		{machine, "delete", extension, "", "", 200},
		{machine, "delete", extension, "", "", 204},
		{machine, "get", extension, "", "", 404},
		{disk, "get", named, "", "", 200}, // attached
		{machine, "delete", vm, "", "", 200},
		{machine, "delete", vm, "", "", 204},
		{machine, "get", vm, "", "", 404},
		{disk, "delete", named, "", "", 200},
		{disk, "delete", named, "", "", 204},
	} {
		at := strings.NewReplacer(all, subscription, "{resourceGroupName}", "rg", "{vmName}", "vm", "{diskName}", "one", "{vmExtensionName}", "e", "{snapshotName}", "s").Replace(c.path)
		a := d.send(strings.ToUpper(c.method), at, c.query, c.body)
		if a.status != c.status {
			t.Errorf("%s %s = %d, want %d: %s", c.method, c.path, a.status, c.status, a.raw)
			continue
		}
		c.described.Check(t, c.method, c.path, a.status, a.raw)
		if c.path == kept && a.status == http.StatusAccepted {
			d.follow(a, "Azure-AsyncOperation")
		}
	}
	openapitest.Listed(t, "testdata/published.txt", *update, machine, disk, snapshot)
}
