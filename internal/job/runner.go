package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"kluis/internal/database"
	"kluis/internal/problem"
)

// Work does the jobs of one kind.
type Work interface {
	Kind() string
	// Run does the work of one job. It is run again from the start when the process was killed, and
	// must return soon after ctx ends. The error, if any, should be a problem.Error.
	Run(ctx context.Context, r *Run) error
}

// Options set up a Runner.
type Options struct {
	Node    string // name of this process among those that share the database
	Workers int    // jobs at once
	Lease   time.Duration
	Now     func() time.Time
	Log     *slog.Logger
}

// A job that was taken this often and never ended kills its process, so it is failed instead.
const maxAttempts = 5

// Runner takes jobs and does them. It takes only the kinds that it was given a Work for, so that work that
// may wait can have a Runner of its own, and keeps no other from its turn.
type Runner struct {
	queue *Queue
	o     Options
	works map[string]Work
	kinds []string
	wake  <-chan struct{}
	stop  context.CancelCauseFunc
	done  sync.WaitGroup
}

// errShutdown ends the context of running jobs when the server stops; they stay in the queue.
var errShutdown = errors.New("the server is stopping")

var errCancelled = errors.New("the job was cancelled")

// WasCancelled reports whether the context of a job's work ended because the job was cancelled. Otherwise an
// attempt that is cut short will be followed by another, here or on another node.
func WasCancelled(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errCancelled) }

// errLost ends the context of a job whose lease another node has.
var errLost = errors.New("the job's lease was lost")

// StartRunner takes back what an earlier process of this name left and begins to work.
func StartRunner(ctx context.Context, q *Queue, o Options, works ...Work) (*Runner, error) {
	r := &Runner{queue: q, o: o, works: map[string]Work{}, wake: q.awake()}
	for _, w := range works {
		r.works[w.Kind()] = w
		r.kinds = append(r.kinds, w.Kind())
	}
	err := q.db.InTx(ctx, func(tx *database.Tx) error { return releaseOwned(ctx, tx, o.Node, r.kinds) })
	if err != nil {
		return nil, fmt.Errorf("take back leases of node %s: %w", o.Node, err)
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	r.stop = stop
	for range o.Workers {
		r.done.Go(func() { r.loop(running) })
	}
	return r, nil
}

// Stop ends running jobs, which go back into the queue, and returns when no worker is left.
func (r *Runner) Stop() {
	r.stop(errShutdown)
	r.done.Wait()
}

func (r *Runner) loop(ctx context.Context) {
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	for ctx.Err() == nil {
		j, err := r.claim(ctx)
		switch {
		case err == nil:
			r.queue.Wake() // perhaps there is more, for another worker
			r.work(ctx, j)
			continue
		case !errors.Is(err, ErrNotFound) && ctx.Err() == nil:
			r.o.Log.Error("claim job", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		case <-r.wake:
		}
	}
}

func (r *Runner) claim(ctx context.Context) (j Job, err error) {
	err = r.queue.db.InTx(ctx, func(tx *database.Tx) error {
		now := r.o.Now()
		id, err := claimNext(ctx, tx, r.kinds, r.o.Node, now, now.Add(r.o.Lease))
		if err != nil {
			return err
		}
		j, err = selectOne(ctx, tx, id)
		return err
	})
	return j, err
}

// work does one job and ends it, unless the server stops meanwhile.
func (r *Runner) work(ctx context.Context, j Job) {
	log := r.o.Log.With("job", j.ID, "kind", j.Kind, "entity", j.Entity, "attempt", j.Attempt)
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	run := &Run{runner: r, job: j, stop: stop, log: log}
	beat := make(chan struct{})
	go func() {
		defer close(beat)
		run.heartbeat(working)
	}()
	log.Info("job started")
	err := r.do(working, run)
	cause := context.Cause(working)
	stop(nil)
	<-beat

	// The end is written also when ctx is over: a job must not look as if it still ran.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if errors.Is(cause, errLost) {
		log.Warn("job lease lost")
		return
	}
	if err != nil && errors.Is(cause, errShutdown) {
		if err := run.release(last); err != nil {
			log.Error("release job", "error", err)
		}
		return
	}
	outcome := run.end(err, cause)
	if err := run.save(last); err != nil {
		log.Error("end job", "error", err)
		return
	}
	if err != nil {
		log.Info("job ended", "outcome", outcome, "error", err)
	} else {
		log.Info("job ended", "outcome", outcome)
	}
}

func (r *Runner) do(ctx context.Context, run *Run) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.o.Log.Error("job panicked", "job", run.job.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic in %s job", run.job.Kind)
		}
	}()
	if run.job.Attempt > maxAttempts {
		return problem.New(problem.Internal, "UserErrorJobInterrupted",
			"The job was interrupted %d times and is not tried again.", maxAttempts).
			WithAdvice("Look in the server's log for why the service stopped during this job, then start it again.")
	}
	return r.works[run.job.Kind].Run(ctx, run)
}
