package recovery

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/manifest"
)

// Delete removes a point from the list. Its object goes to trash/, where it keeps what it needs from
// being collected for the grace period. It returns ErrNoPoint if there is no such point.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !validPointID(id) {
		return fmt.Errorf("delete recovery point %q: %w", id, ErrNoPoint)
	}
	if err := s.owns(ctx); err != nil {
		return fmt.Errorf("delete recovery point %q: %w", id, err)
	}
	label := s.keys.label(id)
	stored, err := readAll(ctx, s.bucket, pointPrefix+label, manifest.MaxPoint)
	if errors.Is(err, objects.ErrNotExist) {
		return fmt.Errorf("delete recovery point %q: %w", id, ErrNoPoint)
	} else if err != nil {
		return fmt.Errorf("delete recovery point %q: %w", id, err)
	}
	name := trashName(label, s.opts.Now())
	err = s.putReserved(ctx, name, stored)
	if err != nil && !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("delete recovery point %q: %w", id, err)
	}
	if err := s.bucket.Delete(ctx, pointPrefix+label); err != nil {
		return fmt.Errorf("delete recovery point %q: %w", id, err)
	}
	return nil
}

func trashName(label string, now time.Time) string {
	return fmt.Sprintf("%s%s-%016x", trashPrefix, label, uint64(now.UnixMicro()))
}

// parseTrashName is the reverse of trashName.
func parseTrashName(name string) (label string, deleted time.Time, ok bool) {
	label, stamp, ok := strings.Cut(strings.TrimPrefix(name, trashPrefix), "-")
	micros, err := strconv.ParseUint(stamp, 16, 63)
	if !ok || err != nil || len(label) != 32 {
		return "", time.Time{}, false
	}
	return label, time.UnixMicro(int64(micros)), true
}
