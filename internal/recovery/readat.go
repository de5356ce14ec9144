package recovery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// chunkCache bounds the opened chunks that are kept, of all disks together: what a machine that runs from a
// recovery point reads in small pieces.
const chunkCache = 32 << 20

// ReadAt reads from the disk. Every byte was authenticated before it is returned; where that is impossible
// the error is a DamageError.
//
// Chunks that are wanted whole are opened into p; neighbours in a pack are read in one piece. Chunks of
// which only a part is wanted are kept, since the rest is often wanted next; and if the one before was wanted
// just now, those behind are opened too.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	var eof error
	switch {
	case off < 0:
		return 0, fmt.Errorf("read disk %s at %d: negative offset", d.info.Name, off)
	case off >= d.info.Size && len(p) > 0:
		return 0, io.EOF
	case int64(len(p)) > d.info.Size-off:
		p, eof = p[:max(0, d.info.Size-off)], io.EOF
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		part := p[done:min(len(p), done+int(unitSize-at%unitSize))]
		if err := d.readUnit(context.Background(), part, at); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), eof
}

// piece is a chunk that has to be fetched.
type piece struct {
	wanted
	into   []byte // where a part of it goes; nil if it is only to be kept
	within int64  // where that part begins in the chunk
}

// readUnit reads what lies within one unit, and so within one leaf.
func (d *Disk) readUnit(ctx context.Context, p []byte, off int64) error {
	size, end := d.info.ChunkSize, off+int64(len(p))
	leaf, _, err := d.branch(ctx, 0, off/size/manifest.Fanout)
	if err != nil {
		return err
	}
	if leaf == nil {
		clear(p)
		return nil
	}
	var missing []piece
	for index := off / size; index*size < end; index++ {
		ref := leaf.Refs[index%manifest.Fanout]
		start, stop := max(off, index*size), min(end, index*size+size)
		into := p[start-off : stop-off]
		if ref.IsHole() {
			clear(into)
		} else if plain, ok := d.kept(ref, index); ok {
			copy(into, plain[start-index*size:])
		} else {
			missing = append(missing, piece{wanted{ref, index}, into, start - index*size})
		}
	}
	if len(missing) == 1 && int64(len(missing[0].into)) < d.chunkLen(missing[0].index) {
		missing = d.ahead(leaf, missing)
	}
	return d.fetch(ctx, missing)
}

// kept returns a chunk that was opened before. It is shared.
func (d *Disk) kept(ref manifest.Ref, index int64) ([]byte, bool) {
	plain, ok := d.store.chunks.get(ref)
	return plain, ok && int64(len(plain)) == d.chunkLen(index)
}

// ahead adds the chunks of the unit behind a piece, if somebody seems to read one after the other.
func (d *Disk) ahead(leaf *manifest.Node, missing []piece) []piece {
	index := missing[0].index
	if before := (index - 1) % manifest.Fanout; index%manifest.Fanout == 0 || leaf.Refs[before].IsHole() {
		return missing
	} else if _, ok := d.kept(leaf.Refs[before], index-1); !ok {
		return missing
	}
	for next := index + 1; next%manifest.Fanout != 0 && (next-index)*d.info.ChunkSize < unitSize; next++ {
		ref := leaf.Refs[next%manifest.Fanout]
		if ref.IsHole() {
			continue
		}
		if _, ok := d.kept(ref, next); !ok {
			missing = append(missing, piece{wanted: wanted{ref, next}})
		}
	}
	return missing
}

// fetch reads and opens chunks, in the order of their packs.
func (d *Disk) fetch(ctx context.Context, missing []piece) error {
	if len(missing) == 0 {
		return nil
	}
	chunks, at := make([]wanted, len(missing)), make(map[int64]piece, len(missing))
	for i, m := range missing {
		chunks[i], at[m.index] = m.wanted, m
	}
	plans, err := d.plan(ctx, chunks)
	if err != nil && missing[len(missing)-1].into == nil {
		return d.fetch(ctx, missing[:1]) // what is only to be kept shall disturb nobody
	}
	if err != nil {
		return err
	}
	sealed, plain := sealedRuns.Get().(*[]byte), units.Get().(*[]byte)
	defer sealedRuns.Put(sealed)
	defer units.Put(plain)
	for _, pl := range plans {
		for _, one := range pl.pack.runs(pl.slots) {
			if err := d.fetchRun(ctx, pl, one, at, *sealed, *plain); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetchRun reads a run and opens its chunks: right where they are wanted, if they are wanted whole.
func (d *Disk) fetchRun(ctx context.Context, pl *plan, one run, at map[int64]piece, sealed, spare []byte) error {
	sealed = sealed[:one.end-one.off]
	if err := readRange(ctx, d.store.bucket, pl.pack.id.Name(), one.off, sealed); err != nil {
		return d.fetchOneByOne(ctx, pl, one, at, err)
	}
	for i := one.first; i <= one.last; i++ {
		e, m := pl.pack.Entries[pl.slots[i]], at[pl.indexes[i]]
		dst := spare[:0]
		if len(m.into) == int(e.Plain) {
			dst = m.into[:0:len(m.into)]
		}
		plain, err := d.store.codec.Open(dst, sealed[int64(e.Offset)-one.off:][:e.Length], pl.pack.box, pl.pack.place(pl.slots[i]), e.Info)
		if err != nil {
			err = fmt.Errorf("%s: %w", pl.pack.id.Name(), err)
		}
		if err := d.deliver(ctx, m, plain, err); err != nil {
			return err
		}
	}
	return nil
}

// fetchOneByOne tells the good chunks of a run that can't be read in one piece from the bad.
func (d *Disk) fetchOneByOne(ctx context.Context, pl *plan, one run, at map[int64]piece, cause error) error {
	if !isDamage(cause) {
		return fmt.Errorf("read disk %s: %w", d.info.Name, cause)
	}
	return d.store.readRun(ctx, pl.pack, pl.slots, one, nil, nil, func(i int, plain []byte, err error) error {
		return d.deliver(ctx, at[pl.indexes[i]], plain, err)
	})
}

// deliver copies a chunk to where it is wanted, if it is not there already, and keeps it if only a part was
// wanted. One that could not be read is looked for elsewhere.
func (d *Disk) deliver(ctx context.Context, m piece, plain []byte, err error) error {
	if err != nil && m.into == nil {
		return nil // whoever wants it will be told
	}
	if err != nil {
		plain, err = d.store.readElsewhere(ctx, m.ref, chunk.Data, err)
	}
	if err == nil && int64(len(plain)) != d.chunkLen(m.index) {
		err = fmt.Errorf("chunk of %d bytes: %w", len(plain), chunk.ErrDamaged)
	}
	if err != nil {
		return d.damageOf(m.index, m.ref, err)
	}
	if len(m.into) < len(plain) {
		d.store.chunks.put(m.ref, bytes.Clone(plain), len(plain))
	}
	if len(m.into) > 0 && &m.into[0] != &plain[m.within] {
		copy(m.into, plain[m.within:])
	}
	return nil
}

var sealedRuns = sync.Pool{New: func() any { b := make([]byte, runSize); return &b }}
