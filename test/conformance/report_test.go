package conformance

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kluis/internal/api/compute"
	"kluis/internal/api/keyvault"
	"kluis/internal/api/openapitest"
	"kluis/internal/api/recoveryservices"
	"kluis/internal/api/resources"
)

var update = flag.Bool("update", false, "write docs/conformance.md anew")

const report = "../../docs/conformance.md"

// description is one that Azure publishes.
type description struct {
	title, path string
	test, list  string // the test that compares answers with it, and the list of what that compares
}

const (
	backupTest    = "internal/api/recoveryservices: TestAnswersAsPublished"
	backupList    = "recoveryservices/testdata/published.txt"
	resourcesTest = "internal/api/resources: TestAnswersAsPublished"
	resourcesList = "resources/testdata/published.txt"
	dataTest      = "internal/api/keyvault: TestDataPlaneAnswersAsPublished"
	dataList      = "keyvault/testdata/published-data.txt"
)

var descriptions = []description{
	{"Microsoft.RecoveryServices: backup", "recoveryservicesbackup/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/bms.json", backupTest, backupList},
	{"Microsoft.RecoveryServices: vaults", "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaults.json", backupTest, backupList},
	{"Microsoft.RecoveryServices: usages", "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaultusages.json", backupTest, backupList},
	{"Microsoft.KeyVault", "keyvault/resource-manager/Microsoft.KeyVault/stable/2023-07-01/keyvault.json",
		"internal/api/keyvault: TestManagementAnswersAsPublished", "keyvault/testdata/published.txt"},
	{"Key Vault: keys", "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/keys.json", dataTest, dataList},
	{"Key Vault: secrets", "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/secrets.json", dataTest, dataList},
	{"Microsoft.Compute: virtual machines", "compute/resource-manager/Microsoft.Compute/ComputeRP/stable/2024-03-01/virtualMachine.json", "", ""},
	{"Microsoft.Compute: disks", "compute/resource-manager/Microsoft.Compute/DiskRP/stable/2023-10-02/disk.json", "", ""},
	{"Microsoft.Resources", "resources/resource-manager/Microsoft.Resources/stable/2024-03-01/resources.json", resourcesTest, resourcesList},
	{"Subscriptions", "resources/resource-manager/Microsoft.Resources/stable/2022-12-01/subscriptions.json", resourcesTest, resourcesList},
}

// undescribed are the namespaces whose descriptions are not at hand: their tables are all that can be told.
var undescribed = []string{"Microsoft.Storage", "Microsoft.Network", "Microsoft.Authorization"}

// clients are those that others wrote; the list of each is made by the test that lets it play.
var clients = []string{"az", "go", "tofu"}

const opening = `# Conformance

What of Azure's API is here, operation by operation. ` + "`go test ./test/conformance -update`" + ` writes this page, and the test fails
when it is stale; nothing in it is written by hand.

* *here*: the server's table has a handler for it, or it is compared. It may answer "not supported here", with Azure's error.
* *compared*: a test compares an answer of it with the published description: status, what is required, types, words, names.
* *recorded*: so many requests of a real client to the real service are at hand. Those of Recovery Services are sent again by
  ` + "`TestRecordedRequestsAreAnsweredAlike`" + `, where every key that the service sent is in our answer or listed with the reason.
* *called by*: the clients whose stories call it, as the server's log witnesses. A dash says that no list has it.

The key vault's own host and generic resources have no rows in the table, and the log of that host names no operations.
`

// The report is what is true now: of the descriptions, the tables, the lists of what is compared and of what was called.
func TestReport(t *testing.T) {
	f := facts{has: tables(), called: map[string]map[string]bool{}, recorded: recordings(t)}
	for _, c := range clients {
		f.called[c] = lines(t, filepath.Join("testdata", c+".txt"))
	}
	var page bytes.Buffer
	page.WriteString(opening)
	for _, d := range descriptions {
		f.describe(t, &page, d)
	}
	page.WriteString("\n## Without a description\n\nNo published description of these is at hand; this is what the server's tables have.\n\n| operation | called by |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(f.has)) {
		if slices.ContainsFunc(undescribed, func(n string) bool { return strings.Contains(name, " "+strings.ToLower(n)+"/") }) {
			fmt.Fprintf(&page, "| `%s` | %s |\n", name, f.by(name))
		}
	}
	if *update {
		if err := os.WriteFile(report, page.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page.Bytes(), want) {
		t.Error("docs/conformance.md is stale; go test ./test/conformance -update writes it anew")
	}
}

// facts are by the names of operations, in lower case.
type facts struct {
	has      map[string]bool
	called   map[string]map[string]bool // by client
	recorded map[string]int
}

// describe writes what of a description is here.
func (f facts) describe(t *testing.T, page *bytes.Buffer, d description) {
	t.Helper()
	compared := map[string]bool{}
	if d.list != "" {
		compared = lines(t, filepath.Join("../../internal/api", d.list))
	}
	all, here, rows := openapitest.Open(t, d.path).Operations(), 0, &bytes.Buffer{}
	for _, o := range all {
		name := strings.ToLower(ofPath(o.Method, o.Path))
		there := f.has[name] || compared[o.ID]
		if there {
			here++
		}
		recorded := "–"
		if n := f.recorded[name]; n > 0 {
			recorded = fmt.Sprint(n)
		}
		fmt.Fprintf(rows, "| %s | %s | %s | %s | %s |\n", o.ID, yes(there), yes(compared[o.ID]), recorded, f.by(name))
	}
	fmt.Fprintf(page, "\n## %s\n\n`%s`: %d of %d operations are here", d.title, d.path, here, len(all))
	if d.test != "" {
		fmt.Fprintf(page, "; compared by `%s`", d.test)
	}
	page.WriteString(".\n\n| operation | here | compared | recorded | called by |\n|---|---|---|---|---|\n")
	page.Write(rows.Bytes())
}

func (f facts) by(name string) string {
	var who []string
	for _, c := range clients {
		if f.called[c][name] {
			who = append(who, c)
		}
	}
	if len(who) == 0 {
		return "–"
	}
	return strings.Join(who, ", ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// tables are what the doors have. Making them asks no service anything.
func tables() map[string]bool {
	has := map[string]bool{}
	for _, p := range resources.Providers(nil, nil, nil, compute.Provider(nil, nil), compute.Classic(), keyvault.Provider(nil),
		recoveryservices.Provider(nil, recoveryservices.Options{})) {
		for _, r := range p.Resources {
			for _, name := range ofRow(r) {
				has[strings.ToLower(name)] = true
			}
		}
	}
	return has
}

// lines are those of a file; one that is not there has none.
func lines(t *testing.T, path string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		set[strings.TrimSpace(line)] = true
	}
	return set
}

// recordings counts the recorded requests of each operation.
func recordings(t *testing.T) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(openapitest.Folder(t), "recorded", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r struct {
			Request struct{ Method, URI string }
		}
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if u, err := url.Parse(r.Request.URI); err == nil {
			counts[strings.ToLower(ofPath(r.Request.Method, u.Path))]++
		}
	}
	return counts
}
