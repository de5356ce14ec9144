package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/client"
	"kluis/internal/client/clienttest"
)

func newRoot() *cobra.Command {
	return cli.New(plain("serve", "Run the server"), plain("rescue", "Work where no server is"))
}

func plain(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: short + ".", Example: "  kluis " + use,
		RunE: func(*cobra.Command, []string) error { return nil }}
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kluis": func() { os.Exit(cli.Execute(context.Background(), newRoot(), os.Args[1:])) },
	})
}

// The scripts are sessions as a user has them: without a server, and with one that answers as Azure was
// recorded to answer.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			a := clienttest.New(t)
			lineUp(t, a)
			admin := filepath.Join(env.WorkDir, "server.json")
			a.WriteAdmin(admin)
			env.Setenv("SERVER", admin)
			env.Setenv("URL", a.URL())
			env.Setenv("PORT", strings.TrimPrefix(a.Port(), ":"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("KLUIS_DATA", filepath.Join(env.WorkDir, "data"))
			return nil
		},
	})
}

// lineUp gives the server the vault of the recordings, with what is in it.
func lineUp(t *testing.T, a *clienttest.Azure) {
	t.Helper()
	recorded := func(name string) string {
		data, err := os.ReadFile(filepath.Join("..", "client", "testdata", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	list := func(items ...string) string { return `{"value":[` + strings.Join(items, ",") + `]}` }
	sub := "/subscriptions/" + clienttest.Subscription
	vault := "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/clitest.rg000001/providers/Microsoft.RecoveryServices/vaults/clitest-vault000002"
	item := vault + "/backupFabrics/Azure/protectionContainers/IaasVMContainer;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003/protectedItems/VM;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003"
	a.On("GET "+sub+"/providers/Microsoft.RecoveryServices/vaults", http.StatusOK, list(recorded("vault-get-200")))
	a.On("GET "+vault+"/backupPolicies/DefaultPolicy", http.StatusOK, recorded("policy-get-default"))
	a.On("GET "+vault+"/backupPolicies/none", http.StatusNotFound,
		`{"error":{"code":"BMSUserErrorPolicyNotFound","message":"There is none.","details":[{"code":"RecommendedAction","message":"Choose one."}]}}`)
	a.On("GET "+vault+"/backupJobs", http.StatusOK, recorded("jobs-list"))
	a.On("GET "+vault+"/backupProtectedItems", http.StatusOK, list(recorded("protecteditem-get-200")))
	a.On("GET "+vault+"/backupJobs/fd2e", http.StatusOK, recorded("job-get-Backup-InProgress"))
	a.On("GET "+vault+"/backupJobs/fd2e", http.StatusOK, recorded("job-get-Backup-Completed"))
	a.On("GET "+vault+"/backupJobs/bad", http.StatusOK, `{"id":"x","name":"bad","properties":{"operation":"Backup","status":"Failed","errorDetails":[{"errorTitle":"UserErrorX","errorString":"It broke.","recommendations":["Mend it."]}]}}`)
	operation := item + "/operationsStatus/op"
	a.On("POST "+item+"/backup", http.StatusAccepted, "", "Azure-AsyncOperation", "{url}"+operation+"?api-version=2024-04-01")
	a.On("GET "+operation, http.StatusOK, recorded("backupoperations-succeeded-job"))
	a.On("GET "+sub+"/providers/Microsoft.KeyVault/vaults", http.StatusOK, list(`{"id":"/kv","name":"kv","properties":{"vaultUri":"{url}/keyvault/kv/"}}`))
	a.On("GET "+sub+"/providers/Microsoft.Storage/storageAccounts", http.StatusOK,
		list(`{"id":"/a","name":"staging","properties":{"primaryEndpoints":{"blob":"https://staging.blob.localhost`+a.Port()+`/"}}}`))
	a.On("GET /keyvault/kv/secrets/S", http.StatusOK, `{"id":"https://kv/secrets/S/1","value":"hush","contentType":"BEK"}`)
	event := func(n int, vault, result string) string {
		return fmt.Sprintf(`{"time":"2026-03-01T12:00:00.0000000Z","operationName":"SecretGet","resultSignature":%q,"identity":{"claim":{"http://schemas.microsoft.com/identity/claims/objectidentifier":"o"}},"properties":{"id":"https://%s/secrets/s","vault":%q,"sequence":%d}}`, result, vault, vault, n)
	}
	a.On("GET "+sub+"/providers/Microsoft.KeyVault/auditEvents", http.StatusOK, list(event(1, "kv", "OK"), event(2, "other", "AccessDenied")))
	a.On("POST "+sub+"/providers/Microsoft.KeyVault/verifyAudit", http.StatusOK, `{"intact":true,"entries":2,"head":"2:ab","findings":[]}`)
	a.On("POST "+sub+"/providers/Microsoft.KeyVault/verifyAudit", http.StatusOK, `{"intact":false,"entries":1,"head":"2:ab","findings":[{"sequence":2,"what":"the newest 1 entries are missing"}]}`)
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := newRoot()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(t.Context(), root, args)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	t.Setenv("KLUIS_ADMIN", filepath.Join(t.TempDir(), "absent.json"))
	for _, test := range []struct {
		args string
		want int
		says string
	}{
		{"--help", 0, ""},
		{"restore disks --help", 0, ""},
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"vault", 2, "create, delete, list, show"},
		{"vault frobnicate", 2, "unknown command"},
		{"vault create", 2, "accepts 1 arg(s)"},
		{"vault list --frob", 2, "unknown flag"},
		{"vault list --output yaml", 2, "table or json"},
		{"restore disks --item x", 2, `"point", "storage-account", "target-group" not set`},
		{"vm register web", 2, `"os-disk" not set`},
		{"vault list", 1, "AdminFileNotFound"},
		{"serve", 0, ""},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, _, stderr := run(t, strings.Fields(test.args)...)
			if code != test.want || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d, want %d; it says %q, want %q", code, test.want, stderr, test.says)
			}
		})
	}
}

