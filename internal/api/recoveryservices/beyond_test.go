package recoveryservices_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"path"
	"slices"
	"strings"
	"testing"

	"kluis/internal/backup"
	"kluis/internal/job"
)

// What is not here says so, after the service has been asked whether the caller might use it at all.
func TestWhatIsNotHere(t *testing.T) {
	location := subscription + "/providers/Microsoft.RecoveryServices/locations/westus"
	for request, action := range map[string]string{
		"GET " + location + "/backupAadProperties":                      "locations/backupAadProperties/read",
		"POST " + location + "/backupCrrJobs":                           "locations/backupCrrJobs/action",
		"POST " + location + "/backupCrossRegionRestore":                "locations/backupCrossRegionRestore/action",
		"GET " + location + "/backupCrrOperationsStatus/7":              "locations/backupCrrOperationsStatus/read",
		"POST " + item + "/recoveryPoints/" + point + "/move":           "vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/move/action",
		"POST " + item + "/recoveryPoints/" + point + "/accessToken":    "vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/accessToken/action",
		"POST " + vault + "/backupTieringCost/default/fetchTieringCost": "vaults/backupTieringCost/fetchTieringCost/action",
		"PUT " + container:               "vaults/backupFabrics/protectionContainers/write",
		"DELETE " + container:            "vaults/backupFabrics/protectionContainers/delete",
		"POST " + container + "/inquire": "vaults/backupFabrics/protectionContainers/inquire/action",
	} {
		method, target, _ := strings.Cut(request, " ")
		f := world()
		a := ask(t, f, method, target+version, "{}")
		if a.Status != 400 || code(t, a) != "OperationNotSupported" {
			t.Errorf("%s: %d %s", request, a.Status, a.Raw)
		}
		if !slices.Equal(f.acted, []string{"Microsoft.RecoveryServices/" + action}) {
			t.Errorf("%s asks for %v, want %s", request, f.acted, action)
		}
	}
}

// Clients ask for these before they do anything, and go on if there are none.
func TestListsOfWhatIsNotHereAreEmpty(t *testing.T) {
	for _, list := range []string{"/backupEngines", "/backupProtectionIntents", "/backupResourceGuardProxies", "/privateLinkResources", "/replicationUsages",
		"/backupDeletedProtectionContainers", "/backupFabrics/Azure/protectableContainers",
		"/backupFabrics/Azure/protectionContainers/x/items"} {
		if got := names(t, ask(t, world(), "GET", vault+list+version, "")); len(got) != 0 {
			t.Errorf("%s has %v", list, got)
		}
	}
	if got := names(t, ask(t, world(), "POST", item+"/recoveryPointsRecommendedForMove"+version, `{"excludedRPList":[]}`)); len(got) != 0 {
		t.Errorf("recommended for move are %v", got)
	}
}

