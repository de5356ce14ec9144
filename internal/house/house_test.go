// Package house holds no code: its test checks who imports whom. docs/architecture.md draws the same
// picture for people.
package house_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "kluis"

// floors name the rooms from the street to the cellar. A room may import what its floor's list allows,
// and nothing else of ours; its own sub-rooms are always allowed.
var floors = []struct {
	name  string
	rooms []string
	may   []string
	why   string
}{
	{"street", []string{"cmd/kluis"}, []string{"*"}, "only main knows everything"},
	{"demo", []string{"demo"}, []string{"internal/client", "internal/volume", "internal/secret", "internal/armid", "test/guest"},
		"the demo is a client; it makes and opens its volumes itself, and the guests that run"},
	{"bench", []string{"bench"}, []string{"internal/database", "internal/nbd", "internal/certificate", "internal/client", "internal/armid", "test/guest"},
		"measures whole processes from outside; to have many rows it copies them, and to measure NBD alone it is such a process itself"},
	{"tools", []string{"internal/cli/store", "internal/cli/volume", "internal/cli/kit"}, []string{
		"internal/cli", "internal/recovery", "internal/volume", "internal/fabric", "internal/nbd", "internal/objects", "internal/seal", "internal/keyservice", "internal/secret"},
		"commands that work on a store or a disk with no server running: that is how one checks, measures and rescues"},
	{"commands", []string{"internal/cli"}, []string{"internal/client", "internal/volume", "internal/secret", "internal/armid"},
		"the CLI is a client of the public API: no room of the server"},
	{"client", []string{"internal/client"}, []string{"internal/secret", "internal/armid"}, "speaks Azure's wire, knows no server"},
	{"doors", []string{"internal/api"}, []string{
		"internal/api/arm", "internal/backup", "internal/keyvault", "internal/deployment", "internal/identity", "internal/compute",
		"internal/resources", "internal/storage", "internal/armid", "internal/problem", "internal/secret"},
		"doors decode, call one service and encode"},
	{"backup", []string{"internal/backup"}, []string{
		"internal/keyvault", "internal/compute", "internal/fabric", "internal/proof", "internal/recovery", "internal/keyservice", "internal/objects", "internal/job",
		"internal/database", "internal/armid", "internal/problem", "internal/secret"},
		"the story of the product; of other services it uses id and document types, and meets them through its own interfaces"},
	{"services", []string{"internal/keyvault", "internal/deployment", "internal/identity", "internal/compute", "internal/resources", "internal/storage"},
		[]string{"internal/fabric", "internal/objects", "internal/database", "internal/job", "internal/armid", "internal/problem", "internal/secret"},
		"services don't know each other"},
	{"joiners", []string{"internal/proof"}, []string{"internal/volume", "internal/secret"}, "joins bytes and keys"},
	{"engines", []string{"internal/recovery", "internal/volume", "internal/fabric", "internal/nbd", "internal/seal", "internal/certificate"},
		[]string{"internal/objects", "internal/secret"}, "each can be run alone and knows nothing of Azure"},
	{"outside", []string{"internal/keyservice", "internal/issuer"}, []string{"internal/secret"}, "speaks the wire of other people's key services and issuers, knows no server"},
	{"cellar", []string{"internal/job", "internal/database", "internal/objects"}, []string{"internal/database", "internal/problem"},
		"the standard library and their drivers; a job stores the problem it ended with"},
	{"leaves", []string{"internal/problem", "internal/secret", "internal/armid", "internal/tooltest"}, nil, "the standard library only"},
	{"house", []string{"internal/house"}, nil, "only this test"},
}

// extra is what a single room may import beside what its floor allows.
var extra = map[string][]string{
	"internal/fabric":   {"internal/nbd"},      // disk images of other formats than raw are read over NBD
	"internal/cli":      {"internal/nbd"},      // a disk that is served elsewhere is offered on a socket of this machine
	"internal/keyvault": {"internal/identity"}, // the type of the caller, whom its access policies name
}

// fences name packages that belong to a few rooms.
var fences = []struct {
	imported string
	rooms    []string
	why      string
}{
	{"net/http", []string{"internal/api", "internal/client", "internal/keyservice", "internal/issuer", "cmd/kluis", "bench"}, "a service never sees a request"},
	{"math/rand", []string{"bench"}, "ids and keys come from crypto/rand, given from outside"},
	{"github.com/spf13/cobra", []string{"internal/cli", "cmd/kluis"}, "commands are the CLI's"},
	{"github.com/vbauerster/mpb/v8", []string{"internal/cli", "demo"}, "progress bars are for people at a terminal"},
	{"modernc.org/sqlite", []string{"internal/database"}, "one room knows the drivers"},
	{"github.com/jackc/pgx/v5", []string{"internal/database"}, "one room knows the drivers"},
	{"gocloud.dev", []string{"internal/objects/cloud"}, "one room speaks to clouds"},
	{"filippo.io/age", []string{"internal/seal"}, "one room wraps keys"},
}

type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module+"/")
		all = append(all, p)
	}
}

// within reports whether a package is the room or lies in it.
func within(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

// isTestRoom: packages that only tests import may reach for what tests need.
func isTestRoom(path string) bool {
	last := path[strings.LastIndex(path, "/")+1:]
	return strings.HasSuffix(last, "test") || within(path, "test")
}

func TestWhoImportsWhom(t *testing.T) {
	for _, p := range packages(t) {
		if isTestRoom(p.ImportPath) {
			continue
		}
		i := slices.IndexFunc(floors, func(f struct {
			name  string
			rooms []string
			may   []string
			why   string
		}) bool {
			return slices.ContainsFunc(f.rooms, func(r string) bool { return within(p.ImportPath, r) })
		})
		if i < 0 {
			t.Errorf("%s stands on no floor: give it one in this test and in docs/architecture.md", p.ImportPath)
			continue
		}
		floor := floors[i]
		own := floor.rooms[slices.IndexFunc(floor.rooms, func(r string) bool { return within(p.ImportPath, r) })]
		for _, imported := range p.Imports {
			path, ours := strings.CutPrefix(imported, module+"/")
			allowed := !ours || within(path, own) || slices.Contains(floor.may, "*") ||
				slices.ContainsFunc(slices.Concat(floor.may, extra[own]), func(m string) bool { return within(path, m) })
			if !allowed {
				t.Errorf("%s imports %s, which the %s may not (%s)", p.ImportPath, path, floor.name, floor.why)
			}
		}
	}
}

func TestFences(t *testing.T) {
	for _, p := range packages(t) {
		if isTestRoom(p.ImportPath) {
			continue
		}
		for _, f := range fences {
			used := slices.ContainsFunc(p.Imports, func(i string) bool { return within(i, f.imported) })
			if used && !slices.ContainsFunc(f.rooms, func(r string) bool { return within(p.ImportPath, r) }) {
				t.Errorf("%s imports %s: %s", p.ImportPath, f.imported, f.why)
			}
		}
	}
}

// SQL is written in files named sql.go, and by the two rooms of the cellar that are about it.
func TestSQLFiles(t *testing.T) {
	for _, p := range packages(t) {
		if isTestRoom(p.ImportPath) || within(p.ImportPath, "internal/database") || !slices.Contains(p.Imports, "database/sql") {
			continue
		}
		for _, file := range p.GoFiles {
			if importsSQL(t, filepath.Join(p.Dir, file)) && file != "sql.go" {
				t.Errorf("%s/%s imports database/sql; SQL belongs into sql.go", p.ImportPath, file)
			}
		}
	}
}
