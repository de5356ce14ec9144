package backup

import (
	"context"
	"fmt"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/problem"
)

// Severity says how soon somebody should look, in Azure's words.
type Severity string

// The severities.
const (
	Critical Severity = "Critical" // something is lost, or would be if it were needed now
	Warning  Severity = "Warning"  // it will be, if nothing is done
)

// Alert is something that somebody should look at: a backup that failed, a recovery point that does not
// open. Alerts are only ever added; they outlive items and vaults.
type Alert struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Severity Severity  `json:"severity"`
	Item     armid.ID  `json:"item"`
	Point    string    `json:"point,omitempty"` // id of the recovery point
	Job      string    `json:"job,omitempty"`
	Code     string    `json:"code"`
	Message  string    `json:"message"`
	Advice   string    `json:"advice"`
}

const alertActions = vaultType + "/monitoringAlerts"

// Alerts returns the alerts of a vault, newest first: also of one that was deleted.
func (s *Service) Alerts(ctx context.Context, vault armid.ID) (alerts []Alert, err error) {
	if err := s.o.Authorizer.Authorize(ctx, alertActions+"/read", vault); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if alerts, err = selectAlerts(ctx, tx, vault); err != nil || len(alerts) > 0 {
			return err
		}
		_, err = selectVault(ctx, tx, vault)
		return err
	})
	return alerts, err
}

// source is what an alert comes from: a job, or the start of the server. An alert is known by its source
// and a number, so that work that is done twice after a kill raises it once.
type source struct {
	began time.Time
	name  string
	job   string
}

// severityOf: all but drift means that a recovery point is not there, or would not help.
func severityOf(p *problem.Error) Severity {
	if p.Code == codeDrift || p.Code == codeConverting {
		return Warning
	}
	return Critical
}

func sourceOf(r *job.Run) source { return source{r.Created(), r.ID(), r.ID()} }

// raise adds alerts on an item in the caller's transaction.
func (s *Service) raise(ctx context.Context, tx *database.Tx, from source, item armid.ID, point string, problems ...*problem.Error) error {
	for i, p := range problems {
		a := Alert{ID: fmt.Sprintf("%016x-%s-%d", from.began.UnixMicro(), from.name, i), Time: s.o.Now(), Severity: severityOf(p),
			Item: item, Point: point, Job: from.job, Code: p.Code, Message: p.Message, Advice: p.Advice}
		if err := insertAlert(ctx, tx, a); err != nil {
			return fmt.Errorf("raise alert %s: %w", p.Code, err)
		}
	}
	return nil
}

// raiseFailed says that a job on a recovery point has failed. What was to be done is a word such as "restore".
func (s *Service) raiseFailed(ctx context.Context, r *job.Run, what string, p Point, cause error) {
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		return s.raise(ctx, tx, sourceOf(r), p.Item, p.ID, jobFailed(what, p.VM, cause))
	})
	if err != nil {
		r.Log().Error("raise alert for a failed job", "job", what, "error", err)
	}
}
