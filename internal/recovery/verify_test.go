package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// dataPacks returns the packs that hold a disk, of 1 MiB each.
func dataPacks(t *testing.T, b objects.Bucket) []objects.Object {
	t.Helper()
	var all []objects.Object
	for o, err := range b.List(t.Context(), "packs/") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size > 900*kib {
			all = append(all, o)
		}
	}
	return all
}

// decay flips a bit of an object.
func decay(t *testing.T, b *objectstest.Memory, name string, off int) {
	t.Helper()
	content := bytes.Clone(contentOf(t, b, name))
	content[off] ^= 4
	b.Replace(name, content)
}

// Whoever keeps the bytes can find decayed ones without any key, some at a time, the oldest first.
func TestScrub(t *testing.T) {
	b, c := objectstest.NewMemory(), newClock()
	s := create(t, b, options(c))
	backup(t, s, "1", &image{data: noise(1, 8*mib)}, recovery.DiskOptions{})
	packs, size := stat(t, b, "packs/")
	scrub := func(budget int64) recovery.Scrubbed {
		t.Helper()
		c.advance(time.Minute)
		got, err := recovery.Scrub(t.Context(), b, recovery.ScrubOptions{Now: c.Now, Budget: budget})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := scrub(0); got.Packs != packs || got.Bytes != size || got.Left != 0 || len(got.Damage) > 0 {
		t.Errorf("%+v, of %d packs and %d bytes", got, packs, size)
	}
	victim := dataPacks(t, b)[3]
	decay(t, b, victim.Name, 700_000)
	runs, found := 0, []recovery.PackRange(nil)
	for left := packs; left > 0; runs++ {
		got := scrub(3 * mib)
		if got.Packs == 0 || got.Bytes > 3*mib || got.Left != packs-got.Packs {
			t.Fatalf("%+v", got)
		}
		left -= got.Packs
		found = append(found, got.Damage...)
	}
	if runs > 5 || len(found) != 1 || found[0].Object != victim.Name || found[0].Offset > 700_000 || found[0].Offset+found[0].Length <= 700_000 {
		t.Errorf("after %d runs: %+v", runs, found)
	}
	if n, _ := stat(t, b, "verified/"); n != 1 {
		t.Errorf("%d records", n)
	}
	// Every sort of damage to the end of a pack.
	for name, change := range map[string]func(content []byte) []byte{
		"short":   func(content []byte) []byte { return content[:len(content)-10] },
		"empty":   func([]byte) []byte { return []byte{} },
		"trailer": func(content []byte) []byte { content[len(content)-1] ^= 1; return content },
		"sums":    func(content []byte) []byte { content[len(content)-42] ^= 1; return content },
		"length":  func(content []byte) []byte { content[len(content)-30] ^= 1; return content },
	} {
		broken := b.Clone()
		broken.Replace(victim.Name, change(bytes.Clone(contentOf(t, b, dataPacks(t, b)[3].Name))))
		got, err := recovery.Scrub(t.Context(), broken, recovery.ScrubOptions{Now: c.Now, ReadOnly: true})
		if err != nil || len(got.Damage) != 1 || got.Damage[0].Object != victim.Name {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A scrub that is stopped is gone on with: what was done comes last.
func TestScrubGoesOn(t *testing.T) {
	memory, c := objectstest.NewMemory(), newClock()
	s := create(t, memory, options(c))
	backup(t, s, "1", &image{data: noise(1, 4*mib)}, recovery.DiskOptions{})
	packs, size := stat(t, memory, "packs/")
	b := &watchedGets{Bucket: memory, seen: map[string]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	stopped, err := recovery.Scrub(ctx, b, recovery.ScrubOptions{Now: c.Now, Progress: func(done, _ int64) {
		if done > 2*mib {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || stopped.Packs == 0 || stopped.Packs == packs || len(b.seen) != stopped.Packs {
		t.Fatalf("%+v, %v", stopped, err)
	}
	c.advance(time.Hour)
	rest, err := recovery.Scrub(t.Context(), b, recovery.ScrubOptions{Now: c.Now, Budget: size - stopped.Bytes})
	if err != nil || rest.Packs != packs-stopped.Packs || len(b.seen) != packs {
		t.Errorf("%+v, then %+v, %v: %d of %d packs were read", stopped, rest, err, len(b.seen), packs)
	}
}

// watchedGets notes which packs are read.
type watchedGets struct {
	objects.Bucket
	seen map[string]bool
}

func (w *watchedGets) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if strings.HasPrefix(name, "packs/") {
		w.seen[name] = true
	}
	return w.Bucket.Get(ctx, name, off, n)
}

// A check goes through everything in turn, however small its budget, and remembers what it has seen.
func TestCheckWithABudget(t *testing.T) {
	for _, level := range []recovery.Level{recovery.LevelScrub, recovery.LevelContent} {
		b, c := objectstest.NewMemory(), newClock()
		s := create(t, b, options(c))
		backup(t, s, "1", &image{data: noise(1, 6*mib)}, recovery.DiskOptions{})
		start := c.Now()
		check := func(s *recovery.Store) recovery.Report {
			t.Helper()
			c.advance(time.Hour)
			got, err := s.Check(t.Context(), recovery.CheckOptions{Level: level, Budget: 2 * mib})
			if err != nil || len(got.Damage) > 0 || got.Read > 2*mib {
				t.Fatalf("%+v, %v", got, err)
			}
			return got
		}
		report := check(s)
		seen, runs := report.Verified, 1
		for ; report.Oldest.IsZero() && runs < 10; runs++ {
			report = check(open(t, b, options(c)))
			seen += report.Verified
		}
		if runs < 3 || runs > 5 || seen < report.Packs-1 || !report.Oldest.After(start) {
			t.Errorf("level %d: after %d runs %d packs were verified: %+v", level, runs, seen, report)
		}
		v, err := s.LastVerified(t.Context(), "1")
		if at := map[recovery.Level]time.Time{recovery.LevelScrub: v.Scrubbed, recovery.LevelContent: v.Content}[level]; err != nil || at != report.Oldest || v.Damaged {
			t.Errorf("level %d: %+v, %v; the oldest is of %v", level, v, err, report.Oldest)
		}
		backup(t, s, "2", &image{data: noise(2, mib)}, recovery.DiskOptions{})
		if v, err := s.LastVerified(t.Context(), "2"); err != nil || v != (recovery.Verified{}) {
			t.Errorf("a point that was never verified: %+v, %v", v, err)
		}
		reader := open(t, b, readOnly(c))
		_, before := stat(t, b, "verified/")
		if _, err := reader.Check(t.Context(), recovery.CheckOptions{Level: level}); err != nil {
			t.Error(err)
		}
		if _, after := stat(t, b, "verified/"); after != before {
			t.Error("a store that is open to be read took notes")
		}
	}
}

// Decay is found at both levels, and comes with the disk's range and the points.
func TestLevelsNameDisksAndPoints(t *testing.T) {
	for _, level := range []recovery.Level{recovery.LevelScrub, recovery.LevelContent} {
		b, c := objectstest.NewMemory(), newClock()
		s := create(t, b, options(c))
		data := noise(1, 4*mib)
		backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
		backup(t, s, "2", &image{data: data}, recovery.DiskOptions{Parent: disk(t, s, "1")})
		victim := dataPacks(t, b)[1]
		decay(t, b, victim.Name, 500_000)
		report, err := s.Check(t.Context(), recovery.CheckOptions{Level: level})
		if err != nil || len(report.Damage) != 2 || report.Damage[0].Point == report.Damage[1].Point {
			t.Fatalf("level %d: %+v, %v", level, report, err)
		}
		for _, d := range report.Damage {
			if d.Disk != "os" || d.Length != cs || d.Object != victim.Name {
				t.Errorf("level %d: %v", level, d)
			}
			read := make([]byte, 1)
			if _, err := disk(t, s, d.Point).ReadAt(read, d.Offset); err == nil {
				t.Errorf("level %d: %v: but it can be read", level, d)
			}
		}
		if v, err := s.LastVerified(t.Context(), "2"); err != nil || !v.Damaged {
			t.Errorf("level %d: %+v, %v", level, v, err)
		}
		if report, err := s.Check(t.Context(), recovery.CheckOptions{}); err != nil || len(report.Damage) != 0 {
			t.Errorf("the structure is whole: %+v, %v", report, err)
		}
	}
}

func TestStat(t *testing.T) {
	c := newClock()
	b := objectstest.NewMemory()
	s, _, two := halfDead(t, b, c, 8*mib)
	_, size := stat(t, b, "packs/")
	got, err := s.Stat(t.Context())
	if err != nil || got.Points != 1 || got.Disks != 1 || got.Logical != 8*mib || got.Data != int64(len(two)) || got.Trash != 1 ||
		got.Stored != size || got.Dead > 0 || got.Live < 12*mib || got.Live > size || got.Condemned != 0 {
		t.Errorf("with a point in the trash: %+v, %v; %d bytes", got, err, size)
	}
	if _, err := s.Collect(t.Context(), recovery.CollectOptions{Budget: -1}); err != nil {
		t.Fatal(err)
	}
	got, err = s.Stat(t.Context())
	if err != nil || got.Trash != 0 || got.Dead < 4*mib || got.Dead > 5*mib || got.Live < 8*mib || got.Live > 9*mib {
		t.Errorf("half dead: %+v, %v", got, err)
	}
	collect(t, s)
	got, err = open(t, b, readOnly(c)).Stat(t.Context())
	if err != nil || got.Dead > 100*kib || got.Condemned < 8 || got.CondemnedBytes < 8*mib || got.Live > 9*mib {
		t.Errorf("compacted: %+v, %v", got, err)
	}
	collectAll(t, s, c)
	_, size = stat(t, b, "packs/")
	got, err = s.Stat(t.Context())
	if err != nil || got.Condemned != 0 || got.Stored != size || size > 9*mib {
		t.Errorf("at the end: %+v, %v; %d bytes", got, err, size)
	}
}
