package recoveryservices

import (
	"context"
	"fmt"
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
		Duration: duration(j.Created, j.Ended, now), VirtualMachineVersion: "Compute", EntityFriendlyName: name, BackupManagementType: management,
		Operation: j.Kind, Status: j.Status(), StartTime: azureTime(j.Created), EndTime: timeOrNothing(j.Ended),
		ActivityID: j.Correlation, IsUserTriggered: j.Correlation != "",
	}
	if backup.Cancellable(j) {
		p.ActionsInfo = []string{"Cancellable"}
	}
	for i := len(j.Problems) - 1; i >= 0; i-- { // what ended the job stands first
		e := j.Problems[i]
		p.ErrorDetails = append(p.ErrorDetails, jobError{errorNumber, e.Code, e.Message, recommendations(e.Advice)})
	}
	if whole {
		p.ExtendedInfo = extendJob(j, now)
	}
	return resource[jobProperties]{vaultOf(r.ID).Child("backupJobs", j.ID).String(), j.ID, jobs, p}
}

func extendJob(j backup.Job, now time.Time) *jobExtended {
	e := &jobExtended{Tasks: []jobTask{}, Bag: j.Details, Percentage: percentage(j), Remaining: remaining(j, now)}
	if e.Bag == nil {
		e.Bag = map[string]string{}
	}
	switch j.Kind {
	case "Backup":
		e.Internal = map[string]string{"IsInstantRpJob": "False"}
	case "Restore":
		e.Internal = map[string]string{"restoreLocationType": "RestoreDisks"}
	}
	for _, t := range j.Tasks {
		e.Tasks = append(e.Tasks, jobTask{ID: t.Name, StartTime: timeOrNothing(t.Started), EndTime: timeOrNothing(t.Ended),
			Duration: duration(t.Started, t.Ended, now), Status: string(t.Status), Details: t.Note})
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
func duration(from, to, now time.Time) string {
	if from.IsZero() {
		return "PT0S"
	}
	if to.IsZero() {
		to = now
	}
	return iso(to.Sub(from))
}

// iso writes a duration as ISO 8601 does, to the millisecond: PT1H1M22.5S.
func iso(d time.Duration) string {
	d = max(d, 0).Round(time.Millisecond)
	s := "PT"
	if h := d / time.Hour; h > 0 {
		s += fmt.Sprintf("%dH", h)
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		s += fmt.Sprintf("%dM", m)
	}
	if ms := d % time.Minute / time.Millisecond; ms > 0 || s == "PT" {
		s += strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%03d", ms/1000, ms%1000), "0"), ".") + "S"
	}
	return s
}

func (d *door) getJob(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return arm.OK(d.encodeJob(r, j, true)), nil
}

// listJobs: the period is that in which a job began.
func (d *door) listJobs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "status", "operation", "jobId", "backupManagementType", "startTime", "endTime")
	if err != nil {
		return nil, err
	}
	from, to, err := f.period("startTime", "endTime")
	if err != nil {
		return nil, err
	}
	all, err := d.s.Jobs(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []resource[jobProperties]{}
	for _, j := range all {
		if f.is("status", j.Status()) && f.is("operation", j.Kind) && f.is("jobId", j.ID) && f.is("backupManagementType", management) &&
			!j.Created.Before(from) && !j.Created.After(to) {
			bodies = append(bodies, d.encodeJob(r, j, false))
		}
	}
	return arm.List(r, bodies), nil
}

func (d *door) cancelJob(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := d.s.CancelJob(ctx, vaultOf(r.ID), r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.Accepted(r.URL(r.ID.Child("operationsStatus", r.ID.Name()).String()), r.URL(r.ID.Child("operationResults", r.ID.Name()).String())), nil
}
