package recovery

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/index"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// A chunk that can't be read from its place is marked. For a writer it is then not stored, whether the index
// or the parent names the place; so the next backup that meets it stores it again. Readers of
// older points find the new copy by its id. With changed extents, marked chunks are read besides them.
//
// The marks are kept as a document, so that what one process finds the next one heals. They are a
// finding and not the truth: without them a check finds the damage again, and a wrong one makes a backup
// store a chunk twice.

const damageName = "damaged-records"

var errMarked = fmt.Errorf("record was found damaged before: %w", chunk.ErrDamaged)

// MarkDamaged marks chunks that can't be read from their places, and remembers it in the store.
func (s *Store) MarkDamaged(ctx context.Context, refs ...manifest.Ref) error {
	if len(refs) == 0 {
		return nil
	}
	if err := s.loadDamage(ctx); err != nil {
		return err
	}
	for _, ref := range refs {
		s.markDamaged(ref)
	}
	return s.saveDamage(ctx)
}

// markDamaged marks a chunk until the store is closed.
func (s *Store) markDamaged(ref manifest.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.Damage(index.Location{Pack: ref.Pack, Slot: ref.Slot})
}

func (s *Store) isDamaged(ref manifest.Ref) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index.Damaged(index.Location{Pack: ref.Pack, Slot: ref.Slot})
}

// saveDamage keeps the marks.
func (s *Store) saveDamage(ctx context.Context) error {
	s.mu.Lock()
	marks := s.index.AllDamaged()
	s.mu.Unlock()
	if len(marks) == 0 {
		return nil
	}
	content, err := encodeDamage(marks)
	if err != nil {
		return fmt.Errorf("keep what is damaged: %w", err)
	}
	before, err := ReadDocument(ctx, s.bucket, damageName)
	if err == nil && bytes.Equal(before, content) {
		return nil
	} else if err != nil && !errors.Is(err, objects.ErrNotExist) {
		return fmt.Errorf("keep what is damaged: %w", err)
	}
	if err := s.PutDocument(ctx, damageName, content); err != nil {
		return fmt.Errorf("keep what is damaged: %w", err)
	}
	return nil
}

// loadDamage reads the marks, once. A document that makes no sense is as good as none.
func (s *Store) loadDamage(ctx context.Context) error {
	s.mu.Lock()
	done := s.indexed
	s.mu.Unlock()
	if done {
		return nil
	}
	content, err := ReadDocument(ctx, s.bucket, damageName)
	if errors.Is(err, objects.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read what is damaged: %w", err)
	}
	marks, err := parseDamage(content)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range marks {
		s.index.Damage(at)
	}
	return nil
}

// damageDocument is what is kept: slots by pack. No slots mean all of them.
type damageDocument struct {
	Packs map[string][]uint32 `json:"packs"`
}

// encodeDamage encodes the marks, so that they fit into a document.
func encodeDamage(marks []index.Location) ([]byte, error) {
	doc := damageDocument{map[string][]uint32{}}
	for _, at := range marks {
		name := at.Pack.String()
		slots, ok := doc.Packs[name]
		switch {
		case at.Slot == index.AllSlots, ok && len(slots) == 0:
			doc.Packs[name] = []uint32{}
		default:
			doc.Packs[name] = append(slots, at.Slot)
		}
	}
	for name, slots := range doc.Packs {
		if slices.Sort(slots); len(doc.Packs)*len(slots) > maxDocument/16 {
			doc.Packs[name] = []uint32{} // coarser, and bounded
		}
	}
	return json.Marshal(doc)
}

func parseDamage(content []byte) ([]index.Location, error) {
	var doc damageDocument
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("marks of damage do not parse: %w", chunk.ErrDamaged)
	}
	var marks []index.Location
	for name, slots := range doc.Packs {
		var id pack.ID
		if n, err := hex.Decode(id[:], []byte(name[:min(len(name), 32)])); err != nil || n != len(id) || len(name) != 32 {
			return nil, fmt.Errorf("marks of damage without a pack: %w", chunk.ErrDamaged)
		}
		if len(slots) == 0 {
			marks = append(marks, index.Location{Pack: id, Slot: index.AllSlots})
		}
		for _, slot := range slots {
			if slot < pack.MaxSlots {
				marks = append(marks, index.Location{Pack: id, Slot: slot})
			}
		}
	}
	return marks, nil
}

// extents yields what is to be read: the extents of the source and, among what it says has not changed,
// the chunks whose copy in the parent is marked.
func (t *transfer) extents(ctx context.Context) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		marked, err := t.markedInParent(ctx)
		if err != nil {
			yield(Extent{}, err)
			return
		}
		// before yields the marked chunks that come before chunk c.
		before := func(c int64) bool {
			for ; len(marked) > 0 && marked[0] < c; marked = marked[1:] {
				if !yield(Extent{marked[0] * t.chunkSize, min(t.chunkSize, t.size-marked[0]*t.chunkSize)}, nil) {
					return false
				}
			}
			return true
		}
		for e, err := range t.src.Extents(ctx) {
			if err == nil && e.Length > 0 && !before(e.Offset/t.chunkSize) {
				return
			}
			for len(marked) > 0 && e.Length > 0 && marked[0] <= (e.Offset+e.Length-1)/t.chunkSize {
				marked = marked[1:] // read anyway
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		before(t.size)
	}
}

// markedInParent returns which chunks of the parent are marked, ascending. Without changed extents nobody
// needs to know: all is read.
func (t *transfer) markedInParent(ctx context.Context) ([]int64, error) {
	t.w.store.mu.Lock()
	none := len(t.w.store.index.AllDamaged()) == 0
	t.w.store.mu.Unlock()
	if none || !t.changed {
		return nil, nil
	}
	var marked []int64
	err := t.parent.walk(ctx, visitor{leaf: func(n *manifest.Node, number int64) error {
		for i, ref := range n.Refs {
			if !ref.IsHole() && t.w.store.isDamaged(ref) {
				marked = append(marked, number*manifest.Fanout+int64(i))
			}
		}
		return nil
	}})
	if err != nil {
		return nil, fmt.Errorf("read parent: %w", err)
	}
	return marked, nil
}
