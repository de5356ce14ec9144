package backup

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
)

// scheduled is a service without the parts that do the work: what it starts stays in the queue.
type scheduled struct {
	*Service
	t   *testing.T
	db  *database.DB
	now time.Time
}

// newScheduled makes it with items under DefaultPolicy, which runs at 22:00.
func newScheduled(t *testing.T, db *database.DB, names ...string) *scheduled {
	t.Helper()
	s := &scheduled{t: t, db: db, now: at("2026-11-23 10:00")}
	now := func() time.Time { return s.now }
	s.Service = &Service{o: Options{DB: db, Jobs: job.NewQueue(db, now, uuid.NewString), Now: now, NewID: uuid.NewString,
		Correlation: func(context.Context) string { return "" }, Log: slog.New(slog.DiscardHandler)}}
	err := db.InTx(t.Context(), func(tx *database.Tx) error {
		p := defaultPolicy(vaultID, s.now)
		if err := insertVault(t.Context(), tx, RecoveryVault{ID: vaultID, Location: "westeurope"}); err != nil {
			return err
		}
		if err := putPolicy(t.Context(), tx, p); err != nil {
			return err
		}
		for _, name := range names {
			vm := armid.Subscription("s").Group("rg").Resource(vmType, name)
			if err := putItem(t.Context(), tx, Item{ID: ItemID(vaultID, vm), VM: vm, Policy: p.ID, State: IRPending, next: p.Body.Next(s.now)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// startAt lets the schedule look at its watch and returns for which VMs there are jobs, and how many.
func (s *scheduled) startAt(now string) map[string]int {
	s.t.Helper()
	s.now = at(now)
	if err := s.StartDue(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	jobs, err := s.o.Jobs.Jobs(s.t.Context(), vaultID.Key())
	if err != nil {
		s.t.Fatal(err)
	}
	n := map[string]int{}
	for _, j := range jobs {
		n[j.Details["VM Name"]]++
	}
	return n
}

// A backup is started once when its time has come, and once after any number of times that were missed.
func TestStartDue(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newScheduled(t, db, "a")
		for _, step := range []struct {
			now  string
			jobs int
		}{{"2026-11-23 21:59", 0}, {"2026-11-23 22:00", 1}, {"2026-11-23 22:00", 1}, {"2026-11-23 23:59", 1}} {
			if n := s.startAt(step.now)["a"]; n != step.jobs {
				t.Errorf("at %s there are %d jobs, want %d", step.now, n, step.jobs)
			}
		}
	})
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		if n := newScheduled(t, db, "a").startAt("2026-12-23 09:00")["a"]; n != 1 {
			t.Errorf("after a month without a server there are %d jobs", n)
		}
	})
}

// An item that another job works on waits for its next time, and holds nobody else up.
func TestStartDueBeside(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		s := newScheduled(t, db, "a", "b", "c")
		err := db.InTx(t.Context(), func(tx *database.Tx) error {
			items, err := selectAllItems(t.Context(), tx)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(items, func(i Item) bool { return i.VM.Name() == "b" })
			_, err = s.enqueue(t.Context(), tx, items[i], backupSpec(items[i], s.now, time.Time{}, s.now.AddDate(0, 0, 30)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.startAt("2026-11-23 22:00"); fmt.Sprint(n) != "map[a:1 b:1 c:1]" {
			t.Errorf("the jobs are %v", n)
		}
		if n := s.startAt("2026-11-23 22:01"); fmt.Sprint(n) != "map[a:1 b:1 c:1]" {
			t.Errorf("a minute later the jobs are %v", n)
		}
	})
}
