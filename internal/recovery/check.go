package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// Level says how deep a check goes. Each level does what those before do, but for the scrub, which a
// check of the content makes needless.
type Level int

// The levels of a check. There is a fourth, that the keys of a point open its disks, which is the caller's.
const (
	// LevelStructure reads all nodes and documents, and finds every chunk in its place.
	LevelStructure Level = iota
	// LevelScrub compares the packs that points need with their checksums.
	LevelScrub
	// LevelContent opens every chunk and compares it with its id.
	LevelContent
)

// CheckOptions say how to check. The zero value checks the structure.
type CheckOptions struct {
	Level Level
	// Budget bounds the bytes that scrub and content read; 0 means all. The packs that were not verified for
	// the longest time come first, so that many runs with a budget verify everything in turn.
	Budget   int64
	Progress Progress
}

// Report is what Check has found.
type Report struct {
	Points   int   `json:"points"`
	Disks    int   `json:"disks"`
	Packs    int   `json:"packs"`    // that points need
	Unneeded int   `json:"unneeded"` // packs that no point needs
	Chunks   int64 `json:"chunks"`   // different chunks of disks that points need
	Bytes    int64 `json:"bytes"`    // of these, as they are stored

	Verified int   `json:"verified"` // packs that were scrubbed or opened in this run
	Read     int64 `json:"read"`     // bytes read for that
	Left     int   `json:"left"`     // packs that the budget did not reach
	Healed   int64 `json:"healed"`   // chunks that are damaged in one place and whole in another
	// Oldest is since when every pack that points need was verified at this level; the zero time if one was not.
	Oldest time.Time `json:"oldest"`

	Damage []*DamageError `json:"-"` // by point and disk, neighbouring ranges as one
}

// Check looks whether every point can be restored, as far as the level goes. The structure is looked at as
// a whole in every run; what is to be read besides is read once, in the order of the packs, however many
// points share it, and noted in the store. A store that is open to be read leaves no notes.
//
// Damage is not an error of Check: it is in the report, with every point and range that it hits. A chunk
// that is damaged counts as not stored from then on, so the next backup that has it stores it again.
func (s *Store) Check(ctx context.Context, o CheckOptions) (Report, error) {
	c := newChecker(s)
	if err := c.check(ctx, o); err != nil {
		return c.report, fmt.Errorf("check recovery store: %w", err)
	}
	if !s.readOnly() {
		_ = s.saveDamage(ctx) // what is not remembered will be found again
	}
	return c.report, nil
}

type checker struct {
	s      *Store
	report Report
	points []*Point

	seen     map[pack.ID]*slotSet // nodes, by the place that references name
	badNodes map[manifest.Ref]error
	packs    map[pack.ID]*neededPack // what is needed, and where it really is

	mu        sync.Mutex
	badChunks map[manifest.Ref]error
	notes     notebook
	moved     atomic.Bool // something is not where it was when the structure was looked at
}

// neededPack is what points need of a pack.
type neededPack struct {
	slotSet // chunks of disks
	bytes   int64
	at      int64 // when it was verified, in this run
	bad     atomic.Bool
}

func newChecker(s *Store) *checker {
	return &checker{
		s: s, badNodes: map[manifest.Ref]error{}, badChunks: map[manifest.Ref]error{},
		seen: map[pack.ID]*slotSet{}, packs: map[pack.ID]*neededPack{},
	}
}

