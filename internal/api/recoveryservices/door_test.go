package recoveryservices_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/job"
	"kluis/internal/problem"
)

func filtered(path, filter string) string {
	return path + version + "&" + url.Values{"$filter": {filter}}.Encode()
}

func TestVaultIsMadeAndChanged(t *testing.T) {
	f := world()
	newVault := group + "/providers/Microsoft.RecoveryServices/vaults/new"
	a := ask(t, f, "PUT", newVault+version, `{"location":"westeurope","tags":{"a":"b"},"sku":{"name":"RS0"},"properties":{"redundancySettings":{"standardTierStorageRedundancy":"ZoneRedundant"},"restoreSettings":{"x":{"y":"z"}}}}`)
	if a.Status != 201 || at(t, a.Body, "properties.provisioningState") != "Succeeded" || at(t, a.Body, "sku.tier") != "Standard" {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	status := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get("Azure-AsyncOperation"), host), "")
	if status.Status != 200 || at(t, status.Body, "status") != "Succeeded" {
		t.Fatalf("operation: %d %s", status.Status, status.Raw)
	}

	// What a PUT does not mention of redundancy stays; a PATCH leaves everything else alone.
	a = ask(t, f, "PUT", newVault+version, `{"location":"westeurope"}`)
	if a.Status != 200 || at(t, a.Body, "properties.redundancySettings.standardTierStorageRedundancy") != "ZoneRedundant" || at(t, a.Body, "tags") != nil {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	a = ask(t, f, "PATCH", vault+version, `{"tags":{"team":"two"}}`)
	if a.Status != 200 || at(t, a.Body, "tags.team") != "two" || at(t, a.Body, "location") != "westeurope" ||
		at(t, a.Body, "properties.monitoringSettings.classicAlertSettings.alertsForCriticalOperations") != "Enabled" ||
		at(t, a.Body, "properties.redundancySettings.standardTierStorageRedundancy") != "LocallyRedundant" {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}

	// A vault can be sent back as it was read.
	if a := ask(t, f, "PUT", vault+version, string(a.Raw)); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	// It answered 200 once, and is published as 204 since.
	for _, c := range []struct {
		version string
		want    int
	}{{"2023-02-01", 200}, {"2023-02-01", 204}, {"2024-04-01", 204}} {
		if a := ask(t, f, "DELETE", newVault+"?api-version="+c.version, ""); a.Status != c.want || len(a.Raw) != 0 {
			t.Errorf("DELETE of %s: %d %s, want an empty %d", c.version, a.Status, a.Raw, c.want)
		}
	}
}

func TestVaultsOfAScope(t *testing.T) {
	f := world()
	const list = "/providers/Microsoft.RecoveryServices/vaults" + version
	for scope, want := range map[string][]string{
		subscription: {"clitest-vault000002", "clitest-vault000003", "legacy"}, group: {"clitest-vault000002", "clitest-vault000003"},
		subscription + "/resourceGroups/empty": {},
	} {
		if got := names(t, ask(t, f, "GET", scope+list, "")); !slices.Equal(got, want) {
			t.Errorf("%s has %v, want %v", scope, got, want)
		}
	}
}

