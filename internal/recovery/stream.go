package recovery

import (
	"context"
	"fmt"
	"io"
	"sync"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/index"
	"kluis/internal/recovery/manifest"
	"kluis/internal/recovery/pack"
)

// stream is a pack that is being written. Places in it are reserved under the writer's lock; records
// are appended in whatever order they are sealed, and flow through a channel into Bucket.Put, so that
// a pack is never in memory as a whole.
type stream struct {
	w   *Writer
	id  pack.ID
	box *chunk.Box

	// Guarded by w.mu.
	slots    int
	reserved int64 // the size of the pack, as if nothing could be compressed that is not appended yet
	missing  int   // slots that are reserved and not appended
	closed   bool

	mu      sync.Mutex
	offset  int64
	entries []pack.Entry

	feed chan []byte   // records; closed when the last one is in
	done chan struct{} // closed when Put has returned
}

// newStream begins a pack. w.mu is held.
func (w *Writer) newStream(to purpose) (*stream, error) {
	st := &stream{w: w, offset: pack.HeaderSize, reserved: pack.HeaderSize, feed: make(chan []byte, 2), done: make(chan struct{})}
	if err := w.store.random.fill(st.id[:]); err != nil {
		return nil, fmt.Errorf("make pack: %w", err)
	}
	var err error
	if st.box, err = w.store.keys.box(st.id); err != nil {
		return nil, fmt.Errorf("make pack: %w", err)
	}
	w.store.mu.Lock()
	w.store.pin(w, st.id) // before it can be listed
	w.store.mu.Unlock()
	w.puts.Go(st.put)
	return st, nil
}

// isFull tells whether a chunk must go to the next pack. w.mu is held.
func (st *stream) isFull(plain int) bool {
	return st.slots == pack.MaxSlots || st.reserved+int64(plain)+chunk.Overhead > st.w.store.opts.PackSize
}

// reserve reserves the next slot. w.mu is held.
func (st *stream) reserve(plain int) uint32 {
	slot := st.slots
	st.slots++
	st.missing++
	st.reserved += int64(plain) + chunk.Overhead
	return uint32(slot)
}

// close ends the pack once all that was reserved is appended. w.mu is held.
func (st *stream) close() {
	st.closed = true
	if st.missing == 0 {
		close(st.feed)
	}
}

// sealed is a record in a batch: its entry has the offset within the batch.
type sealed struct {
	slot  uint32
	entry pack.Entry
}

// append hands records over to the pack. buf belongs to the stream from now on.
func (st *stream) append(buf []byte, records []sealed) error {
	st.mu.Lock()
	saved := int64(0)
	for _, r := range records {
		for int(r.slot) >= len(st.entries) {
			st.entries = append(st.entries, pack.Entry{})
		}
		r.entry.Offset += uint32(st.offset)
		st.entries[r.slot] = r.entry
		saved += int64(r.entry.Plain) + chunk.Overhead - int64(r.entry.Length)
	}
	st.offset += int64(len(buf))
	var err error
	select {
	case st.feed <- buf:
	case <-st.done:
		err = st.w.fail(fmt.Errorf("%s was not written", st.id.Name()))
	case <-st.w.ctx.Done():
		err = context.Cause(st.w.ctx)
	}
	st.mu.Unlock()
	if err != nil {
		return err
	}
	st.w.mu.Lock()
	defer st.w.mu.Unlock()
	st.reserved -= saved
	if st.missing -= len(records); st.closed && st.missing == 0 {
		close(st.feed)
	}
	return nil
}

// put writes the pack to the bucket and makes it known when it is durable.
func (st *stream) put() {
	r := &packReader{st: st, rest: pack.AppendHeader(nil, st.id)}
	r.sums.Add(r.rest)
	err := st.w.store.bucket.Put(st.w.ctx, st.id.Name(), -1, r)
	if err != nil { // before done is closed: whoever waits for it must find the reason, not its consequence
		_ = st.w.fail(fmt.Errorf("write %s: %w", st.id.Name(), err))
	}
	close(st.done)
	if err != nil {
		return
	}
	st.w.store.addPack(st.id, r.size, st.entries)
	st.w.mu.Lock()
	defer st.w.mu.Unlock()
	for _, e := range st.entries {
		if at, ok := st.w.own[e.ID]; ok && at.Pack == st.id {
			delete(st.w.own, e.ID)
		}
	}
	st.w.flying--
	st.w.changed.Broadcast()
}

