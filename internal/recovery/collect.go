package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// Delete removes a point from the list. Its object goes to trash/, where it keeps what it needs from
// being collected for the grace period. It returns ErrNoPoint if there is no such point.
func (s *Store) Delete(ctx context.Context, id string) error {
	if !validPointID(id) {
		return fmt.Errorf("delete recovery point %q: %w", id, ErrNoPoint)
	}
	label := s.keys.label(id)
	stored, err := readAll(ctx, s.bucket, pointPrefix+label, manifest.MaxPoint)
	if errors.Is(err, objects.ErrNotExist) {
		return fmt.Errorf("delete recovery point %q: %w", id, ErrNoPoint)
	} else if err != nil {
		return fmt.Errorf("delete recovery point %q: %w", id, err)
	}
	name := trashName(label, s.opts.Now())
	err = s.bucket.Put(ctx, name, int64(len(stored)), bytes.NewReader(stored))
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

// Collected says what Collect has removed.
type Collected struct {
	Points int   `json:"points"` // deleted points whose grace period is over
	Packs  int   `json:"packs"`
	Bytes  int64 `json:"bytes"`
}

// Collect removes the packs that nothing needs: no point, no point deleted within the grace period, no open
// writer. A pack that is younger than the grace period stays, too: it may be what a backup left
// that was killed and will be tried again. Points may be written, read and deleted meanwhile.
//
// A pack goes only as a whole. If any point can't be read completely, nothing is removed.
func (s *Store) Collect(ctx context.Context) (Collected, error) {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	// From here on, whatever a writer counts on is noted, also if the writer ends before we do. What
	// is held now counts for the same reason; a parent that is held later has a point that we will see.
	s.mu.Lock()
	held := slices.Collect(maps.Keys(s.held))
	s.touched = map[pack.ID]bool{}
	for id := range s.pins {
		s.touched[id] = true
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.touched = nil
	}()
	c, err := s.collect(ctx, held)
	if err != nil {
		return c, fmt.Errorf("collect: %w", err)
	}
	return c, nil
}

func (s *Store) collect(ctx context.Context, held []*Disk) (Collected, error) {
	// The packs first, the points after them: a pack that a point needs is older than the point.
	candidates := map[pack.ID]int64{}
	for o, err := range s.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return Collected{}, fmt.Errorf("list packs: %w", err)
		}
		if id, ok := pack.ParseName(o.Name); ok {
			candidates[id] = o.Size
		}
	}
	expired, err := s.markAll(ctx, candidates, held)
	if err != nil {
		return Collected{}, err
	}
	if err := s.spareYoung(ctx, candidates); err != nil {
		return Collected{}, err
	}
	var done Collected
	for _, name := range expired {
		if err := s.bucket.Delete(ctx, name); err != nil {
			return done, err
		}
		done.Points++
	}
	for _, id := range s.condemn(candidates) {
		if err := s.bucket.Delete(ctx, id.Name()); err != nil {
			return done, err
		}
		done.Packs++
		done.Bytes += candidates[id]
	}
	return done, nil
}

// markAll takes from candidates what points, deleted points and held disks need. It returns the objects
// of the deleted points whose time is over.
func (s *Store) markAll(ctx context.Context, candidates map[pack.ID]int64, held []*Disk) (expired []string, err error) {
	m := marker{s: s, unneeded: candidates, seen: map[manifest.Ref]bool{}}
	limit := s.opts.Now().Add(-s.opts.Grace)
	// The points before the trash: a point that is deleted meanwhile is found in one of them at least.
	for o, err := range s.bucket.List(ctx, pointPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list recovery points: %w", err)
		}
		if err := m.point(ctx, o.Name, strings.TrimPrefix(o.Name, pointPrefix)); err != nil {
			return nil, err
		}
	}
	for o, err := range s.bucket.List(ctx, trashPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list deleted recovery points: %w", err)
		}
		label, deleted, ok := parseTrashName(o.Name)
		if !ok {
			return nil, fmt.Errorf("%s: not the name of a deleted recovery point", o.Name)
		}
		if !deleted.After(limit) {
			expired = append(expired, o.Name)
			continue
		}
		if err := m.point(ctx, o.Name, label); err != nil {
			return nil, err
		}
	}
	for _, d := range held {
		if err := m.disk(ctx, d); err != nil {
			return nil, err
		}
	}
	return expired, nil
}

// marker crosses out the packs that are needed.
type marker struct {
	s        *Store
	unneeded map[pack.ID]int64
	seen     map[manifest.Ref]bool // nodes below which everything is crossed out
}

func (m *marker) point(ctx context.Context, name, label string) error {
	p, err := m.s.readPoint(ctx, name, label)
	if errors.Is(err, objects.ErrNotExist) {
		return nil // deleted after it was listed; if it was a point, it is in the trash now
	} else if err != nil {
		return err
	}
	for _, a := range p.manifest.Attachments {
		ref, err := a.Ref.Ref()
		if err != nil {
			return err
		}
		delete(m.unneeded, ref.Pack)
	}
	for _, info := range p.manifest.Disks {
		d, err := newDisk(m.s, p.ID, label, info)
		if err != nil {
			return err
		}
		if err := m.disk(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (m *marker) disk(ctx context.Context, d *Disk) error {
	return d.walk(ctx, visitor{
		enter: func(ref manifest.Ref, _ int, _ int64) bool {
			delete(m.unneeded, ref.Pack)
			if m.seen[ref] {
				return false
			}
			m.seen[ref] = true
			return true
		},
		leaf: func(n *manifest.Node, _ int64) error {
			for _, ref := range n.Refs {
				if !ref.IsHole() {
					delete(m.unneeded, ref.Pack)
				}
			}
			return nil
		},
	})
}

// spareYoung takes from candidates the packs that are younger than the grace period. A pack that does not
// say its age is not spared: nothing can be read from it.
func (s *Store) spareYoung(ctx context.Context, candidates map[pack.ID]int64) error {
	limit := s.opts.Now().Add(-s.opts.Grace)
	for id, size := range candidates {
		footer, err := s.readFooter(ctx, id, size)
		switch {
		case errors.Is(err, chunk.ErrDamaged), errors.Is(err, objects.ErrTruncated):
		case errors.Is(err, objects.ErrNotExist):
			delete(candidates, id)
		case err != nil:
			return fmt.Errorf("read footer of %s: %w", id.Name(), err)
		case time.UnixMicro(footer.Created).After(limit):
			delete(candidates, id)
		}
	}
	return nil
}

// condemn decides, in one step with regard to writers, which of the candidates go: from then on no chunk is
// found in them.
func (s *Store) condemn(candidates map[pack.ID]int64) []pack.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	condemned := map[pack.ID]bool{}
	for id := range candidates {
		if s.touched[id] {
			continue
		}
		condemned[id], s.condemned[id] = true, true
		delete(s.sizes, id)
		s.packs.drop(id)
	}
	s.index.Remove(condemned)
	return slices.Collect(maps.Keys(condemned))
}
