package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// options are those of an owner whose lease is long, so that its beats are few in the days of the story.
func (y *story) options(owner string) recovery.Options {
	return recovery.Options{
		Key: testKey(), Now: time.Now, PackSize: 200 * kib, Reserve: 50 * kib, Grace: time.Hour,
		Owner: owner, Lease: 24 * time.Hour, Cache: y.cache,
	}
}

// story is what happens in a store until it is stopped. It notes which points were committed and which were
// deleted, as far as its caller can know.
type story struct {
	cache           string // outlives the process, as the store does
	disks           map[string][]byte
	committed, gone map[string]bool
	compacted       int
	removed         int
}

func newStory(cache string) *story {
	first := noise(1, 9*cs)
	second := everyOther(first, 10)
	third := append(noise(3, 2*cs), second[2*cs:]...)
	fourth := everyOther(third, 40)
	return &story{
		cache:     cache,
		disks:     map[string][]byte{"first": first, "second": second, "third": third, "fourth": fourth},
		committed: map[string]bool{}, gone: map[string]bool{},
	}
}

// tell opens the store and goes through all that changes one: backups with a parent and without, deletion,
// collection that condemns, compacts and sweeps, with grace and without, checks, documents, and its end.
func (y *story) tell(b objects.Bucket) (err error) {
	s, err := recovery.Open(context.Background(), b, y.options("story"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, step := range []func() error{
		func() error { return y.backup(s, "second", "first") },
		func() error { return y.delete(s, "first") },
		func() error { return y.collect(s, recovery.CollectOptions{}) },
		func() error { return y.backup(s, "third", "second") },
		func() error { return y.collect(s, recovery.CollectOptions{}) },
		func() error {
			_, err := s.Check(context.Background(), recovery.CheckOptions{Level: recovery.LevelContent})
			return err
		},
		func() error { return y.delete(s, "second") },
		func() error { return y.backup(s, "fourth", "") },
		func() error { return y.delete(s, "third") },
		func() error { return y.collect(s, recovery.CollectOptions{NoGrace: true}) },
		func() error { return s.PutDocument(context.Background(), "key", []byte("wrapped again")) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (y *story) backup(s *recovery.Store, id, parent string) error {
	var o recovery.DiskOptions
	if parent != "" {
		p, err := s.Point(context.Background(), parent)
		if err != nil {
			return err
		}
		if o.Parent, err = p.Disk("os"); err != nil {
			return err
		}
	}
	_, _, err := tryBackup(s, id, &image{data: y.disks[id]}, o)
	if err == nil {
		y.committed[id] = true
	}
	return err
}

func (y *story) delete(s *recovery.Store, id string) error {
	y.gone[id] = true // from the call on
	return s.Delete(context.Background(), id)
}

func (y *story) collect(s *recovery.Store, o recovery.CollectOptions) error {
	time.Sleep(2 * time.Hour)
	got, err := s.Collect(context.Background(), o)
	y.compacted += got.Compacted
	y.removed += got.Packs
	return err
}

// beginning makes the store that the story begins with.
func (y *story) beginning(t *testing.T) *objectstest.Memory {
	t.Helper()
	b := objectstest.NewMemory()
	s, err := recovery.Create(t.Context(), b, y.options("beginning"))
	if err != nil {
		t.Fatal(err)
	}
	if err := y.backup(s, "first", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.PutDocument(t.Context(), "key", []byte("wrapped")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCrashMatrix stops the story at every operation on the bucket, in three ways, and opens what is left.
func TestCrashMatrix(t *testing.T) {
	for mode, name := range map[objectstest.Mode]string{objectstest.Before: "before", objectstest.After: "after", objectstest.Tear: "torn"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				finished := false
				for k := int64(1); !finished; k++ {
					y := newStory(t.TempDir())
					b := y.beginning(t)
					faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: mode}
					err := y.tell(faulty)
					finished = !faulty.Failed()
					if finished && (err != nil || y.compacted == 0 || y.removed == 0) {
						t.Fatalf("the whole story: %d packs compacted, %d removed, %v", y.compacted, y.removed, err)
					}
					y.afterCrash(t, fmt.Sprintf("%s %d", name, k), b)
				}
			})
		})
	}
}

// TestPowerLoss stops the story at every step of the storage, as if power had gone: what was not synced is
// there or not, whole or torn, in any order.
func TestPowerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finished := false
		for k := int64(1); !finished; k++ {
			y := newStory(t.TempDir())
			power := objectstest.NewPower(y.beginning(t))
			power.FailAt = k
			err := y.tell(power)
			finished = !power.Failed()
			if finished && err != nil {
				t.Fatal(err)
			}
			left := power.AfterCrash(rand.New(rand.NewPCG(uint64(k), 1)))
			y.afterCrash(t, fmt.Sprintf("step %d", k), left)
		}
	})
}

