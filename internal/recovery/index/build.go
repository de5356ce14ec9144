package index

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

const suffix = ".segment"

// record is one entry on its way into a segment.
type record struct {
	id chunk.ID
	at Location
}

// source is what a segment is made of: records sorted by id.
type source struct {
	packs   []pack.ID
	count   int64 // records at most
	records iter.Seq2[record, error]
}

// tableSource gives what is in the table.
func (x *Index) tableSource() source {
	return source{x.living(nil, x.packs), int64(len(x.table)), func(yield func(record, error) bool) {
		all := make([]record, 0, len(x.table))
		for id, e := range x.table {
			if at := (Location{x.packs[e.pack], e.slot}); x.livesIn(nil, at.Pack) {
				all = append(all, record{id, at})
			}
		}
		slices.SortFunc(all, compare)
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}}
}

// segmentSource gives what is in a segment, without what lives elsewhere or nowhere.
func (x *Index) segmentSource(s *segment) source {
	return source{x.living(s, s.packs), s.entries, func(yield func(record, error) bool) {
		for b := range s.blocks() {
			block, err := s.block(x.mac, b)
			for ; err == nil && len(block) > 0; block = block[entrySize:] {
				var at Location
				if at, err = s.location(block); err == nil && x.livesIn(s, at.Pack) && !yield(record{chunk.ID(block[:16]), at}, nil) {
					return
				}
			}
			if err != nil {
				x.lose(s)
				yield(record{}, err)
				return
			}
		}
	}}
}

func (x *Index) livesIn(s *segment, id pack.ID) bool {
	home, ok := x.home[id]
	return ok && home == s
}

func (x *Index) living(s *segment, packs []pack.ID) []pack.ID {
	return slices.DeleteFunc(slices.Clone(packs), func(id pack.ID) bool { return !x.livesIn(s, id) })
}

func compare(a, b record) int {
	return cmp.Or(bytes.Compare(a.id[:], b.id[:]), bytes.Compare(a.at.Pack[:], b.at.Pack[:]), cmp.Compare(a.at.Slot, b.at.Slot))
}

// write makes a segment of one or two sources.
func (x *Index) write(from []source) (*segment, error) {
	if x.folder == nil {
		var b bytes.Buffer
		if err := x.build(&b, from); err != nil {
			return nil, err
		}
		s, err := openSegment(bytes.NewReader(b.Bytes()), int64(b.Len()), x.mac)
		if err != nil {
			return nil, err
		}
		s.close = func() error { return nil }
		return s, nil
	}
	name := x.nameFor(from)
	if err := x.folder.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("write segment of the index: %w", err)
	}
	f, err := x.folder.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write segment of the index: %w", err)
	}
	s, err := x.fill(f, name, from)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write segment of the index: %w", err), f.Close(), x.folder.Remove(name))
	}
	return s, nil
}

func (x *Index) fill(f *os.File, name string, from []source) (*segment, error) {
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(x.build(w, from), w.Flush()); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := openSegment(f, info.Size(), x.mac)
	if err != nil {
		return nil, err
	}
	s.name, s.close = name, f.Close
	return s, nil
}

// nameFor names a segment by the packs that it is about.
func (x *Index) nameFor(from []source) string {
	var ids []byte
	for _, src := range from {
		for _, id := range src.packs {
			ids = append(ids, id[:]...)
		}
	}
	t := x.mac.tag([]byte("name"), ids)
	return hex.EncodeToString(t[:]) + suffix
}

// build writes a segment, in memory that does not grow with it but for filter and fences.
func (x *Index) build(w io.Writer, from []source) error {
	numbers, count := map[pack.ID]uint32{}, int64(0)
	var packs []byte
	for _, src := range from {
		count += src.count
		for _, id := range src.packs {
			numbers[id] = uint32(len(numbers))
			packs = append(packs, id[:]...)
		}
	}
	b := builder{w: w, mac: x.mac, packTag: x.mac.tag([]byte("packs"), packs), filter: newFilter(count)}
	for r, err := range merged(from) {
		if err != nil {
			return err
		}
		if err := b.add(r, numbers[r.at.Pack]); err != nil {
			return err
		}
	}
	return b.end(packs)
}

