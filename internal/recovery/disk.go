package recovery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// Disk is a disk of a point, to be read. It may be used by several goroutines.
type Disk struct {
	store  *Store
	point  string
	label  string // of the point; empty while the point is being written
	info   manifest.Disk
	root   manifest.Ref
	levels int
}

func newDisk(s *Store, point, label string, info manifest.Disk) (*Disk, error) {
	d := &Disk{store: s, point: point, label: label, info: info, levels: manifest.Levels(info.Size, info.ChunkSize)}
	if info.Root != nil {
		var err error
		if d.root, err = info.Root.Ref(); err != nil {
			return nil, fmt.Errorf("disk %q: %w", info.Name, err)
		}
	}
	return d, nil
}

// Name returns the disk's name.
func (d *Disk) Name() string { return d.info.Name }

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.info.Size }

// ChunkSize returns how many bytes are stored together.
func (d *Disk) ChunkSize() int64 { return d.info.ChunkSize }

// Digest is the same for disks of one store with the same content and chunks of the same size.
func (d *Disk) Digest() string { return d.info.Digest }

// chunkLen returns the length of a chunk: the last one may be shorter.
func (d *Disk) chunkLen(index int64) int64 {
	return min(d.info.ChunkSize, d.info.Size-index*d.info.ChunkSize)
}

// branch is what the tree says about a node: where it is and what is below it.
type branch struct {
	ref manifest.Ref
	sum manifest.Sum
}

// branch returns a node and what the node above says about it; nothing is above the root, whose digest is
// therefore left out. The node is nil for a hole.
func (d *Disk) branch(ctx context.Context, level int, index int64) (*manifest.Node, branch, error) {
	if d.root.IsHole() || level >= d.levels {
		return nil, branch{}, nil
	}
	b := branch{ref: d.root, sum: manifest.Sum{Data: d.info.Data}}
	for at := d.levels - 1; ; at-- {
		span := int64(1) // nodes of the wanted level below a node of this one
		for range at - level {
			span *= manifest.Fanout
		}
		n, err := d.node(ctx, b.ref, at, index/span)
		if err != nil {
			return nil, branch{}, err
		}
		if at == level {
			return n, b, nil
		}
		i := index / (span / manifest.Fanout) % manifest.Fanout
		if b = (branch{n.Refs[i], n.Sums[i]}); b.ref.IsHole() {
			return nil, branch{}, nil
		}
	}
}

// node reads a node of the disk's tree and names the range that it stands for if it can't be read.
func (d *Disk) node(ctx context.Context, ref manifest.Ref, level int, index int64) (*manifest.Node, error) {
	n, err := d.store.node(ctx, ref, level)
	if err != nil {
		off, length := d.span(level, index)
		return nil, d.damage(off, length, ref, err)
	}
	return n, nil
}

// span returns the range of the disk that a node stands for.
func (d *Disk) span(level int, index int64) (off, length int64) {
	span := d.info.ChunkSize
	for range level + 1 {
		span *= manifest.Fanout
	}
	off = index * span
	return off, max(0, min(span, d.info.Size-off))
}

func (d *Disk) damage(off, length int64, ref manifest.Ref, err error) error {
	if isDamage(err) {
		return &DamageError{Point: d.point, Disk: d.info.Name, Offset: off, Length: length, Object: ref.Pack.Name(), Err: err}
	}
	return fmt.Errorf("read disk %s at %d: %w", d.info.Name, off, err)
}

// visitor says what to do on a walk through a disk's tree.
type visitor struct {
	enter func(ref manifest.Ref, level int, index int64) bool // false skips the node; nil means true
	leaf  func(n *manifest.Node, index int64) error
	fail  func(ref manifest.Ref, err error) error // nil returned goes on without the node; nil means stop
}

// walk visits the nodes of the tree in the order of the disk.
func (d *Disk) walk(ctx context.Context, v visitor) error {
	if d.root.IsHole() {
		return nil
	}
	return d.walkNode(ctx, v, d.root, d.levels-1, 0)
}

