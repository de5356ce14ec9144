package recoveryservices_test

import (
	"reflect"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/backup"
)

// A drill is asked for with nothing, or with all that can be waited for.
func TestDrill(t *testing.T) {
	id := armid.Must(item).Child("recoveryPoints", point)
	for body, want := range map[string]backup.DrillRequest{
		"": {Point: id},
		`{"properties":{"host":"lab","consoleText":"login:","port":22,"portText":"SSH-","check":["/bin/true","-x"],"limitInSeconds":90}}`: {Point: id, Host: "lab", Console: "login:",
			Port: 22, PortText: "SSH-", Check: []string{"/bin/true", "-x"}, Limit: 90 * time.Second},
	} {
		f := world()
		if a := ask(t, f, "POST", id.String()+"/drill"+version, body); a.Status != 202 || a.Header.Get("Location") == "" {
			t.Errorf("%s: %d %s", body, a.Status, a.Raw)
		}
		if len(f.drills) != 1 || f.drills[0].Point.Key() != id.Key() {
			t.Fatalf("%s: the service is asked for %+v", body, f.drills)
		}
		f.drills[0].Point = id
		if !reflect.DeepEqual(f.drills[0], want) {
			t.Errorf("%s: the service is asked for %+v", body, f.drills[0])
		}
	}
	f := world()
	if a := ask(t, f, "POST", id.String()+"/drill"+version, `{"properties":{"port":"ssh"}}`); a.Status != 400 || len(f.drills) != 0 {
		t.Errorf("a port by name: %d %s", a.Status, a.Raw)
	}
}
