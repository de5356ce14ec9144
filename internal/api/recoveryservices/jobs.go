package recoveryservices

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

// errorNumber stands where Azure has a number for each error; here the code is the name.
const errorNumber = 0

type jobProperties struct {
	JobType         string       `json:"jobType"`
	Actions         []string     `json:"actionsInfo,omitempty"`
	ContainerName   string       `json:"containerName"`
	Duration        string       `json:"duration"`
	MachineVersion  string       `json:"virtualMachineVersion"`
	ExtendedInfo    *jobExtended `json:"extendedInfo,omitempty"`
	FriendlyName    string       `json:"entityFriendlyName"`
	ManagementType  string       `json:"backupManagementType"`
	Operation       string       `json:"operation"`
	Status          string       `json:"status"`
	StartTime       string       `json:"startTime"`
	EndTime         string       `json:"endTime,omitempty"`
	ActivityID      string       `json:"activityId"`
	IsUserTriggered bool         `json:"isUserTriggered"`
	Errors          []jobError   `json:"errorDetails,omitempty"`
}

type jobError struct {
	Code            int      `json:"errorCode"`
	Title           string   `json:"errorTitle"`
	Message         string   `json:"errorString"`
	Recommendations []string `json:"recommendations"`
}

type jobExtended struct {
	Tasks      []jobTask         `json:"tasksList"`
	Bag        map[string]string `json:"propertyBag"`
	Internal   map[string]string `json:"internalPropertyBag,omitempty"`
	Percentage float64           `json:"progressPercentage"`
	Remaining  string            `json:"estimatedRemainingDuration,omitempty"`
}

type jobTask struct {
	ID       string `json:"taskId"`
	Start    string `json:"startTime,omitempty"`
	End      string `json:"endTime,omitempty"`
	Duration string `json:"duration"`
	Status   string `json:"status"`
	Details  string `json:"taskExecutionDetails,omitempty"`
}

func (d *door) encodeJob(r *arm.Request, j backup.Job, whole bool) resourceBody {
	now := d.o.Now()
	name := j.Details["VM Name"]
	if name == "" {
		name = j.Details["Target VM Name"]
	}
	p := jobProperties{
		JobType: "AzureIaaSVMJob", ContainerName: containerOf(j.Entity), Duration: duration(j.Created, j.Ended, now), MachineVersion: "Compute",
		FriendlyName: name, ManagementType: management, Operation: j.Kind, Status: j.Status(), StartTime: azureTime(j.Created),
		ActivityID: j.Correlation, IsUserTriggered: j.Correlation != "",
	}
	if !j.Ended.IsZero() {
		p.EndTime = azureTime(j.Ended)
	}
	if backup.Cancellable(j) {
		p.Actions = []string{"Cancellable"}
	}
	for i := len(j.Problems) - 1; i >= 0; i-- { // what ended the job stands first
		e := j.Problems[i]
		p.Errors = append(p.Errors, jobError{errorNumber, e.Code, e.Message, []string{e.Advice}})
	}
	if whole {
		p.ExtendedInfo = extended(j, now)
	}
	return resourceBody{vaultOf(r.ID).Child("backupJobs", j.ID).String(), j.ID, jobs, p}
}

// containerOf takes "iaasvmcontainerv2;rg;vm" out of an item's key.
func containerOf(entity string) string {
	name := entity[strings.LastIndexByte(entity, '/')+1:]
	return name[strings.IndexByte(name, ';')+1:]
}

func extended(j backup.Job, now time.Time) *jobExtended {
	e := &jobExtended{Tasks: []jobTask{}, Bag: j.Details}
	if e.Bag == nil {
		e.Bag = map[string]string{}
	}
	if j.Kind == "Restore" {
		e.Internal = map[string]string{"restoreLocationType": "RestoreDisks"}
	}
	for _, t := range j.Tasks {
		task := jobTask{ID: t.Name, Duration: duration(t.Started, t.Ended, now), Status: string(t.Status), Details: t.Note}
		if !t.Started.IsZero() {
			task.Start = azureTime(t.Started)
		}
		if !t.Ended.IsZero() {
			task.End = azureTime(t.Ended)
		}
		e.Tasks = append(e.Tasks, task)
	}
	if j.Total > 0 {
		e.Percentage = float64(j.Done) * 100 / float64(j.Total)
	}
	switch {
	case !j.Ended.IsZero():
		e.Remaining = "PT0S"
	case j.Done > 0 && j.Total >= j.Done:
		passed := now.Sub(j.Created).Seconds()
		e.Remaining = iso(time.Duration(passed * float64(j.Total-j.Done) / float64(j.Done) * float64(time.Second)))
	}
	return e
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

// iso writes a duration as ISO 8601 does: PT1H1M22.5S.
func iso(d time.Duration) string {
	d = max(d, 0).Round(time.Millisecond)
	s := "PT"
	if h := int64(d.Hours()); h > 0 {
		s += fmt.Sprintf("%dH", h)
	}
	if m := int64(d.Minutes()) % 60; m > 0 {
		s += fmt.Sprintf("%dM", m)
	}
	seconds := (d % time.Minute).Seconds()
	if seconds > 0 || s == "PT" {
		s += strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", seconds), "0"), ".") + "S"
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

func (d *door) listJobs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	from, err := filterTime(r.Filter, "startTime")
	if err != nil {
		return nil, err
	}
	to, err := filterTime(r.Filter, "endTime")
	if err != nil {
		return nil, err
	}
	all, err := d.s.Jobs(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	bodies := []resourceBody{}
	for _, j := range all {
		if matches(r.Filter, "status", j.Status()) && matches(r.Filter, "operation", j.Kind) && matches(r.Filter, "jobId", j.ID) &&
			matches(r.Filter, "backupManagementType", management) && !j.Created.Before(from) && (to.IsZero() || !j.Created.After(to)) {
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

// cancelled is the end of a request to cancel: the job has heard it.
func (d *door) cancelled(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}
