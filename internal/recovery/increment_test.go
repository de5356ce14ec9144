package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"syscall"
	"testing"

	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// change overwrites some whole chunks and returns where.
func change(data []byte, seed uint64, chunks ...int) []recovery.Extent {
	var changed []recovery.Extent
	for i, c := range chunks {
		copy(data[c*cs:(c+1)*cs], noise(seed+uint64(i), cs))
		changed = append(changed, recovery.Extent{Offset: int64(c) * cs, Length: cs})
	}
	return changed
}

func TestIncrementWithChangedExtents(t *testing.T) {
	b := newBucket(t)
	o := options(newClock())
	o.PackSize = 16 * mib
	s := create(t, b, o)
	first := noise(1, 130*mib) // three leaves
	backup(t, s, "1", &image{data: first}, recovery.DiskOptions{})
	_, before := stat(t, b, "")

	second := bytes.Clone(first)
	changed := change(second, 100, 0, 1, 500, 1023, 1024, 2000, 2079)
	changed[2].Offset, changed[2].Length = 500*cs+10*kib, 4*kib // widened to its chunk
	_, c := backup(t, s, "2", &image{data: second, extents: changed}, recovery.DiskOptions{Parent: disk(t, s, "1"), Changed: true})
	if c.Read != 7*cs || c.New != 7*cs || c.Zero != 0 || c.Reused != c.Size-7*cs {
		t.Errorf("counters of the increment: %+v", c)
	}
	_, after := stat(t, b, "")
	if grown := after - before; grown > 7*cs+150*kib {
		t.Errorf("the store grew by %d bytes for %d changed", grown, 7*cs)
	}
	wantRestored(t, s, "1", first)
	wantRestored(t, s, "2", second)

	// What became zero is a hole, and a disk that did not change costs a point.
	third := bytes.Clone(second)
	clear(third[500*cs : 501*cs])
	zeroed := []recovery.Extent{{Offset: 500 * cs, Length: cs}}
	_, c = backup(t, s, "3", &image{data: third, extents: zeroed}, recovery.DiskOptions{Parent: disk(t, s, "2"), Changed: true})
	if c.Zero != cs || c.New != 0 {
		t.Errorf("counters after zeroing: %+v", c)
	}
	_, c = backup(t, s, "4", &image{data: third, extents: []recovery.Extent{}}, recovery.DiskOptions{Parent: disk(t, s, "3"), Changed: true})
	if c.Read != 0 || c.New != 0 || c.Stored != 0 || c.Zero != cs {
		t.Errorf("counters without change: %+v", c)
	}
	wantRestored(t, s, "3", third)
	wantRestored(t, s, "4", third)

	// The digest follows the content, whichever way it was written.
	_, _ = backup(t, s, "5", &image{data: third}, recovery.DiskOptions{})
	digest := func(id string) string {
		p, err := s.Point(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return p.Disks()[0].Digest
	}
	if digest("3") != digest("4") || digest("4") != digest("5") || digest("2") == digest("3") {
		t.Error("digests don't follow the content")
	}
}

func TestSecondFullReadStoresNothing(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	data := mixed(1, 80*mib+100)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	packs, _ := stat(t, b, "packs/")
	for _, id := range []string{"with-parent", "without"} {
		s := open(t, b, options(newClock()))
		var o recovery.DiskOptions
		if id == "with-parent" {
			o.Parent = disk(t, s, "1")
		}
		w, err := s.Begin(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		c, err := w.WriteDisk(t.Context(), "os", &image{data: data}, o)
		if err != nil {
			t.Fatal(err)
		}
		if c.New != 0 || c.Stored != 0 || c.Reused+c.Zero != c.Size {
			t.Errorf("%s: %+v", id, c)
		}
		if _, err := w.Commit(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if n, _ := stat(t, b, "packs/"); n != packs {
			t.Errorf("%s: %d packs became %d", id, packs, n)
		}
		wantRestored(t, s, id, data)
	}
}

func TestChunksAreSharedWithinAndBetweenDisks(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	same := bytes.Repeat(noise(1, cs), 64)
	_, c := backup(t, s, "1", &image{data: same}, recovery.DiskOptions{})
	if c.New != cs || c.Reused != 63*cs {
		t.Errorf("64 equal chunks: %+v", c)
	}
	_, c = backup(t, s, "2", &image{data: same}, recovery.DiskOptions{})
	if c.New != 0 || c.Reused != 64*cs {
		t.Errorf("a clone: %+v", c)
	}
	wantRestored(t, s, "1", same)
	wantRestored(t, s, "2", same)
}

func TestCompressionOnlyWhenItHelps(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	_, c := backup(t, s, "1", &image{data: noise(1, 4*mib)}, recovery.DiskOptions{})
	if over := c.Stored - c.New; over < 0 || over > 4*kib {
		t.Errorf("ciphertext grew by %d bytes", over)
	}
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), 4*mib/45)
	_, c = backup(t, s, "2", &image{data: text}, recovery.DiskOptions{})
	if c.Stored > c.New/10 {
		t.Errorf("text of %d bytes took %d", c.New, c.Stored)
	}
	wantRestored(t, s, "2", text)
}

func TestHolesAreNeitherReadNorWritten(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := make([]byte, 100*mib)
	copy(data[70*mib:], noise(1, mib))
	src := &image{data: data, extents: []recovery.Extent{{Offset: 70 * mib, Length: mib}}}
	_, c := backup(t, s, "1", src, recovery.DiskOptions{})
	if c.Read != mib || c.Zero != 99*mib {
		t.Errorf("%+v", c)
	}
	var got target
	if _, err := s.Restore(t.Context(), disk(t, s, "1"), &got, recovery.RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got.written != mib || !bytes.Equal(got.data, data) {
		t.Errorf("%d bytes were written, or they differ", got.written)
	}
	var extents []recovery.Extent
	for e, err := range disk(t, s, "1").Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		extents = append(extents, e)
	}
	if len(extents) != 1 || extents[0] != src.extents[0] {
		t.Errorf("extents: %v", extents)
	}
	// A disk of the store is a source, too.
	if _, c := backup(t, s, "2", disk(t, s, "1"), recovery.DiskOptions{}); c.Read != mib || c.New != 0 {
		t.Errorf("copy: %+v", c)
	}
	wantRestored(t, s, "2", data)
}

// A disk of 4 TiB with little on it costs little, in time and space.
func TestHugeSparseDisk(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	src := &sparse{size: 4 << 40, at: []int64{0, 1 << 30, 3 << 40, 4<<40 - cs}}
	_, c := backup(t, s, "1", src, recovery.DiskOptions{})
	if c.Read != 4*cs || c.New != cs || c.Stored > cs+4*kib { // the four chunks are equal
		t.Errorf("%+v", c)
	}
	src.seed, src.at = 1, src.at[2:3]
	parent := disk(t, s, "1")
	if _, c = backup(t, s, "2", src, recovery.DiskOptions{Parent: parent, Changed: true}); c.Stored > cs+2*kib {
		t.Errorf("%+v", c)
	}
	got := make([]byte, cs)
	if _, err := disk(t, s, "2").ReadAt(got, 3<<40); err != nil || !bytes.Equal(got, noise(1, cs)) {
		t.Errorf("changed chunk: %v, or bytes differ", err)
	}
	if _, err := disk(t, s, "2").ReadAt(got, 1<<30); err != nil || !bytes.Equal(got, noise(0, cs)) {
		t.Errorf("unchanged chunk: %v, or bytes differ", err)
	}
}

// sparse is a disk with noise in single chunks.
type sparse struct {
	image
	size int64
	at   []int64
	seed uint64
}

func (s *sparse) Size() int64 { return s.size }

func (s *sparse) ReadAt(p []byte, off int64) (int, error) { return copy(p, noise(s.seed, len(p))), nil }

func (s *sparse) Extents(ctx context.Context) iterExtents {
	s.extents = nil
	for _, at := range s.at {
		s.extents = append(s.extents, recovery.Extent{Offset: at, Length: cs})
	}
	return s.image.Extents(ctx)
}

func TestSourceErrors(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	good := mixed(1, 6*mib)
	backup(t, s, "good", &image{data: good}, recovery.DiskOptions{})
	parent := disk(t, s, "good")

	short := &sparse{size: 6 * mib, at: []int64{5 * mib}}
	tests := map[string]struct {
		src  recovery.Source
		o    recovery.DiskOptions
		want error
		text string
	}{
		"bad sector":      {&image{data: noise(2, 6*mib), badAt: 4*mib + 777}, recovery.DiskOptions{}, errBadSector, "offset 4195081"},
		"shorter":         {&shorter{image{data: noise(2, 6*mib)}}, recovery.DiskOptions{}, io.ErrUnexpectedEOF, "offset 6291456"},
		"not ascending":   {&image{data: good, extents: []recovery.Extent{{Offset: 2 * mib, Length: mib}, {Offset: mib, Length: mib}}}, recovery.DiskOptions{}, nil, "after one that ends at"},
		"negative extent": {&image{data: good, extents: []recovery.Extent{{Offset: -1, Length: mib}}}, recovery.DiskOptions{}, nil, "extent"},
		"negative length": {&image{data: good, extents: []recovery.Extent{{Offset: 0, Length: -1}}}, recovery.DiskOptions{}, nil, "extent"},
		"no parent":       {short, recovery.DiskOptions{Changed: true}, recovery.ErrNoPoint, ""},
		"other size":      {&image{data: good[:mib]}, recovery.DiskOptions{Parent: parent, Changed: true}, nil, "changed extents mean nothing"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := tryBackup(s, "bad", c.src, c.o)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !bytes.Contains([]byte(err.Error()), []byte(c.text)) {
				t.Errorf("got %v", err)
			}
			if points, err := s.Points(t.Context()); err != nil || len(points) != 1 {
				t.Errorf("%d points, %v", len(points), err)
			}
			wantRestored(t, s, "good", good)
		})
	}
}

