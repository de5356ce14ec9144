package backup

import (
	"context"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/recovery"
)

// retain unlinks the points of an item that have expired, but never the newest: an item whose backups
// fail must not lose its last recovery point to the calendar.
//
// The row goes first: dying between the two leaves a root without a row, which start-up lists again and
// the next backup unlinks again. The other order would list a point that cannot be restored.
func (s *Service) retain(ctx context.Context, item armid.ID, store *recovery.Store) (unlinked int, err error) {
	if err := s.reevaluate(ctx, item); err != nil {
		return 0, err
	}
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
