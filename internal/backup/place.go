package backup

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"kluis/internal/database"
	"kluis/internal/job"
)

// Long lists are read piece by piece: so many elements after a place, which is the key of an element in the list's own
// order, written down. "" is the place before all.

// all is more than any list has.
const all = math.MaxInt32

// PlaceOfItem is where an item stands in its vault: by its id.
func PlaceOfItem(i Item) string { return i.ID.Key() }

// PlaceOfPoint is where a recovery point stands among those of its item: newest first.
func PlaceOfPoint(p Point) string { return place{database.Micros(p.Time), p.ID}.String() }

// PlaceOfJob is where a job stands among those of its vault: newest first.
func PlaceOfJob(j Job) string { return place(j.Place()).String() }

// place is one in a list that goes back in time.
type place job.Place

// first is the place before all.
var first = place(job.First)

func (p place) String() string { return fmt.Sprintf("%d %s", p.Created, p.ID) }

func parsePlace(s string) (place, error) {
	if s == "" {
		return first, nil
	}
	created, id, _ := strings.Cut(s, " ")
	n, err := strconv.ParseInt(created, 10, 64)
	if err != nil {
		return place{}, noSuchPlace()
	}
	return place{n, id}, nil
}
