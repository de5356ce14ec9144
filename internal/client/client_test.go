package client_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/client/clienttest"
	"kluis/internal/secret"
)

const base = "/subscriptions/" + clienttest.Subscription + "/resourceGroups/g/providers/"

func TestPutVaultFollowsTheOperation(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	id := c.RecoveryVaultID("g", "v")
	operation := id.String() + "/operationStatus/op"
	a.On("PUT "+id.String(), http.StatusCreated, recorded(t, "vault-put-201"), "Azure-AsyncOperation", "{url}"+operation+"?api-version=2023-02-01")
	a.On("GET "+operation, http.StatusOK, `{"status":"InProgress"}`)
	a.On("GET "+operation, http.StatusOK, recorded(t, "vault-operationstatus-succeeded"))
	a.On("GET "+id.String(), http.StatusOK, recorded(t, "vault-get-200"))
	v, err := c.PutRecoveryVault(t.Context(), id, "local", "LocallyRedundant")
	if err != nil {
		t.Fatal(err)
	}
	if v.Properties.ProvisioningState != "Succeeded" || v.Properties.Security.SoftDelete.Days != 14 || len(v.Raw) == 0 {
		t.Errorf("vault is %+v", v)
	}
	var sent client.RecoveryVault
	if err := json.Unmarshal([]byte(a.Requests()[0].Body), &sent); err != nil {
		t.Fatal(err)
	}
	if sent.Location != "local" || sent.SKU.Name != "Standard" || sent.Properties.Redundancy.StandardTierStorageRedundancy != "LocallyRedundant" {
		t.Errorf("sent %s", a.Requests()[0].Body)
	}
	if diff := cmp.Diff([]string{a.URL() + "/.default"}, a.Scopes()); diff != "" {
		t.Errorf("token scopes (-want +got):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name, body string
		status     int
		want       client.Error
	}{
		{"recorded", "", 404, client.Error{Status: 404, Code: "ResourceNotFound",
			Message: "The Resource 'Microsoft.RecoveryServices/vaults/clitest-vault000002' under resource group 'clitest.rg000001' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"}},
		{"with advice", `{"error":{"code":"UserErrorX","message":"No.","target":"/t","details":[{"code":"RecommendedAction","message":"Do it."},{"code":"Inner","message":"why"}]}}`, 403,
			client.Error{Status: 403, Code: "UserErrorX", Message: "No.", Target: "/t", Advice: "Do it.", Details: []*client.Error{{Code: "Inner", Message: "why"}}}},
		{"key vault", `{"error":{"code":"Forbidden","message":"No get.","innererror":{"code":"AccessDenied"}}}`, 403,
			client.Error{Status: 403, Code: "Forbidden", Message: "No get.", Details: []*client.Error{{Code: "AccessDenied"}}}},
		{"not JSON", `<html>`, 404, client.Error{Status: 404, Code: "NotFound", Message: "The server answered 404 Not Found to GET " + base + "Microsoft.RecoveryServices/vaults/v."}},
		{"empty", ``, 409, client.Error{Status: 409, Code: "Conflict", Message: "The server answered 409 Conflict to GET " + base + "Microsoft.RecoveryServices/vaults/v."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := clienttest.New(t)
			c := a.Client()
			if test.name == "recorded" {
				test.body = recorded(t, "vault-get-404")
			}
			id := c.RecoveryVaultID("g", "v")
			a.On("GET "+id.String(), test.status, test.body)
			_, err := c.RecoveryVault(t.Context(), id)
			got, ok := errors.AsType[*client.Error](err)
			if !ok {
				t.Fatalf("err = %v", err)
			}
			if diff := cmp.Diff(test.want, *got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if client.IsNotFound(err) != (test.status == 404) || !client.Is(err, test.want.Code) {
				t.Error("IsNotFound or Is disagree")
			}
		})
	}
}

func TestOperationThatFails(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault, vm := c.RecoveryVaultID("g", "v"), c.VMID("g", "VM1")
	item := client.ItemID(vault, vm)
	if want := vault.String() + "/backupFabrics/Azure/protectionContainers/IaasVMContainer;iaasvmcontainerv2;g;vm1/protectedItems/VM;iaasvmcontainerv2;g;vm1"; item.String() != want {
		t.Fatalf("item is %s", item)
	}
	operation := item.String() + "/operationsStatus/op"
	a.On("PUT "+item.String(), http.StatusAccepted, "", "Azure-AsyncOperation", "{url}"+operation+"?api-version=2024-04-01", "Location", "{url}/never")
	a.On("GET "+operation, http.StatusOK, `{"id":"op","name":"op","status":"Failed","error":{"code":"UserErrorKeyVaultPermissionsNotConfigured","message":"No access.","details":[{"code":"RecommendedAction","message":"Grant it."}]},"properties":null}`)
	_, err := c.EnableProtection(t.Context(), vault, vm, "DefaultPolicy")
	got, ok := errors.AsType[*client.Error](err)
	if !ok || got.Code != "UserErrorKeyVaultPermissionsNotConfigured" || got.Advice != "Grant it." {
		t.Errorf("err = %#v", err)
	}
	if body := a.Requests()[0].Body; !strings.Contains(body, vault.String()+"/backupPolicies/DefaultPolicy") || !strings.Contains(body, vm.String()) {
		t.Errorf("sent %s", body)
	}
}

func TestBackupNamesItsJobAndWaitJobFollowsIt(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := c.RecoveryVaultID("g", "v")
	item := client.ItemID(vault, c.VMID("g", "vm"))
	operation := item.String() + "/operationsStatus/op"
	a.On("POST "+item.String()+"/backup", http.StatusAccepted, "", "Azure-AsyncOperation", "{url}"+operation+"?api-version=2024-04-01", "Location", "{url}"+operation)
	a.On("GET "+operation, http.StatusOK, recorded(t, "backupoperations-succeeded-job"))
	job, err := c.Backup(t.Context(), item, "")
	if err != nil {
		t.Fatal(err)
	}
	if job != "ba02b7e4-3dc8-4dbe-b0a9-69d75f9ef522" {
		t.Errorf("job is %s", job)
	}
	path := "GET " + vault.String() + "/backupJobs/" + job
	a.On(path, http.StatusOK, recorded(t, "job-get-Backup-InProgress"))
	a.On(path, http.StatusOK, recorded(t, "job-get-Backup-Completed"))
	var tasks []string
	j, err := c.WaitJob(t.Context(), vault, job, func(j client.Job) { tasks = append(tasks, j.Properties.Task().ID) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"Take Snapshot", "Transfer data to vault"}, tasks); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if j.Properties.Bag("Backup Size") == "" || j.Properties.Ended().IsZero() {
		t.Errorf("job is %s", j.Raw)
	}
}

func TestWaitJobThatFails(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := c.RecoveryVaultID("g", "v")
	a.On("GET "+vault.String()+"/backupJobs/j", http.StatusOK, `{"name":"j","properties":{"status":"Failed","errorDetails":[{"errorCode":1,"errorTitle":"UserErrorX","errorString":"It broke.","recommendations":["Mend it."]}]}}`)
	_, err := c.WaitJob(t.Context(), vault, "j", nil)
	want := client.Error{Code: "UserErrorX", Message: "It broke.", Advice: "Mend it."}
	if got, ok := errors.AsType[*client.Error](err); !ok || !cmp.Equal(*got, want) {
		t.Errorf("err = %#v", err)
	}
}

func TestWaitJobStopsWithItsContext(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := c.RecoveryVaultID("g", "v")
	a.On("GET "+vault.String()+"/backupJobs/j", http.StatusOK, recorded(t, "job-get-Backup-InProgress"))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.WaitJob(ctx, vault, "j", func(client.Job) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

// A key vault is asked without token and body first; the token is for the audience that it names, under
// a host name that does not resolve.
func TestKeyVaultChallenge(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := "https://my-keys.vault.localhost" + a.Port() + "/"
	a.On("POST /keys/kek/create", http.StatusOK, recorded(t, "kv-key-create-200"))
	k, err := c.CreateKey(t.Context(), vault, "kek", 3072)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(k.ID(), "/keys/key-000003/433ce8858ca64557aae6197dfde73c19") {
		t.Errorf("key is %s", k.ID())
	}
	r := a.Requests()[0]
	if r.Host != "my-keys.vault.localhost"+a.Port() || r.Query != "api-version=7.4" || !strings.Contains(r.Body, `"key_size":3072`) {
		t.Errorf("sent %+v", r)
	}
	if diff := cmp.Diff([]string{"https://vault.localhost" + a.Port() + "/.default"}, a.Scopes()); diff != "" {
		t.Errorf("token scopes (-want +got):\n%s", diff)
	}
}

func TestNoTokenLeavesTheServer(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	for _, address := range []string{"https://evil.example" + a.Port() + "/", "http://localhost" + a.Port() + "/", "https://localhost.evil.example" + a.Port() + "/", "https://localhost:1/"} {
		if _, err := c.Keys(t.Context(), address); err == nil {
			t.Errorf("%s was asked", address)
		}
		if _, err := c.Blob(t.Context(), address+"b"); !client.Is(err, "InvalidBlobUri") {
			t.Errorf("%s: %v", address, err)
		}
	}
	a.On("GET "+base+"Microsoft.Compute/disks", http.StatusOK, `{"value":[],"nextLink":"https://evil.example/next"}`)
	if _, err := c.Disks(t.Context(), c.Subscription().Group("g")); err == nil {
		t.Error("a next link to another server was followed")
	}
	if len(a.Requests()) != 1 {
		t.Errorf("requests: %+v", a.Requests())
	}
}

func TestListFollowsPages(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := c.RecoveryVaultID("g", "v")
	a.On("GET "+vault.String()+"/backupJobs", http.StatusOK, strings.Replace(recorded(t, "jobs-list"), `"value"`, `"nextLink":"{url}/page2?a=b","value"`, 1))
	a.On("GET /page2", http.StatusOK, recorded(t, "jobs-list"))
	jobs, err := c.Jobs(t.Context(), vault, "status eq 'Completed'")
	if err != nil || len(jobs) != 6 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	if q := a.Requests()[0].Query; q != "%24filter=status+eq+%27Completed%27&api-version=2024-04-01" {
		t.Errorf("query is %s", q)
	}
}

func TestSetBEKAndReadItBack(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	vault := "https://my-keys.vault.localhost" + a.Port() + "/"
	kek := vault + "keys/kek/v1"
	a.On("POST /keys/kek/v1/wrapkey", http.StatusOK, `{"kid":"x","value":"d3JhcHBlZA"}`)
	a.On("PUT /secrets/NAME", http.StatusOK, `{"id":"`+vault+`secrets/NAME/v2","contentType":"Wrapped BEK"}`)
	s, err := c.SetBEK(t.Context(), vault, client.BEK{Name: "NAME", Key: secret.New([]byte("pass")), KEK: kek, Alg: client.RSAOAEP256, Machine: "vm"})
	if err != nil {
		t.Fatal(err)
	}
	if s.ID != vault+"secrets/NAME/v2" {
		t.Errorf("secret is %+v", s)
	}
	var sent struct {
		Value, ContentType string
		Tags               map[string]string
	}
	if err := json.Unmarshal([]byte(a.Requests()[1].Body), &sent); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"DiskEncryptionKeyFileName": "LinuxPassPhraseFileName", "DiskEncryptionKeyEncryptionAlgorithm": "RSA-OAEP-256",
		"DiskEncryptionKeyEncryptionKeyURL": kek, "MachineName": "vm"}
	if diff := cmp.Diff(want, sent.Tags); diff != "" || sent.Value != "d3JhcHBlZA" || sent.ContentType != "Wrapped BEK" {
		t.Errorf("sent %+v\n%s", sent, diff)
	}
	tags, _ := json.Marshal(sent.Tags)
	a.On("GET /secrets/NAME", http.StatusOK, `{"id":"x","value":"d3JhcHBlZA","tags":`+string(tags)+`}`)
	a.On("POST /keys/kek/v1/unwrapkey", http.StatusOK, `{"kid":"x","value":"`+base64.RawURLEncoding.EncodeToString([]byte("pass"))+`"}`)
	bek, err := c.BEKValue(t.Context(), vault, "NAME")
	if err != nil || string(bek.Reveal()) != "pass" {
		t.Errorf("BEK is %q, %v", bek.Reveal(), err)
	}
}

func TestRestoreKeys(t *testing.T) {
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	var p client.Point
	p.Properties.KeysAndSecrets = []client.DiskKeyBackup{
		{Disk: "os", SecretURL: "s1", SecretBackupData: encoded("secret-1"), KeyURL: "k", KeyBackupData: encoded("key")},
		{Disk: "data", SecretURL: "s2", SecretBackupData: encoded("secret-2"), KeyURL: "k", KeyBackupData: encoded("key")},
	}
	a := clienttest.New(t)
	c := a.Client()
	vault := "https://my-keys.vault.localhost" + a.Port() + "/"
	a.On("POST /keys/restore", http.StatusOK, `{"key":{"kid":"restored-key"}}`)
	a.On("POST /secrets/restore", http.StatusConflict, `{"error":{"code":"Conflict","message":"There is one."}}`)
	a.On("POST /secrets/restore", http.StatusOK, `{"id":"restored-secret"}`)
	got, err := c.RestoreKeys(t.Context(), vault, p)
	if err != nil {
		t.Fatal(err)
	}
	want := []client.Restored{{Kind: client.KindKey, URL: "restored-key"}, {Kind: client.KindSecret, URL: "s1", Existed: true}, {Kind: client.KindSecret, URL: "restored-secret"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var bodies []string
	for _, r := range a.Requests() {
		bodies = append(bodies, r.Body)
	}
	if diff := cmp.Diff([]string{`{"value":"key"}`, `{"value":"secret-1"}`, `{"value":"secret-2"}`}, bodies); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	if _, err := c.RestoreKeys(t.Context(), vault, client.Point{}); !client.Is(err, "NoKeysInRecoveryPoint") {
		t.Errorf("err = %v", err)
	}
}

// A name in soft delete is not "already there": what it stands for can't be used.
func TestRestoreKeysOverADeletedName(t *testing.T) {
	var p client.Point
	p.Properties.KeyAndSecret = &client.KeyAndSecret{}
	p.Properties.KeyAndSecret.BEK.SecretData = "YQ=="
	a := clienttest.New(t)
	c := a.Client()
	a.On("POST /keyvault/my-keys/secrets/restore", http.StatusConflict, recorded(t, "kv-secret-set-409-deleted"))
	_, err := c.RestoreKeys(t.Context(), a.URL()+"/keyvault/my-keys", p)
	if !client.Is(err, "Conflict") {
		t.Errorf("err = %v", err)
	}
}

func TestWrongSecret(t *testing.T) {
	a := clienttest.New(t)
	admin := a.Admin()
	admin.ClientSecret = secret.New([]byte("wrong"))
	c, err := client.New(admin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Groups(t.Context())
	got, ok := errors.AsType[*client.Error](err)
	if !ok || got.Code != "AuthenticationFailed" || got.Advice == "" || !strings.Contains(got.Message, "AADSTS7000215") {
		t.Errorf("err = %#v", err)
	}
}

func TestServerThatIsAway(t *testing.T) {
	a := clienttest.New(t)
	c := a.Client()
	a.Close()
	_, err := c.Groups(t.Context())
	if !client.Is(err, "ServerUnreachable") {
		t.Errorf("err = %v", err)
	}
}

func TestAnswerThatIsTooLong(t *testing.T) {
	a := clienttest.New(t)
	a.On("GET /subscriptions/"+clienttest.Subscription+"/resourceGroups", http.StatusOK, `{"value":[]}`+strings.Repeat(" ", 16<<20))
	if _, err := a.Client().Groups(t.Context()); err == nil {
		t.Error("an answer of more than 16 MiB was read")
	}
}

func TestObjectID(t *testing.T) {
	c := clienttest.New(t).Client()
	if id, err := c.ObjectID(t.Context()); err != nil || id != clienttest.ObjectID {
		t.Errorf("%s, %v", id, err)
	}
}

func TestReadAdmin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.json")
	if _, err := client.ReadAdmin(file); !client.Is(err, "AdminFileNotFound") {
		t.Errorf("missing file: %v", err)
	}
	whole := `{"endpoint":"https://localhost:1","caFile":"/ca","tenantId":"t","subscriptionId":"s","clientId":"c","clientSecret":"hush"}`
	write := func(content string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(whole, 0o600)
	admin, err := client.ReadAdmin(file)
	if err != nil || admin.SubscriptionID != "s" || string(admin.ClientSecret.Reveal()) != "hush" {
		t.Errorf("%+v, %v", admin, err)
	}
	write(whole, 0o644)
	if _, err := client.ReadAdmin(file); !client.Is(err, "AdminFileOpenToOthers") {
		t.Errorf("open file: %v", err)
	}
	for _, broken := range []string{"", "[]", `{"clientSecret":"hush","endpoint":7}`, `{"endpoint":"x","clientSecret":"hush"}`} {
		write(broken, 0o600)
		if _, err := client.ReadAdmin(file); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

func TestVMOf(t *testing.T) {
	vault := armid.Must("/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v")
	var os, data client.Disk
	os.ID, os.Name, os.Properties.EncryptionSettingsCollection = "/os", "os", client.Encryption(vault, "secret", "key")
	data.ID, data.Name = "/data", "data"
	got, err := json.Marshal(client.VMOf("local", "Linux", os, data))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"location":"local","properties":{"hardwareProfile":{"vmSize":"Standard_D2s_v3"},"storageProfile":{` +
		`"osDisk":{"osType":"Linux","name":"os","createOption":"Attach","caching":"ReadWrite","managedDisk":{"id":"/os"},"encryptionSettings":{"enabled":true,` +
		`"diskEncryptionKey":{"secretUrl":"secret","sourceVault":{"id":"` + vault.String() + `"}},"keyEncryptionKey":{"keyUrl":"key","sourceVault":{"id":"` + vault.String() + `"}}}},` +
		`"dataDisks":[{"lun":0,"name":"data","createOption":"Attach","managedDisk":{"id":"/data"}}]}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// recorded reads the body of an answer that Azure gave.
func recorded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
