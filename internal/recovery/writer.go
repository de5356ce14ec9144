package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/index"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// maxFlying bounds the full packs that wait to become durable, while the next ones fill.
const maxFlying = 2

var errAborted = errors.New("recovery point was aborted")

// Writer writes one recovery point. Nothing of it is visible before Commit. After the first error the
// writer is unusable, and every further call returns that error; what was stored until then is found
// again by the next writer.
//
// Its methods may be called from several goroutines, but WriteDisk, Attach and Commit take turns.
type Writer struct {
	store *Store
	id    string
	label string

	turn        sync.Mutex
	disks       []manifest.Disk
	attachments []manifest.Attachment

	ctx    context.Context // ends with the writer; its packs are written under it
	cancel context.CancelCauseFunc
	puts   sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond          // flying or err changed
	current map[purpose]*stream // packs that are being filled
	flying  int                 // full packs that are not durable yet
	own     map[chunk.ID]index.Location
	err     error

	// Guarded by store.mu: the packs that this point needs, and the disks that it shares nodes with.
	pinned  map[pack.ID]bool
	parents []*Disk
}

// purpose tells the packs for disks from those for nodes and documents: a walk through manifests then
// reads few packs.
type purpose int

const (
	forData purpose = iota
	forMeta
)

// Begin starts a new recovery point. It returns ErrPointExists if the id is taken, by a point or an open
// writer. The writer must be ended by Commit or Abort.
func (s *Store) Begin(ctx context.Context, pointID string) (*Writer, error) {
	if !validPointID(pointID) {
		return nil, fmt.Errorf("begin recovery point %q: want 1 to 64 of A-Z a-z 0-9 . _ -", pointID)
	}
	if err := s.mayWrite(); err != nil {
		return nil, fmt.Errorf("begin recovery point %q: %w", pointID, err)
	}
	if err := s.keepReserve(ctx, 0); err != nil {
		return nil, fmt.Errorf("begin recovery point %q: %w", pointID, err)
	}
	label := s.keys.label(pointID)
	r, err := s.bucket.Get(ctx, pointPrefix+label, 0, 0)
	if err == nil {
		_ = r.Close()
		return nil, fmt.Errorf("begin recovery point %q: %w", pointID, ErrPointExists)
	} else if !errors.Is(err, objects.ErrNotExist) {
		return nil, fmt.Errorf("begin recovery point %q: %w", pointID, err)
	}
	if err := s.refreshIndex(ctx); err != nil {
		return nil, fmt.Errorf("begin recovery point %q: %w", pointID, err)
	}
	w := &Writer{
		store: s, id: pointID, label: label,
		current: map[purpose]*stream{}, own: map[chunk.ID]index.Location{}, pinned: map[pack.ID]bool{},
	}
	w.changed = sync.NewCond(&w.mu)
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("begin recovery point %q: recovery store is closed", pointID)
	}
	for other := range s.writers {
		if other.id == pointID {
			return nil, fmt.Errorf("begin recovery point %q: it is being written: %w", pointID, ErrPointExists)
		}
	}
	s.writers[w] = true
	return w, nil
}

// Attach adds a document of up to 1 MiB to the point.
func (w *Writer) Attach(name string, data []byte) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	ref, err := w.attach(name, data)
	if err != nil {
		return fmt.Errorf("attach %q: %w", name, w.fail(err))
	}
	w.attachments = append(w.attachments, manifest.Attachment{Name: name, Size: int64(len(data)), Ref: manifest.AddressOf(ref)})
	return nil
}

func (w *Writer) attach(name string, data []byte) (manifest.Ref, error) {
	if err := manifest.CheckName(name); err != nil {
		return manifest.Ref{}, err
	}
	for _, a := range w.attachments {
		if a.Name == name {
			return manifest.Ref{}, errors.New("name is taken")
		}
	}
	if len(data) > chunk.MaxSize {
		return manifest.Ref{}, fmt.Errorf("document of %d bytes: at most %d are allowed", len(data), chunk.MaxSize)
	}
	b := batch{w: w, to: forMeta}
	ref, _, err := b.store(chunk.Document, data)
	if err != nil {
		return manifest.Ref{}, err
	}
	return ref, b.flush()
}

// Disk returns a disk that was written, to be read before the point is committed.
func (w *Writer) Disk(name string) (*Disk, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	for _, d := range w.disks {
		if d.Name == name {
			return newDisk(w.store, w.id, "", d)
		}
	}
	return nil, fmt.Errorf("recovery point %q: no disk %q was written", w.id, name)
}

