package recovery_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// smallDisk has every sort of chunk and is small when it is stored: one that compresses, a hole, one more,
// and a short end that doesn't compress.
func smallDisk() []byte {
	data := make([]byte, 3*cs+61)
	copy(data, bytes.Repeat([]byte("compressible. "), cs/14))
	copy(data[2*cs:], bytes.Repeat([]byte{1, 2, 3}, cs/3))
	copy(data[3*cs:], noise(1, 61))
	return data
}

// TestOneFlippedBit flips a bit in every byte of every object: reading fails, naming the place, or gives
// the very same bytes.
func TestOneFlippedBit(t *testing.T) {
	clean := objectstest.NewMemory()
	o := options(newClock())
	s := create(t, clean, o)
	data := smallDisk()
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	for object, err := range clean.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.ReplaceAll(object.Name, "/", "_"), func(t *testing.T) {
			content := contentOf(t, clean, object.Name)
			failed := 0
			for i := range content {
				b := clean.Clone()
				flipped := bytes.Clone(content)
				flipped[i] ^= 1 << (i % 8)
				b.Replace(object.Name, flipped)
				if err := readEverything(t, b, o, data); err != nil {
					failed++
					wantNamed(t, object.Name, i, err)
				}
			}
			if failed < len(content)/4 {
				t.Errorf("%d of %d flipped bits were noticed", failed, len(content))
			}
			b := clean.Clone()
			b.Replace(object.Name, nil)
			if err := readEverything(t, b, o, data); err == nil {
				t.Error("the object is gone and nobody noticed")
			}
			for _, n := range []int{0, 1, len(content) / 2, len(content) - 2} {
				b.Replace(object.Name, content[:n:n])
				if err := readEverything(t, b, o, data); err == nil {
					t.Errorf("the object has %d of %d bytes and nobody noticed", n, len(content))
				}
			}
		})
	}
}

// wantNamed wants an error that says what is damaged.
func wantNamed(t *testing.T, object string, i int, err error) {
	t.Helper()
	if object == "store.json" {
		return // any error that keeps the store closed
	}
	var damage *recovery.DamageError
	if !errors.As(err, &damage) || damage.Object != object {
		t.Fatalf("byte %d: %v", i, err)
	}
	if damage.Disk == "" && damage.Point == "" && !strings.HasPrefix(object, "points/") {
		t.Fatalf("byte %d: names neither disk nor point: %v", i, err)
	}
	if damage.Disk != "" && (damage.Disk != "os" || damage.Length <= 0 || damage.Offset+damage.Length > 3*cs+61) {
		t.Fatalf("byte %d: names a wrong range: %v", i, err)
	}
}

// readEverything reads a store in all ways there are. If they don't agree, the test fails.
func readEverything(t *testing.T, b objects.Bucket, o recovery.Options, want []byte) error {
	t.Helper()
	s, err := recovery.Open(t.Context(), b, o)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	restoreErr := func() error {
		points, err := s.Points(t.Context())
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return errors.New("no points")
		}
		d, err := points[0].Disk("os")
		if err != nil {
			return err
		}
		var got target
		if _, err := s.Restore(t.Context(), d, &got, recovery.RestoreOptions{}); err != nil {
			for i, c := range got.data {
				if c != 0 && c != want[i] {
					t.Fatalf("wrong bytes were written before: %v", err)
				}
			}
			return err
		}
		if !bytes.Equal(got.data, want) {
			t.Fatal("restored wrong bytes")
		}
		read := make([]byte, len(want))
		if _, err := d.ReadAt(read, 0); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("Restore works, ReadAt does not: %v", err)
		}
		if !bytes.Equal(read, want) {
			t.Fatal("read wrong bytes")
		}
		document, err := points[0].Attachment("vm.json")
		if err == nil && string(document) != `{"id":"1"}` {
			t.Fatal("read a wrong attachment")
		}
		return err
	}()
	report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	if damaged := len(report.Damage) > 0 || report.Points == 0; damaged != (restoreErr != nil) {
		t.Fatalf("Check finds %v, and reading %v", report.Damage, restoreErr)
	}
	if _, err := s.Check(t.Context(), recovery.CheckOptions{}); err != nil {
		t.Fatalf("Check of the structure: %v", err)
	}
	return restoreErr
}

