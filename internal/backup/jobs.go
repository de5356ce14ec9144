package backup

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/job"
)

// Job is a job as callers see it.
type Job = job.Job

// enqueue adds a job on an item; no two work on the same item at once.
func (s *Service) enqueue(ctx context.Context, tx *database.Tx, item Item, spec job.Spec) (job.Job, error) {
	spec.Scope, spec.Entity, spec.Exclusive = item.Vault().Key(), item.ID.Key(), item.ID.Key()
	spec.Correlation = s.o.Correlation(ctx)
	j, err := s.o.Jobs.Enqueue(ctx, tx, spec)
	if errors.Is(err, job.ErrBusy) {
		return job.Job{}, operationInProgress(item)
	}
	return j, err
}

// Jobs returns the jobs of a vault, newest first.
func (s *Service) Jobs(ctx context.Context, vault armid.ID) ([]Job, error) {
	return s.JobsAfter(ctx, vault, "", all)
}

// JobsAfter returns so many jobs of a vault that come after a place (PlaceOfJob).
func (s *Service) JobsAfter(ctx context.Context, vault armid.ID, after string, most int) ([]Job, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupJobs/read", vault); err != nil {
		return nil, err
	}
	if _, err := s.lookupVault(ctx, vault); err != nil {
		return nil, err
	}
	from, err := parsePlace(after)
	if err != nil {
		return nil, err
	}
	return s.o.Jobs.JobsAfter(ctx, vault.Key(), job.Place(from), most)
}

// Job returns one job of a vault.
func (s *Service) Job(ctx context.Context, vault armid.ID, id string) (Job, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupJobs/read", vault); err != nil {
		return Job{}, err
	}
	return s.jobOf(ctx, vault, id)
}

func (s *Service) jobOf(ctx context.Context, vault armid.ID, id string) (Job, error) {
	j, err := s.o.Jobs.Job(ctx, id)
	if errors.Is(err, job.ErrNotFound) || err == nil && j.Scope != vault.Key() {
		return Job{}, jobNotFound(id)
	}
	return j, err
}

// cancellable are the kinds of job that can be stopped halfway without leaving anything half done.
var cancellable = []string{backupWork{}.Kind(), restoreWork{}.Kind(), drillWork{}.Kind()}

// Cancellable reports whether Cancel would be heard.
func Cancellable(j Job) bool { return j.State != job.Ended && slices.Contains(cancellable, j.Kind) }

// CancelJob asks a backup or a restore to stop.
func (s *Service) CancelJob(ctx context.Context, vault armid.ID, id string) error {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupJobs/cancel/action", vault); err != nil {
		return err
	}
	j, err := s.jobOf(ctx, vault, id)
	if err != nil {
		return err
	}
	if !Cancellable(j) {
		return jobNotCancellable(j)
	}
	if err := s.o.Jobs.Cancel(ctx, id); errors.Is(err, job.ErrEnded) {
		return jobNotCancellable(j)
	} else if err != nil {
		return err
	}
	return nil
}

func formatCount(n int) string { return strconv.Itoa(n) }