// shorter is a disk that says it is one byte longer than it is.
type shorter struct{ image }

func (s *shorter) Size() int64 { return s.image.Size() + 1 }

func (s *shorter) Extents(context.Context) iterExtents {
	return (&image{data: make([]byte, s.Size())}).Extents(context.Background())
}

func TestFullStore(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	good, next := noise(1, 3*mib), noise(2, 8*mib)
	backup(t, s, "good", &image{data: good}, recovery.DiskOptions{})
	for k := int64(1); ; k++ {
		full := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: objectstest.Tear, Err: syscall.ENOSPC, Only: func(op, _ string) bool { return op == "put" }}
		other := open(t, full, options(newClock()))
		_, _, err := tryBackup(other, "next", &image{data: next}, recovery.DiskOptions{Parent: disk(t, other, "good")})
		if err == nil && !full.Failed() {
			break
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("put %d fails: %v", k, err)
		}
		wantRestored(t, open(t, b, options(newClock())), "good", good)
	}
	wantRestored(t, s, "next", next)
}

// Whichever read of the store fails in an increment, half-way or at all: no point is lost, and the error says why.
func TestReadsThatFailInABackup(t *testing.T) {
	b := newBucket(t)
	data := noise(1, 70*mib) // two leaves
	backup(t, create(t, b, options(newClock())), "good", &image{data: data}, recovery.DiskOptions{})
	next := bytes.Clone(data)
	changed := change(next, 50, 3, 1030)
	for k := int64(1); ; k++ {
		faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: objectstest.Tear, Once: true, Only: func(op, _ string) bool { return op == "get" }}
		err := func() error {
			s, err := recovery.Open(t.Context(), faulty, options(newClock()))
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			p, err := s.Point(t.Context(), "good")
			if err != nil {
				return err
			}
			d, err := p.Disk("os")
			if err != nil {
				return err
			}
			_, _, err = tryBackup(s, "next", &image{data: next, extents: changed}, recovery.DiskOptions{Parent: d, Changed: true})
			return err
		}()
		if err == nil && !faulty.Failed() {
			break
		}
		if err == nil { // what failed was not needed
			s := open(t, b, options(newClock()))
			wantRestored(t, s, "next", next)
			if err := s.Delete(t.Context(), "next"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, objectstest.ErrInjected) {
			t.Fatalf("get %d fails: %v", k, err)
		}
	}
	s := open(t, b, options(newClock()))
	wantRestored(t, s, "good", data)
	wantRestored(t, s, "next", next)
}