func (d *Disk) walkNode(ctx context.Context, v visitor, ref manifest.Ref, level int, index int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.enter != nil && !v.enter(ref, level, index) {
		return nil
	}
	n, err := d.node(ctx, ref, level, index)
	if err == nil {
		err = d.checkEnd(n, ref, level, index)
	}
	var damage *DamageError
	if errors.As(err, &damage) && v.fail != nil {
		return v.fail(ref, err)
	} else if err != nil {
		return err
	}
	if level == 0 {
		return v.leaf(n, index)
	}
	for i, r := range n.Refs {
		if !r.IsHole() {
			if err := d.walkNode(ctx, v, r, level-1, index*manifest.Fanout+int64(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkEnd refuses a node that refers to something beyond the end of the disk.
func (d *Disk) checkEnd(n *manifest.Node, ref manifest.Ref, level int, index int64) error {
	last := manifest.Fanout - 1
	for last >= 0 && n.Refs[last].IsHole() {
		last--
	}
	if last < 0 {
		return nil
	}
	off := (index*manifest.Fanout + int64(last)) * d.info.ChunkSize
	if level > 0 {
		off, _ = d.span(level-1, index*manifest.Fanout+int64(last))
	}
	if off < d.info.Size {
		return nil
	}
	off, length := d.span(level, index)
	return d.damage(off, length, ref, fmt.Errorf("node reaches beyond the end of the disk: %w", chunk.ErrDamaged))
}

// errStop ends a walk early.
var errStop = errors.New("stop")

// Extents yields the ranges of the disk that are not holes, ascending.
func (d *Disk) Extents(ctx context.Context) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		var e Extent
		err := d.walk(ctx, visitor{leaf: func(n *manifest.Node, index int64) error {
			for i, ref := range n.Refs {
				if ref.IsHole() {
					continue
				}
				c := index*manifest.Fanout + int64(i)
				off, length := c*d.info.ChunkSize, d.chunkLen(c)
				if e.Length > 0 && off == e.Offset+e.Length {
					e.Length += length
					continue
				}
				if e.Length > 0 && !yield(e, nil) {
					return errStop
				}
				e = Extent{off, length}
			}
			return nil
		}})
		switch {
		case errors.Is(err, errStop):
		case err != nil:
			yield(Extent{}, err)
		case e.Length > 0:
			yield(e, nil)
		}
	}
}

// NextData returns a range at or after off that is not a hole, and before which, from off on, there are only
// holes; n is 0 if there is none. The range may go on behind its end.
func (d *Disk) NextData(ctx context.Context, off int64) (start, n int64, err error) {
	if off < 0 || off >= d.info.Size || d.root.IsHole() {
		return d.info.Size, 0, nil
	}
	first, count, err := d.nextBelow(ctx, d.root, d.levels-1, 0, off/d.info.ChunkSize)
	if err != nil || count == 0 || first*d.info.ChunkSize >= d.info.Size {
		return d.info.Size, 0, err
	}
	start = max(off, first*d.info.ChunkSize)
	return start, min((first+count)*d.info.ChunkSize, d.info.Size) - start, nil
}

// nextBelow returns the first chunks below a node, of those at or after from, that are no holes.
func (d *Disk) nextBelow(ctx context.Context, ref manifest.Ref, level int, index, from int64) (first, count int64, err error) {
	n, err := d.node(ctx, ref, level, index)
	if err != nil {
		return 0, 0, err
	}
	span := int64(1) // chunks below a place
	for range level {
		span *= manifest.Fanout
	}
	base := index * manifest.Fanout
	for i := max(0, from/span-base); i < manifest.Fanout && count == 0; i++ {
		switch {
		case n.Refs[i].IsHole():
		case level > 0:
			if first, count, err = d.nextBelow(ctx, n.Refs[i], level-1, base+i, from); err != nil {
				return 0, 0, err
			}
		default:
			first = base + i
			for i+count < manifest.Fanout && !n.Refs[i+count].IsHole() {
				count++
			}
		}
	}
	return first, count, nil
}

// Hold keeps what the disk needs from being collected, for somebody who reads it over a long time, until
// release is called.
func (d *Disk) Hold() (release func()) {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	d.store.hold(d)
	return sync.OnceFunc(func() {
		d.store.mu.Lock()
		defer d.store.mu.Unlock()
		d.store.release(d)
	})
}

var _ Source = (*Disk)(nil)
