package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"kluis/internal/database"
)

// ErrNotFound is returned for an id that no job has.
var ErrNotFound = errors.New("no such job")

// ErrBusy is returned by Enqueue when a job with the same Exclusive has not ended.
var ErrBusy = errors.New("another job works on this")

// ErrEnded is returned by Cancel for a job that is over.
var ErrEnded = errors.New("the job has ended")

// Queue holds the jobs of an installation.
type Queue struct {
	db    *database.DB
	now   func() time.Time
	newID func() string

	mu    sync.Mutex
	wakes []chan struct{} // one for each Runner
}

// NewQueue returns the queue that lives in db.
func NewQueue(db *database.DB, now func() time.Time, newID func() string) *Queue {
	return &Queue{db: db, now: now, newID: newID}
}

// Spec says what to enqueue.
type Spec struct {
	Kind        string
	Scope       string
	Entity      string
	Exclusive   string   // empty: any number at once
	Args        any      // given to the work, as JSON; nothing secret
	Tasks       []string // shown as not started from the beginning
	Details     map[string]string
	Correlation string
}

// Enqueue adds a job in the caller's transaction. After the commit, Wake lets a Runner take it at once.
func (q *Queue) Enqueue(ctx context.Context, tx *database.Tx, s Spec) (Job, error) {
	j, err := q.draft(s)
	if err != nil {
		return Job{}, err
	}
	if s.Exclusive != "" {
		busy, err := selectExclusive(ctx, tx, s.Exclusive)
		if err != nil {
			return Job{}, fmt.Errorf("look for a job on %s: %w", s.Exclusive, err)
		}
		if busy != "" {
			return Job{}, fmt.Errorf("%w: job %s", ErrBusy, busy)
		}
	}
	err = insert(ctx, tx, j, s.Exclusive)
	if database.IsUnique(err) { // enqueued by another since
		return Job{}, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return Job{}, fmt.Errorf("enqueue %s job: %w", s.Kind, err)
	}
	return j, nil
}

// Record adds a job that is already over: work that needed no time but that people look for among the
// jobs, such as "ConfigureBackup".
func (q *Queue) Record(ctx context.Context, tx *database.Tx, s Spec) (Job, error) {
	j, err := q.draft(s)
	if err != nil {
		return Job{}, err
	}
	j.State, j.Outcome, j.Ended = Ended, Completed, j.Created
	if err := insert(ctx, tx, j, ""); err != nil {
		return Job{}, fmt.Errorf("record %s job: %w", s.Kind, err)
	}
	return j, nil
}

func (q *Queue) draft(s Spec) (Job, error) {
	args, err := json.Marshal(s.Args)
	if err != nil {
		return Job{}, fmt.Errorf("encode arguments of %s job: %w", s.Kind, err)
	}
	j := Job{
		ID: q.newID(), Kind: s.Kind, Scope: s.Scope, Entity: s.Entity, State: Queued, Created: q.now(),
		Details: s.Details, Correlation: s.Correlation, args: args,
	}
	for _, name := range s.Tasks {
		j.Tasks = append(j.Tasks, Task{Name: name, Status: TaskNotStarted})
	}
	return j, nil
}

// Wake tells the Runners of this process to look for work now.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, wake := range q.wakes {
		select {
		case wake <- struct{}{}:
		default: // one is already on its way
		}
	}
}

// awake returns what Wake wakes.
func (q *Queue) awake() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	wake := make(chan struct{}, 1)
	q.wakes = append(q.wakes, wake)
	return wake
}

// Job returns one job, ErrNotFound if there is none with that id.
func (q *Queue) Job(ctx context.Context, id string) (j Job, err error) {
	err = q.db.Read(ctx, func(tx *database.Tx) error {
		j, err = selectOne(ctx, tx, id)
		return err
	})
	return j, err
}

// Jobs returns the jobs of a scope, newest first.
func (q *Queue) Jobs(ctx context.Context, scope string) ([]Job, error) {
	return q.JobsAfter(ctx, scope, First, math.MaxInt32)
}

// Place is where a job stands among those of its scope.
type Place struct {
	Created int64 // in microseconds
	ID      string
}

// First is the place before all.
var First = Place{Created: math.MaxInt64}

// Place is the job's own.
func (j Job) Place() Place { return Place{database.Micros(j.Created), j.ID} }

// JobsAfter returns so many jobs of a scope that come after a place.
func (q *Queue) JobsAfter(ctx context.Context, scope string, after Place, most int) (jobs []Job, err error) {
	err = q.db.Read(ctx, func(tx *database.Tx) error {
		jobs, err = selectScope(ctx, tx, scope, after, most)
		return err
	})
	return jobs, err
}

// Cancel asks a job to stop: one that waits ends at once, one that runs within a second, when its work
// has cleaned up. ErrEnded if it is already over.
func (q *Queue) Cancel(ctx context.Context, id string) error {
	defer q.Wake()
	return q.db.InTx(ctx, func(tx *database.Tx) error {
		j, err := selectOne(ctx, tx, id)
		if err != nil {
			return err
		}
		switch j.State {
		case Ended:
			return fmt.Errorf("cancel job %s: %w", id, ErrEnded)
		case Queued:
			j.State, j.Outcome, j.Ended = Ended, Cancelled, q.now()
			j.settleTasks(TaskCancelled, j.Ended)
		case Running:
			j.Cancelling = true
		}
		return update(ctx, tx, j)
	})
}

// CancelExclusive asks the job that holds an Exclusive to stop, if there is one.
func (q *Queue) CancelExclusive(ctx context.Context, exclusive string) error {
	var id string
	err := q.db.Read(ctx, func(tx *database.Tx) (err error) {
		id, err = selectExclusive(ctx, tx, exclusive)
		return err
	})
	if err != nil || id == "" {
		return err
	}
	if err := q.Cancel(ctx, id); err != nil && !errors.Is(err, ErrEnded) {
		return err
	}
	return nil
}

func (j *Job) settleTasks(running TaskStatus, at time.Time) {
	for i := range j.Tasks {
		switch t := &j.Tasks[i]; t.Status {
		case TaskInProgress:
			t.Status, t.Ended = running, at
		case TaskNotStarted:
			if running == TaskCompleted {
				t.Status = TaskSkipped
			}
		}
	}
}
