package conformance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The three ways to an operation's name lead to the same one.
func TestNamesOfAnOperation(t *testing.T) {
	const vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v"
	has := tables()
	for _, c := range []struct{ name, method, path, operation, resource string }{
		{"GET Microsoft.RecoveryServices/vaults of a subscription", "GET", "/subscriptions/{s}/providers/Microsoft.RecoveryServices/vaults", "Microsoft.RecoveryServices/vaults/read", "/subscriptions/s"},
		{"PUT Microsoft.RecoveryServices/vaults/{}", "PUT", vault, "Microsoft.RecoveryServices/vaults/write", vault},
		{"GET Microsoft.RecoveryServices/vaults/{}/backupJobs", "GET", vault + "/backupJobs", "Microsoft.RecoveryServices/vaults/backupJobs/read", vault},
		{"GET Microsoft.RecoveryServices/vaults/{}/backupJobs/{}", "GET", vault + "/backupJobs/{jobName}", "Microsoft.RecoveryServices/vaults/backupJobs/read", vault + "/backupJobs/7"},
		{"POST Microsoft.RecoveryServices/vaults/{}/backupJobs/{}/cancel", "POST", vault + "/backupJobs/7/cancel", "Microsoft.RecoveryServices/vaults/backupJobs/cancel/action", vault + "/backupJobs/7"},
		{"GET resourceGroups", "GET", "/subscriptions/{s}/resourcegroups", "resourceGroups/read", "/subscriptions/s"},
		{"PUT resourceGroups/{}", "PUT", "/subscriptions/{s}/resourcegroups/{g}", "resourceGroups/write", "/subscriptions/s/resourceGroups/g"},
		{"GET Microsoft.KeyVault/vaults", "GET", "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.KeyVault/vaults", "Microsoft.KeyVault/vaults/read", "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault"},
		{"POST Microsoft.KeyVault/checkNameAvailability of a subscription", "POST", "/subscriptions/{s}/providers/Microsoft.KeyVault/checkNameAvailability", "Microsoft.KeyVault/checkNameAvailability/action", "/subscriptions/s/providers/Microsoft.KeyVault"},
		{"GET Microsoft.Authorization/roleAssignments of a subscription", "GET", "/subscriptions/{s}/providers/Microsoft.Authorization/roleAssignments", "Microsoft.Authorization/roleAssignments/read", "/subscriptions/s"},
		{"GET providers/{}", "GET", "/subscriptions/{s}/providers/{namespace}", "Microsoft.Network/read", "/subscriptions/s/providers/Microsoft.Network"},
		{"GET subscriptions/{}/locations", "GET", "/subscriptions/{s}/locations", "subscriptions/locations/read", "/subscriptions/s"},
	} {
		name := strings.ToLower(c.name)
		if got := ofPath(c.method, c.path); strings.ToLower(got) != name {
			t.Errorf("of the path: %s, want %s", got, c.name)
		}
		log := fmt.Sprintf("time=x level=INFO msg=request method=%s operation=%s resource=%s status=200 agent=\"AZURECLI/2 (x)\"\n", c.method, c.operation, c.resource)
		if got := Trace(log, AZ.is); !slices.Equal(got, []string{name}) {
			t.Errorf("of the log: %s, want %s", got, name)
		}
		if has[strings.TrimSuffix(name, wide)] == "" {
			t.Errorf("the tables do not have %s", c.name)
		}
	}
}

// Key vaults, blobs and Graph have lines of their own. What was refused does not count, nor what others asked, nor polling.
func TestTrace(t *testing.T) {
	const log = `time=x level=INFO msg="key vault request" operation="POST keys/{name}/{version}/wrapkey" status=200 agent="azsdk-go-azkeys/v1 (go1; linux)"
time=x level=INFO msg="blob request" method=PUT action=x agent=azsdk-go-azblob/v1 operation="Put Blob" account=a
time=x level=INFO msg="blob request" method=PUT action=x agent=azsdk-go-azblob/v1 operation="Copy Blob" account=a code=BlobNotFound
time=x level=INFO msg="graph request" operation="GET /v1.0/servicePrincipals/{id}" resource=/v1.0/servicePrincipals/7 status=200 agent=go-azure-sdk/1
time=x level=INFO msg="graph request" operation="GET /v1.0/me" status=400 agent=go-azure-sdk/1
time=x level=INFO msg="key vault request" operation="GET keys/{name}" status=200 agent="azsdk-go-azkeys/v1 (go1; linux)"
time=x level=INFO msg="key vault request" operation="DELETE keys/{name}" status=200 agent="azsdk-go-kluis/v1 (go1; linux)"
time=x level=INFO msg="key vault request" operation="GET keys" status=200 agent="curl \\"x\\" go=y"
time=x level=INFO msg=request method=GET operation=Microsoft.RecoveryServices/vaults/backupOperations/read status=200 agent=azsdk-go-x/1 resource=/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v/backupOperations/7
a line that is none = of "ours
`
	want := []string{"get /v1.0/serviceprincipals/{id}", "get keys/{}/{}", "post keys/{}/{}/wrapkey", "put blob"}
	got := Trace(log, Go.is)
	if !slices.Equal(got, want) {
		t.Errorf("the log names %q, want %q", got, want)
	}
}

// A list that is not what was called is told, with the command that renews it.
func TestCompare(t *testing.T) {
	const log = "msg=request method=GET operation=Microsoft.Compute/disks/read resource=/subscriptions/s status=200 agent=AZURECLI/2\n"
	folder := t.TempDir()
	if err := AZ.Compare(folder, log, true); err != nil {
		t.Error(err)
	}
	err := AZ.Compare(folder, strings.Replace(log, "disks", "snapshots", 1), false)
	for _, want := range []string{"- get microsoft.compute/disks of a subscription", "+ get microsoft.compute/snapshots of a subscription", "go test ./test/az -update"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("another list: %v, want %s", err, want)
		}
	}
}
