package conformance

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The three ways to an operation's name lead to the same one.
func TestNamesOfAnOperation(t *testing.T) {
	const vault = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v"
	has := tables()
	for _, c := range []struct{ name, method, path, operation, resource string }{
		{"GET Microsoft.RecoveryServices/vaults", "GET", "/subscriptions/{s}/providers/Microsoft.RecoveryServices/vaults", "Microsoft.RecoveryServices/vaults/read", "/subscriptions/s"},
		{"PUT Microsoft.RecoveryServices/vaults/{}", "PUT", vault, "Microsoft.RecoveryServices/vaults/write", vault},
		{"GET Microsoft.RecoveryServices/vaults/{}/backupJobs", "GET", vault + "/backupJobs", "Microsoft.RecoveryServices/vaults/backupJobs/read", vault},
		{"GET Microsoft.RecoveryServices/vaults/{}/backupJobs/{}", "GET", vault + "/backupJobs/{jobName}", "Microsoft.RecoveryServices/vaults/backupJobs/read", vault + "/backupJobs/7"},
		{"POST Microsoft.RecoveryServices/vaults/{}/backupJobs/{}/cancel", "POST", vault + "/backupJobs/7/cancel", "Microsoft.RecoveryServices/vaults/backupJobs/cancel/action", vault + "/backupJobs/7"},
		{"GET resourceGroups", "GET", "/subscriptions/{s}/resourcegroups", "resourceGroups/read", "/subscriptions/s"},
		{"PUT resourceGroups/{}", "PUT", "/subscriptions/{s}/resourcegroups/{g}", "resourceGroups/write", "/subscriptions/s/resourceGroups/g"},
		{"GET subscriptions/{}/locations", "GET", "/subscriptions/{s}/locations", "subscriptions/locations/read", "/subscriptions/s"},
	} {
		name := strings.ToLower(c.name)
		if got := ofPath(c.method, c.path); strings.ToLower(got) != name {
			t.Errorf("of the path: %s, want %s", got, c.name)
		}
		log := fmt.Sprintf("time=x level=INFO msg=request method=%s operation=%s resource=%s status=200 name=\"a b\"\n", c.method, c.operation, c.resource)
		if got := Trace(log + strings.Replace(log, "status=200", "status=404", 1)); !slices.Equal(got, []string{name}) {
			t.Errorf("of the log: %s, want %s", got, name)
		}
		if !has[name] {
			t.Errorf("the tables do not have %s", c.name)
		}
	}
}

// A list that is not what was called is told.
func TestCompare(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one.txt")
	const log = "msg=request method=GET operation=Microsoft.Compute/disks/read resource=/subscriptions/s status=200\n"
	if err := Compare(path, log, true); err != nil {
		t.Error(err)
	}
	if err := Compare(path, strings.Replace(log, "disks", "snapshots", 1), false); err == nil {
		t.Error("another list is taken for the same")
	}
}
