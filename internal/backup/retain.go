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
// fail must not lose its last recovery point to the calendar. Returns how many went.
//
// The row goes first: dying between the two leaves a root without a row, which start-up lists again and
// the next backup unlinks again. The other order would list a point that cannot be restored.
func (s *Service) retain(ctx context.Context, item armid.ID, store *recovery.Store) (int, error) {
	var points []Point
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		points, err = selectPoints(ctx, tx, item)
		return err
	})
	if err != nil {
		return 0, err
	}
	unlinked := 0
	for i, p := range points {
		if i == 0 || p.Expiry.After(s.o.Now()) {
			continue
		}
		if err := s.unlink(ctx, p, store); err != nil {
			return unlinked, err
		}
		unlinked++
	}
	return unlinked, nil
}

func (s *Service) unlink(ctx context.Context, p Point, store *recovery.Store) error {
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deletePoint(ctx, tx, p.Item, p.ID) })
	if err != nil {
		return err
	}
	return store.Delete(ctx, p.ID)
}

type deleteArgs struct {
	Item armid.ID `json:"item"`
}

// Delete stops protection of an item and deletes its recovery points, as a job.
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
		item.State, item.Policy, item.next = ProtectionStopped, armid.ID{}, time.Time{}
		if err := putItem(ctx, tx, item); err != nil {
			return err
		}
		j, err = s.enqueue(ctx, tx, item, job.Spec{Kind: deleteWork{}.Kind(), Args: deleteArgs{item.ID},
			Details: map[string]string{"VM Name": item.VM.Name()}})
		return err
	})
	s.o.Jobs.Wake()
	return j, err
}

// deleteWork deletes an item's recovery points, then the item, then gives their space back.
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
	v, err := w.s.lookupVault(ctx, item.Vault())
	if err != nil {
		return err
	}
	store, err := w.s.store(ctx, v.store)
	if err != nil {
		return err
	}
	var points []Point
	err = w.s.o.DB.Read(ctx, func(tx *database.Tx) error {
		points, err = selectPoints(ctx, tx, item.ID)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := w.s.unlink(ctx, p, store); err != nil {
			return err
		}
	}
	r.Detail("Number of Recovery Points", formatCount(len(points)))
	if err := w.s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deleteItem(ctx, tx, item) }); err != nil {
		return err
	}
	_, err = store.Collect(ctx, recovery.CollectOptions{})
	return err
}