// afterCrash checks what must hold, without any repair.
func (y *story) afterCrash(t *testing.T, when string, b objects.Bucket) {
	t.Helper()
	s, err := recovery.Open(t.Context(), b, y.options("after"))
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer func() { _ = s.Close() }()
	points, err := s.Points(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	listed := map[string]bool{}
	for _, p := range points {
		listed[p.ID] = true
		wantRestored(t, s, p.ID, y.disks[p.ID])
	}
	for id := range y.committed {
		if !listed[id] && !y.gone[id] {
			t.Fatalf("%s: point %s is lost", when, id)
		}
	}
	y.wantWhole(t, when, s)
	doc, err := recovery.ReadDocument(t.Context(), b, "key")
	if err != nil || string(doc) != "wrapped" && string(doc) != "wrapped again" {
		t.Fatalf("%s: document: %q, %v", when, doc, err)
	}
	// What was not done can be done again.
	for _, id := range []string{"second", "fourth"} {
		if !listed[id] {
			backup(t, s, id, &image{data: y.disks[id]}, recovery.DiskOptions{})
		}
	}
	// And nothing stays behind that nobody needs.
	for rounds, left := 0, 1; left > 0; rounds++ {
		time.Sleep(2 * time.Hour)
		got, err := s.Collect(t.Context(), recovery.CollectOptions{})
		if err != nil || len(got.Damage) > 0 || rounds > 5 {
			t.Fatalf("%s: %+v, %v", when, got, err)
		}
		left = got.Left
	}
	for _, id := range []string{"second", "fourth"} {
		wantRestored(t, s, id, y.disks[id])
	}
	if report := y.wantWhole(t, when, s); report.Unneeded != 0 {
		t.Fatalf("%s: after collecting: %+v", when, report)
	}
	for prefix, most := range map[string]int{"trash/": 0, "collect/": 1, "verified/": 1, "owner/": 1, "documents/": 2, "reserve": 1, "erased": 0} {
		if n, _ := stat(t, b, prefix); n > most {
			t.Fatalf("%s: %d objects in %s", when, n, prefix)
		}
	}
}

func (y *story) wantWhole(t *testing.T, when string, s *recovery.Store) recovery.Report {
	t.Helper()
	report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil || len(report.Damage) != 0 {
		t.Fatalf("%s: %+v, %v", when, report, err)
	}
	return report
}

// A backup that was killed late costs little when it is tried again.
func TestRetryReusesWhatWasStored(t *testing.T) {
	b := newBucket(t)
	c := newClock()
	create(t, b, options(c))
	data := noise(1, 20*mib)
	faulty := &objectstest.Faulty{Bucket: b, FailAt: 16, Only: func(op, _ string) bool { return op == "put" }}
	_, _, err := tryBackup(open(t, faulty, options(c)), "1", &image{data: data}, recovery.DiskOptions{})
	if !errors.Is(err, objectstest.ErrInjected) {
		t.Fatal(err)
	}
	s := open(t, b, options(c))
	_, counters := backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	if counters.New > 8*mib {
		t.Errorf("of 20 MiB, %d bytes were stored again", counters.New)
	}
	wantRestored(t, s, "1", data)
}

func TestLostAnswers(t *testing.T) {
	// Reads that fail in the middle are errors, never wrong or missing bytes.
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	data := mixed(1, 4*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	for k := int64(1); ; k++ {
		faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: objectstest.Tear, Once: true, Only: func(op, name string) bool {
			return op == "get" && name != "erased" // of which no byte is read
		}}
		other, err := recovery.Open(t.Context(), faulty, options(newClock()))
		if err == nil {
			var p *recovery.Point
			var d *recovery.Disk
			var got target
			if p, err = other.Point(t.Context(), "1"); err == nil {
				if d, err = p.Disk("os"); err == nil {
					_, err = other.Restore(t.Context(), d, &got, recovery.RestoreOptions{})
				}
			}
			if err == nil && !bytes.Equal(got.data, data) {
				t.Fatalf("get %d fails: wrong bytes", k)
			}
			_ = other.Close()
		}
		if !faulty.Failed() {
			break
		}
		if !errors.Is(err, objectstest.ErrInjected) {
			t.Fatalf("get %d fails: %v", k, err)
		}
	}
}
