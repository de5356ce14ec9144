package client

import (
	"context"
	"net/http"
	"time"

	"kluis/internal/armid"
)

// Job is a backup, a restore or a change of protection, running or over.
type Job = Resource[JobProperties]

// JobProperties is what a job tells about itself.
type JobProperties struct {
	EntityFriendlyName string           `json:"entityFriendlyName"`
	Operation          string           `json:"operation"`
	Status             string           `json:"status"`
	StartTime          string           `json:"startTime"`
	EndTime            string           `json:"endTime"`
	Duration           string           `json:"duration"`
	ActionsInfo        []string         `json:"actionsInfo"`
	ErrorDetails       []JobError       `json:"errorDetails"`
	ExtendedInfo       *JobExtendedInfo `json:"extendedInfo"`
}

// JobExtendedInfo is what the list of jobs leaves out.
type JobExtendedInfo struct {
	Tasks              []JobTask         `json:"tasksList"`
	PropertyBag        map[string]string `json:"propertyBag"`
	ProgressPercentage float64           `json:"progressPercentage"`
}

// JobTask is one named step of a job.
type JobTask struct {
	ID       string `json:"taskId"`
	Status   string `json:"status"`
	Duration string `json:"duration"`
	Details  string `json:"taskExecutionDetails"`
}

// JobError is one reason why a job failed.
type JobError struct {
	Code            int      `json:"errorCode"`
	Title           string   `json:"errorTitle"`
	Message         string   `json:"errorString"`
	Recommendations []string `json:"recommendations"`
}

// States of a job that is not over.
const (
	JobInProgress = "InProgress"
	JobCancelling = "Cancelling"
	JobCompleted  = "Completed"
	JobWarned     = "CompletedWithWarnings"
)

// Over reports whether the job has ended, well or not.
func (p JobProperties) Over() bool { return p.Status != JobInProgress && p.Status != JobCancelling }

// Err is the error that the job ended with; nil while it runs and when it ended well.
func (p JobProperties) Err() error {
	switch p.Status {
	case JobInProgress, JobCancelling, JobCompleted, JobWarned:
		return nil
	}
	e := &Error{Code: "Job" + p.Status, Message: "The job ended as " + p.Status + "."}
	if len(p.ErrorDetails) > 0 {
		d := p.ErrorDetails[0]
		if d.Title != "" {
			e.Code = d.Title
		}
		e.Message = d.Message
		if len(d.Recommendations) > 0 {
			e.Advice = d.Recommendations[0]
		}
	}
	return e
}

// Task is the step the job is at: the one in progress, else the one that failed,
// else the first that has not begun, else the last.
func (p JobProperties) Task() JobTask {
	if p.ExtendedInfo == nil || len(p.ExtendedInfo.Tasks) == 0 {
		return JobTask{}
	}
	for _, status := range []string{"InProgress", "Failed", "NotStarted"} {
		for _, t := range p.ExtendedInfo.Tasks {
			if t.Status == status {
				return t
			}
		}
	}
	return p.ExtendedInfo.Tasks[len(p.ExtendedInfo.Tasks)-1]
}

// Percent is how much of the job is done, from 0 to 100.
func (p JobProperties) Percent() float64 {
	if p.ExtendedInfo == nil {
		return 0
	}
	return p.ExtendedInfo.ProgressPercentage
}

// Bag returns an entry of the job's property bag, or "".
func (p JobProperties) Bag(key string) string {
	if p.ExtendedInfo == nil {
		return ""
	}
	return p.ExtendedInfo.PropertyBag[key]
}

const typeJob = "backupJobs"

// Job reads a job of a vault, with its tasks.
func (c *Client) Job(ctx context.Context, vault armid.ID, job string) (Job, error) {
	return getResource[JobProperties](ctx, c, vault.Child(typeJob, job), versionBackup)
}

// Jobs lists the jobs of a vault, newest first as the server orders them. The filter is Azure's, such as
// "status eq 'InProgress'"; empty for all.
func (c *Client) Jobs(ctx context.Context, vault armid.ID, filter string) ([]Job, error) {
	return listResources[JobProperties](ctx, c, vault.String()+"/"+typeJob, versionBackup, filter)
}

// CancelJob asks a job to stop; WaitJob tells when it has.
func (c *Client) CancelJob(ctx context.Context, vault armid.ID, job string) error {
	return c.do(ctx, http.MethodPost, vault.Child(typeJob, job).String()+"/cancel", versionBackup, nil, nil)
}

// WaitJob follows a job until it is over and shows it to watch after every look, watch may be nil. The
// error is the job's own if it failed.
func (c *Client) WaitJob(ctx context.Context, vault armid.ID, job string, watch func(Job)) (Job, error) {
	for delay := firstPoll; ; delay = min(2*delay, slowestPoll/2) {
		j, err := c.Job(ctx, vault, job)
		if err != nil {
			return j, err
		}
		if watch != nil {
			watch(j)
		}
		if j.Properties.Over() {
			return j, j.Properties.Err()
		}
		if err := pause(ctx, delay); err != nil {
			return j, err
		}
	}
}

// jobTime reads a time as Azure writes it; the zero time stands for "not yet".
func jobTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 2002 {
		return time.Time{}
	}
	return t
}

// Started is when the job began; zero if it has not.
func (p JobProperties) Started() time.Time { return jobTime(p.StartTime) }

// Ended is when the job ended; zero while it runs.
func (p JobProperties) Ended() time.Time { return jobTime(p.EndTime) }
