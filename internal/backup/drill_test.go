package backup_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/problem"
)

// A drill gives its host the point's disks and the key that is in the point, and its verdict stays: on the point, in the
// store when the database is lost, until the next drill.
func TestDrill(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		p := h.backedUp(item)
		id := item.ID.Child("recoveryPoints", p.ID)
		ask := backup.DrillRequest{Point: id}

		_, err := h.StartDrill(h.ctx, ask)
		h.wantProblem(err, "UserErrorDrillHasNoHost")
		h.ground.hosts = []string{"a", "b"}
		_, err = h.StartDrill(h.ctx, ask)
		h.wantProblem(err, "UserErrorDrillHostUnknown")
		ask.Host = "c"
		_, err = h.StartDrill(h.ctx, ask)
		h.wantProblem(err, "UserErrorDrillHostUnknown")
		ask.Host, ask.Limit = "b", 3*time.Hour
		_, err = h.StartDrill(h.ctx, ask)
		h.wantProblem(err, "UserErrorDrillInvalid")
		ask.Limit = 0
		for port, text := range map[int]string{-1: "", 1 << 16: "", 0: "SSH-", 22: strings.Repeat("x", 1025)} {
			wrong := ask
			wrong.Port, wrong.PortText = port, text
			_, err = h.StartDrill(h.ctx, wrong)
			h.wantProblem(err, "UserErrorDrillInvalid")
		}

		ask.Check = []string{"/bin/true"}
		h.ground.result = fabric.DrillResult{Passed: true, Boot: 1500 * time.Millisecond, Output: "well"}
		j := h.wait(must(h.StartDrill(h.ctx, ask))(t))
		if j.Outcome != job.Completed || j.Details["Drill"] != "passed" || j.Details["Check output"] != "well" {
			t.Fatalf("the drill ended as %s: %+v", j.Outcome, j.Details)
		}
		what := h.ground.asked[0]
		if len(what.Keys) != 1 || what.Keys[0].Name != "LinuxPassPhraseFileName" || len(what.Disks) != 1 || what.Disks[0].Target != "vda" || what.State != nil || what.Check[0] != "/bin/true" {
			t.Errorf("the host was given %+v", what)
		}
		if bytes.Trim(what.Keys[0].Key.Reveal(), "\x00") != nil {
			t.Error("the key was not wiped after the drill")
		}
		drilled := must(h.Point(h.ctx, id))(t).Drill
		if drilled == nil || !drilled.Passed || drilled.Host != "b" || drilled.Sign != "the guest agent answers" || drilled.Boot != 1500*time.Millisecond || drilled.Check != "/bin/true" {
			t.Errorf("the point says %+v", drilled)
		}

		// Who may drill may not look inside for that alone.
		h.authorizer.set(decryptAction)
		if _, err := h.StartDrill(h.ctx, ask); problem.KindOf(err) != problem.Denied {
			t.Error("a check runs without the right to decrypt")
		}
		other := backup.DrillRequest{Point: id, Host: "b", Console: "login:", Port: 22, PortText: "SSH-"}
		h.wait(must(h.StartDrill(h.ctx, other))(t))
		h.authorizer.set()
		if what := h.ground.asked[1]; what.Console != "login:" || what.Port != 22 || what.PortText != "SSH-" {
			t.Errorf("the host was given %+v", what)
		}
		if drilled = must(h.Point(h.ctx, id))(t).Drill; drilled.Sign != `the console shows "login:" and port 22 says "SSH-"` {
			t.Errorf("what was waited for is %s", drilled.Sign)
		}

		// The rows of the points are lost; the verdict is not.
		h.close()
		h.check(db.InTx(h.ctx, func(tx *database.Tx) error {
			_, err := tx.ExecContext(h.ctx, "DELETE FROM recovery_points")
			return err
		}))
		h.open()
		if again := must(h.Point(h.ctx, id))(t).Drill; again == nil || *again != *drilled {
			t.Errorf("after the loss the point says %+v", again)
		}

		// A machine that does not come up is a warning; a host that cannot try is an error, and no verdict.
		h.ground.result = fabric.DrillResult{Reason: "The machine stopped by itself."}
		h.wantWarning(h.wait(must(h.StartDrill(h.ctx, ask))(t)), "UserErrorDrillFailed", "The machine stopped by itself.")
		h.ground.err = &fabric.HostError{Host: "b", Kind: fabric.Away, Err: errors.New("no route")}
		j = h.wait(must(h.StartDrill(h.ctx, ask))(t))
		if j.Outcome != job.Failed || j.Problems[0].Code != "UserErrorHostNotReachable" {
			t.Errorf("the drill on a host that is away ended as %s: %+v", j.Outcome, j.Problems)
		}
		if last := must(h.Point(h.ctx, id))(t).Drill; last == nil || last.Passed || last.Reason == "" {
			t.Errorf("the point says %+v", last)
		}
		h.wantAlerts("UserErrorHostNotReachable Critical", "UserErrorDrillFailed Critical")
	})
}
