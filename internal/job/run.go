package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"kluis/internal/database"
)

// Run is a job while it is worked on. Its methods may be called from any goroutine of the work; what
// they note reaches the database with the next heartbeat, and all of it before the job ends.
type Run struct {
	runner *Runner
	stop   context.CancelCauseFunc
	log    *slog.Logger

	mu    sync.Mutex
	job   Job
	dirty bool
}

// ID is the job's id.
func (r *Run) ID() string { return r.job.ID }

// Attempt is 1 the first time, more after the process was killed meanwhile.
func (r *Run) Attempt() int { return r.job.Attempt }

// Created is when the job was enqueued.
func (r *Run) Created() time.Time { return r.job.Created }

// Correlation is the correlation id of the request that enqueued the job.
func (r *Run) Correlation() string { return r.job.Correlation }

// Log is a logger that names the job.
func (r *Run) Log() *slog.Logger { return r.log }

// Args decodes the arguments given to Enqueue.
func (r *Run) Args(v any) error {
	if err := json.Unmarshal(r.job.args, v); err != nil {
		return fmt.Errorf("decode arguments of job %s: %w", r.job.ID, err)
	}
	return nil
}

// Task begins the named step; the one before it is completed.
func (r *Run) Task(name string) {
	now := r.runner.o.Now()
	r.change(func(j *Job) {
		next := -1
		for i := range j.Tasks {
			t := &j.Tasks[i]
			if t.Status == TaskInProgress {
				t.Status, t.Ended = TaskCompleted, now
			}
			if t.Name == name {
				next = i
			}
		}
		if next < 0 {
			j.Tasks, next = append(j.Tasks, Task{Name: name}), len(j.Tasks)
		}
		j.Tasks[next] = Task{Name: name, Status: TaskInProgress, Started: now}
	})
}

// Note says something about the step in progress, such as how much was transferred.
func (r *Run) Note(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	r.change(func(j *Job) {
		for i := range j.Tasks {
			if j.Tasks[i].Status == TaskInProgress {
				j.Tasks[i].Note = note
			}
		}
	})
}

// Progress says how many bytes of how many are done.
func (r *Run) Progress(done, total int64) {
	r.change(func(j *Job) { j.Done, j.Total = done, total })
}

// Detail notes a fact under a name, Azure's "property bag".
func (r *Run) Detail(name, value string) {
	r.change(func(j *Job) {
		if j.Details == nil {
			j.Details = map[string]string{}
		}
		j.Details[name] = value
	})
}

// Warn notes a problem that does not fail the job: it will be CompletedWithWarnings.
func (r *Run) Warn(err error) {
	r.change(func(j *Job) { j.Problems = append(j.Problems, stored(err)) })
}

func (r *Run) change(f func(j *Job)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.job)
	r.dirty = true
}

// heartbeat saves what was noted, renews the lease and looks whether the job was cancelled.
func (r *Run) heartbeat(ctx context.Context) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var renewed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := r.runner.o.Now()
		if now.Sub(renewed) > r.runner.o.Lease/3 {
			r.change(func(*Job) {})
			renewed = now
		}
		if err := r.beat(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, errLost) {
				r.stop(errLost)
				return
			}
			r.log.Error("save job", "error", err)
		}
	}
}

func (r *Run) beat(ctx context.Context) error {
	r.mu.Lock()
	dirty := r.dirty
	r.mu.Unlock()
	if dirty {
		if err := r.save(ctx); err != nil {
			return err
		}
	}
	stored, err := r.runner.queue.Job(ctx, r.job.ID)
	if err != nil {
		return err
	}
	if stored.Cancelling {
		r.stop(errCancelled)
	}
	return nil
}

// save writes the job if it is still ours, errLost if not. A request to cancel, which others write,
// is kept.
func (r *Run) save(ctx context.Context) error {
	return r.runner.queue.db.InTx(ctx, func(tx *database.Tx) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		current, err := selectOne(ctx, tx, r.job.ID)
		if err != nil {
			return err
		}
		if current.State != Running || current.owner != r.runner.o.Node || current.Attempt != r.job.Attempt {
			return errLost
		}
		r.job.Cancelling = current.Cancelling
		if err := update(ctx, tx, r.job); err != nil {
			return err
		}
		if err := renew(ctx, tx, r.job.ID, r.runner.o.Now().Add(r.runner.o.Lease)); err != nil {
			return err
		}
		r.dirty = false
		return nil
	})
}

func (r *Run) release(ctx context.Context) error {
	return r.runner.queue.db.InTx(ctx, func(tx *database.Tx) error {
		return releaseJob(ctx, tx, r.job.ID, r.runner.o.Node, r.job.Attempt)
	})
}

// end decides the outcome. Work that finished although it was cancelled in its last moments is done.
func (r *Run) end(err, cause error) Outcome {
	now := r.runner.o.Now()
	outcome := Completed
	r.change(func(j *Job) {
		task := TaskCompleted
		switch {
		case err == nil:
			if len(j.Problems) > 0 {
				outcome = CompletedWithWarnings
			}
		case errors.Is(cause, errCancelled):
			outcome, task = Cancelled, TaskCancelled
		default:
			outcome, task = Failed, TaskFailed
			j.Problems = append(j.Problems, stored(err))
		}
		j.settleTasks(task, now)
		j.State, j.Outcome, j.Ended = Ended, outcome, now
	})
	return outcome
}