// Terraform reads these with every vault.
func TestSettingsOfSiteRecoveryAreEmpty(t *testing.T) {
	a := ask(t, world(), "GET", vault+"/replicationVaultSettings/default"+version, "")
	if a.Status != 200 || at(t, a.Body, "name") != "default" || len(at(t, a.Body, "properties").(map[string]any)) != 0 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

func TestContainer(t *testing.T) {
	a := ask(t, world(), "GET", container+version, "")
	if a.Status != 200 || at(t, a.Body, "properties.friendlyName") != "clitest-vm000003" || !strings.EqualFold(at(t, a.Body, "id").(string), container) {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	if a := ask(t, world(), "GET", container+"x"+version, ""); a.Status != 404 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	deleted := world()
	deleted.items[0].Deferred = backup.Deferral{At: noon, Until: noon.AddDate(0, 0, 14), Days: 14}
	if got := names(t, ask(t, deleted, "GET", vault+"/backupDeletedProtectionContainers"+version, "")); len(got) != 1 {
		t.Errorf("deleted containers are %v", got)
	}
}

func TestCapabilities(t *testing.T) {
	a := ask(t, world(), "POST", subscription+"/providers/Microsoft.RecoveryServices/locations/westeurope/capabilities"+version,
		`{"type":"Microsoft.RecoveryServices/Vaults","properties":{"dnsZones":[{"subResource":"AzureBackup"}]}}`)
	if zones, ok := at(t, a.Body, "properties.dnsZones.0.requiredZoneNames").([]any); a.Status != 200 || !ok || len(zones) != 0 {
		t.Errorf("capabilities: %d %s", a.Status, a.Raw)
	}
}

// The provider's operations are those of its table.
func TestOperationsOfTheProvider(t *testing.T) {
	got := names(t, ask(t, world(), "GET", "/providers/Microsoft.RecoveryServices/operations"+version, ""))
	for _, want := range []string{"vaults/write", "vaults/backupJobs/cancel/action", "vaults/backupJobs/read", "locations/backupStatus/action",
		"vaults/backupFabrics/protectionContainers/protectedItems/recoveryPoints/restore/action"} {
		if !slices.Contains(got, "Microsoft.RecoveryServices/"+want) {
			t.Errorf("%s is not among %d operations", want, len(got))
		}
	}
}

// A restore is asked about in two ways, and with or without an envelope.
func TestValidateRestore(t *testing.T) {
	const good = `"objectType":"ValidateIaasVMRestoreOperationRequest","restoreRequest":{"recoveryPointId":"` + point + `","recoveryType":"RestoreDisks","sourceResourceId":"` + vm + `"}`
	for body, want := range map[string]any{
		`{` + good + `}`: nil, `{"id":"x","properties":{` + good + `}}`: nil,
		strings.Replace(`{`+good+`}`, "RestoreDisks", "OriginalLocation", 1): "UserErrorEncryptedVmRestoreTypeNotSupported",
		strings.Replace(`{`+good+`}`, point, "7", 1):                         "ResourceNotFound",
	} {
		f := world()
		now := ask(t, f, "POST", vault+"/backupValidateOperation"+version, body)
		if now.Status != 200 || at(t, now.Body, "validateOperationResponse.validationResults.0.code") != want {
			t.Errorf("%s: %d %s", body, now.Status, now.Raw)
		}
		door := doorTo(t, f)
		later := door("POST", vault+"/backupTriggerValidateOperation"+version, body)
		if later.Status != 202 {
			t.Fatalf("%d %s", later.Status, later.Raw)
		}
		status := door("GET", strings.TrimPrefix(later.Header.Get("Azure-AsyncOperation"), host), "")
		if at(t, status.Body, "status") != "Succeeded" || at(t, status.Body, "properties.validateOperationResponse.validationResults.0.code") != want {
			t.Errorf("status: %d %s", status.Status, status.Raw)
		}
		result := door("GET", strings.TrimPrefix(later.Header.Get("Location"), host), "")
		if result.Status != 200 || at(t, result.Body, "validateOperationResponse.validationResults.0.code") != want {
			t.Errorf("result: %d %s", result.Status, result.Raw)
		}
	}
	for body, want := range map[string]string{
		`{"objectType":"ValidateIaasVMRestoreOperationRequest","restoreRequest":{}}`:       "BMSUserErrorInvalidRequest",
		`{"objectType":"ValidateSomethingElse"}`:                                           "OperationNotSupported",
		strings.Replace(`{`+good+`}`, `"recoveryType"`, `"zones":["1"],"recoveryType"`, 1): "OperationNotSupported",
	} {
		if a := ask(t, world(), "POST", vault+"/backupValidateOperation"+version, body); a.Status != 400 || code(t, a) != want {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
	}
	if a := ask(t, world(), "GET", vault+"/backupValidateOperationResults/7"+version, ""); a.Status != 404 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

// Exported are the jobs that the filter wants, as the list has them, and the result says where they are.
func TestExportOfJobs(t *testing.T) {
	f := world()
	f.jobs = []backup.Job{jobOf("Backup", job.Ended), jobOf("ConfigureBackup", job.Ended)}
	door := doorTo(t, f)
	a := door("POST", vault+"/backupJobsExport"+version+"&$filter=operation%20eq%20'Backup'", "")
	if a.Status != 202 || !strings.Contains(a.Header.Get("Location"), "/backupJobs/operationResults/") {
		t.Fatalf("%d %v", a.Status, a.Header)
	}
	result := door("GET", strings.TrimPrefix(a.Header.Get("Location"), host), "")
	if result.Status != 200 || at(t, result.Body, "operation.objectType") != "ExportJobsOperationResultInfo" {
		t.Fatalf("%d %s", result.Status, result.Raw)
	}
	where, _, _ := strings.Cut(path.Base(a.Header.Get("Location")), "?")
	name := "exportjobsreport" + where
	if o := at(t, result.Body, "operation"); len(f.exported) != 2 || at(t, o, "blobUrl") != "https://exports/"+name || at(t, o, "blobSasKey") != "?sig=1" ||
		at(t, o, "excelFileBlobUrl") != "https://exports/"+name+".xlsx" || at(t, o, "excelFileBlobSasKey") != "?sig=1" {
		t.Errorf("the result is %s", result.Raw)
	}
	var list []map[string]any
	if err := json.Unmarshal(f.exported[name], &list); err != nil || len(list) != 1 || at(t, list[0], "properties.operation") != "Backup" {
		t.Errorf("exported are %s, %v", f.exported[name], err)
	}
	wantSheet(t, f.exported[name+".xlsx"])
	if a := door("GET", vault+"/backupJobs/operationResults/7"+version, ""); a.Status != 404 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
	if a := door("GET", vault+"/backupJobs/7/somethingElse"+version, ""); a.Status != 404 {
		t.Errorf("%d %s", a.Status, a.Raw)
	}
}

// Clients of the first api-versions read durations of .NET and numbers for some words.
func TestOldAPIVersions(t *testing.T) {
	f := world()
	f.jobs = []backup.Job{jobOf("Backup", job.Running)}
	one := vault + "/backupJobs/" + f.jobs[0].ID
	for query, want := range map[string][2]any{"?api-version=2017-07-01": {"00:01:00.0000000", 1.0}, "?api-version=2024-04-01": {"PT1M", "Cancellable"}} {
		a := ask(t, f, "GET", one+query, "")
		if got := [2]any{at(t, a.Body, "properties.duration"), at(t, a.Body, "properties.actionsInfo.0")}; got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	a := ask(t, f, "GET", item+"/recoveryPoints/"+point+"?api-version=2016-12-01", "")
	if at(t, a.Body, "properties.recoveryPointTierDetails.0.type") != 2.0 || at(t, a.Body, "properties.recoveryPointTierDetails.0.status") != 1.0 {
		t.Errorf("%s", a.Raw)
	}
}

// wantSheet wants a workbook whose sheet has a line of headings and one job.
func wantSheet(t *testing.T, data []byte) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open("xl/worksheets/sheet1.xml")
	if err != nil {
		t.Fatal(err)
	}
	var sheet struct {
		Rows []struct {
			Cells []string `xml:"c>is>t"`
		} `xml:"sheetData>row"`
	}
	if err := xml.NewDecoder(f).Decode(&sheet); err != nil {
		t.Fatal(err)
	}
	if len(sheet.Rows) != 2 || sheet.Rows[0].Cells[1] != "Operation" || sheet.Rows[1].Cells[1] != "Backup" || len(sheet.Rows[1].Cells) != len(sheet.Rows[0].Cells) {
		t.Errorf("the sheet has %v", sheet.Rows)
	}
}
