// Package job runs durable work: a backup, a restore, whatever takes longer than a request.
//
// A job is a row. It is enqueued in the transaction that decides on it, so it exists with the caller's
// own rows or not at all. A Runner takes it under a lease, which it renews while it works; a job whose
// lease has run out, because its process was killed, is taken again by anyone, and by a node of the same
// name at once when it starts. Every write of a worker carries owner and attempt (fencing), so one that
// woke up too late changes nothing.
//
// Work must therefore be written to be run again from the start. It is told its attempt; it may not
// assume that anything in memory survived.
//
// The row holds what a person follows: tasks, progress in bytes, details, warnings and, when it failed,
// the problem with its advice. State is in the database, so any node can answer and a restart loses none.
package job

import (
	"time"

	"kluis/internal/problem"
)

// State says where a job is in its life.
type State string

// The states. Only a Runner moves a job on.
const (
	Queued  State = "queued"
	Running State = "running"
	Ended   State = "ended"
)

// Outcome says how a job ended, in Azure's words.
type Outcome string

// The outcomes.
const (
	Completed             Outcome = "Completed"
	CompletedWithWarnings Outcome = "CompletedWithWarnings"
	Failed                Outcome = "Failed"
	Cancelled             Outcome = "Cancelled"
)

// TaskStatus says how far one named step of a job is, in Azure's words.
type TaskStatus string

// The statuses of a task.
const (
	TaskNotStarted TaskStatus = "NotStarted"
	TaskInProgress TaskStatus = "InProgress"
	TaskCompleted  TaskStatus = "Completed"
	TaskFailed     TaskStatus = "Failed"
	TaskCancelled  TaskStatus = "Cancelled"
	TaskSkipped    TaskStatus = "Skipped"
)

// Task is one named step.
type Task struct {
	Name    string     `json:"name"`
	Status  TaskStatus `json:"status"`
	Started time.Time  `json:"started,omitzero"`
	Ended   time.Time  `json:"ended,omitzero"`
	Note    string     `json:"note,omitempty"` // e.g. "1.2 GB / 3 GB transferred"
}

// Job is what can be known of a job at one moment.
type Job struct {
	ID          string
	Kind        string // the operation, in Azure's words: "Backup", "Restore", "ConfigureBackup", …
	Scope       string // key of the Recovery Services vault
	Entity      string // key of the protected item
	State       State
	Outcome     Outcome
	Cancelling  bool
	Attempt     int // how often it was taken
	Created     time.Time
	Ended       time.Time
	Done, Total int64 // bytes; Total is 0 while unknown
	Tasks       []Task
	Details     map[string]string
	Problems    []Problem // warnings, and the failure last
	Correlation string

	args  []byte
	owner string
}

// Status is the job's status in Azure's words.
func (j Job) Status() string {
	switch {
	case j.State == Ended:
		return string(j.Outcome)
	case j.Cancelling:
		return "Cancelling"
	}
	return "InProgress"
}

// Problem is a problem.Error as it is stored with a job: without its cause.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
	Target  string `json:"target,omitempty"`
}

// stored keeps of an error what a person may read. An error that nobody classified is told as an
// internal one; its text is in the log, under the job's id.
func stored(err error) Problem {
	if p := problem.Of(err); p != nil {
		return Problem{p.Code, p.Message, p.Advice, p.Target}
	}
	return Problem{
		Code:    "BMSUserErrorInternal",
		Message: "The job met an internal error.",
		Advice:  "Try again; if it fails again, look in the server's log for this job's id.",
	}
}
