package recoveryservices

import (
	"context"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

// encodeJob writes a job; the list leaves out what is long (whole is false).
func (d *door) encodeJob(r *arm.Request, j backup.Job, whole bool) resource[jobProperties] {
	now := d.o.Now()
	name := j.Details["VM Name"]
	if name == "" {
		name = j.Details["Target VM Name"]
	}
	p := jobProperties{
		JobType: "AzureIaaSVMJob", ContainerName: containerName(j.Entity[strings.LastIndexByte(j.Entity, '/')+1:]),
		Duration: span(r, duration(j.Created, j.Ended, now)), VirtualMachineVersion: "Compute", EntityFriendlyName: name, BackupManagementType: management,
		Operation: j.Kind, Status: j.Status(), StartTime: azureTime(j.Created), EndTime: timeOrNothing(j.Ended),
		ActivityID: j.Correlation, IsUserTriggered: j.Correlation != "",
	}
	if backup.Cancellable(j) {
		p.ActionsInfo = []any{word(r, "Cancellable")}
	}
	for i := len(j.Problems) - 1; i >= 0; i-- { // what ended the job stands first
		e := j.Problems[i]
		p.ErrorDetails = append(p.ErrorDetails, jobError{errorNumber, e.Code, e.Message, recommendations(e.Advice)})
	}
	if whole {
		p.ExtendedInfo = extendJob(r, j, now)
	}
	return resource[jobProperties]{vaultOf(r.ID).Child("backupJobs", j.ID).String(), j.ID, jobs, p}
}

func extendJob(r *arm.Request, j backup.Job, now time.Time) *jobExtended {
	e := &jobExtended{Tasks: []jobTask{}, Bag: j.Details, Percentage: percentage(j), Remaining: remaining(j, now)}
	if e.Bag == nil {
		e.Bag = map[string]string{}
	}
	if j.Status() == "Failed" && len(j.Problems) > 0 {
		e.Message = j.Problems[len(j.Problems)-1].Message
	}
	switch j.Kind {
	case "Backup":
		e.Internal = map[string]string{"IsInstantRpJob": "False"}
	case "Restore":
		e.Internal = map[string]string{"restoreLocationType": "RestoreDisks"}
	}
	for _, t := range j.Tasks {
		e.Tasks = append(e.Tasks, jobTask{ID: t.Name, StartTime: timeOrNothing(t.Started), EndTime: timeOrNothing(t.Ended),
			Duration: span(r, duration(t.Started, t.Ended, now)), Status: string(t.Status), Details: t.Note})
	}
	return e
}

// percentage is how much of the bytes is moved; a job that ended well is done whether or not it moved any.
func percentage(j backup.Job) float64 {
	switch {
	case j.Status() == "Completed" || j.Status() == "CompletedWithWarnings":
		return 100
	case j.Total <= 0:
		return 0
	}
	return min(max(float64(j.Done)*100/float64(j.Total), 0), 100)
}

// maxRemaining is the longest estimate that is still told; the rate of the first bytes says little.
const maxRemaining = 1000 * time.Hour

// remaining is what is left at the rate since the running task began; "" while there is none. That task is
// the one that moves the bytes, or comes after it.
func remaining(j backup.Job, now time.Time) string {
	if !j.Ended.IsZero() {
		return "PT0S"
	}
	if j.Done <= 0 || j.Total < j.Done {
		return ""
	}
	for _, t := range j.Tasks {
		if t.Ended.IsZero() && !t.Started.IsZero() {
			passed := max(now.Sub(t.Started), 0)
			left := float64(passed) * float64(j.Total-j.Done) / float64(j.Done)
			return iso(time.Duration(min(left, float64(maxRemaining))))
		}
	}
	return ""
}

// duration is how long something has taken, or takes until now.
func duration(from, to, now time.Time) time.Duration {
	if from.IsZero() {
		return 0
	}
	if to.IsZero() {
		to = now
	}
	return max(to.Sub(from), 0)
}

func (d *door) getJob(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(d.encodeJob(r, j, true)), nil
}

// jobConditions are those of a $filter on jobs.
var jobConditions = []string{"status", "operation", "jobId", "backupManagementType", "startTime", "endTime"}

func (d *door) listJobs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	wanted, err := jobFilter(r)
	if err != nil {
		return nil, err
	}
	read := func(after string, most int) ([]backup.Job, error) { return d.s.JobsAfter(ctx, r.ID, after, most) }
	return arm.Walk(r, read, backup.PlaceOfJob, func(j backup.Job) (resource[jobProperties], bool) {
		return d.encodeJob(r, j, false), wanted(j)
	})
}

// filteredJobs are all of a vault's jobs that the request's $filter wants.
func (d *door) filteredJobs(ctx context.Context, r *arm.Request) ([]resource[jobProperties], error) {
	wanted, err := jobFilter(r)
	if err != nil {
		return nil, err
	}
	all, err := d.s.Jobs(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	bodies := []resource[jobProperties]{}
	for _, j := range all {
		if wanted(j) {
			bodies = append(bodies, d.encodeJob(r, j, false))
		}
	}
	return bodies, nil
}

// jobFilter is what the request's $filter wants of jobs. Its period is that in which a job began.
func jobFilter(r *arm.Request) (wanted func(backup.Job) bool, err error) {
	f, err := filterOf(r, jobConditions...)
	if err != nil {
		return nil, err
	}
	from, to, err := f.period("startTime", "endTime")
	return func(j backup.Job) bool {
		return f.is("status", j.Status()) && f.is("operation", j.Kind) && f.is("jobId", j.ID) && f.is("backupManagementType", management) &&
			!j.Created.Before(from) && !j.Created.After(to)
	}, err
}

func (d *door) cancelJob(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := d.s.CancelJob(ctx, vaultOf(r.ID), r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.Accepted(r.URL(r.ID.Child("operationsStatus", r.ID.Name()).String()), r.URL(r.ID.Child("operationResults", r.ID.Name()).String())), nil
}