func (c *checker) check(ctx context.Context, o CheckOptions) error {
	if err := c.listPoints(ctx); err != nil {
		return err
	}
	for _, p := range c.points {
		if err := c.structure(ctx, p); err != nil {
			return err
		}
	}
	sizes, err := c.countPacks(ctx)
	if err != nil {
		return err
	}
	if o.Level > LevelStructure {
		if err := c.verify(ctx, o, sizes); err != nil {
			return err
		}
	}
	if len(c.badNodes) == 0 && len(c.badChunks) == 0 && !c.moved.Load() {
		return nil
	}
	for _, p := range c.points {
		if err := c.blame(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) listPoints(ctx context.Context) error {
	for o, err := range c.s.bucket.List(ctx, pointPrefix) {
		if err != nil {
			return fmt.Errorf("list recovery points: %w", err)
		}
		p, err := c.s.readPoint(ctx, o.Name, strings.TrimPrefix(o.Name, pointPrefix))
		var damage *DamageError
		switch {
		case errors.Is(err, objects.ErrNotExist): // deleted meanwhile
		case errors.As(err, &damage):
			c.report.Damage = append(c.report.Damage, damage)
		case err != nil:
			return err
		default:
			c.points = append(c.points, p)
			c.report.Points++
			c.report.Disks += len(p.manifest.Disks)
		}
	}
	return nil
}

// structure visits every node of a point that was not visited yet and marks what it refers to.
func (c *checker) structure(ctx context.Context, p *Point) error {
	for _, a := range p.manifest.Attachments {
		_, err := c.s.readAttachment(ctx, p.ID, a)
		var damage *DamageError
		if errors.As(err, &damage) {
			err = c.accuse(ctx, p, damage)
		}
		if err != nil {
			return err
		}
		if ref, err := a.Ref.Ref(); err == nil {
			c.visit(ctx, ref, chunk.Document)
		}
	}
	for _, info := range p.manifest.Disks {
		d, err := newDisk(c.s, p.ID, p.label, info)
		if err != nil {
			return err
		}
		err = d.walk(ctx, visitor{
			enter: func(ref manifest.Ref, _ int, _ int64) bool { return c.visit(ctx, ref, chunk.Node) },
			leaf:  func(n *manifest.Node, index int64) error { return c.leaf(ctx, d, n, index) },
			fail:  func(ref manifest.Ref, err error) error { c.badNodes[ref] = err; return nil },
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// visit takes note of a node or a document and tells whether it was not seen yet.
func (c *checker) visit(ctx context.Context, ref manifest.Ref, kind chunk.Kind) bool {
	set := c.seen[ref.Pack]
	if set == nil {
		set = new(slotSet)
		c.seen[ref.Pack] = set
	}
	if !set.add(ref.Slot) {
		return false
	}
	// Where it can't be found, reading it will say so.
	if p, _, err := c.s.locate(ctx, ref, kind); err == nil {
		c.needed(p.id)
	}
	return true
}

func (c *checker) leaf(ctx context.Context, d *Disk, n *manifest.Node, index int64) error {
	for i, ref := range n.Refs {
		if ref.IsHole() {
			continue
		}
		at, slot, err := c.s.locate(ctx, ref, chunk.Data)
		if err == nil && int64(at.Entries[slot].Plain) != d.chunkLen(index*manifest.Fanout+int64(i)) {
			err = fmt.Errorf("chunk of %d bytes: %w", at.Entries[slot].Plain, chunk.ErrDamaged)
		}
		if err != nil {
			if !isDamage(err) {
				return err
			}
			c.badChunks[ref] = err
			continue
		}
		if needed := c.needed(at.id); needed.add(slot) {
			length := int64(at.Entries[slot].Length)
			needed.bytes += length
			c.report.Chunks++
			c.report.Bytes += length
		}
	}
	return nil
}

func (c *checker) needed(id pack.ID) *neededPack {
	n := c.packs[id]
	if n == nil {
		n = &neededPack{}
		c.packs[id] = n
	}
	return n
}

// countPacks counts the packs that exist by whether they are needed, and returns their sizes.
func (c *checker) countPacks(ctx context.Context) (map[pack.ID]int64, error) {
	sizes := map[pack.ID]int64{}
	for o, err := range c.s.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return nil, fmt.Errorf("list packs: %w", err)
		}
		id, ok := pack.ParseName(o.Name)
		switch {
		case !ok:
		case c.packs[id] == nil:
			c.report.Unneeded++
		default:
			c.report.Packs++
			sizes[id] = o.Size
		}
	}
	return sizes, nil
}
