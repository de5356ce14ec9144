package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// WriteDisk writes a disk into the point and returns when all of it is durable. An error of the source
// names the offset; it ends the writer, as every error does, and harms no other point. Only after an UnreportedError can
// the disk be written again, as a whole: nothing of it is in the point yet.
func (w *Writer) WriteDisk(ctx context.Context, name string, src Source, o DiskOptions) (Counters, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	d, err := w.writeDisk(ctx, name, src, o)
	if _, lie := errors.AsType[*UnreportedError](err); lie {
		return Counters{}, fmt.Errorf("write disk %q: %w", name, err)
	}
	if err != nil {
		return Counters{}, fmt.Errorf("write disk %q: %w", name, w.fail(err))
	}
	w.disks = append(w.disks, d)
	return d.Counters, nil
}

func (w *Writer) writeDisk(ctx context.Context, name string, src Source, o DiskOptions) (manifest.Disk, error) {
	if err := manifest.CheckName(name); err != nil {
		return manifest.Disk{}, err
	}
	for _, d := range w.disks {
		if d.Name == name {
			return manifest.Disk{}, errors.New("name is taken")
		}
	}
	size := src.Size()
	if size < 0 || size > manifest.MaxDisk {
		return manifest.Disk{}, fmt.Errorf("disk of %d bytes", size)
	}
	t := &transfer{w: w, src: src, size: size, changed: o.Changed, rate: o.Rate, progress: newReport(o.Progress, size), leaves: map[int64]branch{}}
	if err := t.setParent(ctx, o); err != nil {
		return manifest.Disk{}, err
	}
	if err := t.run(ctx); err != nil {
		return manifest.Disk{}, err
	}
	d, err := t.finish(ctx, name)
	if err != nil || !o.Changed || o.Audit <= 0 {
		return d, err
	}
	return t.audit(ctx, d, o.Audit)
}

// setParent chooses the size of the chunks, and the parent to compare with.
func (t *transfer) setParent(ctx context.Context, o DiskOptions) (err error) {
	t.chunkSize = o.ChunkSize
	if t.chunkSize != 0 && !validChunkSize(t.chunkSize) {
		return fmt.Errorf("chunks of %d bytes: want a power of two from %d to %d", t.chunkSize, manifest.MinChunk, chunk.MaxSize)
	}
	if t.parent, err = t.w.adopt(ctx, o.Parent); err != nil {
		return err
	}
	switch {
	case t.chunkSize == 0 && t.parent != nil:
		t.chunkSize = t.parent.info.ChunkSize
	case t.chunkSize == 0 && !o.Changed:
		if t.chunkSize, err = t.chooseChunkSize(ctx); err != nil {
			return err
		}
	}
	if !o.Changed {
		if t.parent != nil && t.parent.info.ChunkSize != t.chunkSize {
			t.parent = nil
		}
		return nil
	}
	switch {
	case t.parent == nil:
		return fmt.Errorf("the changed extents have lost their parent: %w", ErrNoPoint)
	case t.parent.info.Size != t.size:
		return fmt.Errorf("disk has %d bytes and its parent %d: changed extents mean nothing", t.size, t.parent.info.Size)
	case t.parent.info.ChunkSize != t.chunkSize:
		return fmt.Errorf("chunks of %d bytes, and of %d in the parent: what did not change can't be taken from it", t.chunkSize, t.parent.info.ChunkSize)
	}
	return nil
}

// adopt keeps what the parent needs as long as the writer is open. It returns nil if the parent's point has
// been deleted: some of it may be gone, or go soon.
func (w *Writer) adopt(ctx context.Context, parent *Disk) (*Disk, error) {
	if parent == nil {
		return nil, nil
	}
	s := w.store
	if parent.store != s || parent.label == "" {
		return nil, errors.New("parent is not a disk of a recovery point of this store")
	}
	s.mu.Lock()
	s.hold(parent)
	w.parents = append(w.parents, parent)
	s.mu.Unlock()
	// After it is held, not before: what exists now, Collect has seen or will see held.
	r, err := s.bucket.Get(ctx, pointPrefix+parent.label, 0, 0)
	if errors.Is(err, objects.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for parent: %w", err)
	}
	return parent, r.Close()
}