func TestCancel(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := noise(1, 32*mib)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := s.Begin(ctx, "1")
	if err != nil {
		t.Fatal(err)
	}
	src := &image{data: data, read: func(off int64) {
		if off == 4*mib {
			cancel()
		}
	}}
	if _, err := w.WriteDisk(ctx, "os", src, recovery.DiskOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("WriteDisk: %v", err)
	}
	if _, err := w.Commit(t.Context(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit after it: %v", err)
	}
	w.Abort()
	w.Abort()

	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	ctx, cancel = context.WithCancel(t.Context())
	var got target
	_, err = s.Restore(ctx, disk(t, s, "1"), &got, recovery.RestoreOptions{Progress: func(done, _ int64) {
		if done > 4*mib {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || got.written == int64(len(data)) {
		t.Errorf("Restore: %v after %d bytes", err, got.written)
	}
	if _, err := s.Check(ctx, recovery.CheckOptions{Level: recovery.LevelContent}); !errors.Is(err, context.Canceled) {
		t.Errorf("Check: %v", err)
	}
}

func TestAbortFromElsewhere(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	w, err := s.Begin(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	reading, done := make(chan struct{}), make(chan error)
	var once bool
	src := &image{data: noise(1, 64*mib)}
	src.read = func(off int64) {
		if off == 0 && !once {
			once = true
			close(reading)
		}
	}
	go func() {
		_, err := w.WriteDisk(t.Context(), "os", src, recovery.DiskOptions{})
		done <- err
	}()
	<-reading
	if err := s.Close(); err != nil { // aborts the writer
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("WriteDisk did not notice that the store was closed")
	}
}

func TestProgress(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	data := mixed(1, 9*mib+5)
	var last, total int64
	watch := func(d, n int64) {
		if d < last || d > n {
			t.Errorf("progress went from %d to %d of %d", last, d, n)
		}
		last, total = d, n
	}
	_, c := backup(t, s, "1", &image{data: data}, recovery.DiskOptions{Progress: watch})
	if last != int64(len(data)) || total != last {
		t.Errorf("backup ended at %d of %d", last, total)
	}
	last = 0
	if _, err := s.Restore(t.Context(), disk(t, s, "1"), new(target), recovery.RestoreOptions{Progress: watch}); err != nil {
		t.Fatal(err)
	}
	if last != c.Size-c.Zero || total != last {
		t.Errorf("restore ended at %d of %d", last, total)
	}
	last = 0
	if _, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent, Progress: watch}); err != nil {
		t.Fatal(err)
	}
	if last == 0 || total != last {
		t.Errorf("check ended at %d of %d", last, total)
	}
}
