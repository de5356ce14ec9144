package backup

import (
	"context"
	"errors"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/job"
	"kluis/internal/problem"
	"kluis/internal/recovery"
)

// Expired points are unlinked by backups; the space that only they took is given back by a collection,
// which is a job of its own kind. It runs beside backups and restores of the same item and hinders none.
// Azure has no such job, so it belongs to no vault's list: what it did is in the log.

const (
	// storeGrace is how long deleted points, and what a killed backup has stored, are spared.
	storeGrace = 24 * time.Hour
	// collectEvery is how often the space of one item is given back at most.
	collectEvery = 24 * time.Hour
	// collectBudget bounds the bytes that one collection moves together.
	collectBudget = 32 << 30
	// maxDamageAlerts bounds how often one collection says that a store is damaged; the log has all of it.
	maxDamageAlerts = 5
)

// collectSoon notes that something was left in the item's store that a collection can give back.
func (i *Item) collectSoon(now time.Time) {
	i.Left = now
	due := i.Collected.Add(collectEvery)
	if due.Before(now) {
		due = now
	}
	if i.collect.IsZero() || due.Before(i.collect) {
		i.collect = due
	}
}

// collected notes what a collection left for a later one: what is still in its grace.
func (i *Item) collected(now time.Time, left int) {
	i.Collected, i.collect = now, time.Time{}
	if left > 0 || now.Sub(i.Left) <= storeGrace {
		i.collect = now.Add(collectEvery)
	}
}

type collectArgs struct {
	Item armid.ID `json:"item"`
}

// collectKey keeps two collections of one item apart, and neither from a backup.
func collectKey(item Item) string { return "collect " + item.ID.Key() }

// StartCollections enqueues a collection for each item that has something to give back.
func (s *Service) StartCollections(ctx context.Context) error {
	defer s.o.Jobs.Wake()
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		now := s.o.Now()
		due, err := selectCollectable(ctx, tx, now)
		if err != nil {
			return err
		}
		for _, item := range due {
			item.collect = now.Add(collectEvery) // should this one fail
			if err := putItem(ctx, tx, item); err != nil {
				return err
			}
			_, err := s.o.Jobs.Enqueue(ctx, tx, job.Spec{Kind: collectWork{}.Kind(), Entity: item.ID.Key(), Exclusive: collectKey(item),
				Args: collectArgs{item.ID}})
			if err != nil && !errors.Is(err, job.ErrBusy) {
				return err
			}
		}
		return nil
	})
}

// cancelCollection stops the collection of an item that is about to be deleted.
func (s *Service) cancelCollection(ctx context.Context, item Item) error {
	return s.o.Jobs.CancelExclusive(ctx, collectKey(item))
}

// collectWork gives back the space of one item.
type collectWork struct{ s *Service }

// Kind implements job.Work.
func (collectWork) Kind() string { return "CollectSpace" }

// Run implements job.Work.
func (w collectWork) Run(ctx context.Context, r *job.Run) error {
	var args collectArgs
	if err := r.Args(&args); err != nil {
		return err
	}
	item, err := w.s.lookupItem(ctx, args.Item)
	if isNotFound(err) || item.Deleting {
		return nil
	}
	if err != nil {
		return err
	}
	store, done, err := w.s.stores.write(ctx, item.store)
	if err != nil {
		return storeUnreadable(item, err)
	}
	defer done()
	// Once more: who deletes an item waits for those that have its store open, and not for those that come.
	if item, err = w.s.lookupItem(ctx, args.Item); isNotFound(err) || item.Deleting {
		return nil
	}
	if err != nil {
		return err
	}
	unlinked := 0
	if item.State != ProtectionStopped { // then all points are kept
		if unlinked, err = w.s.retain(ctx, item.ID, store); err != nil {
			return err
		}
	}
	given, err := store.Collect(ctx, recovery.CollectOptions{Budget: collectBudget})
	if err != nil {
		return translate(err)
	}
	r.Log().Info("space given back", "points", given.Points, "packs", given.Packs, "bytes", given.Bytes,
		"compacted", given.Compacted, "rewritten", given.Rewritten, "left", given.LeftBytes)
	var damages []*problem.Error
	for _, damage := range given.Damage {
		r.Log().Error("recovery store is damaged; what the damage may need is kept", "error", damage)
		damages = append(damages, storeDamaged(item, damage))
	}
	return w.s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, item.ID)
		if isNotFound(err) || item.Deleting {
			return nil
		}
		if err != nil {
			return err
		}
		if unlinked > 0 {
			item.Left = w.s.o.Now()
		}
		if err := w.s.raise(ctx, tx, sourceOf(r), item.ID, "", damages[:min(len(damages), maxDamageAlerts)]...); err != nil {
			return err
		}
		item.collected(w.s.o.Now(), given.Left)
		return putItem(ctx, tx, item)
	})
}
