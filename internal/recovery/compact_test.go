package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// everyOther changes every other chunk of a disk.
func everyOther(data []byte, seed uint64) []byte {
	next := bytes.Clone(data)
	for off := 0; off < len(data); off += 2 * cs {
		copy(next[off:min(off+cs, len(next))], noise(seed+uint64(off/cs), cs))
	}
	return next
}

// halfDead makes a store whose packs are half dead: the point "1" is deleted, "2" shares every other chunk.
func halfDead(t testing.TB, b objects.Bucket, c *clock, size int) (s *recovery.Store, one, two []byte) {
	t.Helper()
	one = noise(1, size)
	two = everyOther(one, 100)
	s = create(t, b, options(c))
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: two}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * day)
	return s, one, two
}

func TestCompact(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	b, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	s, one, two := halfDead(t, b, c, 8*mib)
	reader := open(t, b, readOnly(c)) // another process, which has read the footers before
	if _, err := reader.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	got, err := s.Collect(t.Context(), recovery.CollectOptions{Progress: func(d, n int64) { done, total = d, n }})
	if err != nil || got.Compacted < 8 || got.Rewritten < 4*mib || got.Rewritten > 5*mib || got.Left < 8 || got.Packs != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if done == 0 || done != total {
		t.Errorf("progress ends at %d of %d", done, total)
	}
	wantRestored(t, s, "2", two)
	if again := collect(t, s); again.Compacted != 0 || again.Left != got.Left {
		t.Errorf("once more: %+v", again)
	}
	c.advance(2 * day)
	if got := collect(t, s); got.Packs < 8 || got.Bytes < 8*mib || got.Left != 0 || got.Compacted != 0 {
		t.Errorf("after the grace period: %+v", got)
	}
	if _, bytes := stat(t, b, "packs/"); bytes > 9*mib {
		t.Errorf("%d bytes for a disk of 8 MiB", bytes)
	}
	// Everybody finds what has moved: this process, one with an old index, a new one, and the reader that
	// knows only docs/format.md.
	for name, s := range map[string]*recovery.Store{"this": s, "old": reader, "new": open(t, b, options(c))} {
		t.Run(name, func(t *testing.T) {
			wantRestored(t, s, "2", two)
			if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage) > 0 || report.Unneeded > 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
	r, err := openReader(dir, testKey().Reveal())
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.point("2")
	if err != nil {
		t.Fatal(err)
	}
	if read, err := r.disk(p, "os"); err != nil || !bytes.Equal(read, two) {
		t.Errorf("reader: %v, or bytes differ", err)
	}
	// What has moved is found by the next backup, too, and moves again when most of it is dead.
	s = open(t, b, options(c))
	if _, counters := backup(t, s, "3", &image{data: two}, recovery.DiskOptions{}); counters.New != 0 {
		t.Errorf("backup after compaction: %+v", counters)
	}
	four := bytes.Clone(two)
	copy(four[2*mib:], noise(5, 5*mib))
	backup(t, s, "4", &image{data: four}, recovery.DiskOptions{Parent: disk(t, s, "3")})
	for _, id := range []string{"2", "3"} {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	collectAll(t, s, c)
	for _, s := range []*recovery.Store{s, reader, open(t, b, options(c))} {
		wantRestored(t, s, "4", four)
	}
	if _, counters := backup(t, s, "5", &image{data: one}, recovery.DiskOptions{}); counters.Reused > 4*mib {
		t.Errorf("what was collected is taken for stored: %+v", counters)
	}
}

func readOnly(c *clock) recovery.Options {
	o := options(c)
	o.ReadOnly = true
	return o
}

func TestCompactionKeepsToItsBudget(t *testing.T) {
	c := newClock()
	s, _, two := halfDead(t, objectstest.NewMemory(), c, 8*mib)
	for _, budget := range []int64{-1, 2 * mib} {
		got, err := s.Collect(t.Context(), recovery.CollectOptions{Budget: budget})
		if err != nil || got.Rewritten > max(0, budget+100*kib) || (got.Compacted > 0) != (budget > 0) {
			t.Errorf("budget %d: %+v, %v", budget, got, err)
		}
	}
	if got, err := s.Collect(t.Context(), recovery.CollectOptions{MinDead: 0.9}); err != nil || got.Compacted > 0 {
		t.Errorf("packs that are half dead, when 0.9 is asked for: %+v, %v", got, err)
	}
	wantRestored(t, s, "2", two)
}

// The small packs that increments leave are put together.
func TestCompactSmallPacks(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s := create(t, b, options(c))
	data := noise(1, 2*mib)
	want := map[string][]byte{}
	for i := range 20 {
		var o recovery.DiskOptions
		if i > 0 {
			o.Parent = disk(t, s, fmt.Sprint(i-1))
		}
		data = bytes.Clone(data)
		copy(data[i*cs:], noise(uint64(100+i), cs))
		want[fmt.Sprint(i)] = data
		backup(t, s, fmt.Sprint(i), &image{data: data}, o)
	}
	before, _ := stat(t, b, "packs/")
	collectAll(t, s, c)
	after, _ := stat(t, b, "packs/")
	if before < 60 || after > 10 {
		t.Errorf("%d packs became %d", before, after)
	}
	for id, data := range want {
		wantRestored(t, s, id, data)
	}
	c.advance(2 * day)
	if got := collect(t, s); got.Compacted != 0 {
		t.Errorf("once more: %+v", got)
	}
	if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage)+report.Unneeded > 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A chunk that is dead when compaction starts, and is found by a backup before its pack is condemned.
func TestCompactionAgainstDedupInFlight(t *testing.T) {
	for _, commits := range []string{"inside", "after"} {
		t.Run(commits, func(t *testing.T) {
			c := newClock()
			b := &hookedPut{Memory: objectstest.NewMemory()}
			s, one, two := halfDead(t, b, c, 4*mib)
			w, err := s.Begin(t.Context(), "new")
			if err != nil {
				t.Fatal(err)
			}
			b.hook = func() {
				if got, err := w.WriteDisk(t.Context(), "os", &image{data: one}, recovery.DiskOptions{}); err != nil || got.New > 2*mib {
					t.Errorf("%+v, %v", got, err)
				}
				if commits == "inside" {
					if _, err := w.Commit(t.Context(), nil); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil {
				t.Fatal(err)
			}
			if commits == "after" {
				if _, err := w.Commit(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range []*recovery.Store{s, open(t, b, options(c))} {
				wantRestored(t, s, "new", one)
				wantRestored(t, s, "2", two)
			}
			collectAll(t, s, c)
			wantRestored(t, s, "new", one)
			if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage) > 0 || report.Unneeded > 0 {
				t.Errorf("%+v, %v", report, err)
			}
		})
	}
}

// hookedPut calls a function before the next Put of a pack.
type hookedPut struct {
	*objectstest.Memory
	hook func()
}

func (h *hookedPut) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if hook := h.hook; hook != nil && strings.HasPrefix(name, "packs/") {
		h.hook = nil
		hook()
	}
	return h.Memory.Put(ctx, name, size, r)
}

// A restore goes on while the packs that it reads from are replaced and removed, by this process or by
// another.
func TestRestoreWhileCompacting(t *testing.T) {
	for _, by := range []string{"this process", "another"} {
		t.Run(by, func(t *testing.T) {
			c := newClock()
			b := objectstest.NewMemory()
			owner, _, two := halfDead(t, b, c, 8*mib)
			s := owner
			if by == "another" {
				s = open(t, b, readOnly(c))
			}
			var got target
			var once sync.Once
			dst := &hookedTarget{target: &got, hook: func() {
				once.Do(func() {
					got, err := owner.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
					if err != nil || got.Compacted == 0 || got.Packs == 0 {
						t.Errorf("%+v, %v", got, err)
					}
				})
			}}
			if _, err := s.Restore(t.Context(), disk(t, s, "2"), dst, recovery.RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.data, two) {
				t.Error("bytes differ")
			}
		})
	}
}

type hookedTarget struct {
	*target
	hook func()
}

func (h *hookedTarget) WriteAt(p []byte, off int64) (int, error) {
	h.hook()
	return h.target.WriteAt(p, off)
}

// A chunk that has decayed is found when it should be moved; its pack stays as it is.
func TestCompactionLeavesDamageAlone(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s := create(t, b, options(c))
	one := noise(1, 4*mib)
	two := everyOther(one, 100)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	var victim string
	for o := range b.List(t.Context(), "packs/") {
		if o.Size > 512*kib {
			victim = o.Name
		}
	}
	backup(t, s, "2", &image{data: two}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	d := disk(t, s, "2")
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	content := bytes.Clone(contentOf(t, b, victim))
	for off := 100; off < len(content)-100*kib; off += 10 * kib {
		content[off] ^= 1
	}
	b.Replace(victim, content)
	got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || got.Compacted == 0 || len(got.Damage) == 0 || got.Damage[0].Object != victim {
		t.Errorf("%+v, %v", got, err)
	}
	if n, _ := stat(t, b, victim); n != 1 {
		t.Error("a damaged pack was removed")
	}
	// What can be read is as it was.
	read := make([]byte, cs)
	for off := int64(0); off < int64(len(two)); off += cs {
		if _, err := d.ReadAt(read, off); err == nil && !bytes.Equal(read, two[off:off+cs]) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
}

// fullDisk is a bucket on a disk that is full from some write on, until something is deleted.
type fullDisk struct {
	*objectstest.Memory
	mu    sync.Mutex
	limit int64 // bytes of all objects
}

func (f *fullDisk) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	used := int64(0)
	for o, err := range f.List(ctx, "") {
		if err != nil {
			return err
		}
		used += o.Size
	}
	if f.limit > 0 && used+int64(len(content)) > f.limit {
		return fmt.Errorf("put %s: %w", name, syscall.ENOSPC)
	}
	return f.Memory.Put(ctx, name, size, bytes.NewReader(content))
}

func (f *fullDisk) fill(t *testing.T) {
	t.Helper()
	_, used := stat(t, f.Memory, "")
	f.limit = used
}

func TestCollectOnAFullDisk(t *testing.T) {
	c := newClock()
	b := &fullDisk{Memory: objectstest.NewMemory()}
	o := options(c)
	o.Reserve = 2 * mib
	s := create(t, b, o)
	one := noise(1, 8*mib)
	two := everyOther(one, 100)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: two}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	if n, bytes := stat(t, b, "reserve"); n != 1 || bytes != 2*mib {
		t.Fatalf("%d reserves of %d bytes", n, bytes)
	}
	b.fill(t)
	if _, _, err := tryBackup(s, "3", &image{data: noise(7, 3*mib)}, recovery.DiskOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("backup on a full disk: %v", err)
	}
	b.fill(t)
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || got.Compacted < 8 || got.Bytes < 8*mib {
		t.Errorf("%+v, %v", got, err)
	}
	wantRestored(t, s, "2", two)
	// There is room again, also for the reserve.
	if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil {
		t.Fatal(err)
	}
	if n, _ := stat(t, b, "reserve"); n != 1 {
		t.Errorf("%d reserves", n)
	}
	three := noise(7, 3*mib)
	backup(t, s, "3", &image{data: three}, recovery.DiskOptions{})
	wantRestored(t, s, "3", three)
}

// The reserve grows with the store.
func TestReserveGrows(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	o := options(c)
	o.Reserve, o.PackSize = 0, 8*mib
	s := create(t, b, o)
	for _, step := range []struct{ data, least, most int64 }{{mib, mib, mib}, {47 * mib, 3 * mib, 4 * mib}} {
		backup(t, s, fmt.Sprint(step.data), &image{data: noise(uint64(step.data), int(step.data))}, recovery.DiskOptions{})
		collect(t, s)
		if n, bytes := stat(t, b, "reserve"); n != 1 || bytes < step.least || bytes > step.most {
			t.Errorf("%d reserves of %d bytes", n, bytes)
		}
	}
}

// The disk is full at each write of a collection, once: nothing is lost, and the next one does the rest.
func TestNoSpaceAtEachWrite(t *testing.T) {
	for k := int64(1); ; k++ {
		c := newClock()
		b := objectstest.NewMemory()
		_, _, two := halfDead(t, b, c, 2*mib)
		faulty := &objectstest.Faulty{
			Bucket: b, FailAt: k, Mode: objectstest.Tear, Err: syscall.ENOSPC,
			Only: func(op, _ string) bool { return op == "put" },
		}
		s := open(t, faulty, options(c))
		_, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("put %d fails: %v", k, err)
		}
		failed := faulty.Failed()
		s = open(t, b, options(c))
		wantRestored(t, s, "2", two)
		collectAll(t, s, c)
		wantRestored(t, s, "2", two)
		if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage)+report.Unneeded > 0 {
			t.Fatalf("put %d fails: %+v, %v", k, report, err)
		}
		if !failed {
			break
		}
	}
}

// A compaction that died has left second copies, and a backup has come to use some of them: then the packs
// of both copies are compacted in one run, and whatever copy the index knows, every chunk is found.
func TestCompactTwoCopies(t *testing.T) {
	for round := range 10 {
		c := newClock()
		b := objectstest.NewMemory()
		s, _, two := halfDead(t, b, c, 3*mib)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		dying := &objectstest.Faulty{Bucket: b, FailAt: 2, Only: func(op, name string) bool {
			return op == "put" && strings.HasPrefix(name, "collect/") || op == "delete" && strings.HasPrefix(name, "packs/")
		}}
		if _, err := open(t, dying, options(c)).Collect(t.Context(), recovery.CollectOptions{}); !errors.Is(err, objectstest.ErrInjected) {
			t.Fatal(err)
		}
		c.advance(2 * day)
		s = open(t, b, options(c))
		three := noise(uint64(200+round), 3*mib)
		for off := cs; off < 3*mib; off += 4 * cs {
			copy(three[off:], two[off:off+cs])
		}
		backup(t, s, "3", &image{data: three}, recovery.DiskOptions{})
		c.advance(2 * day)
		for range 3 {
			if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true, MinDead: 0.01}); err != nil {
				t.Fatal(err)
			}
			for _, s := range []*recovery.Store{s, open(t, b, options(c))} {
				wantRestored(t, s, "2", two)
				wantRestored(t, s, "3", three)
			}
		}
	}
}