// merged yields the records of two sources in their common order, or those of one.
func merged(from []source) iter.Seq2[record, error] {
	if len(from) == 1 {
		return from[0].records
	}
	return func(yield func(record, error) bool) {
		next, stop := iter.Pull2(from[1].records)
		defer stop()
		other, otherErr, more := next()
		for r, err := range from[0].records {
			for more && (otherErr != nil || err == nil && compare(other, r) < 0) {
				if !yield(other, otherErr) || otherErr != nil {
					return
				}
				other, otherErr, more = next()
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		for ; more; other, otherErr, more = next() {
			if !yield(other, otherErr) || otherErr != nil {
				return
			}
		}
	}
}

type builder struct {
	w       io.Writer
	mac     *mac
	packTag tag
	filter  filter
	fences  []byte
	block   []byte
	entries int64
}

func (b *builder) add(r record, number uint32) error {
	if len(b.block) == 0 {
		b.fences = append(b.fences, r.id[:8]...)
	}
	b.filter.add(r.id)
	b.block = append(b.block, r.id[:]...)
	b.block = binary.BigEndian.AppendUint32(b.block, number)
	b.block = binary.BigEndian.AppendUint16(b.block, uint16(r.at.Slot))
	b.entries++
	if len(b.block) == blockSlots*entrySize {
		return b.flush()
	}
	return nil
}

func (b *builder) flush() error {
	if len(b.block) == 0 {
		return nil
	}
	t := b.mac.block(b.packTag, (b.entries-1)/blockSlots, b.block)
	_, err := b.w.Write(append(b.block, t[:]...))
	b.block = b.block[:0]
	return err
}

func (b *builder) end(packs []byte) error {
	if err := b.flush(); err != nil {
		return err
	}
	end := append([]byte(nil), magic...)
	end = binary.BigEndian.AppendUint32(end, version)
	end = binary.BigEndian.AppendUint32(end, uint32(len(packs)/16))
	end = binary.BigEndian.AppendUint64(end, uint64(b.entries))
	end = binary.BigEndian.AppendUint64(end, uint64(len(b.filter)))
	t := b.mac.tag([]byte("trailer"), packs, b.fences, b.filter, end)
	for _, part := range [][]byte{packs, b.fences, b.filter, end, t[:]} {
		if _, err := b.w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func openFolder(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the index: %w", err)
	}
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder of the index: %w", err)
	}
	return folder, nil
}

// load opens the segments of the folder, the larger first: they are the older ones.
func (x *Index) load() error {
	files, err := fs.ReadDir(x.folder.FS(), ".")
	if err != nil {
		return fmt.Errorf("list folder of the index: %w", err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		s, err := x.openFile(f.Name())
		if err != nil {
			x.junk = append(x.junk, f.Name())
			continue
		}
		x.segments = append(x.segments, s)
	}
	slices.SortStableFunc(x.segments, func(a, b *segment) int { return cmp.Compare(b.entries, a.entries) })
	for _, s := range slices.Clone(x.segments) {
		homeless := true
		for _, id := range s.packs {
			if !x.Has(id) {
				x.home[id], homeless = s, false
			}
		}
		if homeless { // all of it is in a merged one
			x.segments = slices.DeleteFunc(x.segments, func(other *segment) bool { return other == s })
			x.junk = append(x.junk, s.name)
			_ = s.close()
		}
	}
	return nil
}

func (x *Index) openFile(name string) (*segment, error) {
	f, err := x.folder.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s, err := openSegment(f, info.Size(), x.mac)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.name, s.close = name, f.Close
	return s, nil
}

// drop closes a segment and removes its file, unless another one has taken its name.
func (x *Index) drop(s *segment) {
	_ = s.close()
	if x.folder != nil && !slices.ContainsFunc(x.segments, func(other *segment) bool { return other.name == s.name }) {
		_ = x.folder.Remove(s.name) // what stays is found homeless, or damaged again
	}
}

// sweep removes the files that are no good.
func (x *Index) sweep() {
	for _, name := range x.junk {
		if !slices.ContainsFunc(x.segments, func(s *segment) bool { return s.name == name }) {
			_ = x.folder.Remove(name)
		}
	}
	x.junk = nil
}

// Close lets go of the segments. What is in the table is lost unless Flush was called.
func (x *Index) Close() error {
	var err error
	for _, s := range x.segments {
		err = errors.Join(err, s.close())
	}
	if x.folder != nil {
		err = errors.Join(err, x.folder.Close())
	}
	return err
}
