package recovery

import (
	"context"
	"fmt"
	"time"
)

// Stats say what is in a store and what it takes.
type Stats struct {
	Points  int   `json:"points"`
	Disks   int   `json:"disks"`
	Logical int64 `json:"logical"` // size of all disks of all points
	Data    int64 `json:"data"`    // of it, what is not in holes

	Packs  int   `json:"packs"`
	Stored int64 `json:"stored"` // bytes of all packs
	Live   int64 `json:"live"`   // of it, what points need, deleted ones in the trash included
	Dead   int64 `json:"dead"`   // of it, what nothing needs and collection has not condemned

	Condemned      int   `json:"condemned"` // packs that are removed when their grace period is over
	CondemnedBytes int64 `json:"condemnedBytes"`
	Trash          int   `json:"trash"` // deleted points whose grace period is not over

	Damage []*DamageError `json:"-"` // what could not be read; the numbers leave out what is below it
}

// Stat counts. It reads all manifests, and nothing of the disks.
func (s *Store) Stat(ctx context.Context) (Stats, error) {
	stats, err := s.stat(ctx)
	if err != nil {
		return stats, fmt.Errorf("count what is in the recovery store: %w", err)
	}
	return stats, nil
}

func (s *Store) stat(ctx context.Context) (Stats, error) {
	var stats Stats
	if err := s.refreshIndex(ctx); err != nil {
		return stats, err
	}
	j, err := s.readJournal(ctx)
	if err != nil {
		return stats, err
	}
	packs, err := s.stock(ctx)
	if err != nil {
		return stats, err
	}
	for _, at := range j.Condemned {
		if st := packs[at.Pack]; st != nil {
			st.condemned = true
			stats.Condemned++
			stats.CondemnedBytes += st.size
		}
	}
	m := &marker{s: s, packs: packs}
	if _, err := m.markAll(ctx, time.Time{}, nil); err != nil {
		return stats, err
	}
	if err := m.weigh(ctx); err != nil {
		return stats, err
	}
	stats.Points, stats.Disks, stats.Logical, stats.Data, stats.Trash = m.points, m.disks, m.logical, m.data, m.trash
	stats.Damage = m.damage
	for _, st := range packs {
		stats.Packs++
		stats.Stored += st.size
		if !st.condemned {
			stats.Live += st.records - st.dead
			stats.Dead += st.dead
		}
	}
	return stats, nil
}
