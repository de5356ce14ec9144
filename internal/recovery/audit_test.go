package recovery_test

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// Changed extents that leave out what has changed are found out by the audit. The same writer then reads all of it, and
// the point is right.
func TestAuditFindsWhatExtentsLeaveOut(t *testing.T) {
	for name, lie := range map[string]func(data []byte){
		"in data":           func(data []byte) { copy(data, noise(9, 10*mib)) },
		"data became zero":  func(data []byte) { clear(data[:20*mib]) },
		"data where a hole": func(data []byte) { copy(data[40*mib:], noise(9, 50*mib)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t)
			s := create(t, b, options(newClock()))
			first := append(noise(1, 30*mib), make([]byte, 70*mib)...)
			backup(t, s, "1", &image{data: first}, recovery.DiskOptions{})
			second := bytes.Clone(first)
			changed := change(second, 100, 350)
			lie(second)
			src := &image{data: second, extents: changed}
			w, err := s.Begin(t.Context(), "2")
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			_, err = w.WriteDisk(t.Context(), "os", src, recovery.DiskOptions{Parent: disk(t, s, "1"), Changed: true, Audit: 16 * mib})
			var unreported *recovery.UnreportedError
			if !errors.As(err, &unreported) || unreported.Disk != "os" || unreported.Length != cs || unreported.Offset%cs != 0 {
				t.Fatalf("got %v, want an UnreportedError", err)
			}
			part := second[unreported.Offset:][:cs]
			if bytes.Equal(part, first[unreported.Offset:][:cs]) {
				t.Errorf("the error names %d, where nothing has changed", unreported.Offset)
			}
			if _, err := w.Disk("os"); err == nil {
				t.Error("the disk is in the point all the same")
			}
			src.extents = nil
			if _, err := w.WriteDisk(t.Context(), "os", src, recovery.DiskOptions{Parent: disk(t, s, "1")}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Commit(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			wantRestored(t, s, "2", second)
		})
	}
}

// True extents pass, whatever the disk looks like, and what was read to see that is counted.
func TestAuditOfTrueExtents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := createInMemory(t)
		data := make([]byte, rapid.IntRange(1, 20*cs).Draw(t, "size"))
		if rapid.Bool().Draw(t, "holds something") {
			copy(data[len(data)/2:], noise(1, len(data)-len(data)/2))
		}
		if _, _, err := tryBackup(s, "1", &image{data: data}, recovery.DiskOptions{}); err != nil {
			t.Fatal(err)
		}
		p, err := s.Point(t.Context(), "1")
		if err != nil {
			t.Fatal(err)
		}
		parent, err := p.Disk("os")
		if err != nil {
			t.Fatal(err)
		}
		audit := int64(rapid.IntRange(1, 10*cs).Draw(t, "audit"))
		_, c, err := tryBackup(s, "2", &image{data: data, extents: []recovery.Extent{}}, recovery.DiskOptions{Parent: parent, Changed: true, Audit: audit})
		if err != nil {
			t.Fatal(err)
		}
		if c.Audited == 0 || c.Audited != c.Read || c.Audited > audit+cs || c.New != 0 {
			t.Fatalf("counters: %+v", c)
		}
	})
}

