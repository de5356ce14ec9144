package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

const day = 24 * time.Hour

func TestDeleteAndCollect(t *testing.T) {
	b, c := newBucket(t), newClock()
	s := create(t, b, options(c))
	one, two := noise(1, 5*mib), noise(2, 3*mib)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: two}, recovery.DiskOptions{})
	if err := s.Delete(t.Context(), "none"); !errors.Is(err, recovery.ErrNoPoint) {
		t.Errorf("Delete of nothing: %v", err)
	}
	c.advance(3 * day)
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Point(t.Context(), "1"); !errors.Is(err, recovery.ErrNoPoint) {
		t.Errorf("a deleted point: %v", err)
	}
	if err := s.Delete(t.Context(), "1"); !errors.Is(err, recovery.ErrNoPoint) {
		t.Errorf("Delete twice: %v", err)
	}
	c.advance(day / 2)
	if got := collect(t, s); got.Points+got.Packs+got.Left != 0 {
		t.Errorf("within the grace period: %+v", got)
	}
	_, before := stat(t, b, "packs/")
	c.advance(day)
	condemned := collect(t, s)
	if condemned.Points != 1 || condemned.Packs != 0 || condemned.Left < 5 || condemned.LeftBytes < 5*mib {
		t.Errorf("after it: %+v", condemned)
	}
	// What is condemned is not taken for stored, also after a restart.
	s = open(t, b, options(c))
	if _, counters := backup(t, s, "1", &image{data: one}, recovery.DiskOptions{}); counters.New != 5*mib {
		t.Errorf("backup after condemning: %+v", counters)
	}
	_, grown := stat(t, b, "packs/")
	c.advance(day)
	swept := collect(t, s)
	if swept.Packs != condemned.Left || swept.Bytes != condemned.LeftBytes || swept.Left != 0 {
		t.Errorf("condemned %+v, swept %+v", condemned, swept)
	}
	if _, after := stat(t, b, "packs/"); grown-after != swept.Bytes || after > before+mib {
		t.Errorf("%d bytes of packs became %d, then %d", before, grown, after)
	}
	wantRestored(t, s, "2", two)
	wantRestored(t, open(t, b, options(c)), "1", one)
}

// On a store that nobody else reads, space is given back at once.
func TestCollectWithoutGrace(t *testing.T) {
	b, c := newBucket(t), newClock()
	s := create(t, b, options(c))
	data := noise(2, 3*mib)
	backup(t, s, "1", &image{data: noise(1, 5*mib)}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: data}, recovery.DiskOptions{})
	if err := s.Delete(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	_, before := stat(t, b, "packs/")
	got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || got.Points != 1 || got.Packs < 5 || got.Bytes < 5*mib || got.Left != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, after := stat(t, b, "packs/"); before-after != got.Bytes {
		t.Errorf("packs shrank by %d bytes, not %d", before-after, got.Bytes)
	}
	wantRestored(t, s, "2", data)
}

// collect collects with the store's grace.
func collect(t testing.TB, s *recovery.Store) recovery.Collected {
	t.Helper()
	got, err := s.Collect(t.Context(), recovery.CollectOptions{})
	if err != nil || len(got.Damage) > 0 {
		t.Fatalf("collect: %+v, %v", got, err)
	}
	return got
}

// collectAll collects until nothing is left to be done.
func collectAll(t testing.TB, s *recovery.Store, c *clock) {
	t.Helper()
	for rounds, left := 0, 1; left > 0; rounds++ {
		c.advance(2 * day)
		if left = collect(t, s).Left; rounds > 5 {
			t.Fatalf("after %d collections %d packs are left", rounds, left)
		}
	}
}

