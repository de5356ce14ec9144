package backup_test

import (
	"slices"
	"testing"
	"time"

	"kluis/internal/backup"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/job"
)

// pieces reads a list two by two, and returns the places of all that it found.
func pieces[T any](t *testing.T, place func(T) string, read func(after string, most int) ([]T, error)) (places []string) {
	t.Helper()
	for after := ""; ; {
		part := must(read(after, 2))(t)
		for _, v := range part {
			after = place(v)
			places = append(places, after)
		}
		if len(part) < 2 {
			return places
		}
	}
}

// Read in pieces, the lists are the same as read whole, and each element is in them once.
func TestListsInPieces(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		h := newHouse(t, db)
		h.putVault()
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			h.plainImage(h.imageOf(name), 4<<20)
			h.putDisk(name, nil)
			h.putVM(name)
			h.protect(name)
		}
		item := must(h.Items(h.ctx, vaultID))(t)[0]
		for range 3 {
			h.backedUp(item)
			h.clock.forward(time.Hour)
		}
		items := pieces(t, backup.PlaceOfItem, func(after string, most int) ([]backup.Item, error) { return h.ItemsAfter(h.ctx, vaultID, after, most) })
		points := pieces(t, backup.PlaceOfPoint, func(after string, most int) ([]backup.Point, error) {
			return h.PointsAfter(h.ctx, item.ID, after, most)
		})
		jobs := pieces(t, backup.PlaceOfJob, func(after string, most int) ([]job.Job, error) { return h.JobsAfter(h.ctx, vaultID, after, most) })
		for list, of := range map[string][2][]string{
			"items":  {items, placesOf(must(h.Items(h.ctx, vaultID))(t), backup.PlaceOfItem)},
			"points": {points, placesOf(must(h.Points(h.ctx, item.ID))(t), backup.PlaceOfPoint)},
			"jobs":   {jobs, placesOf(must(h.Jobs(h.ctx, vaultID))(t), backup.PlaceOfJob)},
		} {
			if !slices.Equal(of[0], of[1]) || len(of[0]) < 3 {
				t.Errorf("%s in pieces: %q, whole: %q", list, of[0], of[1])
			}
		}
		_, err := h.JobsAfter(h.ctx, vaultID, "nowhere", 2)
		h.wantProblem(err, "InvalidQueryParameterValue")
	})
}

func placesOf[T any](all []T, place func(T) string) (places []string) {
	for _, v := range all {
		places = append(places, place(v))
	}
	return places
}