// What would be a promise that nobody keeps is refused, with what to do instead.
func TestRefusals(t *testing.T) {
	p := func(text string) string { return `{"location":"westeurope","properties":{` + text + `}}` }
	policy, err := json.Marshal(policyBody())
	if err != nil {
		t.Fatal(err)
	}
	withPolicy := func(text string) string {
		return `{"properties":` + strings.TrimSuffix(string(policy), "}") + "," + text + "}}"
	}
	restore := item + "/recoveryPoints/" + point + "/restore"
	const notHere = "OperationNotSupported"
	for _, c := range []struct{ method, path, body, code, target string }{
		{"PATCH", vault, p(`"securitySettings":{"immutabilitySettings":{"state":"Unlocked"}}`), notHere, "properties.securitySettings.immutabilitySettings.state"},
		{"PATCH", vault, p(`"securitySettings":{"multiUserAuthorization":"Enabled"}`), notHere, "properties.securitySettings.multiUserAuthorization"},
		{"PUT", vault, p(`"publicNetworkAccess":"Disabled"`), notHere, "properties.publicNetworkAccess"},
		{"PUT", vault, p(`"encryption":{"keyVaultProperties":{"keyUri":"https://x"}}`), notHere, "properties.encryption"},
		{"PUT", vault, p(`"redundancySettings":{"crossRegionRestore":"Enabled"}`), notHere, "properties.redundancySettings.crossRegionRestore"},
		{"PUT", vault, `{"identity":{"type":"SystemAssigned, UserAssigned"}}`, notHere, "identity.type"},
		{"POST", vault + "/backupSecurityPIN", "{}", notHere, ""},
		{"PUT", vault + "/backupEncryptionConfigs/backupResourceEncryptionConfig", `{"properties":{"encryptionAtRestType":"CustomerManaged"}}`, notHere, ""},
		{"PUT", vault + "/backupResourceGuardProxies/VaultProxy", `{"properties":{"resourceGuardResourceId":"x"}}`, notHere, ""},
		{"POST", vault + "/backupResourceGuardProxies/VaultProxy/unlockDelete", `{}`, notHere, ""},
		{"GET", vault + "/backupResourceGuardProxies/VaultProxy", "", "ResourceNotFound", ""},
		{"GET", vault + "/extendedInformation/vaultExtendedInfo", "", notHere, ""},
		{"PUT", vault + "/certificates/agent", `{}`, notHere, ""},
		{"DELETE", vault + "/registeredIdentities/agent", "", notHere, ""},
		{"PUT", vault + "/privateEndpointConnections/pe", `{}`, notHere, ""},
		{"PUT", vault + "/backupFabrics/Azure/backupProtectionIntent/sql", `{}`, notHere, ""},
		{"POST", vault + "/backupstorageconfig/vaultstorageconfig/prepareDataMove", `{}`, notHere, ""},
		{"PUT", vault, `{"sku":{"name":"Gold"}}`, "InvalidSku", "sku.name"},
		{"PUT", vault, p(`"publicNetworkAccess":7`), "InvalidRequestContent", ""},
		{"PUT", vault + "/backupstorageconfig/vaultstorageconfig", `{"properties":{"crossRegionRestoreFlag":true}}`, notHere, "properties.crossRegionRestoreFlag"},
		{"PUT", vault + "/backupPolicies/p", withPolicy(`"snapshotConsistencyType":"OnlyCrashConsistent"`), notHere, "properties.snapshotConsistencyType"},
		{"PUT", vault + "/backupPolicies/p", withPolicy(`"tieringPolicy":{"ArchivedRP":{"tieringMode":"TierAfter"}}`), notHere, "properties.tieringPolicy"},
		{"PUT", vault + "/backupPolicies/p", withPolicy(`"tieringPolicy":"x"`), "InvalidRequestContent", "properties.tieringPolicy"},
		{"PUT", item, `{"properties":{"protectionState":"BackupsSuspended"}}`, notHere, "properties.protectionState"},
		{"PUT", item, `{"properties":{"protectedItemType":"AzureFileShareProtectedItem","policyId":"x"}}`, notHere, "properties.protectedItemType"},
		{"PUT", vault + "/backupPolicies/p", `{"properties":{"backupManagementType":"AzureStorage"}}`, notHere, "properties.backupManagementType"},
		{"PUT", item, `{"properties":{}}`, "BMSUserErrorInvalidRequest", "properties"},
		{"PUT", item, `{"properties":{"policyId":"` + vault + `/backupPolicies/DefaultPolicy"}}`, "BMSUserErrorInvalidRequest", "properties.sourceResourceId"},
		{"PUT", item, `{"properties":{"policyId":"DefaultPolicy"}}`, "InvalidParameter", "properties.policyId"},
		{"POST", restore, `{"properties":{"recoveryType":"RestoreDisks","recoveryPointId":"` + point2 + `"}}`, "BMSUserErrorInvalidRestoreRequest", "properties.recoveryPointId"},
		{"POST", restore, `{"properties":{"recoveryType":"RestoreDisks","diskEncryptionSetId":"x"}}`, notHere, "properties.diskEncryptionSetId"},
		{"POST", restore, `{"properties":{"recoveryType":"RestoreDisks","encryptionDetails":{"encryptionEnabled":true,"kekUrl":"https://other/keys/k/1"}}}`, notHere, "properties.encryptionDetails"},
		{"POST", restore, `{"properties":{"recoveryType":"AlternateLocation"}}`, "UserErrorEncryptedVmRestoreTypeNotSupported", ""},
		{"POST", subscription + "/providers/Microsoft.RecoveryServices/locations/westeurope/backupPreValidateProtection", `{"resourceId":"` + vm + `"}`, "BMSUserErrorInvalidRequest", "vaultId"},
		{"POST", subscription + "/providers/Microsoft.RecoveryServices/locations/westeurope/backupStatus", `{}`, "BMSUserErrorInvalidRequest", "resourceId"},
		{"GET", vault + "/backupconfig/other", "", "ResourceNotFound", vault + "/backupconfig/other"},
	} {
		f := world()
		a := ask(t, f, c.method, c.path+version, c.body)
		target, _ := at(t, a.Body, "error.target").(string)
		if a.Status/100 != 4 || code(t, a) != c.code || c.target != "" && target != c.target {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.Status, a.Raw)
		}
		if advice, _ := at(t, a.Body, "error.details.0.message").(string); c.code != "InvalidRequestContent" && advice == "" {
			t.Errorf("%s %s: no advice in %s", c.method, c.body, a.Raw)
		}
		if len(f.jobs)+len(f.protected)+len(f.backups) > 0 {
			t.Errorf("%s %s was done all the same", c.method, c.body)
		}
	}
}