func TestCollectSparesUnfinishedWork(t *testing.T) {
	b, c := newBucket(t), newClock()
	s := create(t, b, options(c))
	w, err := s.Begin(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	data := noise(1, 4*mib)
	if _, err := w.WriteDisk(t.Context(), "os", &image{data: data}, recovery.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	c.advance(3 * day)
	if got := collect(t, s); got.Left != 0 {
		t.Errorf("while the writer is open: %+v", got)
	}
	w.Abort()
	if got := collect(t, s); got.Left < 4 {
		t.Errorf("after its end: %+v", got)
	}
	// Killed instead of aborted, it is spared for a day.
	w, err = s.Begin(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.WriteDisk(t.Context(), "os", &image{data: data}, recovery.DiskOptions{}); err != nil || got.New != 4*mib {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, b, options(c))
	before := collect(t, s).Left
	c.advance(2 * day)
	if got := collect(t, s); got.Packs != before || got.Left < 4 {
		t.Errorf("old packs: %+v, condemned before: %d", got, before)
	}
}

// hooked calls a function before a List.
type hooked struct {
	objects.Bucket
	prefix string
	hook   func()
}

func (h *hooked) List(ctx context.Context, prefix string) iterObjects {
	if prefix == h.prefix && h.hook != nil {
		hook := h.hook
		h.hook = nil
		hook()
	}
	return h.Bucket.List(ctx, prefix)
}

// The test that others failed: chunks that nothing needs are about to be collected, and a backup finds that
// it can use them.
func TestCollectAgainstDedupInFlight(t *testing.T) {
	for _, when := range []string{"packs/", "points/", "trash/"} {
		for _, commits := range []string{"inside", "after"} {
			t.Run(when+commits, func(t *testing.T) {
				c := newClock()
				b := &hooked{Bucket: objectstest.NewMemory(), prefix: when}
				s := create(t, b, options(c))
				data := noise(1, 4*mib)
				backup(t, s, "old", &image{data: data}, recovery.DiskOptions{})
				if err := s.Delete(t.Context(), "old"); err != nil {
					t.Fatal(err)
				}
				c.advance(3 * day)

				w, err := s.Begin(t.Context(), "new")
				if err != nil {
					t.Fatal(err)
				}
				write := func() {
					if got, err := w.WriteDisk(t.Context(), "os", &image{data: data}, recovery.DiskOptions{}); err != nil || got.New != 0 {
						t.Errorf("%+v, %v", got, err)
					}
				}
				commit := func() {
					if _, err := w.Commit(t.Context(), nil); err != nil {
						t.Error(err)
					}
				}
				b.hook = func() {
					write()
					if commits == "inside" {
						commit()
					}
				}
				if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil {
					t.Fatal(err)
				}
				if commits == "after" {
					commit()
				}
				wantRestored(t, open(t, b, options(c)), "new", data)
			})
		}
	}
}

// Somebody begins to read a disk of a deleted point while the mark goes past it.
func TestCollectSparesWhatIsHeldLate(t *testing.T) {
	for _, when := range []string{"packs/", "points/", "trash/"} {
		c := newClock()
		b := &hooked{Bucket: objectstest.NewMemory()}
		s := create(t, b, options(c))
		data := noise(1, 3*mib)
		backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
		d := disk(t, s, "1")
		if err := s.Delete(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		var release func()
		b.prefix, b.hook = when, func() { release = d.Hold() }
		got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
		if err != nil || got.Points != 1 || got.Bytes > mib {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
		read := make([]byte, len(data))
		if _, err := d.ReadAt(read, 0); err != nil || !bytes.Equal(read, data) {
			t.Errorf("%s: %v, or bytes differ", when, err)
		}
		release()
		if got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil || got.Bytes < 3*mib {
			t.Errorf("%s: after it was let go: %+v, %v", when, got, err)
		}
	}
}

func TestParentThatIsDeleted(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s := create(t, b, options(c))
	data := noise(1, 70*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: data}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	parent := disk(t, s, "1")

	// While it is in use, nothing that the child shares with it goes.
	w, err := s.Begin(t.Context(), "3")
	if err != nil {
		t.Fatal(err)
	}
	next := bytes.Clone(data)
	changed := change(next, 7, 1)
	if _, err := w.WriteDisk(t.Context(), "os", &image{data: next, extents: changed}, recovery.DiskOptions{Parent: parent, Changed: true}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"1", "2"} {
		if err := s.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(3 * day)
	collect(t, s)
	if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, s, "3", next)

	// After it is deleted, it is no parent any more.
	_, _, err = tryBackup(s, "4", &image{data: next, extents: changed}, recovery.DiskOptions{Parent: parent, Changed: true})
	if !errors.Is(err, recovery.ErrNoPoint) {
		t.Errorf("changed extents against a deleted parent: %v", err)
	}
	backup(t, s, "4", &image{data: next}, recovery.DiskOptions{Parent: parent})
	wantRestored(t, s, "4", next)
}

// A point that can't be read spares what existed when that was noticed, and nothing more.
func TestCollectSparesWhatDamagedPointsMayNeed(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s := create(t, b, options(c))
	one, three := noise(1, mib), noise(3, mib)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: noise(2, mib)}, recovery.DiskOptions{})
	if err := s.Delete(t.Context(), "2"); err != nil {
		t.Fatal(err)
	}
	c.advance(3 * day)
	var point string
	var content []byte
	for o := range b.List(t.Context(), "points/") {
		point, content = o.Name, contentOf(t, b, o.Name)
	}
	b.Replace(point, []byte("rubbish"))
	got, err := s.Collect(t.Context(), recovery.CollectOptions{})
	if err != nil || got.Left != 0 || len(got.Damage) != 1 || got.Damage[0].Object != point {
		t.Errorf("%+v, %v", got, err)
	}
	// What comes later is collected as ever.
	c.advance(time.Minute)
	backup(t, s, "3", &image{data: three}, recovery.DiskOptions{})
	backup(t, s, "4", &image{data: noise(4, mib)}, recovery.DiskOptions{})
	if err := s.Delete(t.Context(), "4"); err != nil {
		t.Fatal(err)
	}
	c.advance(3 * day)
	s = open(t, b, options(c))
	got, err = s.Collect(t.Context(), recovery.CollectOptions{})
	if err != nil || got.Left == 0 || got.LeftBytes > 2*mib || len(got.Damage) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	// Once the point is whole again, or gone, there is nothing to spare.
	b.Replace(point, content)
	wantRestored(t, s, "1", one)
	collectAll(t, s, c)
	wantRestored(t, s, "1", one)
	wantRestored(t, s, "3", three)
	if n, bytes := stat(t, b, "packs/"); bytes > 2*mib+300*kib {
		t.Errorf("%d packs of %d bytes are left", n, bytes)
	}
}

// A pack that is gone spares what existed when that was noticed: what was in it may be there, too.
func TestCollectWhenAPackIsGone(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s := create(t, b, options(c))
	one := noise(1, 3*mib)
	backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
	victim := dataPacks(t, b)[0]
	backup(t, s, "2", &image{data: noise(2, 2*mib)}, recovery.DiskOptions{})
	if err := s.Delete(t.Context(), "2"); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * day)
	content := contentOf(t, b, victim.Name)
	b.Replace(victim.Name, nil)
	s = open(t, b, options(c))
	got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || len(got.Damage) != 1 || got.Damage[0].Object != victim.Name || got.Packs != 0 || got.Points != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	b.Replace(victim.Name, content)
	s = open(t, b, options(c))
	got, err = s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
	if err != nil || len(got.Damage) != 0 || got.Bytes < 2*mib {
		t.Errorf("after it has come back: %+v, %v", got, err)
	}
	wantRestored(t, s, "1", one)
}

// Everything at the same time, on a folder: backups of clones, deletions, collections that compact and give
// no grace, restores, checks.
func TestConcurrently(t *testing.T) {
	b, c := newBucket(t), newClock()
	s := create(t, b, options(c))
	base := mixed(1, 6*mib)
	backup(t, s, "base", &image{data: base}, recovery.DiskOptions{})
	var writers, others sync.WaitGroup
	for n := range 3 {
		writers.Go(func() {
			parent := disk(t, s, "base")
			for i := range 4 {
				id := fmt.Sprintf("%d-%d", n, i)
				data := bytes.Clone(base)
				copy(data[n*mib:], noise(uint64(i), mib)) // the same in some writers
				data = everyOther(data, uint64(i))
				if _, _, err := tryBackup(s, id, &image{data: data}, recovery.DiskOptions{Parent: parent}); err != nil {
					t.Error(err)
					return
				}
				wantRestored(t, s, id, data)
				if i%2 == 1 {
					if err := s.Delete(t.Context(), fmt.Sprintf("%d-%d", n, i-1)); err != nil {
						t.Error(err)
					}
				}
				c.advance(2 * time.Second)
			}
		})
	}
	stop := make(chan struct{})
	again := func(f func() error) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	again(func() error {
		c.advance(time.Second)
		got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true, MinDead: 0.1})
		return errors.Join(err, damageOf(got.Damage))
	})
	again(func() error { wantRestored(t, s, "base", base); return nil })
	again(func() error {
		report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
		return errors.Join(err, damageOf(report.Damage))
	})
	writers.Wait()
	close(stop)
	others.Wait()
	report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil || len(report.Damage) != 0 || report.Points != 7 {
		t.Errorf("%+v, %v", report, err)
	}
	collectAll(t, s, c)
	if report, err := s.Check(t.Context(), recovery.CheckOptions{}); err != nil || report.Unneeded != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

func damageOf(all []*recovery.DamageError) error {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func TestDocuments(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	if _, err := recovery.ReadDocument(t.Context(), b, "key.age"); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	for _, content := range []string{"first", "", "third"} {
		if err := s.PutDocument(t.Context(), "key.age", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if err := s.PutDocument(t.Context(), "key", []byte("other")); err != nil {
			t.Fatal(err)
		}
		if got, err := recovery.ReadDocument(t.Context(), b, "key.age"); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n, _ := stat(t, b, "documents/"); n != 2 {
		t.Errorf("%d objects for two documents", n)
	}
	for _, name := range []string{"", ".", "../x", "a/b", "A"} {
		if err := s.PutDocument(t.Context(), name, nil); err == nil {
			t.Errorf("took the name %q", name)
		}
	}
	if err := s.PutDocument(t.Context(), "big", []byte(strings.Repeat("x", mib+1))); err == nil {
		t.Error("took more than 1 MiB")
	}
}
