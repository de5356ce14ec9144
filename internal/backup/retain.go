package backup

import (
	"context"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/recovery"
)

// retain unlinks the points of an item that have expired, but never the newest: an item whose backups
// fail must not lose its last recovery point to the calendar.
//
// The row goes first: dying between the two leaves a root without a row, which start-up lists again and
// the next backup unlinks again. The other order would list a point that cannot be restored.
func (s *Service) retain(ctx context.Context, item armid.ID, store *recovery.Store) (unlinked int, err error) {
	points, err := s.lookupPoints(ctx, item)
	if err != nil {
		return 0, err
	}
	for i, p := range points {
		if i == 0 || p.Expiry.After(s.o.Now()) {
			continue
		}
		if err := s.unlist(ctx, p); err != nil {
			return unlinked, err
		}
		if err := store.Delete(ctx, p.ID); err != nil {
			return unlinked, err
		}
		unlinked++
	}
	return unlinked, nil
}

func (s *Service) unlist(ctx context.Context, p Point) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deletePoint(ctx, tx, p.Item, p.ID) })
}

type deleteArgs struct {
	Item armid.ID `json:"item"`
}

// Delete stops protection of an item and deletes its backup data, as a job.
func (s *Service) Delete(ctx context.Context, id armid.ID) (j job.Job, err error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/delete", vaultOf(id)); err != nil {
		return job.Job{}, err
	}
	if id, err = canonicalItem(id); err != nil {
		return job.Job{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		if err != nil {
			return err
		}
		item.State, item.Policy, item.Deleting = ProtectionStopped, armid.ID{}, true
		item.next, item.collect = time.Time{}, time.Time{}
		if err := putItem(ctx, tx, item); err != nil {
			return err
		}
		j, err = s.enqueue(ctx, tx, item, job.Spec{Kind: deleteWork{}.Kind(), Args: deleteArgs{item.ID},
			Details: map[string]string{"VM Name": item.VM.Name()}})
		if err != nil {
			return err
		}
		return s.raise(ctx, tx, source{j.Created, j.ID, j.ID}, item.ID, "", dataDeleted(item))
	})
	s.o.Jobs.Wake()
	return j, err
}

// deleteWork takes an item's recovery points off the list, erases its recovery store, and then forgets the
// item. It goes on where an attempt that was killed ended; the item's row is last, so that somebody knows.
type deleteWork struct{ s *Service }

// Kind implements job.Work.
func (deleteWork) Kind() string { return "DeleteBackupData" }

// Run implements job.Work.
func (w deleteWork) Run(ctx context.Context, r *job.Run) error {
	var args deleteArgs
	if err := r.Args(&args); err != nil {
		return err
	}
	item, err := w.s.lookupItem(ctx, args.Item)
	if isNotFound(err) {
		return nil // an earlier attempt got this far
	}
	if err != nil {
		return err
	}
	points, err := w.s.lookupPoints(ctx, item.ID)
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := w.s.unlist(ctx, p); err != nil {
			return err
		}
	}
	if r.Attempt() == 1 {
		r.Detail("Number of Recovery Points", formatCount(len(points)))
	}
	w.s.endMounts(func(m *Mount) bool { return m.item.Key() == item.ID.Key() })
	if err := w.s.cancelCollection(ctx, item); err != nil {
		return err
	}
	if err := w.s.stores.erase(ctx, item.store); err != nil {
		return storeUnreadable(item, err)
	}
	return w.s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deleteItem(ctx, tx, item) })
}
