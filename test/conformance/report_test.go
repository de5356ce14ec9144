package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kluis/internal/api/arm"
	"kluis/internal/api/authorization"
	"kluis/internal/api/blob"
	"kluis/internal/api/compute"
	"kluis/internal/api/graph"
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
	also        string // the list of another test, of another door, that compares some of it
}

const (
	backupTest    = "internal/api/recoveryservices: TestAnswersAsPublished"
	backupList    = "recoveryservices/testdata/published.txt"
	computeTest   = "internal/api/compute: TestAnswersAsPublished"
	computeList   = "compute/testdata/published.txt"
	resourcesTest = "internal/api/resources: TestAnswersAsPublished"
	resourcesList = "resources/testdata/published.txt"
	dataTest      = "internal/api/keyvault: TestDataPlaneAnswersAsPublished"
	dataList      = "keyvault/testdata/published-data.txt"
)

var descriptions = []description{
	{"Microsoft.RecoveryServices: backup", "recoveryservicesbackup/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/bms.json", backupTest, backupList, ""},
	{"Microsoft.RecoveryServices: vaults", "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaults.json", backupTest, backupList, ""},
	{"Microsoft.RecoveryServices: usages", "recoveryservices/resource-manager/Microsoft.RecoveryServices/stable/2024-04-01/vaultusages.json", backupTest, backupList, ""},
	{"Microsoft.KeyVault", "keyvault/resource-manager/Microsoft.KeyVault/stable/2023-07-01/keyvault.json",
		"internal/api/keyvault: TestManagementAnswersAsPublished", "keyvault/testdata/published.txt", resourcesList},
	{"Key Vault: keys", "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/keys.json", dataTest, dataList, ""},
	{"Key Vault: secrets", "keyvault/data-plane/Microsoft.KeyVault/stable/7.5/secrets.json", dataTest, dataList, ""},
	{"Microsoft.Compute: virtual machines", "compute/resource-manager/Microsoft.Compute/ComputeRP/stable/2024-03-01/virtualMachine.json", computeTest, computeList, ""},
	{"Microsoft.Compute: disks", "compute/resource-manager/Microsoft.Compute/DiskRP/stable/2023-10-02/disk.json", computeTest, computeList, ""},
	{"Microsoft.Compute: snapshots", "compute/resource-manager/Microsoft.Compute/DiskRP/stable/2023-10-02/snapshot.json", computeTest, computeList, ""},
	{"Microsoft.Resources", "resources/resource-manager/Microsoft.Resources/stable/2024-03-01/resources.json", resourcesTest, resourcesList, ""},
	{"Subscriptions", "resources/resource-manager/Microsoft.Resources/stable/2022-12-01/subscriptions.json", resourcesTest, resourcesList, ""},
}

// undescribed is what no description is at hand of: the tables of the doors are all that can be told, and what they were
// checked with.
var undescribed = []struct {
	title, checked string
	operations     func(f facts) []string
}{
	{"Microsoft.Storage", "what az storage account and the SDKs take", of("Microsoft.Storage")},
	{"Microsoft.Network", "the templates of restored VMs, which name these resources; they are kept as documents", of("Microsoft.Network")},
	{"Microsoft.Authorization", "what az role and az lock take", of("Microsoft.Authorization")},
	{"Blob service", "the reference of its REST API, azblob and az storage blob", func(facts) []string { return blob.Operations() }},
	{"Microsoft Graph", "what az asks before it names a principal", func(facts) []string { return graph.Operations() }},
	{"Everything else", "what the clients that call it take: later or older than the descriptions above, or Kluis's own", of("")},
}

// of are the operations of a namespace that have not been told; of all of them if it is "". That what can be got has a
// HEAD goes without saying.
func of(namespace string) func(facts) []string {
	return func(f facts) (all []string) {
		for _, name := range slices.Sorted(maps.Keys(f.has)) {
			if !f.told[name] && !strings.HasPrefix(name, "head ") && (namespace == "" || strings.Contains(name, " "+strings.ToLower(namespace)+"/")) {
				all = append(all, f.has[name])
			}
		}
		return all
	}
}

const opening = `# Conformance

What of Azure's API is here, operation by operation. ` + "`go test ./test/conformance -update`" + ` writes this page, and the test fails
when it is stale; nothing in it is written by hand.

* *here*: the server's table has a handler for it, or it is compared. It may answer "not supported here", with Azure's error.
* *compared*: a test compares an answer of it with the published description: status, what is required, types, words, names.
* *recorded*: so many requests of a real client to the real service are at hand. ` + "`TestRecordedRequestsAreAnsweredAlike`" + ` and
  ` + "`TestAnswersCoverTheRecordedOnes`" + ` of the doors send them, or such as they are, again: every key that the service sent is in our
  answer, with the same type, or listed with the reason; and no recording is left out without one.
* *called by*: the clients whose stories call it and get an answer that is no refusal, as the server's log witnesses: az
  (` + "`test/az`" + `), go (Azure's SDKs and HashiCorp's, ` + "`test/clients`" + `), tofu (OpenTofu with azurerm, ` + "`test/tofu`" + `). *polled* says that
  clients call it for as long as another operation takes, so that no list has it; a dash, that none of them calls it.

Generic resources, which are asked for by any id, have no rows in the table.
`

