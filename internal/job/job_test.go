package job_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
	"kluis/internal/problem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// work is a job.Work made of a function.
type work struct {
	kind string
	run  func(ctx context.Context, r *job.Run) error
}

func (w work) Kind() string                              { return w.kind }
func (w work) Run(ctx context.Context, r *job.Run) error { return w.run(ctx, r) }

func newQueue(db *database.DB) *job.Queue {
	var n atomic.Int64
	return job.NewQueue(db, time.Now, func() string { return fmt.Sprintf("job-%04d", n.Add(1)) })
}

func enqueue(t *testing.T, db *database.DB, q *job.Queue, s job.Spec) job.Job {
	t.Helper()
	var j job.Job
	if err := db.InTx(t.Context(), func(tx *database.Tx) (err error) {
		j, err = q.Enqueue(t.Context(), tx, s)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	q.Wake()
	return j
}

func start(t *testing.T, q *job.Queue, node string, lease time.Duration, works ...job.Work) *job.Runner {
	t.Helper()
	r, err := job.StartRunner(t.Context(), q, job.Options{Node: node, Workers: 2, Lease: lease, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, works...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until polls the job until ok accepts it, which it must before the test's own time runs out.
func until(t *testing.T, q *job.Queue, id string, ok func(job.Job) bool) job.Job {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		j, err := q.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ok(j) {
			return j
		}
		<-tick.C
	}
}

func ended(j job.Job) bool { return j.State == job.Ended }

func TestTasksProgressAndOutcome(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		r := start(t, q, "n", time.Minute,
			work{"Good", func(_ context.Context, r *job.Run) error {
				var args struct{ Item string }
				if err := r.Args(&args); err != nil {
					return err
				}
				r.Task("One")
				r.Progress(5, 10)
				r.Task("Two")
				r.Detail("Item", args.Item)
				return nil
			}},
			work{"Warned", func(_ context.Context, r *job.Run) error {
				r.Warn(problem.New(problem.Conflict, "Slow", "It was slow.").WithAdvice("Wait."))
				return nil
			}},
			work{"Bad", func(_ context.Context, r *job.Run) error {
				r.Task("One")
				return fmt.Errorf("doing it: %w", problem.New(problem.NotFound, "Gone", "It is gone.").WithAdvice("Bring it back."))
			}},
			work{"Panics", func(context.Context, *job.Run) error { panic("the password is 1234") }},
		)
		defer r.Stop()

		good := until(t, q, enqueue(t, db, q, job.Spec{Kind: "Good", Scope: "v", Args: map[string]string{"Item": "web"}, Tasks: []string{"One", "Two", "Three"}}).ID, ended)
		if good.Outcome != job.Completed || good.Details["Item"] != "web" || good.Done != 5 || good.Total != 10 {
			t.Errorf("good job ended as %+v", good)
		}
		if got := statuses(good); got != "One=Completed Two=Completed Three=Skipped" {
			t.Errorf("tasks: %s", got)
		}
		warned := until(t, q, enqueue(t, db, q, job.Spec{Kind: "Warned"}).ID, ended)
		if warned.Outcome != job.CompletedWithWarnings || len(warned.Problems) != 1 || warned.Problems[0].Advice != "Wait." {
			t.Errorf("warned job ended as %+v", warned)
		}
		bad := until(t, q, enqueue(t, db, q, job.Spec{Kind: "Bad", Tasks: []string{"One", "Two"}}).ID, ended)
		if bad.Outcome != job.Failed || bad.Problems[0].Code != "Gone" || statuses(bad) != "One=Failed Two=NotStarted" {
			t.Errorf("bad job ended as %+v", bad)
		}
		panicked := until(t, q, enqueue(t, db, q, job.Spec{Kind: "Panics"}).ID, ended)
		if panicked.Outcome != job.Failed || strings.Contains(fmt.Sprint(panicked), "1234") {
			t.Errorf("job that panicked ended as %+v", panicked)
		}
		if jobs, err := q.Jobs(t.Context(), "v"); err != nil || len(jobs) != 1 {
			t.Errorf("jobs of scope v: %v, %v", jobs, err)
		}
	})
}

func statuses(j job.Job) string {
	var all []string
	for _, t := range j.Tasks {
		all = append(all, t.Name+"="+string(t.Status))
	}
	return strings.Join(all, " ")
}

func TestExclusive(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		spec := job.Spec{Kind: "Backup", Exclusive: "web"}
		first := enqueue(t, db, q, spec)
		err := db.InTx(t.Context(), func(tx *database.Tx) error {
			_, err := q.Enqueue(t.Context(), tx, spec)
			return err
		})
		if !errors.Is(err, job.ErrBusy) {
			t.Fatalf("second job: %v, want ErrBusy", err)
		}
		if err := q.Cancel(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		enqueue(t, db, q, spec)
		if err := q.Cancel(t.Context(), first.ID); !errors.Is(err, job.ErrEnded) {
			t.Errorf("cancel of an ended job: %v", err)
		}
		if _, err := q.Job(t.Context(), "nobody"); !errors.Is(err, job.ErrNotFound) {
			t.Errorf("unknown job: %v", err)
		}
	})
}

func TestCancelRunning(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		r := start(t, q, "n", time.Minute, work{"Long", func(ctx context.Context, r *job.Run) error {
			r.Task("Waiting")
			<-ctx.Done()
			return ctx.Err()
		}})
		defer r.Stop()
		id := enqueue(t, db, q, job.Spec{Kind: "Long"}).ID
		until(t, q, id, func(j job.Job) bool { return j.State == job.Running })
		if err := q.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if j := until(t, q, id, ended); j.Outcome != job.Cancelled || statuses(j) != "Waiting=Cancelled" {
			t.Errorf("cancelled job ended as %+v", j)
		}
	})
}

