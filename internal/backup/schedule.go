package backup

import (
	"context"
	"time"

	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/problem"
)

// RunSchedule starts the backups, the collections and the erasures that are due, and ends the mounts whose time is over, until ctx
// ends. What came due while no server ran is started once, not once for each time that was missed.
func (s *Service) RunSchedule(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		if err := s.StartDue(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("start scheduled backups", "error", err)
		}
		if err := s.StartCollections(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("start collections", "error", err)
		}
		if err := s.StartPurges(ctx); err != nil && ctx.Err() == nil {
			s.o.Log.Error("start to erase deleted backup data", "error", err)
		}
		s.EndMounts()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// StartDue enqueues a backup for each item whose time has come. An item that another job works on waits
// for its next time.
func (s *Service) StartDue(ctx context.Context) error {
	defer s.o.Jobs.Wake()
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		now := s.o.Now()
		due, err := selectDue(ctx, tx, now)
		if err != nil {
			return err
		}
		for _, item := range due {
			p, err := selectPolicy(ctx, tx, item.Policy)
			if err != nil {
				return err
			}
			item.next = p.Body.Next(now)
			if err := putItem(ctx, tx, item); err != nil {
				return err
			}
			scheduled := p.Body.Previous(now)
			_, err = s.enqueue(ctx, tx, item, backupSpec(item, now, scheduled, p.Body.Expiry(scheduled, now)))
			if problem.Is(err, "UserErrorBackupOperationInProgress") {
				s.o.Log.Warn("scheduled backup left out: another job works on the item", "item", item.ID.String())
				continue
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// backupSpec is the job of one backup. The recovery point's id is decided here, so that a job that is
// run again after a kill can tell whether it had already committed. A backup that somebody asked for is scheduled for no
// time.
func backupSpec(item Item, now, scheduled, expiry time.Time) job.Spec {
	return job.Spec{
		Kind:  backupWork{}.Kind(),
		Args:  backupArgs{Item: item.ID, Point: pointID(now), Expiry: expiry, Scheduled: scheduled},
		Tasks: []string{taskSnapshot, taskTransfer, taskKeys, taskProve},
		Details: map[string]string{"VM Name": item.VM.Name(),
			"Recovery Point Expiry Time in UTC": expiry.UTC().Format(bagTime)},
	}
}
