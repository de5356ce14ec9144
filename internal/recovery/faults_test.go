package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

var (
	errBusy    = errors.New("503 slow down")
	errTimeout = errors.New("no answer in time")
)

// faults are what storage does to people: each makes the k-th operation go wrong.
var faults = map[string]struct {
	fault func(k int64) *objectstest.Faulty
	is    error // what the error must tell; nil where the storage lies and no error says so
	// broken means that the storage does what no Bucket may: then objects that were never committed can be
	// damaged, but what was committed is whole.
	broken bool
}{
	"busy": {func(k int64) *objectstest.Faulty { return &objectstest.Faulty{FailAt: k, Err: errBusy, Once: true} }, errBusy, false},
	"answer lost": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Err: errTimeout, Once: true, Mode: objectstest.After}
	}, errTimeout, false},
	"disk full": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Err: syscall.ENOSPC, Only: only("put")}
	}, syscall.ENOSPC, false},
	"full in the middle": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Err: syscall.ENOSPC, Mode: objectstest.Tear, Only: only("put")}
	}, syscall.ENOSPC, false},
	"I/O error": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Err: syscall.EIO, Once: true, Mode: objectstest.Tear, Only: only("get")}
	}, syscall.EIO, false},
	"put twice": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Once: true, Mode: objectstest.Duplicate, Only: only("put")}
	}, nil, false},
	"short read": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Once: true, Mode: objectstest.Short, Only: only("get")}
	}, nil, false},
	"half an object": {func(k int64) *objectstest.Faulty {
		return &objectstest.Faulty{FailAt: k, Err: errTimeout, Once: true, Mode: objectstest.Half, Only: only("put")}
	}, errTimeout, true},
}

func only(wanted string) func(op, name string) bool {
	return func(op, _ string) bool { return op == wanted }
}

// faultStory backs up with a parent, deletes, collects, backs up again and replaces a document. It returns
// which points were committed and which were deleted, as far as its caller can know.
func faultStory(b objects.Bucket, c *clock, contents map[string][]byte) (committed, gone map[string]bool, err error) {
	ctx := context.Background()
	committed, gone = map[string]bool{"first": true}, map[string]bool{}
	s, err := recovery.Open(ctx, b, options(c))
	if err != nil {
		return committed, gone, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, step := range []func() error{
		func() error { return faultBackup(s, "second", "first", contents, committed) },
		func() error { gone["first"] = true; return s.Delete(ctx, "first") },
		func() error {
			c.advance(48 * time.Hour)
			_, err := s.Collect(ctx, recovery.CollectOptions{})
			return err
		},
		func() error { return faultBackup(s, "third", "second", contents, committed) },
		func() error { return s.PutDocument(ctx, "key", []byte("wrapped anew")) },
	} {
		if err := step(); err != nil {
			return committed, gone, err
		}
	}
	return committed, gone, nil
}

func faultBackup(s *recovery.Store, id, parent string, contents map[string][]byte, committed map[string]bool) error {
	p, err := s.Point(context.Background(), parent)
	if err != nil {
		return err
	}
	d, err := p.Disk("os")
	if err != nil {
		return err
	}
	if _, _, err = tryBackup(s, id, &image{data: contents[id]}, recovery.DiskOptions{Parent: d}); err == nil {
		committed[id] = true
	}
	return err
}

// TestFaultMatrix lets every operation of the story fail, one after the other, in every way: no committed
// point is lost, and the error says what the storage said.
func TestFaultMatrix(t *testing.T) {
	first := noise(1, 3*mib)
	second := append(noise(2, mib), first[mib:]...)
	third := append(noise(3, mib/2), second[mib/2:]...)
	contents := map[string][]byte{"first": first, "second": second, "third": third}
	base, c := objectstest.NewMemory(), newClock()
	s := create(t, base, options(c))
	backup(t, s, "first", &image{data: first}, recovery.DiskOptions{})
	if err := s.PutDocument(t.Context(), "key", []byte("wrapped")); err != nil {
		t.Fatal(err)
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			for k, finished := int64(1), false; !finished; k++ {
				b, c := base.Clone(), newClock()
				faulty := f.fault(k)
				faulty.Bucket = b
				committed, gone, err := faultStory(faulty, c, contents)
				finished = !faulty.Failed()
				when := fmt.Sprintf("%s %d", name, k)
				if !finished && f.is != nil && err != nil && !errors.Is(err, f.is) {
					t.Fatalf("%s: the error does not tell: %v", when, err)
				}
				if finished && err != nil {
					t.Fatalf("%s: nothing failed, but %v", when, err)
				}
				afterFault(t, when, b, c, contents, committed, gone, f.broken)
			}
		})
	}
}

