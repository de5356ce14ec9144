package backup_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
)

// collect runs the collections that are due, and tells whether the item's was among them.
func (h *house) collect(item backup.Item) bool {
	h.t.Helper()
	before := must(h.Item(h.ctx, item.ID))(h.t).Collected
	h.check(h.StartCollections(h.ctx))
	all := must(h.jobs.Jobs(h.ctx, ""))(h.t)
	for _, j := range all {
		if j = h.wait(j); j.Outcome != job.Completed {
			h.t.Fatalf("a %s job ended as %s: %+v", j.Kind, j.Outcome, j.Problems)
		}
	}
	return must(h.Item(h.ctx, item.ID))(h.t).Collected.After(before)
}

// The space of points that have expired comes back, after their grace and a day at a time, and no sooner.
func TestCollect(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		h.backUp(item, h.clock.Now().Add(time.Hour))
		if !h.collect(item) {
			t.Error("no collection followed the first backup")
		}
		h.clock.forward(2 * time.Hour)
		h.encryptedImage(h.imageOf("web"), "passphrase of web", cheap) // nothing stays as it was
		last := h.backedUp(item)
		if points := must(h.Points(h.ctx, item.ID))(t); len(points) != 1 || points[0].ID != last.ID {
			t.Fatalf("the expired point is still listed: %v", points)
		}
		full := h.size("stores/")
		if h.collect(item) {
			t.Error("an item was collected twice on one day")
		}
		collections, trash := 0, true
		for range 6 {
			h.clock.forward(25 * time.Hour)
			if h.collect(item) {
				collections++
			}
			if collections == 1 && h.size("stores/") < full {
				t.Error("space was given back in the first collection after the point was unlinked: there was no grace")
			}
			trash = false
			for _, name := range h.objects("stores/") {
				trash = trash || strings.Contains(name, "/trash/")
			}
		}
		if left := h.size("stores/"); left > full*2/3 || trash {
			t.Errorf("of %d bytes %d are left, deleted points: %v", full, left, trash)
		}
		if collections < 2 || collections > 4 {
			t.Errorf("%d collections in six days", collections)
		}
		if h.clock.forward(25 * time.Hour); h.collect(item) {
			t.Error("a collection runs although there is nothing to give back")
		}
		for _, j := range must(h.Jobs(h.ctx, vaultID))(t) {
			if j.Kind == "CollectSpace" {
				t.Error("the vault's list shows a job that Azure has not")
			}
		}
		if !strings.Contains(h.log.String(), "space given back") {
			t.Error("the log says nothing of the space given back")
		}
		if keys := must(h.PointKeys(h.ctx, item.ID.Child("recoveryPoints", last.ID)))(t); len(keys) != 1 {
			t.Error("the newest point has lost its keys")
		}
	})
}

// A collection that takes long keeps no backup from running, and ends when the item is deleted.
func TestCollectHindersNobody(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		h.noSoftDelete()
		kek := h.putKeyVault()
		h.grantBackup()
		item := h.putEncryptedVM(kek, "web")
		h.backedUp(item)
		entered := make(chan struct{})
		var once atomic.Bool
		h.bucket.spy(nil, func(ctx context.Context, prefix string) error {
			if !strings.HasSuffix(prefix, "/trash/") || once.Swap(true) { // where a collection looks first of all
				return nil
			}
			close(entered)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		h.check(h.StartCollections(h.ctx))
		<-entered
		h.backedUp(item)
		h.backedUp(item)
		if j := h.wait(must(h.Delete(h.ctx, item.ID))(t)); j.Outcome != job.Completed {
			t.Errorf("the deletion ended as %s: %+v", j.Outcome, j.Problems)
		}
		if left := h.objects("stores/"); len(left) != 0 {
			t.Errorf("left are %v", left)
		}
		for _, j := range must(h.jobs.Jobs(h.ctx, ""))(t) {
			if j = h.wait(j); j.Outcome != job.Cancelled {
				t.Errorf("the collection ended as %s", j.Outcome)
			}
		}
	})
}