func contentOf(t *testing.T, b objects.Bucket, name string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), name, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Check names every point and range that a damaged pack hits, and neighbours as one.
func TestCheckNamesRangesAndPoints(t *testing.T) {
	b := objectstest.NewMemory()
	o := options(newClock())
	o.PackSize = 16 * mib
	s := create(t, b, o)
	data := noise(1, 70*mib)
	backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
	changed := change(data, 5, 3)
	backup(t, s, "2", &image{data: data, extents: changed}, recovery.DiskOptions{Parent: disk(t, s, "1"), Changed: true})
	var victim string
	for object, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if object.Size > 15*mib {
			victim = object.Name
			break
		}
	}
	b.Replace(victim, nil)
	s = open(t, b, o)
	report, err := s.Check(t.Context(), recovery.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	lost := map[string]int64{}
	for _, d := range report.Damage {
		if d.Disk != "os" || d.Object != victim || !errors.Is(d, objects.ErrNotExist) {
			t.Errorf("%v", d)
		}
		lost[d.Point] += d.Length
		read := make([]byte, 1)
		if _, err := disk(t, s, d.Point).ReadAt(read, d.Offset); err == nil {
			t.Errorf("%v: but it can be read", d)
		}
	}
	if lost["1"] < 15*mib || lost["2"] < 15*mib || lost["1"]-lost["2"] > cs {
		t.Errorf("lost: %v", lost)
	}
	// The next backup reads the disk again and stores what is lost, even with the damaged point as parent.
	t.Run("a copy elsewhere is found", func(t *testing.T) {
		s := open(t, b, o)
		backup(t, s, "3", &image{data: data}, recovery.DiskOptions{})
		wantRestored(t, s, "3", data)
		wantRestored(t, s, "2", data)
	})
}

// What a store keeps for itself may decay: nothing that is stored is lost, or read wrongly, for it.
func TestFlippedBitsBesidePoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clean := objectstest.NewMemory()
		o := ownedBy("a")
		o.Reserve = 100
		s := create(t, clean, o)
		one := noise(1, 6*cs)
		two := everyOther(one, 10)
		backup(t, s, "1", &image{data: one}, recovery.DiskOptions{})
		backup(t, s, "2", &image{data: two}, recovery.DiskOptions{Parent: disk(t, s, "1")})
		if err := s.Delete(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if got := collect(t, s); got.Compacted == 0 || got.Left == 0 {
			t.Fatalf("%+v", got)
		}
		if _, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		kinds := 0
		for object, err := range clean.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(object.Name, "/")
			if !slices.Contains([]string{"collect", "verified", "owner", "reserve"}, kind) {
				continue
			}
			kinds++
			content := contentOf(t, clean, object.Name)
			for i := -1; i < len(content); i += 1 + max(0, i)/32 { // fewer where one is like the next
				b := clean.Clone()
				decayed := bytes.Clone(content)
				if i < 0 {
					decayed = nil // gone
				} else {
					decayed[i] ^= 1 << (i % 8)
				}
				b.Replace(object.Name, decayed)
				wantUnharmed(t, fmt.Sprintf("%s, byte %d", object.Name, i), b, two)
			}
		}
		if kinds != 4 {
			t.Errorf("%d kinds of objects", kinds)
		}
	})
}

// wantUnharmed wants the point "2" to be read, before and after a collection that removes what it can.
func wantUnharmed(t *testing.T, when string, b objects.Bucket, want []byte) {
	t.Helper()
	s, err := recovery.Open(t.Context(), b, ownedBy("b"))
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer func() { _ = s.Close() }()
	wantRestored(t, s, "2", want)
	time.Sleep(2 * time.Hour)
	for range 2 {
		if got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil || len(got.Damage) > 0 {
			t.Fatalf("%s: %+v, %v", when, got, err)
		}
	}
	wantRestored(t, s, "2", want)
	report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil || len(report.Damage) > 0 || report.Unneeded > 0 {
		t.Fatalf("%s: %+v, %v", when, report, err)
	}
}
