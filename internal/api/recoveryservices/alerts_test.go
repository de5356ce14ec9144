package recoveryservices_test

import (
	"slices"
	"testing"

	"kluis/internal/armid"
	"kluis/internal/backup"
)

func TestAlerts(t *testing.T) {
	f := world()
	if got := names(t, ask(t, f, "GET", vault+"/monitoringAlerts"+version, "")); len(got) != 0 {
		t.Errorf("a vault in peace has the alerts %v", got)
	}
	f.alerts = []backup.Alert{
		{ID: "2", Time: noon, Severity: backup.Critical, Item: armid.Must(item), Point: point, Job: "j", Code: "C", Message: "It does not open.", Advice: "Do this."},
		{ID: "1", Time: noon, Severity: backup.Warning, Item: armid.Must(item), Code: "D", Message: "It drifts.", Advice: "Do that."},
	}
	a := ask(t, f, "GET", vault+"/monitoringAlerts"+version, "")
	if got := names(t, a); !slices.Equal(got, []string{"2", "1"}) {
		t.Fatalf("%d %s", a.Status, a.Raw)
	}
	for path, want := range map[string]any{
		"value.0.id": vault + "/monitoringAlerts/2", "value.0.type": "Microsoft.RecoveryServices/vaults/monitoringAlerts",
		"value.0.properties.severity": "Critical", "value.0.properties.createdTime": "2026-11-23T12:00:00Z", "value.0.properties.protectedItemId": item,
		"value.0.properties.recoveryPointId": item + "/recoveryPoints/" + point, "value.0.properties.jobId": "j", "value.0.properties.code": "C",
		"value.0.properties.message": "It does not open.", "value.0.properties.recommendation": "Do this.", "value.1.properties.recoveryPointId": nil,
	} {
		if got := at(t, a.Body, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

// Drift stands beside Azure's own properties, and not at all where there is none.
func TestItemTellsDrift(t *testing.T) {
	f := world()
	if a := ask(t, f, "GET", item+version, ""); at(t, a.Body, "properties.kluisDrift") != nil {
		t.Errorf("an item without drift: %s", a.Raw)
	}
	f.items[0].Drift = []backup.Drift{{Disk: "os", Lun: -1, Settings: "plain", Bytes: "encrypted", Found: "LUKS2", Message: "m", Advice: "a"}}
	a := ask(t, f, "GET", item+version, "")
	if at(t, a.Body, "properties.kluisDrift.0.bytes") != "encrypted" || at(t, a.Body, "properties.kluisDrift.0.disk") != "os" {
		t.Errorf("an item with drift: %s", a.Raw)
	}
}