// afterFault checks what must hold: the points that were committed are whole, whatever else can be listed is
// whole, too, unless the storage is broken, and another backup can be made.
func afterFault(t *testing.T, when string, b objects.Bucket, c *clock, contents map[string][]byte, committed, gone map[string]bool, broken bool) {
	t.Helper()
	s := open(t, b, options(c))
	defer func() { _ = s.Close() }()
	for id := range committed {
		if !gone[id] {
			wantRestored(t, s, id, contents[id])
		}
	}
	if !broken {
		points, err := s.Points(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		for _, p := range points {
			wantRestored(t, s, p.ID, contents[p.ID])
		}
		doc, err := recovery.ReadDocument(t.Context(), b, "key")
		if err != nil || !strings.HasPrefix(string(doc), "wrapped") {
			t.Fatalf("%s: document %q, %v", when, doc, err)
		}
	}
	fresh := noise(9, mib)
	if _, _, err := tryBackup(s, "fresh", &image{data: fresh}, recovery.DiskOptions{}); err != nil {
		t.Fatalf("%s: the next backup: %v", when, err)
	}
	wantRestored(t, s, "fresh", fresh)
}

// Where lists of points lag behind, Collect does not see the newest point. It takes nothing that this needs,
// not even what the point shares with deleted ones and nobody else: what is condemned is looked at again,
// after the grace period.
func TestStaleListsOfPoints(t *testing.T) {
	memory, c := objectstest.NewMemory(), newClock()
	stale := &objectstest.Stale{Bucket: memory, Lag: time.Hour, Now: c.Now, Only: func(prefix string) bool { return prefix == "points/" }}
	s := create(t, stale, options(c))
	contents := map[string][]byte{}
	for round := range 8 {
		disk := noise(uint64(round/2), 3*mib) // each content twice: the second point shares all with the first
		id := fmt.Sprint(round)
		backup(t, s, id, &image{data: disk}, recovery.DiskOptions{})
		contents[id] = disk
		if round%2 == 1 {
			first := fmt.Sprint(round - 1)
			if err := s.Delete(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			delete(contents, first)
		}
		if points, err := s.Points(t.Context()); err != nil || len(points) != len(contents)-1 {
			t.Fatalf("round %d: %d points of %d are listed, %v", round, len(points), len(contents), err)
		}
		for range 2 {
			if _, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil {
				t.Fatal(err)
			}
			c.advance(30 * time.Hour)
		}
	}
	if _, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	for id, want := range contents {
		wantRestored(t, open(t, memory, options(c)), id, want)
	}
}

// Where lists of packs lag behind, a backup fails and names the pack that is not there yet. What was committed
// before is not touched, and the backup can be made later.
func TestStaleListsOfPacks(t *testing.T) {
	memory, c := objectstest.NewMemory(), newClock()
	first, second := noise(1, 3*mib), noise(2, 3*mib)
	backup(t, create(t, memory, options(c)), "1", &image{data: first}, recovery.DiskOptions{})
	s := open(t, &objectstest.Stale{Bucket: memory, Lag: time.Hour, Now: c.Now}, options(c))
	_, _, err := tryBackup(s, "2", &image{data: second}, recovery.DiskOptions{})
	if !errors.Is(err, objects.ErrNotExist) || !strings.Contains(err.Error(), "packs/") {
		t.Fatalf("backup: %v", err)
	}
	if _, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	c.advance(2 * time.Hour)
	wantRestored(t, s, "1", first)
	backup(t, open(t, memory, options(c)), "2", &image{data: second}, recovery.DiskOptions{})
	wantRestored(t, s, "2", second)
}

// What a busy storage breaks while a disk is restored is an error, and the next attempt works.
func TestRestoreWhileBusy(t *testing.T) {
	b, c := objectstest.NewMemory(), newClock()
	data := mixed(1, 4*mib)
	backup(t, create(t, b, options(c)), "1", &image{data: data}, recovery.DiskOptions{})
	for k := int64(1); ; k++ {
		faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Once: true, Err: errBusy}
		s, err := recovery.Open(context.Background(), faulty, options(c))
		if err == nil {
			var p *recovery.Point
			var d *recovery.Disk
			if p, err = s.Point(t.Context(), "1"); err == nil {
				d, err = p.Disk("os")
			}
			if err == nil {
				_, err = s.Restore(t.Context(), d, &target{}, recovery.RestoreOptions{})
			}
			if faulty.Failed() {
				wantRestored(t, s, "1", data)
			}
			_ = s.Close()
		}
		if !faulty.Failed() {
			break
		}
		var damage *recovery.DamageError
		if !errors.Is(err, errBusy) || errors.As(err, &damage) || errors.Is(err, io.EOF) {
			t.Fatalf("operation %d fails: %v", k, err)
		}
	}
}