// The report is what is true now: of the descriptions, the tables, the lists of what is compared and of what was called.
func TestReport(t *testing.T) {
	f := facts{has: tables(), told: map[string]bool{}, called: map[string]map[string]bool{}, recorded: recordings(t)}
	for _, c := range Clients() {
		f.called[c.Name] = linesOf(t, c.list("testdata"))
	}
	var page bytes.Buffer
	page.WriteString(opening)
	for _, d := range descriptions {
		f.describe(t, &page, d)
	}
	page.WriteString("\n## Without a description\n\nNo published description of these is at hand; this is what the server has of them.\n")
	for _, u := range undescribed {
		fmt.Fprintf(&page, "\n### %s\n\nChecked with %s.\n\n| operation | called by |\n|---|---|\n", u.title, u.checked)
		for _, name := range u.operations(f) {
			f.told[strings.ToLower(name)] = true
			fmt.Fprintf(&page, "| `%s` | %s |\n", name, f.by(strings.ToLower(name), strings.ToLower(name)+wide))
		}
	}
	for _, c := range Clients() {
		for name := range f.called[c.Name] {
			if !f.told[strings.TrimSuffix(name, wide)] {
				t.Errorf("%s calls %s, of which the page has no line", c.Name, name)
			}
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
	has      map[string]string          // as the tables spell them
	told     map[string]bool            // what the page has a line of
	called   map[string]map[string]bool // by client
	recorded map[string]int
}

// describe writes what of a description is here.
func (f facts) describe(t *testing.T, page *bytes.Buffer, d description) {
	t.Helper()
	compared := map[string]bool{}
	for _, list := range []string{d.list, d.also} {
		if list != "" {
			maps.Copy(compared, linesOf(t, filepath.Join("../../internal/api", list)))
		}
	}
	all, here, rows := openapitest.Open(t, d.path).Operations(), 0, &bytes.Buffer{}
	for _, o := range all {
		name := strings.ToLower(ofPath(o.Method, o.Path))
		row := strings.TrimSuffix(name, wide)
		f.told[row] = true
		there := f.has[row] != "" || compared[o.ID]
		if there {
			here++
		}
		recorded := "–"
		if n := f.recorded[name]; n > 0 {
			recorded = fmt.Sprint(n)
		}
		fmt.Fprintf(rows, "| %s | %s | %s | %s | %s |\n", o.ID, yes(there), yes(compared[o.ID]), recorded, f.by(name))
	}
	fmt.Fprintf(page, "\n## %s\n\n`%s`: %d of %d operations are here; compared by `%s`.\n\n", d.title, d.path, here, len(all), d.test)
	page.WriteString("| operation | here | compared | recorded | called by |\n|---|---|---|---|---|\n")
	page.Write(rows.Bytes())
}

// by says who calls an operation by one of its names.
func (f facts) by(names ...string) string {
	var who []string
	for _, c := range Clients() {
		if slices.ContainsFunc(names, func(name string) bool { return f.called[c.Name][name] }) {
			who = append(who, c.Name)
		}
	}
	switch {
	case polled.MatchString(names[0]):
		return "polled"
	case len(who) == 0:
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
func tables() map[string]string {
	has := map[string]string{}
	for _, p := range resources.Providers(nil, nil, nil, compute.Provider(nil, nil), compute.Classic(), keyvault.Provider(nil),
		recoveryservices.Provider(nil, recoveryservices.Options{}), authorization.Provider(nil)) {
		for _, r := range p.Resources {
			for _, name := range ofRow(r) {
				has[strings.ToLower(name)] = name
			}
		}
	}
	return has
}

// ofRow names what a row of a door's table answers.
func ofRow(r arm.Resource) (all []string) {
	collection := named(r.Type)
	one := collection + "/{}"
	for method, handler := range map[string]arm.Handler{"GET": r.Get, "PUT": r.Put, "PATCH": r.Patch, "DELETE": r.Delete} {
		if handler != nil {
			all = append(all, method+" "+one)
		}
	}
	if r.Get != nil || r.Head != nil {
		all = append(all, "HEAD "+one)
	}
	if r.List != nil {
		all = append(all, "GET "+collection)
	}
	if !strings.Contains(r.Type, "/") && strings.Contains(r.Type, ".") { // the namespace itself carries actions
		one = collection
	}
	for action := range r.Actions {
		all = append(all, "POST "+one+"/"+action)
	}
	for action := range r.GetActions {
		all = append(all, "GET "+one+"/"+strings.ReplaceAll(action, "*", "{}"))
	}
	return all
}

// linesOf are the lines of a file.
func linesOf(t *testing.T, path string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return lines(text)
}

// recordings counts the recorded requests of each operation.
func recordings(t *testing.T) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, r := range openapitest.Recordings(t) {
		if u, err := url.Parse(r.Request.URI); err == nil {
			counts[strings.ToLower(ofPath(r.Request.Method, u.Path))]++
		}
	}
	return counts
}