// transfer is the writing of one disk. A planner cuts the extents into units; workers read, hash and
// seal them; who finishes the last unit of a leaf stores the leaf.
type transfer struct {
	w         *Writer
	src       Source
	size      int64
	chunkSize int64
	parent    *Disk
	changed   bool
	rate      *Rate // of what is read
	progress  *report

	read, fresh, stored atomic.Int64

	mu     sync.Mutex
	leaves map[int64]branch // those that are finished, by number
}

// leaf is a leaf that is being made.
type leaf struct {
	index   int64
	pending atomic.Int32 // units, and one for the planner

	load   sync.Once
	err    error
	node   *manifest.Node // what it becomes
	old    *manifest.Node // what it was in the parent; nil for a hole
	before branch         // where it was in the parent
}

// unit is up to 1 MiB of the disk, at a multiple of 1 MiB.
type unit struct {
	leaf  *leaf
	index int64  // of the unit on the disk
	mask  uint64 // which of its chunks to read
}

func (t *transfer) run(ctx context.Context) error {
	// Whoever fails, fails the writer, which wakes those that wait for it.
	stop := context.AfterFunc(ctx, func() { _ = t.w.fail(context.Cause(ctx)) })
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	start := func(f func() error) {
		group.Go(func() error {
			if err := f(); err != nil {
				return t.w.fail(err)
			}
			return nil
		})
	}
	units := make(chan unit)
	start(func() error {
		defer close(units)
		return t.plan(ctx, units)
	})
	for range runtime.GOMAXPROCS(0) {
		start(func() error { return t.work(ctx, units) })
	}
	return group.Wait()
}