func TestStorageConfig(t *testing.T) {
	f := world()
	config := vault + "/backupstorageconfig/vaultstorageconfig" + version
	a := ask(t, f, "GET", config, "")
	if at(t, a.Body, "properties.storageModelType") != "LocallyRedundant" || at(t, a.Body, "properties.storageTypeState") != "Locked" {
		t.Errorf("%s", a.Raw)
	}
	f.items = nil
	a = ask(t, f, "PUT", config, `{"properties":{"storageModelType":"ZoneRedundant"}}`)
	if a.Status != 200 || at(t, a.Body, "properties.storageType") != "ZoneRedundant" || at(t, a.Body, "properties.storageTypeState") != "Unlocked" {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	if a = ask(t, f, "PATCH", config, `{"properties":{"storageType":"GeoRedundant"}}`); a.Status != 204 || f.vaults[len(f.vaults)-1].Redundancy != "GeoRedundant" {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

func TestPolicyIsKeptAsItCame(t *testing.T) {
	f := world()
	policy := vault + "/backupPolicies/weekly" + version
	body := `{"properties":{"backupManagementType":"AzureIaasVM","protectedItemsCount":12,"tieringPolicy":{"ArchivedRP":{"tieringMode":"DoNotTier","duration":0,"durationType":"Invalid"}},` +
		`"schedulePolicy":{"schedulePolicyType":"SimpleSchedulePolicy","scheduleRunFrequency":"Daily","scheduleRunTimes":["2026-11-23T22:00:00.000Z"]},` +
		`"retentionPolicy":{"retentionPolicyType":"LongTermRetentionPolicy","dailySchedule":{"retentionTimes":["2026-11-23T22:00:00Z"],"retentionDuration":{"count":30,"durationType":"Days"}}}}}`
	a := ask(t, f, "PUT", policy, body)
	if a.Status != 200 || at(t, a.Body, "properties.protectedItemsCount") != 0.0 || at(t, a.Body, "properties.tieringPolicy.ArchivedRP.tieringMode") != "DoNotTier" {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	if again := ask(t, f, "PUT", policy, string(a.Raw)); string(again.Raw) != string(a.Raw) {
		t.Errorf("sent back as read, it became %s", again.Raw)
	}
	for _, want := range []int{200, 204} {
		if a := ask(t, f, "DELETE", policy, ""); a.Status != want {
			t.Errorf("DELETE: %d, want %d", a.Status, want)
		}
	}
}

func TestPutItem(t *testing.T) {
	const policy = vault + "/backupPolicies/DefaultPolicy"
	const enable = `{"properties":{"sourceResourceId":"` + vm + `","policyId":"` + policy + `"`
	for name, c := range map[string]struct{ body, kind string }{
		"enable":                {enable + `}}`, "ConfigureBackup"},
		"nothing excluded":      {enable + `,"extendedProperties":{"diskExclusionProperties":{"diskLunList":[],"isInclusionList":false}}}}`, "ConfigureBackup"},
		"exclusion taken back":  {enable + `,"extendedProperties":{"diskExclusionProperties":null}}}`, "ConfigureBackup"},
		"sent back, to resume":  {enable + `,"protectionState":"ProtectionStopped","healthDetails":[]}}`, "ConfigureBackup"},
		"stop":                  {`{"properties":{"policyId":"","protectionState":"ProtectionStopped"}}`, "DisableBackup"},
		"stop without policyId": {`{"properties":{"protectionState":"protectionstopped"}}`, "DisableBackup"},
	} {
		t.Run(name, func(t *testing.T) {
			f := world()
			a := ask(t, f, "PUT", item+version, c.body)
			if a.Status != 202 || len(f.jobs) != 1 || f.jobs[0].Kind != c.kind {
				t.Fatalf("%d %s, jobs %v", a.Status, a.Raw, f.jobs)
			}
			if c.kind == "ConfigureBackup" && !slices.Equal(f.protected, []string{item + " " + vm + " " + policy}) {
				t.Errorf("protected %v", f.protected)
			}
			for _, header := range []string{"Azure-AsyncOperation", "Location"} {
				if a := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get(header), host), ""); a.Status != 200 {
					t.Errorf("%s leads to %d %s", header, a.Status, a.Raw)
				}
			}
		})
	}
}

// One operation can be read at every address at which some client looks for it.
func TestOperationIsReadableEverywhere(t *testing.T) {
	for kind, result := range map[string]int{"ConfigureBackup": 200, "DisableBackup": 200, "Backup": 204, "Restore": 204} {
		f := world()
		j := f.job(kind)
		for _, status := range []string{vault + "/backupOperations/", item + "/operationsStatus/", vault + "/backupFabrics/Azure/operationsStatus/",
			vault + "/backupJobs/" + j.ID + "/operationsStatus/"} {
			a := ask(t, f, "GET", status+j.ID+version, "")
			if a.Status != 200 || at(t, a.Body, "status") != "Succeeded" || at(t, a.Body, "id") != j.ID || at(t, a.Body, "properties.jobId") != j.ID ||
				at(t, a.Body, "properties.objectType") != "OperationStatusJobExtendedInfo" || at(t, a.Body, "startTime") != at(t, a.Body, "endTime") {
				t.Errorf("%s of %s: %d %s", status, kind, a.Status, a.Raw)
			}
		}
		for _, place := range []string{vault + "/backupOperationResults/", item + "/operationResults/", vault + "/backupFabrics/Azure/operationResults/"} {
			a := ask(t, f, "GET", place+j.ID+version, "")
			if a.Status != result || result == 200 && at(t, a.Body, "id") != item {
				t.Errorf("%s of %s: %d %s", place, kind, a.Status, a.Raw)
			}
		}
		if a := ask(t, f, "GET", vault+"/backupJobs/"+j.ID+"/operationResults/"+j.ID+version, ""); a.Status != 204 {
			t.Errorf("end of cancelling: %d %s", a.Status, a.Raw)
		}
	}
}

func TestUnknownOperation(t *testing.T) {
	for _, place := range []string{vault + "/backupOperations/x", vault + "/backupOperationResults/x", item + "/operationsStatus/x", item + "/operationResults/x",
		vault + "/backupJobs/x/operationsStatus/x", vault + "/backupJobs/x/operationResults/x",
		strings.Replace(vault, "000002", "gone", 1) + "/backupFabrics/Azure/operationResults/x", strings.Replace(vault, "000002", "gone", 1) + "/backupFabrics/Azure/operationsStatus/x"} {
		if a := ask(t, world(), "GET", place+version, ""); a.Status != 404 {
			t.Errorf("%s: %d %s", place, a.Status, a.Raw)
		}
	}
}

// A deletion is followed at the vault, and its result is there when the data is gone.
func TestDeletionIsOverWhenTheDataIsGone(t *testing.T) {
	f := world()
	a := ask(t, f, "DELETE", item+version, "")
	location := strings.TrimPrefix(a.Header.Get("Location"), host)
	if a.Status != 202 || !strings.HasPrefix(location, vault+"/backupOperationResults/") {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	a = ask(t, f, "GET", location, "")
	if a.Status != 202 || a.Header.Get("Location") != host+location || a.Header.Get("Retry-After") == "" {
		t.Errorf("while it runs: %d %v", a.Status, a.Header)
	}
	f.jobs = []backup.Job{jobOf("DeleteBackupData", job.Ended)}
	if a = ask(t, f, "GET", location, ""); a.Status != 204 {
		t.Errorf("when it is over: %d", a.Status)
	}
}

// What is refused is refused to those who may do it: others hear that they may not.
func TestRefusalsAreAuthorized(t *testing.T) {
	for request, action := range map[string]string{
		"POST /backupSecurityPIN":                                  "/backupSecurityPIN/action",
		"PUT /backupResourceGuardProxies/VaultProxy":               "/backupResourceGuardProxies/write",
		"DELETE /backupResourceGuardProxies/VaultProxy":            "/backupResourceGuardProxies/delete",
		"POST /backupResourceGuardProxies/VaultProxy/unlockDelete": "/backupResourceGuardProxies/unlockDelete/action",
		"PUT /certificates/agent":                                  "/certificates/write",
		"PUT /backupFabrics/Azure/backupProtectionIntent/sql":      "/backupFabrics/backupProtectionIntent/write",
		"PATCH /backupconfig/vaultconfig":                          "/backupconfig/write",
		"GET /backupstorageconfig/vaultstorageconfig":              "/backupstorageconfig/read",
		"GET /usages": "/usages/read",
	} {
		f := world()
		method, path, _ := strings.Cut(request, " ")
		ask(t, f, method, vault+path+version, `{"properties":{}}`)
		if want := "Microsoft.RecoveryServices/vaults" + action; !slices.Equal(f.acted, []string{want}) {
			t.Errorf("%s asks for %v, want %s", request, f.acted, want)
		}
	}
}

// An identity is given and taken as az does it, and stays when a request does not mention it.
func TestVaultIdentity(t *testing.T) {
	f := world()
	for _, c := range []struct{ method, body, want string }{
		{"PATCH", `{"identity":{"type":"systemassigned"}}`, "SystemAssigned"},
		{"PUT", `{"location":"westeurope"}`, "SystemAssigned"},
		{"PATCH", `{"identity":{"type":"none"}}`, ""},
	} {
		a := ask(t, f, c.method, vault+version, c.body)
		if got, _ := at(t, a.Body, "identity.type").(string); a.Status != 200 || got != c.want {
			t.Errorf("%s: %d %s", c.body, a.Status, a.Raw)
		}
	}
}

// An enhanced policy comes back as it was sent, and its operations are over.
func TestEnhancedPolicy(t *testing.T) {
	f := world()
	const sent = `{"properties":{"backupManagementType":"AzureIaasVM","policyType":"V2","instantRPDetails":{},"schedulePolicy":{"schedulePolicyType":"SimpleSchedulePolicyV2",` +
		`"scheduleRunFrequency":"Hourly","hourlySchedule":{"interval":4,"scheduleWindowStartTime":"2021-12-17T08:00:00+00:00","scheduleWindowDuration":24}},` +
		`"retentionPolicy":{"retentionPolicyType":"LongTermRetentionPolicy","dailySchedule":{"retentionTimes":["2021-12-17T08:00:00+00:00"],"retentionDuration":{"count":180,"durationType":"Days"}}},` +
		`"tieringPolicy":{"ArchivedRP":{"tieringMode":"DoNotTier","duration":0,"durationType":"Invalid"}},"instantRpRetentionRangeInDays":30,"timeZone":"Pacific Standard Time"}}`
	policy := vault + "/backupPolicies/hourly"
	if a := ask(t, f, "PUT", policy+version, sent); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	a := ask(t, f, "GET", policy+version, "")
	golden(t, "policy-enhanced", a.Raw)
	if a := ask(t, f, "GET", policy+"/operations/x"+version, ""); at(t, a.Body, "status") != "Succeeded" {
		t.Errorf("the operation: %d %s", a.Status, a.Raw)
	}
	if a := ask(t, f, "GET", policy+"/operationResults/x"+version, ""); a.Status != 200 || at(t, a.Body, "name") != "hourly" {
		t.Errorf("its result: %d %s", a.Status, a.Raw)
	}
	ask(t, f, "DELETE", policy+version, "")
	if a := ask(t, f, "GET", policy+"/operationResults/x"+version, ""); a.Status != 204 {
		t.Errorf("the result of its deletion: %d %s", a.Status, a.Raw)
	}
}

func TestCheckVaultName(t *testing.T) {
	for name, want := range map[string]bool{"CLITEST-vault000002": false, "another": true} {
		a := ask(t, world(), "POST", group+"/providers/Microsoft.RecoveryServices/locations/westeurope/checkNameAvailability"+version,
			`{"name":"`+name+`","type":"Microsoft.RecoveryServices/Vaults"}`)
		if a.Status != 200 || at(t, a.Body, "nameAvailable") != want {
			t.Errorf("%s: %d %s", name, a.Status, a.Raw)
		}
	}
}

// A request that says nothing of disks leaves their selection as it is; one that says no exclusion takes it back.
func TestDiskSelection(t *testing.T) {
	for extended, want := range map[string]*backup.DiskSelection{
		"": nil, `,"extendedProperties":null`: nil, `,"extendedProperties":{}`: {},
		`,"extendedProperties":{"diskExclusionProperties":{"diskLunList":[0,2]}}`:                     {Luns: []int{0, 2}},
		`,"extendedProperties":{"diskExclusionProperties":{"diskLunList":[],"isInclusionList":true}}`: {Luns: []int{}, Inclusion: true},
	} {
		f := world()
		a := ask(t, f, "PUT", item+version, `{"properties":{"sourceResourceId":"`+vm+`","policyId":"`+vault+`/backupPolicies/DefaultPolicy"`+extended+`}}`)
		if a.Status != 202 || len(f.selected) != 1 || !reflect.DeepEqual(f.selected[0], want) {
			t.Errorf("%s: %d, selected %+v", extended, a.Status, f.selected)
		}
	}
	f := world()
	f.items[0].Disks = backup.DiskSelection{Inclusion: true}
	a := ask(t, f, "GET", item+version, "")
	if x := at(t, a.Body, "properties.extendedProperties.diskExclusionProperties"); !reflect.DeepEqual(x, map[string]any{"diskLunList": []any{}, "isInclusionList": true}) {
		t.Errorf("the item says %v", x)
	}
}

// An item that was protected and is gone since is no longer shown by the operation.
func TestResultOfAnItemThatIsGone(t *testing.T) {
	f := world()
	j := f.job("ConfigureBackup")
	f.items = nil
	if a := ask(t, f, "GET", item+"/operationResults/"+j.ID+version, ""); a.Status != 204 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

func TestRefreshIsOver(t *testing.T) {
	f := world()
	a := ask(t, f, "POST", filtered(vault+"/backupFabrics/Azure/refreshContainers", "backupManagementType eq 'AzureIaasVM'"), "")
	if a.Status != 202 {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	if a := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get("Location"), host), ""); a.Status != 204 {
		t.Errorf("result: %d %s", a.Status, a.Raw)
	}
	status := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get("Azure-AsyncOperation"), host), "")
	if status.Status != 200 || at(t, status.Body, "status") != "Succeeded" || at(t, status.Body, "properties") != nil {
		t.Errorf("status: %d %s", status.Status, status.Raw)
	}
}

func TestFilters(t *testing.T) {
	f := withJobs()
	stopped := f.items[0]
	stopped.ID, stopped.VM, stopped.Policy = backup.ItemID(armid.Must(vault), armid.Must(group+"/providers/Microsoft.Compute/virtualMachines/second")),
		armid.Must(group+"/providers/Microsoft.Compute/virtualMachines/second"), armid.ID{}
	stopped.Problem = &job.Problem{Code: "X"}
	f.items = append(f.items, stopped)
	first, second := "VM;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003", "VM;iaasvmcontainerv2;clitest.rg000001;second"
	restoring, backingUp, configured := jobOf("Restore", job.Running).ID, jobOf("Backup", job.Running).ID, jobOf("ConfigureBackup", job.Ended).ID
	itemList, jobList, pointList := vault+"/backupProtectedItems", vault+"/backupJobs", item+"/recoveryPoints"
	for _, c := range []struct {
		list, filter string
		want         []string
	}{
		{itemList, "backupManagementType eq 'AzureIaasVM' and itemType eq 'VM'", []string{first, second}},
		{itemList, "backupManagementType eq 'AzureStorage'", nil},
		{itemList, "itemType eq 'SQLDataBase'", nil},
		{itemList, "policyName eq 'defaultpolicy'", []string{first}},
		{itemList, "policyName eq ''", []string{second}},
		{itemList, "friendlyName eq 'SECOND'", []string{second}},
		{itemList, "containerName eq 'iaasvmcontainerv2;clitest.rg000001;second'", []string{second}},
		{itemList, "containerName eq 'IaasVMContainer;iaasvmcontainerv2;clitest.rg000001;second'", []string{second}},
		{itemList, "healthState eq 'Passed'", []string{first}},
		{itemList, "healthState eq 'ActionRequired' and fabricName eq 'Azure'", []string{second}},
		{itemList, "backupEngineName eq 'DPM'", nil},

		{jobList, "status eq 'InProgress'", []string{restoring, backingUp}},
		{jobList, "status eq 'Failed' and operation eq 'Backup'", []string{failedBackup}},
		{jobList, "operation eq 'ConfigureBackup'", []string{configured}},
		{jobList, "jobId eq '" + backingUp + "'", []string{backingUp}},
		{jobList, "backupManagementType eq 'AzureWorkload'", nil},
		{jobList, "startTime eq '2026-11-23 12:00:00 PM'", []string{restoring, backingUp, configured}},
		{jobList, "startTime eq '2026-11-23 00:00:00 AM' and endTime eq '2026-11-23 11:00:00 AM'", []string{failedBackup}},
		{jobList, "endTime eq '0001-01-01T00:00:00Z'", nil},

		{pointList, "startDate eq '2026-11-24 12:00:00 AM' and endDate eq '2026-11-25 12:00:00 AM'", []string{point2}},
		{pointList, "endDate eq '2026-11-23T12:00:00Z'", []string{point}},
		{pointList, "extendedInfo eq true and restorePointQueryType eq 'All'", []string{point2, point}},
		{pointList, "restorePointQueryType eq 'Log'", nil},
		{pointList, "moveReadyRPOnly eq true", nil},

		{vault + "/backupPolicies", "backupManagementType eq 'AzureIaasVM'", []string{"DefaultPolicy"}},
		{vault + "/backupPolicies", "backupManagementType eq 'AzureSql'", nil},
		{vault + "/backupProtectionContainers", "backupManagementType eq 'AzureIaasVM' and status eq 'Registered' and friendlyName eq 'second'",
			[]string{"IaasVMContainer;iaasvmcontainerv2;clitest.rg000001;second"}},
		{vault + "/backupProtectionContainers", "backupManagementType eq 'MAB'", nil},
		{vault + "/backupProtectionContainers", "containerType eq 'StorageContainer'", nil},
		{vault + "/backupProtectableItems", "backupManagementType eq 'AzureIaasVM' and friendlyName eq 'plain'", []string{"iaasvmcontainerv2;afstests;plain"}},
		{vault + "/backupProtectableItems", "workloadType eq 'SQLDataBase'", nil},
		{vault + "/backupUsageSummaries", "type eq 'BackupProtectionContainerCountSummary'", []string{""}},
		{vault + "/backupUsageSummaries", "type eq 'Other'", nil},
	} {
		if got := names(t, ask(t, f, "GET", filtered(c.list, c.filter), "")); !slices.Equal(got, append([]string{}, c.want...)) {
			t.Errorf("%s: %s gives %v, want %v", c.list, c.filter, got, c.want)
		}
	}
}

func TestFiltersThatAreRefused(t *testing.T) {
	for _, c := range []struct{ list, filter string }{
		{vault + "/backupProtectedItems", "colour eq 'red'"}, {vault + "/backupJobs", "itemType eq 'VM'"}, {vault + "/backupPolicies", "name eq 'x'"},
		{vault + "/backupJobs", "startTime eq 'yesterday'"}, {item + "/recoveryPoints", "endDate eq ''"}, {item + "/recoveryPoints", "status eq 'x'"},
		{item, "colour eq 'red'"}, {vault + "/backupProtectableItems", "x eq 'y'"}, {vault + "/backupProtectionContainers", "x eq 'y'"}, {vault + "/backupUsageSummaries", "x eq 'y'"},
	} {
		if a := ask(t, world(), "GET", filtered(c.list, c.filter), ""); a.Status != 400 || code(t, a) != "InvalidFilter" {
			t.Errorf("%s: %s gives %d %s", c.list, c.filter, a.Status, a.Raw)
		}
	}
}

// Whatever the case in which a client writes, ids come back in Azure's spelling.
func TestIDsAreCanonical(t *testing.T) {
	f := withJobs()
	for path, id := range map[string]string{
		strings.ToLower(item):                              item,
		strings.ToUpper(vault):                             vault,
		strings.ReplaceAll(item, ";", "%3B"):               item,
		item + "/RECOVERYPOINTS/" + point:                  item + "/recoveryPoints/" + point,
		vault + "/backuppolicies/defaultpolicy":            vault + "/backupPolicies/DefaultPolicy",
		vault + "/BackupJobs/" + failedBackup:              vault + "/backupJobs/" + failedBackup,
		vault + "/BACKUPCONFIG/VaultConfig":                vault + "/backupconfig/vaultconfig",
		vault + "/backupStorageConfig/VAULTSTORAGECONFIG/": vault + "/backupstorageconfig/vaultstorageconfig",
	} {
		if a := ask(t, f, "GET", path+version, ""); a.Status != 200 || at(t, a.Body, "id") != id {
			t.Errorf("%s: %d, id %v, want %s", path, a.Status, at(t, a.Body, "id"), id)
		}
	}
	if got := names(t, ask(t, f, "GET", item+"/recoveryPoints/"+version, "")); len(got) != 2 {
		t.Errorf("with a trailing slash: %v", got)
	}
}

func TestBackupOnDemand(t *testing.T) {
	f := world()
	for _, body := range []string{`{"properties":{"objectType":"IaasVMBackupRequest","recoveryPointExpiryTimeInUTC":"2026-12-01T00:00:00.000Z"}}`, `{"properties":{}}`, ""} {
		if a := ask(t, f, "POST", item+"/backup"+version, body); a.Status != 202 {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
	}
	if want := []time.Time{time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), {}, {}}; !slices.EqualFunc(f.backups, want, time.Time.Equal) {
		t.Errorf("expiries %v, want %v", f.backups, want)
	}
	if a := ask(t, f, "POST", item+"/backup"+version, `{"properties":{"recoveryPointExpiryTimeInUTC":"tomorrow"}}`); a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

// What comes out of the base64 is the text that the key vault's restore takes as its value.
func TestKeyBackupsGoBackToTheKeyVault(t *testing.T) {
	f := world()
	a := ask(t, f, "GET", item+"/recoveryPoints/"+point+version, "")
	for path, blob := range map[string]string{
		"properties.kluisKeysAndSecrets.0.secretBackupData": "secret blob of data",
		"properties.kluisKeysAndSecrets.0.keyBackupData":    "key blob",
		"properties.kluisKeysAndSecrets.1.secretBackupData": "secret blob of os",
		"properties.keyAndSecret.bekDetails.secretData":     "secret blob of os",
		"properties.keyAndSecret.kekDetails.keyBackupData":  "key blob",
	} {
		text, _ := at(t, a.Body, path).(string)
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := base64.RawURLEncoding.DecodeString(string(value)); err != nil || string(got) != blob {
			t.Errorf("%s is %q, %v; want %q", path, got, err, blob)
		}
	}

	// Azure's form knows one pair: the first where the OS disk has none.
	f.keys = f.keys[:1]
	a = ask(t, f, "GET", item+"/recoveryPoints/"+point+version, "")
	if at(t, a.Body, "properties.keyAndSecret.bekDetails.secretUrl") != f.keys[0].SecretURL {
		t.Errorf("%s", a.Raw)
	}
	f.keys, f.points[1].Keys = nil, nil
	a = ask(t, f, "GET", item+"/recoveryPoints/"+point+version, "")
	if at(t, a.Body, "properties.keyAndSecret") != nil || at(t, a.Body, "properties.isSourceVMEncrypted") != false {
		t.Errorf("plain VM: %s", a.Raw)
	}
}

func TestTheListOfPointsHasNoKeys(t *testing.T) {
	a := ask(t, world(), "GET", item+"/recoveryPoints"+version, "")
	for _, word := range []string{"keyAndSecret", "BackupData", "secretUrl", "kluisDisks", "kluisKeysAndSecrets"} {
		if strings.Contains(string(a.Raw), word) {
			t.Errorf("the list has %s: %s", word, a.Raw)
		}
	}
	if at(t, a.Body, "value.1.properties.kluisProof.state") != "proved" {
		t.Errorf("the list does not tell which points are proved: %s", a.Raw)
	}
}

func TestRestore(t *testing.T) {
	target, account := group, group+"/providers/Microsoft.Storage/storageAccounts/staging"
	common := fmt.Sprintf(`"recoveryType":"RestoreDisks","recoveryPointId":"%s","targetResourceGroupId":"%s"`, point, target)
	staged := common + `,"storageAccountId":"` + account + `"`
	for name, c := range map[string]struct {
		body string
		luns []int
		all  bool
	}{
		"all disks":      {staged + `,"region":"westeurope","createNewCloudService":false,"encryptionDetails":{"encryptionEnabled":false}`, nil, true},
		"OS disk alone":  {staged + `,"restoreDiskLunList":[]`, []int{}, false},
		"one data disk":  {staged + `,"restoreDiskLunList":[0]`, []int{0}, false},
		"as an identity": {common + `,"storageAccountId":null,"identityInfo":{"isSystemAssignedIdentity":true},"identityBasedRestoreDetails":{"targetStorageAccountId":"` + account + `"}`, nil, true},
		"with its own keys": {staged + `,"encryptionDetails":{"encryptionEnabled":true,"kekUrl":"https://kv-one.vault.example/keys/kek/0123456789abcdef0123456789abcdef",` +
			`"secretKeyUrl":"https://kv-one.vault.example/secrets/bek-os/00000000000000000000000000000001"}`, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := world()
			a := ask(t, f, "POST", item+"/recoveryPoints/"+point+"/restore"+version, `{"properties":{`+c.body+`}}`)
			if a.Status != 202 || len(f.restores) != 1 {
				t.Fatalf("%d %s", a.Status, a.Raw)
			}
			got := f.restores[0]
			if got.Point.String() != item+"/recoveryPoints/"+point || got.TargetGroup.String() != target || got.StorageAccount.String() != account ||
				!slices.Equal(got.Luns, c.luns) || (got.Luns == nil) != c.all {
				t.Errorf("asked for %+v", got)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	f := withJobs()
	running := jobOf("Restore", job.Running).ID
	a := ask(t, f, "POST", vault+"/backupJobs/"+running+"/cancel"+version, "")
	if a.Status != 202 || !slices.Equal(f.cancelled, []string{running}) {
		t.Fatalf("%d %s, cancelled %v", a.Status, a.Raw, f.cancelled)
	}
	for header, want := range map[string]int{"Azure-AsyncOperation": 200, "Location": 204} {
		if a := ask(t, f, "GET", strings.TrimPrefix(a.Header.Get(header), host), ""); a.Status != want {
			t.Errorf("%s leads to %d %s", header, a.Status, a.Raw)
		}
	}
}

func location(action string) string {
	return subscription + "/providers/Microsoft.RecoveryServices/locations/westeurope/" + action + version
}

func TestPreValidate(t *testing.T) {
	f := world()
	body := `{"resourceType":"VM","resourceId":"` + vm + `","vaultId":"` + vault + `","properties":""}`
	a := ask(t, f, "POST", location("backupPreValidateProtection"), body)
	if a.Status != 200 || at(t, a.Body, "status") != "Succeeded" || at(t, a.Body, "protectedItemName") != "vm;iaasvmcontainerv2;clitest.rg000001;clitest-vm000003" {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	f.check = problem.New(problem.Denied, "UserErrorKeyVaultPermissionsNotConfigured", "It lacks permissions.").WithAdvice("Grant them.")
	a = ask(t, f, "POST", location("backupPreValidateProtection"), body)
	if a.Status != 200 || at(t, a.Body, "status") != "Failed" || at(t, a.Body, "errorCode") != "UserErrorKeyVaultPermissionsNotConfigured" ||
		at(t, a.Body, "errorMessage") != "It lacks permissions." || at(t, a.Body, "recommendation") != "Grant them." {
		t.Errorf("%d %s", a.Status, a.Raw)
	}

	// Who may not ask, and what is our own fault, is no finding about the VM.
	f.check = problem.New(problem.Denied, "AuthorizationFailed", "No.")
	if a = ask(t, f, "POST", location("backupPreValidateProtection"), body); a.Status != http.StatusForbidden {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	f.check = errors.New("disk on fire")
	if a = ask(t, f, "POST", location("backupPreValidateProtection"), body); a.Status != http.StatusInternalServerError || strings.Contains(string(a.Raw), "fire") {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

func TestBackupStatusOfAFailingItem(t *testing.T) {
	f := world()
	f.items[0].State, f.items[0].Problem = backup.ProtectionError, &job.Problem{Code: "UserErrorX", Message: "It failed."}
	a := ask(t, f, "POST", location("backupStatus"), `{"resourceType":"VM","resourceId":"`+strings.ToLower(vm)+`"}`)
	if at(t, a.Body, "protectionStatus") != "ProtectionFailed" || at(t, a.Body, "vaultId") != vault || at(t, a.Body, "errorCode") != "UserErrorX" {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

func TestValidateFeatures(t *testing.T) {
	for feature, want := range map[string]string{"AzureVMResourceBackup": "Supported", "AzureBackupGoals": "NotSupported"} {
		a := ask(t, world(), "POST", location("backupValidateFeatures"), `{"featureType":"`+feature+`","vmSize":"Basic_A0"}`)
		if a.Status != 200 || at(t, a.Body, "supportStatus") != want {
			t.Errorf("%s: %d %s", feature, a.Status, a.Raw)
		}
	}
}

func TestItemTellsNothingThatItDoesNotKnow(t *testing.T) {
	f := world()
	a := ask(t, f, "GET", item+version, "")
	if at(t, a.Body, "properties.extendedInfo") != nil || at(t, a.Body, "properties.lastRecoveryPoint") != "2026-11-24T12:00:00Z" {
		t.Errorf("%s", a.Raw)
	}
	dataID := at(t, a.Body, "properties.protectedItemDataId")
	f.items[0].LastPoint, f.items[0].LastTime, f.items[0].Created, f.points = "", time.Time{}, noon.Add(time.Second), nil
	a = ask(t, f, "GET", filtered(item, "expand eq 'extendedInfo'"), "")
	if at(t, a.Body, "properties.lastRecoveryPoint") != nil || at(t, a.Body, "properties.extendedInfo.recoveryPointCount") != 0.0 ||
		at(t, a.Body, "properties.extendedInfo.oldestRecoveryPoint") != nil {
		t.Errorf("%s", a.Raw)
	}
	if at(t, a.Body, "properties.protectedItemDataId") == dataID {
		t.Error("a VM that is protected anew has the data id of before")
	}
}
