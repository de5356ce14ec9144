package recovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// audit reads chunks of the source at random and compares them with the disk that was just written, most of
// which was taken from the parent because the source says that it did not change. Every second chunk
// is drawn from what is no hole, so that a lie is as likely to be found on a disk that is mostly empty; the
// others are drawn from all of the disk, holes too.
func (t *transfer) audit(ctx context.Context, written manifest.Disk, budget int64) (manifest.Disk, error) {
	d, err := newDisk(t.w.store, t.w.id, "", written)
	if err != nil {
		return written, err
	}
	buf := make([]byte, t.chunkSize)
	for drawn := int64(0); drawn < budget && t.size > 0; drawn += t.chunkSize {
		index, err := t.draw(ctx, d, drawn/t.chunkSize%2 == 0)
		if err != nil {
			return written, fmt.Errorf("audit: %w", err)
		}
		if err := t.auditChunk(ctx, d, index, buf); err != nil {
			return written, fmt.Errorf("audit: %w", err)
		}
		written.Counters.Audited += d.chunkLen(index)
	}
	written.Counters.Read = t.read.Load()
	return written, nil
}

// draw draws a chunk, from what is no hole if there is anything else.
func (t *transfer) draw(ctx context.Context, d *Disk, data bool) (index int64, err error) {
	if data && d.info.Data > 0 {
		n, err := t.below(d.info.Data)
		if err != nil {
			return 0, err
		}
		return d.chunkWith(ctx, n)
	}
	n, err := t.below(d.info.Size)
	return n / d.info.ChunkSize, err
}

// below draws a number from 0 to n-1. That it is not perfectly even among so many does not matter here.
func (t *transfer) below(n int64) (int64, error) {
	var b [8]byte
	if err := t.w.store.random.fill(b[:]); err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(b[:]) % uint64(n)), nil
}

func (t *transfer) auditChunk(ctx context.Context, d *Disk, index int64, buf []byte) error {
	off, length := index*d.info.ChunkSize, d.chunkLen(index)
	plain := buf[:length]
	if err := t.readAt(ctx, plain, off); err != nil {
		return err
	}
	leaf, _, err := d.branch(ctx, 0, index/manifest.Fanout)
	if err != nil {
		return err
	}
	var ref manifest.Ref
	if leaf != nil {
		ref = leaf.Refs[index%manifest.Fanout]
	}
	same := bytes.Equal(plain, zeros[:length])
	if !ref.IsHole() {
		same = t.w.store.keys.hasher.ID(chunk.Data, plain) == ref.ID
	}
	if !same {
		return &UnreportedError{Disk: d.info.Name, Offset: off, Length: length}
	}
	return nil
}

// chunkWith returns the chunk that holds byte n of those that are not in holes, by a walk down the tree.
func (d *Disk) chunkWith(ctx context.Context, n int64) (int64, error) {
	ref, index := d.root, int64(0)
	for level := d.levels - 1; ; level-- {
		node, err := d.node(ctx, ref, level, index)
		if err != nil {
			return 0, err
		}
		place, rest := d.placeWith(node, index, n)
		if place < 0 {
			off, length := d.span(level, index)
			return 0, d.damage(off, length, ref, fmt.Errorf("node counts less data than the one above: %w", chunk.ErrDamaged))
		}
		ref, index, n = node.Refs[place], index*manifest.Fanout+int64(place), rest
		if level == 0 {
			return index, nil
		}
	}
}

// placeWith returns the place of a node below which byte n of its data is, and which byte it is there; less
// than zero if the node has not so much.
func (d *Disk) placeWith(node *manifest.Node, index, n int64) (place int, rest int64) {
	for i, ref := range node.Refs {
		if ref.IsHole() {
			continue
		}
		data := d.chunkLen(index*manifest.Fanout + int64(i))
		if node.Level > 0 {
			data = node.Sums[i].Data
		}
		if n < data {
			return i, n
		}
		n -= data
	}
	return -1, 0
}
