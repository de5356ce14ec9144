package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// story backs up twice, deletes, collects and backs up again. It returns which points were committed and
// which were deleted, as far as its caller can know.
func story(b objects.Bucket, c *clock, first, second, third []byte) (committed, gone map[string]bool, err error) {
	committed, gone = map[string]bool{}, map[string]bool{}
	s, err := recovery.Open(context.Background(), b, options(c))
	if err != nil {
		return committed, gone, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	parent := func(id string) *recovery.Disk {
		p, pErr := s.Point(context.Background(), id)
		if pErr != nil {
			err = pErr
			return nil
		}
		d, dErr := p.Disk("os")
		err = dErr
		return d
	}
	step := func(id string, data []byte, o recovery.DiskOptions) {
		if err == nil {
			if _, _, err = tryBackup(s, id, &image{data: data}, o); err == nil {
				committed[id] = true
			}
		}
	}
	step("second", second, recovery.DiskOptions{Parent: parent("first")})
	if err == nil {
		gone["first"] = true // from the call on
		err = s.Delete(context.Background(), "first")
	}
	c.advance(48 * time.Hour)
	if err == nil {
		_, err = s.Collect(context.Background(), recovery.CollectOptions{})
	}
	step("third", third, recovery.DiskOptions{Parent: parent("second")})
	if err == nil {
		err = s.PutDocument(context.Background(), "key", third[:100])
	}
	return committed, gone, err
}

// TestCrashMatrix stops the story at every operation on the bucket, in three ways, and opens what is left.
func TestCrashMatrix(t *testing.T) {
	first := noise(1, 3*mib)
	second := append(noise(2, mib), first[mib:]...)
	third := append(noise(3, mib/2), second[mib/2:]...)
	contents := map[string][]byte{"first": first, "second": second, "third": third}
	for mode, name := range map[objectstest.Mode]string{objectstest.Before: "before", objectstest.After: "after", objectstest.Tear: "torn"} {
		t.Run(name, func(t *testing.T) {
			finished := false
			for k := int64(1); !finished; k++ {
				b := objectstest.NewMemory()
				c := newClock()
				s := create(t, b, options(c))
				backup(t, s, "first", &image{data: first}, recovery.DiskOptions{})
				if err := s.PutDocument(t.Context(), "key", []byte("wrapped")); err != nil {
					t.Fatal(err)
				}

				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: mode}
				committed, gone, err := story(faulty, c, first, second, third)
				finished = !faulty.Failed()
				if (err == nil) != finished {
					t.Fatalf("operation %d fails: the story ends with %v", k, err)
				}
				afterCrash(t, fmt.Sprintf("%s %d", name, k), b, c, contents, committed, gone)
			}
		})
	}
}

// afterCrash checks what must hold, without any repair.
func afterCrash(t *testing.T, when string, b objects.Bucket, c *clock, contents map[string][]byte, committed, gone map[string]bool) {
	t.Helper()
	s := open(t, b, options(c))
	defer func() { _ = s.Close() }()
	points, err := s.Points(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	listed := map[string]bool{}
	for _, p := range points {
		listed[p.ID] = true
		wantRestored(t, s, p.ID, contents[p.ID])
	}
	committed["first"] = true
	for id := range committed {
		if !listed[id] && !gone[id] {
			t.Fatalf("%s: point %s is lost", when, id)
		}
	}
	if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage) != 0 {
		t.Fatalf("%s: %+v, %v", when, report, err)
	}
	if doc, err := recovery.ReadDocument(t.Context(), b, "key"); err != nil || !bytes.Equal(doc, []byte("wrapped")) && !bytes.Equal(doc, contents["third"][:100]) {
		t.Fatalf("%s: document: %q, %v", when, doc, err)
	}
	// The same can be done again, and nothing stays behind that nobody needs.
	for _, id := range []string{"second", "third"} {
		if !listed[id] {
			backup(t, s, id, &image{data: contents[id]}, recovery.DiskOptions{})
		}
	}
	collectAll(t, s, c)
	for _, id := range []string{"second", "third"} {
		wantRestored(t, s, id, contents[id])
	}
	if report, err := s.Check(t.Context(), recovery.CheckOptions{}); err != nil || report.Unneeded != 0 || len(report.Damage) != 0 {
		t.Fatalf("%s: after collecting: %+v, %v", when, report, err)
	}
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
