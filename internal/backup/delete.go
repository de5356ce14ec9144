package backup

import (
	"context"
	"slices"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/problem"
)

// Deleting the backup data of an item is two things. Where the vault has soft delete, the item is marked and
// keeps everything: it can be undeleted until its days are over, and nothing else can be done with it. Then, or
// at once where the vault has no soft delete, the recovery store is erased, its key before all else. What the
// vault's settings were when the data was deleted is what counts.

// SoftDelete says what a vault does with backup data that is deleted.
type SoftDelete struct {
	State string `json:"state"`
	Days  int    `json:"days"` // for which deleted data can be undeleted
}

// The states of soft delete, in Azure's words.
const (
	SoftDeleteEnabled  = "Enabled"
	SoftDeleteDisabled = "Disabled"
	SoftDeleteAlwaysOn = "AlwaysON" // cannot be changed any more
)

// SoftDeleteStates are those there are.
var SoftDeleteStates = []string{SoftDeleteEnabled, SoftDeleteDisabled, SoftDeleteAlwaysOn}

const (
	minSoftDeleteDays = 14
	maxSoftDeleteDays = 180
	// purgeAgain is when an erasure that failed is tried again.
	purgeAgain = time.Hour
)

// complete fills in what nobody has said: Azure's defaults.
func (d SoftDelete) complete() SoftDelete {
	if d.State == "" {
		d.State = SoftDeleteEnabled
	}
	if d.Days == 0 {
		d.Days = minSoftDeleteDays
	}
	return d
}

func (d SoftDelete) valid() bool {
	return slices.Contains(SoftDeleteStates, d.State) && d.Days >= minSoftDeleteDays && d.Days <= maxSoftDeleteDays
}

// Deferral is a deletion that can still be undone.
type Deferral struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`
	Days  int       `json:"days"`
}

// SoftDeleted reports whether the item's backup data was deleted and is still there.
func (i Item) SoftDeleted() bool { return !i.Deferred.At.IsZero() }

// readable is nil when recovery points of the item can be used.
func (i Item) readable() error {
	switch {
	case i.Deleting:
		return itemBeingDeleted(i)
	case i.SoftDeleted():
		return itemSoftDeleted(i)
	}
	return nil
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
		v, err := selectVault(ctx, tx, item.Vault())
		if err != nil {
			return err
		}
		switch {
		case item.Deleting: // once more: the job that erases it has failed
		case item.SoftDeleted():
			return itemSoftDeleted(item)
		case v.SoftDelete.State == SoftDeleteDisabled:
			item.Deleting = true
		default:
			now := s.o.Now()
			item.Deferred = Deferral{At: now, Until: now.AddDate(0, 0, v.SoftDelete.Days), Days: v.SoftDelete.Days}
			item.purge = item.Deferred.Until
		}
		j, err = s.putDeleted(ctx, tx, item)
		if err != nil {
			return err
		}
		return s.raise(ctx, tx, source{j.Created, j.ID, j.ID}, item.ID, "", dataDeleted(item))
	})
	s.o.Jobs.Wake()
	return j, err
}

// putDeleted stores an item of which nothing is to be backed up any more, with the job of its deletion.
func (s *Service) putDeleted(ctx context.Context, tx *database.Tx, item Item) (job.Job, error) {
	item.State, item.Policy = ProtectionStopped, armid.ID{}
	item.next, item.collect = time.Time{}, time.Time{}
	if err := putItem(ctx, tx, item); err != nil {
		return job.Job{}, err
	}
	return s.enqueue(ctx, tx, item, job.Spec{Kind: deleteWork{}.Kind(), Args: deleteArgs{item.ID},
		Details: map[string]string{"VM Name": item.VM.Name()}})
}

// Undelete takes back the deletion of an item's backup data. Its protection stays stopped.
func (s *Service) Undelete(ctx context.Context, id armid.ID) (done job.Job, err error) {
	if err := s.o.Authorizer.Authorize(ctx, itemActions+"/write", vaultOf(id)); err != nil {
		return job.Job{}, err
	}
	if id, err = canonicalItem(id); err != nil {
		return job.Job{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case item.Deleting:
			return itemBeingDeleted(item)
		case !item.SoftDeleted():
			return itemNotSoftDeleted(item)
		}
		item.Deferred, item.purge = Deferral{}, time.Time{}
		if err := putItem(ctx, tx, item); err != nil {
			return err
		}
		done, err = s.o.Jobs.Record(ctx, tx, job.Spec{Kind: "Undelete", Scope: item.Vault().Key(), Entity: item.ID.Key(),
			Details: map[string]string{"VM Name": item.VM.Name(), "Undelete flag": "True"}, Correlation: s.o.Correlation(ctx)})
		return err
	})
	return done, err
}

// StartPurges enqueues the erasure of backup data that can be undeleted no longer.
func (s *Service) StartPurges(ctx context.Context) error {
	defer s.o.Jobs.Wake()
	var due []Item
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		due, err = selectPurgeable(ctx, tx, s.o.Now())
		return err
	})
	if err != nil {
		return err
	}
	for _, item := range due {
		err := s.startPurge(ctx, item.ID)
		if problem.Is(err, "UserErrorBackupOperationInProgress") {
			continue // a restore that began before the deletion
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) startPurge(ctx context.Context, id armid.ID) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		now := s.o.Now()
		if item.purge.IsZero() || item.purge.After(now) { // undeleted meanwhile
			return nil
		}
		item.Deleting, item.purge = true, now.Add(purgeAgain)
		_, err = s.putDeleted(ctx, tx, item)
		return err
	})
}

// deleteWork does the job of a deletion. Of an item that can be undeleted it only ends what is served. Otherwise it takes
// the recovery points off the list, erases the recovery store, and then forgets the item. It goes on where an attempt
// that was killed ended; the item's row is last, so that somebody knows.
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
	if r.Attempt() == 1 {
		r.Detail("Number of Recovery Points", formatCount(len(points)))
	}
	if item.readable() != nil { // or it has been undeleted since
		w.s.endMounts(func(m *Mount) bool { return m.item.Key() == item.ID.Key() })
	}
	// A guest should not go on noting its changes for nobody. When what was soft deleted is purged, the VM may long be
	// protected elsewhere.
	if item.SoftDeleted() != item.Deleting {
		if err := w.s.settleHost(ctx, item.VM, ""); err != nil {
			r.Note("The host still notes what changes on the VM: %v", err)
		}
	}
	if !item.Deleting {
		return nil
	}
	return w.erase(ctx, item, points)
}

func (w deleteWork) erase(ctx context.Context, item Item, points []Point) error {
	for _, p := range points {
		if err := w.s.unlist(ctx, p); err != nil {
			return err
		}
	}
	if err := w.s.cancelCollection(ctx, item); err != nil {
		return err
	}
	if err := w.s.stores.erase(ctx, item.store); err != nil {
		return storeUnreadable(item, err)
	}
	return w.s.o.DB.InTx(ctx, func(tx *database.Tx) error { return deleteItem(ctx, tx, item) })
}
