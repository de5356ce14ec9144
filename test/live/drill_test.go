package live_test

import (
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/test/guest"
)

// A recovery point boots, apart from everything, and unlocks itself with its own keys; a check looks into it. What does not
// come up, or not well, is told, and nothing of any drill is left.
func TestDrill(t *testing.T) {
	w := newWorld(t, "drill")
	sum, err := w.g.Run(t.Context(), "cat /data/f* | sha256sum")
	if err != nil {
		t.Fatal(err)
	}
	sum, _, _ = strings.Cut(sum, " ")
	p := w.point(w.begin())
	check := []string{"/bin/sh", "-c", "cat /data/f* | sha256sum | grep " + sum}
	verdict := w.drill(p, client.DrillRequest{Check: check, Seconds: 120})
	if verdict.State != client.DrillPassed || verdict.BootMS <= 0 {
		t.Fatalf("the drill says %+v; want the sum %s", verdict, sum)
	}
	if verdict := w.drill(p, client.DrillRequest{Console: " READY", Check: []string{"/bin/false"}, Seconds: 120}); verdict.State == client.DrillPassed || !strings.Contains(verdict.Reason, "code 1") {
		t.Errorf("a check that fails says %+v", verdict)
	}
	if verdict := w.drill(p, client.DrillRequest{Console: "nobody says this", Seconds: 5}); verdict.State == client.DrillPassed || !strings.Contains(verdict.Reason, "nobody says this") {
		t.Errorf("a sign that does not come says %+v", verdict)
	}
	left, err := guest.Virsh(t.Context(), "list", "--all", "--name")
	if err != nil || strings.Contains(left, "kluis-drill-"+p.Name) {
		t.Errorf("left on the host: %s %v", left, err)
	}
	w.clean()
}

// drill runs a drill of a point and returns its verdict.
func (w *world) drill(p client.Point, r client.DrillRequest) client.Drill {
	w.t.Helper()
	job, err := w.StartDrill(w.t.Context(), w.item.ARMID(), p.Name, r)
	if err == nil {
		_, err = w.WaitJob(w.t.Context(), w.vault, job, nil)
	}
	if err == nil {
		p, err = w.RecoveryPoint(w.t.Context(), w.item.ARMID(), p.Name)
	}
	if err != nil || p.Properties.Drill == nil {
		w.t.Fatalf("drill: %+v %v", p.Properties.Drill, err)
	}
	return *p.Properties.Drill
}