// Every command says what it is, at length, and gives an example that cobra understands.
func TestEveryCommandIsWorthReading(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short %q, Long %q", c.CommandPath(), c.Short, c.Long)
		}
		if !c.HasSubCommands() {
			for line := range strings.Lines(c.Example) {
				line = strings.TrimSpace(line)
				if strings.HasPrefix(line, "kluis ") && !strings.HasPrefix(line, c.CommandPath()) {
					t.Errorf("%s: the example is of another command: %s", c.CommandPath(), line)
				}
			}
			if !strings.Contains(c.Example, c.CommandPath()) {
				t.Errorf("%s has no example", c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func TestRegisterSendsDisksThenVM(t *testing.T) {
	a := clienttest.New(t)
	admin := filepath.Join(t.TempDir(), "admin.json")
	a.WriteAdmin(admin)
	t.Setenv("KLUIS_ADMIN", admin)
	base := "/subscriptions/" + clienttest.Subscription + "/resourceGroups/g/providers/Microsoft.Compute/"
	kv := "/subscriptions/" + clienttest.Subscription + "/resourceGroups/g/providers/Microsoft.KeyVault/vaults/kv"
	a.On("GET /subscriptions/"+clienttest.Subscription+"/providers/Microsoft.KeyVault/vaults", http.StatusOK, `{"value":[{"id":"`+kv+`","name":"kv"}]}`)
	for _, disk := range []string{"web-os", "web-data-0"} {
		a.On("PUT "+base+"disks/"+disk, http.StatusOK, `{"id":"`+base+`disks/`+disk+`","name":"`+disk+`"}`)
	}
	a.On("PUT "+base+"virtualMachines/web", http.StatusOK, `{"id":"`+base+`virtualMachines/web","name":"web"}`)
	args := []string{"vm", "register", "web", "-g", "g", "--os-disk", "/i/os.raw", "--data-disk", "/i/a b.qcow2", "--encryption-key", "https://k"}
	if code, _, stderr := run(t, args...); code != 2 || !strings.Contains(stderr, "need --encryption-secret") {
		t.Errorf("a key without a secret: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, append(args, "--encryption-secret", "https://s")...); code != 2 || !strings.Contains(stderr, "one for each disk") {
		t.Errorf("one secret for two disks: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := run(t, append(args, "--encryption-secret", "", "--encryption-secret", "https://s", "--key-vault", "KV")...); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	var bodies []string
	for _, r := range a.Requests() {
		if r.Method == http.MethodPut {
			bodies = append(bodies, r.Body)
		}
	}
	if len(bodies) != 3 || strings.Contains(bodies[0], "encryptionSettings") || !strings.Contains(bodies[0], `"sourceUri":"file:///i/os.raw"`) ||
		!strings.Contains(bodies[1], `"sourceUri":"file:///i/a%20b.qcow2"`) || !strings.Contains(bodies[1], `"secretUrl":"https://s"`) ||
		!strings.Contains(bodies[1], kv) || !strings.Contains(bodies[2], `"id":"`+base+`disks/web-data-0"`) {
		t.Errorf("sent:\n%s", strings.Join(bodies, "\n"))
	}
}

// A value goes to the server and nowhere else: not to standard output, not into an error.
func TestSecretSetNeverPrintsTheValue(t *testing.T) {
	a := clienttest.New(t)
	admin := filepath.Join(t.TempDir(), "admin.json")
	a.WriteAdmin(admin)
	t.Setenv("KLUIS_ADMIN", admin)
	a.On("GET /subscriptions/"+clienttest.Subscription+"/providers/Microsoft.KeyVault/vaults", http.StatusOK, `{"value":[{"id":"/kv","name":"kv","properties":{"vaultUri":"{url}/keyvault/kv/"}}]}`)
	a.On("GET /keyvault/kv/keys/kek", http.StatusOK, `{"key":{"kid":"{url}/keyvault/kv/keys/kek/v1"}}`)
	a.On("POST /keyvault/kv/keys/kek/v1/wrapkey", http.StatusOK, `{"value":"d3JhcHBlZA"}`)
	a.On("PUT /keyvault/kv/secrets/S", http.StatusOK, `{"id":"{url}/keyvault/kv/secrets/S/v1","contentType":"Wrapped BEK"}`)
	a.On("PUT /keyvault/kv/secrets/T", http.StatusForbidden, `{"error":{"code":"Forbidden","message":"No set."}}`)
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader("hush"))
	if code := cli.Execute(t.Context(), root, []string{"secret", "set", "S", "--bek-file", "-", "--wrap-with", "kek"}); code != 0 {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	root = newRoot()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader("hush"))
	if code := cli.Execute(t.Context(), root, []string{"secret", "set", "T", "--value-file", "-"}); code != 1 {
		t.Fatalf("exit code %d: %s", code, out.String())
	}
	if s := out.String(); strings.Contains(s, "hush") || !strings.Contains(s, "Wrapped BEK") || !strings.Contains(s, "Forbidden") {
		t.Errorf("printed:\n%s", s)
	}
	requests := a.Requests()
	if last := requests[len(requests)-1].Body; !strings.Contains(last, `"value":"hush"`) {
		t.Errorf("sent %s", last)
	}
	if body := requests[len(requests)-4].Body; !strings.Contains(body, `"alg":"`+client.RSAOAEP256+`"`) {
		t.Errorf("wrapped by %s", body)
	}
}