// plan cuts the extents into units, in the order of the disk. Extents are widened to whole chunks.
func (t *transfer) plan(ctx context.Context, units chan<- unit) error {
	perUnit, total := unitSize/t.chunkSize, (t.size+t.chunkSize-1)/t.chunkSize
	var u unit
	emit := func() error {
		if u.mask == 0 {
			return nil
		}
		select {
		case units <- u:
			u.mask = 0
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	begin := func(index int64) error {
		if err := emit(); err != nil {
			return err
		}
		number := index * perUnit / manifest.Fanout
		if u.leaf == nil || u.leaf.index != number {
			if err := t.release(u.leaf); err != nil {
				return err
			}
			u.leaf = &leaf{index: number}
			u.leaf.pending.Store(1)
		}
		u.leaf.pending.Add(1)
		u.index = index
		return nil
	}
	next, end := int64(0), int64(0) // the first chunk that is not planned, and the end of the last extent
	for e, err := range t.extents(ctx) {
		if err != nil {
			return fmt.Errorf("list extents: %w", err)
		}
		if e.Offset < end || e.Length < 0 {
			return fmt.Errorf("extent of %d bytes at %d after one that ends at %d", e.Length, e.Offset, end)
		}
		if e.Length == 0 || e.Offset >= t.size {
			continue
		}
		end = e.Offset + min(e.Length, t.size-e.Offset)
		last := min((end-1)/t.chunkSize, total-1)
		for c := max(next, e.Offset/t.chunkSize); c <= last; c++ {
			if u.mask == 0 || c/perUnit != u.index {
				if err := begin(c / perUnit); err != nil {
					return err
				}
			}
			u.mask |= 1 << (c % perUnit)
		}
		next = last + 1
	}
	if err := emit(); err != nil {
		return err
	}
	return t.release(u.leaf)
}

func (t *transfer) work(ctx context.Context, units <-chan unit) error {
	buf := buffer()
	defer recycle(buf)
	data := batch{w: t.w, to: forData}
	for u := range units {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := t.w.waitForRoom(); err != nil {
			return err
		}
		if err := t.unit(ctx, u, buf[:unitSize], &data); err != nil {
			return err
		}
		t.progress.reach((u.index + 1) * unitSize)
	}
	t.stored.Add(data.grown)
	return nil
}

// unit reads the chunks of a unit, in as few pieces as possible, and stores them.
func (t *transfer) unit(ctx context.Context, u unit, buf []byte, data *batch) error {
	if err := t.loadLeaf(ctx, u.leaf); err != nil {
		return err
	}
	perUnit := unitSize / t.chunkSize
	for mask := u.mask; mask != 0; {
		first := bits.TrailingZeros64(mask)
		count := bits.TrailingZeros64(^(mask >> first))
		mask &^= (1<<count - 1) << first
		c := u.index*perUnit + int64(first)
		off := c * t.chunkSize
		piece := buf[:min(int64(count)*t.chunkSize, t.size-off)]
		if err := t.readAt(ctx, piece, off); err != nil {
			return err
		}
		for ; len(piece) > 0; c++ {
			plain := piece[:min(t.chunkSize, int64(len(piece)))]
			piece = piece[len(plain):]
			if err := t.chunk(u.leaf, int(c%manifest.Fanout), plain, data); err != nil {
				return fmt.Errorf("store %d bytes at %d: %w", len(plain), c*t.chunkSize, err)
			}
		}
	}
	if err := data.flush(); err != nil {
		return err
	}
	return t.release(u.leaf)
}

// readAt reads from the source, no faster than is allowed. p is a unit at most.
func (t *transfer) readAt(ctx context.Context, p []byte, off int64) error {
	if err := t.rate.wait(ctx, len(p)); err != nil {
		return err
	}
	n, err := t.src.ReadAt(p, off)
	t.read.Add(int64(n))
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read source at offset %d: %w", off+int64(n), err)
}

// zeros is what a hole looks like.
var zeros [chunk.MaxSize]byte

// chunk stores one chunk, unless it is a hole, or the same as in the parent, or known otherwise.
func (t *transfer) chunk(l *leaf, i int, plain []byte, data *batch) error {
	if bytes.Equal(plain, zeros[:len(plain)]) {
		l.node.Refs[i] = manifest.Ref{}
		return nil
	}
	id := t.w.store.keys.hasher.ID(chunk.Data, plain)
	if l.old != nil && !l.old.Refs[i].IsHole() && l.old.Refs[i].ID == id && !t.w.store.isDamaged(l.old.Refs[i]) {
		l.node.Refs[i] = l.old.Refs[i]
		return nil
	}
	ref, fresh, err := data.storeAs(chunk.Data, id, plain)
	if fresh {
		t.fresh.Add(int64(len(plain)))
	}
	l.node.Refs[i] = ref
	return err
}

// loadLeaf prepares the leaf, for whoever comes first.
func (t *transfer) loadLeaf(ctx context.Context, l *leaf) error {
	l.load.Do(func() {
		l.node = manifest.NewNode(0)
		if l.old, l.before, l.err = t.parentNode(ctx, 0, l.index); l.err != nil {
			return
		}
		if t.changed && l.old != nil {
			l.node.Refs = l.old.Refs
		}
	})
	return l.err
}

// parentNode returns a node of the parent, or nil if it has none there. A parent that is damaged is as good
// as none, unless what it says about the rest of the disk is needed.
func (t *transfer) parentNode(ctx context.Context, level int, index int64) (*manifest.Node, branch, error) {
	if t.parent == nil {
		return nil, branch{}, nil
	}
	n, b, err := t.parent.branch(ctx, level, index)
	var damage *DamageError
	if errors.As(err, &damage) && !t.changed {
		return nil, branch{}, nil
	} else if err != nil {
		return nil, branch{}, fmt.Errorf("read parent: %w", err)
	}
	return n, b, nil
}

// release counts down what a leaf waits for. The last one stores it.
func (t *transfer) release(l *leaf) error {
	if l == nil || l.pending.Add(-1) > 0 {
		return nil
	}
	data := int64(0)
	for i, ref := range l.node.Refs {
		if !ref.IsHole() {
			data += min(t.chunkSize, t.size-(l.index*manifest.Fanout+int64(i))*t.chunkSize)
		}
	}
	b, err := t.storeNode(l.node, l.old, l.before, data)
	if err != nil {
		return fmt.Errorf("store manifest: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaves[l.index] = b
	return nil
}

// storeNode stores a node, unless it is empty or the same as in the parent.
func (t *transfer) storeNode(n, old *manifest.Node, before branch, data int64) (branch, error) {
	if n.IsEmpty() {
		return branch{}, nil
	}
	sum := manifest.Sum{Digest: n.Digest(), Data: data}
	if old != nil && n.Equal(old) && !t.w.store.isDamaged(before.ref) {
		return branch{before.ref, sum}, nil
	}
	meta := batch{w: t.w, to: forMeta}
	ref, _, err := meta.store(chunk.Node, n.Append(nil))
	if err == nil {
		err = meta.flush()
	}
	t.stored.Add(meta.grown)
	return branch{ref, sum}, err
}

// finish builds the tree above the leaves and describes the disk.
func (t *transfer) finish(ctx context.Context, name string) (manifest.Disk, error) {
	root, err := t.climb(ctx)
	if err != nil {
		return manifest.Disk{}, fmt.Errorf("store manifest: %w", err)
	}
	if err := t.w.flush(ctx); err != nil {
		return manifest.Disk{}, err
	}
	t.progress.reach(t.size)
	fresh := t.fresh.Load()
	d := manifest.Disk{
		Name: name, Size: t.size, ChunkSize: t.chunkSize, Data: root.sum.Data,
		Digest: manifest.DiskDigest(t.size, t.chunkSize, root.sum.Digest),
		Counters: Counters{
			Size: t.size, Read: t.read.Load(), Zero: t.size - root.sum.Data,
			New: fresh, Reused: root.sum.Data - fresh, Stored: t.stored.Load(),
		},
	}
	if !root.ref.IsHole() {
		address := manifest.AddressOf(root.ref)
		d.Root = &address
	}
	return d, nil
}

// climb makes the levels above the leaves, one after the other, from the nodes that were visited. Nodes
// that were not are holes, or with changed extents what they were.
func (t *transfer) climb(ctx context.Context) (branch, error) {
	below := t.leaves
	levels := manifest.Levels(t.size, t.chunkSize)
	for level := 1; level < levels; level++ {
		groups := map[int64][]int64{}
		for i := range below {
			groups[i/manifest.Fanout] = append(groups[i/manifest.Fanout], i)
		}
		above := make(map[int64]branch, len(groups))
		for g, children := range groups {
			n := manifest.NewNode(level)
			old, before, err := t.parentNode(ctx, level, g)
			if err != nil {
				return branch{}, err
			}
			if t.changed && old != nil {
				n.Refs = old.Refs
				copy(n.Sums, old.Sums)
			}
			for _, i := range children {
				n.Refs[i%manifest.Fanout], n.Sums[i%manifest.Fanout] = below[i].ref, below[i].sum
			}
			b, err := t.storeNode(n, old, before, n.Data())
			if err != nil {
				return branch{}, err
			}
			above[g] = b
		}
		below = above
	}
	if b, ok := below[0]; ok {
		return b, nil
	}
	if !t.changed {
		return branch{}, nil
	}
	n, b, err := t.parentNode(ctx, levels-1, 0)
	if n != nil {
		b.sum.Digest = n.Digest()
	}
	return b, err
}