// Commit makes the point visible, as the last and one step, after everything in it is durable. It ends
// the writer. If it fails while the answer of the storage is lost, the point may exist nevertheless.
func (w *Writer) Commit(ctx context.Context, labels map[string]string) (*Point, error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	m, err := w.commit(ctx, labels)
	if err != nil {
		err = fmt.Errorf("commit recovery point %q: %w", w.id, w.fail(err))
		w.close()
		return nil, err
	}
	_ = w.fail(errors.New("recovery point is committed"))
	w.close()
	return &Point{
		ID: m.ID, Time: microTime(m.Created), Labels: maps.Clone(labels), Epoch: m.Epoch,
		store: w.store, label: w.label, manifest: m,
	}, nil
}

func (w *Writer) commit(ctx context.Context, labels map[string]string) (*manifest.Point, error) {
	if err := w.flush(ctx); err != nil {
		return nil, err
	}
	if err := w.checkPacks(ctx); err != nil {
		return nil, err
	}
	m := &manifest.Point{
		ID: w.id, Created: w.store.opts.Now().UnixMicro(), Labels: labels,
		Disks: w.disks, Attachments: w.attachments,
	}
	return m, w.store.putPoint(ctx, m)
}

// checkPacks refuses to commit a point whose packs somebody has removed meanwhile. Collect of this process
// does not; this is for what happens behind its back.
func (w *Writer) checkPacks(ctx context.Context) error {
	w.store.mu.Lock()
	missing := maps.Clone(w.pinned)
	w.store.mu.Unlock()
	for o, err := range w.store.bucket.List(ctx, pack.Prefix) {
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
		if id, ok := pack.ParseName(o.Name); ok {
			delete(missing, id)
		}
	}
	for id := range missing {
		return fmt.Errorf("%s has disappeared: %w", id.Name(), objects.ErrNotExist)
	}
	return nil
}

// Abort ends the writer without a point. After Commit it does nothing.
func (w *Writer) Abort() {
	_ = w.fail(errAborted) // first, so that whoever has the turn gives it up soon
	w.turn.Lock()
	defer w.turn.Unlock()
	w.close()
}

// close waits for the writer's goroutines and lets go of what it held. w.err is set before.
func (w *Writer) close() {
	w.puts.Wait()
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.writers[w] {
		return
	}
	_ = s.index.Flush() // so that little is lost if this process dies
	delete(s.writers, w)
	for id := range w.pinned {
		if s.pins[id]--; s.pins[id] == 0 {
			delete(s.pins, id)
		}
	}
	for _, d := range w.parents {
		s.release(d)
	}
}

// fail makes the writer unusable, unless it is already, and returns the reason.
func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.cancel(err)
		w.changed.Broadcast()
	}
	return w.err
}

// place decides where a chunk is stored. If the store has it, or this writer has placed it before, known
// is true. If not, the caller must seal the chunk for that place and append it to the stream.
func (w *Writer) place(to purpose, id chunk.ID, plain int) (at index.Location, st *stream, known bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return index.Location{}, nil, false, w.err
	}
	if at, ok := w.own[id]; ok {
		return at, nil, true, nil
	}
	if at, ok := w.store.findAndPin(w, id); ok {
		return at, nil, true, nil
	}
	st = w.current[to]
	if st != nil && st.isFull(plain) {
		w.roll(to)
		st = nil
	}
	if st == nil {
		if st, err = w.newStream(to); err != nil {
			return index.Location{}, nil, false, err
		}
		w.current[to] = st
	}
	at = index.Location{Pack: st.id, Slot: st.reserve(plain)}
	w.own[id] = at
	return at, st, false, nil
}

// findAndPin looks a chunk up; its pack then stays as long as the writer is open.
func (s *Store) findAndPin(w *Writer, id chunk.ID) (index.Location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.index.Find(id)
	if ok {
		s.pin(w, at.Pack)
	}
	return at, ok
}

// pin keeps a pack for an open writer. s.mu is held.
func (s *Store) pin(w *Writer, id pack.ID) {
	if w.pinned[id] {
		return
	}
	w.pinned[id] = true
	s.pins[id]++
	if s.touched != nil {
		s.touched[id] = true
	}
}

// hold keeps a disk for somebody who reads it; release ends that. s.mu is held.
func (s *Store) hold(d *Disk) {
	s.held[d]++
	if s.touched != nil {
		s.late = append(s.late, d)
	}
}

func (s *Store) release(d *Disk) {
	if s.held[d]--; s.held[d] == 0 {
		delete(s.held, d)
	}
}

// waitForRoom waits until the packs that are full are not too many.
func (w *Writer) waitForRoom() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.flying > maxFlying && w.err == nil {
		w.changed.Wait()
	}
	return w.err
}

// roll closes the pack that is being filled. w.mu is held.
func (w *Writer) roll(to purpose) {
	if st := w.current[to]; st != nil {
		w.current[to] = nil
		w.flying++
		st.close()
	}
}

// flush closes all packs and waits until they are durable.
func (w *Writer) flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.fail(context.Cause(ctx)) })
	defer stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.roll(forData)
	w.roll(forMeta)
	for w.flying > 0 && w.err == nil {
		w.changed.Wait()
	}
	return w.err
}