// A server that stops puts its jobs back, and the next one goes on with them.
func TestStopAndGoOn(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		begun := make(chan struct{})
		first := start(t, q, "n", time.Minute, work{"Long", func(ctx context.Context, _ *job.Run) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}})
		id := enqueue(t, db, q, job.Spec{Kind: "Long"}).ID
		<-begun
		first.Stop()
		second := start(t, q, "n", time.Minute, work{"Long", func(context.Context, *job.Run) error { return nil }})
		defer second.Stop()
		if j := until(t, q, id, ended); j.Outcome != job.Completed || j.Attempt != 1 {
			t.Errorf("job ended as %+v", j)
		}
	})
}

// A node that sleeps past its lease loses the job to another, and what it says later counts for nothing.
func TestFencing(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		asleep, awake := make(chan struct{}), make(chan struct{})
		// The first node's clock stands still, so its heartbeat never renews the lease; to the second one it has run out.
		past := time.Now().Add(-time.Hour)
		first, err := job.StartRunner(t.Context(), q, job.Options{Node: "first", Workers: 1, Lease: time.Minute, Now: func() time.Time { return past },
			Log: slog.New(slog.DiscardHandler)}, work{"Long", func(context.Context, *job.Run) error {
			close(asleep)
			<-awake
			return errors.New("late and wrong")
		}})
		if err != nil {
			t.Fatal(err)
		}
		id := enqueue(t, db, q, job.Spec{Kind: "Long"}).ID
		<-asleep
		second := start(t, q, "second", time.Minute, work{"Long", func(context.Context, *job.Run) error { return nil }})
		until(t, q, id, ended)
		close(awake)
		first.Stop()
		second.Stop()
		if j, err := q.Job(t.Context(), id); err != nil || j.Outcome != job.Completed || j.Attempt != 2 {
			t.Errorf("job ended as %+v, %v", j, err)
		}
	})
}

// Many claimers, every job done exactly once.
func TestEachJobOnce(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		q := newQueue(db)
		const jobs = 60
		var mu sync.Mutex
		times := map[string]int{}
		count := work{"Count", func(_ context.Context, r *job.Run) error {
			mu.Lock()
			defer mu.Unlock()
			times[r.ID()]++
			return nil
		}}
		var ids []string
		for range jobs {
			ids = append(ids, enqueue(t, db, q, job.Spec{Kind: "Count"}).ID)
		}
		var runners []*job.Runner
		for n := range 4 {
			runners = append(runners, start(t, q, fmt.Sprint("node", n), time.Minute, count))
		}
		for _, id := range ids {
			until(t, q, id, ended)
		}
		for _, r := range runners {
			r.Stop()
		}
		for _, id := range ids {
			if times[id] != 1 {
				t.Errorf("job %s was done %d times", id, times[id])
			}
		}
	})
}