// packReader gives Put the bytes of the pack while they come.
type packReader struct {
	st    *stream
	sums  pack.Sums
	rest  []byte
	owned []byte // the buffer that rest is in, to be used again
	size  int64
	end   bool
}

func (r *packReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.end {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.size += int64(n)
	if len(r.rest) == 0 && r.owned != nil {
		recycle(r.owned)
		r.owned = nil
	}
	return n, nil
}

func (r *packReader) next() error {
	select {
	case <-r.st.w.ctx.Done():
		return context.Cause(r.st.w.ctx)
	case buf, ok := <-r.st.feed:
		if ok {
			r.rest, r.owned = buf, buf
			r.sums.Add(buf)
			return nil
		}
	}
	r.end = true
	st := r.st
	key, err := expand(st.w.store.keys.footers, st.id[:])
	if err != nil {
		return err
	}
	footer := pack.Footer{Created: st.w.store.opts.Now().UnixMicro(), Entries: st.entries}
	r.rest, err = pack.AppendEnd(nil, key, st.id, footer, st.offset, &r.sums)
	return err
}

// batch collects records of one goroutine, so that they are appended together.
type batch struct {
	w       *Writer
	to      purpose
	st      *stream // where the records go
	buf     []byte
	records []sealed
	grown   int64 // bytes of all records so far
}

// store stores a chunk unless the store has it. fresh tells that it had not.
func (b *batch) store(kind chunk.Kind, plain []byte) (ref manifest.Ref, fresh bool, err error) {
	return b.storeAs(kind, b.w.store.keys.hasher.ID(kind, plain), plain)
}

// storeAs is store for who knows the id already.
func (b *batch) storeAs(kind chunk.Kind, id chunk.ID, plain []byte) (ref manifest.Ref, fresh bool, err error) {
	at, st, known, err := b.w.place(b.to, id, len(plain))
	if err != nil {
		return manifest.Ref{}, false, err
	}
	ref = refTo(id, at)
	if known {
		return ref, false, nil
	}
	if st != b.st || len(b.buf)+len(plain)+2*chunk.Overhead > bufferSize {
		if err := b.flush(); err != nil {
			return manifest.Ref{}, false, err
		}
		b.st, b.buf = st, buffer()
	}
	start := len(b.buf)
	var info chunk.Info
	b.buf, info = b.w.store.codec.Seal(b.buf, plain, st.box, chunk.Place{Pack: at.Pack, Slot: at.Slot}, chunk.Info{ID: id, Kind: kind})
	length := len(b.buf) - start
	b.grown += int64(length)
	b.records = append(b.records, sealed{at.Slot, pack.Entry{Info: info, Offset: uint32(start), Length: uint32(length)}})
	return ref, true, nil
}

// flush appends what was collected. It must be called before the goroutine waits for anything else.
func (b *batch) flush() error {
	if len(b.records) == 0 {
		return nil
	}
	err := b.st.append(b.buf, b.records)
	b.st, b.buf, b.records = nil, nil, b.records[:0]
	return err
}

func refTo(id chunk.ID, at index.Location) manifest.Ref {
	return manifest.Ref{ID: id, Pack: at.Pack, Slot: at.Slot}
}

// bufferSize is a unit and its overhead, or the largest single chunk.
const bufferSize = unitSize + unitSize/chunkSize*chunk.Overhead + chunk.Overhead

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }}

func buffer() []byte { return (*buffers.Get().(*[]byte))[:0] }

func recycle(b []byte) { b = b[:0]; buffers.Put(&b) }