func createInMemory(t *rapid.T) *recovery.Store {
	s, err := recovery.Create(t.Context(), objectstest.NewMemory(), options(newClock()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A disk keeps the size of its chunks for as long as its points build on each other.
func TestChunkSizeOfADisk(t *testing.T) {
	for _, size := range []int64{64 * kib, 128 * kib, 256 * kib, 512 * kib, mib} {
		b := newBucket(t)
		s := create(t, b, options(newClock()))
		first := append(noise(1, 3*mib+100), make([]byte, 5*mib)...)
		backup(t, s, "1", &image{data: first}, recovery.DiskOptions{ChunkSize: size})
		second := bytes.Clone(first)
		copy(second[mib:], noise(2, 10))
		changed := []recovery.Extent{{Offset: mib, Length: 10}}
		_, c := backup(t, s, "2", &image{data: second, extents: changed}, recovery.DiskOptions{Parent: disk(t, s, "1"), Changed: true, Audit: mib})
		if c.New != size {
			t.Errorf("chunks of %d: %d bytes are new for one change", size, c.New)
		}
		wantRestored(t, s, "1", first)
		wantRestored(t, s, "2", second)
		other := size * 2
		if other > mib {
			other = size / 2
		}
		if _, _, err := tryBackup(s, "3", &image{data: second, extents: changed}, recovery.DiskOptions{Parent: disk(t, s, "2"), Changed: true, ChunkSize: other}); err == nil {
			t.Errorf("changed extents were taken with chunks of %d instead of %d", other, size)
		}
		backup(t, s, "4", &image{data: first}, recovery.DiskOptions{Parent: disk(t, s, "2"), ChunkSize: other})
		wantRestored(t, s, "4", first)
		if report, err := s.Check(t.Context(), recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage) > 0 {
			t.Errorf("check: %+v, %v", report, err)
		}
	}
	s := create(t, newBucket(t), options(newClock()))
	for _, bad := range []int64{-1, 1, 4096, 32 * kib, 65 * kib, 2 * mib} {
		if _, _, err := tryBackup(s, "1", &image{data: noise(1, mib)}, recovery.DiskOptions{ChunkSize: bad}); err == nil {
			t.Errorf("chunks of %d bytes were taken", bad)
		}
	}
}

// What is read is not read faster than is allowed, by all that share a rate.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := recovery.Create(t.Context(), objectstest.NewMemory(), options(newClock()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		start := time.Now()
		shared := recovery.NewRate(2 * mib)
		for i, want := range []time.Duration{10 * time.Second, 20*time.Second + time.Second/2} { // the first MiB of all is free
			if _, _, err := tryBackup(s, strconv.Itoa(i), &image{data: noise(1, 21*mib)}, recovery.DiskOptions{Rate: shared}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != want {
				t.Errorf("%d times 21 MiB at 2 MiB a second took %v", i+1, took)
			}
		}
	})
}

// A disk that compresses gets larger chunks, if nobody chose a size.
func TestChunkSizeByContent(t *testing.T) {
	text := bytes.Repeat([]byte("what people write repeats itself, "), 68*mib/34)
	ciphertext := noise(1, 64*mib)
	for name, c := range map[string]struct {
		data []byte
		want int64
	}{
		"text":                       {text, 256 * kib},
		"ciphertext":                 {ciphertext, 64 * kib},
		"ciphertext after text":      {slices.Concat(text[:20*mib], ciphertext[:48*mib]), 64 * kib},
		"text after ciphertext":      {slices.Concat(ciphertext[:20*mib], text[:48*mib]), 256 * kib},
		"ciphertext after zeros":     {slices.Concat(make([]byte, 40*mib), ciphertext[:28*mib]), 64 * kib},
		"text after zeros":           {slices.Concat(make([]byte, 40*mib), text[:28*mib]), 256 * kib},
		"text, and a crooked end":    {text[:64*mib+1], 256 * kib},
		"too little text for a look": {text[:8*mib], 64 * kib},
		"nothing":                    {nil, 64 * kib},
	} {
		t.Run(name, func(t *testing.T) {
			s := create(t, newBucket(t), options(newClock()))
			backup(t, s, "1", &image{data: c.data}, recovery.DiskOptions{})
			if got := disk(t, s, "1").ChunkSize(); got != c.want {
				t.Errorf("chunks of %d bytes, want %d", got, c.want)
			}
		})
	}
	// What was chosen at first stays: a disk that changes its nature still builds on its parent.
	s := create(t, newBucket(t), options(newClock()))
	backup(t, s, "1", &image{data: ciphertext}, recovery.DiskOptions{})
	backup(t, s, "2", &image{data: text}, recovery.DiskOptions{Parent: disk(t, s, "1")})
	if got := disk(t, s, "2").ChunkSize(); got != 64*kib {
		t.Errorf("chunks of %d bytes after a parent with chunks of 64 KiB", got)
	}
}
