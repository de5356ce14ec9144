package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// model is a store together with what it ought to hold.
type model struct {
	bucket *objectstest.Memory
	clock  *clock
	store  *recovery.Store
	points map[string][]byte
	live   []byte            // the disk now
	dirty  []recovery.Extent // what changed since the point base
	base   string
	next   int
}

func (m *model) open(t *rapid.T) {
	if m.store != nil {
		_ = m.store.Close()
	}
	var err error
	if m.store, err = recovery.Open(context.Background(), m.bucket, m.options()); err != nil {
		t.Fatal(err)
	}
}

func (m *model) options() recovery.Options {
	o := options(m.clock)
	o.PackSize = 200 * kib
	return o
}

// write changes the live disk somewhere, also across the borders of chunks.
func (m *model) write(t *rapid.T) {
	off := rapid.IntRange(0, len(m.live)-1).Draw(t, "offset")
	n := rapid.IntRange(1, min(3*cs, len(m.live)-off)).Draw(t, "length")
	switch rapid.IntRange(0, 2).Draw(t, "content") {
	case 0:
		clear(m.live[off : off+n])
	case 1:
		copy(m.live[off:off+n], noise(uint64(rapid.IntRange(0, 5).Draw(t, "seed")), n))
	case 2:
		copy(m.live[off:off+n], bytes.Repeat([]byte("text "), n/5+1))
	}
	m.dirty = append(m.dirty, recovery.Extent{Offset: int64(off), Length: int64(n)})
}

// dirtyExtents returns what changed, ascending and without overlap, as a dirty bitmap would.
func (m *model) dirtyExtents() []recovery.Extent {
	touched := map[int64]bool{}
	for _, e := range m.dirty {
		for c := e.Offset / cs; c <= (e.Offset+e.Length-1)/cs; c++ {
			touched[c] = true
		}
	}
	extents := []recovery.Extent{}
	for _, c := range slices.Sorted(maps.Keys(touched)) {
		extents = append(extents, recovery.Extent{Offset: c * cs, Length: cs})
	}
	return extents
}

// backup makes a point, in one of the three ways, through a bucket that may fail.
func (m *model) backup(t *rapid.T) {
	src := &image{data: bytes.Clone(m.live)}
	var o recovery.DiskOptions
	faulty := &objectstest.Faulty{Bucket: m.bucket}
	if rapid.IntRange(0, 3).Draw(t, "crash") == 0 {
		faulty.FailAt = int64(rapid.IntRange(1, 40).Draw(t, "fails at"))
		faulty.Mode = objectstest.Mode(rapid.IntRange(0, 2).Draw(t, "mode"))
	}
	s, err := recovery.Open(context.Background(), faulty, m.options())
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	way := rapid.SampledFrom([]string{"full", "compare", "changed"}).Draw(t, "way")
	if _, exists := m.points[m.base]; exists && way != "full" {
		p, err := s.Point(context.Background(), m.base)
		if err == nil {
			o.Parent, err = p.Disk("os")
		}
		if err != nil {
			return
		}
		if o.Changed = way == "changed"; o.Changed {
			src.extents = m.dirtyExtents()
		}
	}
	m.next++
	id := fmt.Sprint(m.next)
	_, c, err := tryBackup(s, id, src, o)
	if err == nil && c.Size != c.Zero+c.New+c.Reused {
		t.Fatalf("counters don't add up: %+v", c)
	}
	if err != nil {
		if !errors.Is(err, objectstest.ErrInjected) {
			t.Fatalf("backup: %v", err)
		}
		m.open(t)
		if _, err := m.store.Point(context.Background(), id); err != nil {
			return // it was not committed
		}
	}
	m.points[id], m.base, m.dirty = bytes.Clone(m.live), id, nil
}

func (m *model) delete(t *rapid.T) {
	if len(m.points) == 0 {
		return
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.points))).Draw(t, "point")
	if err := m.store.Delete(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	delete(m.points, id)
}

func (m *model) collect(t *rapid.T) {
	m.clock.advance(time.Duration(rapid.IntRange(0, 30).Draw(t, "hours")) * time.Hour)
	if _, err := m.store.Collect(context.Background(), recovery.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// check compares the store with the model: the list always, one point in full, all of it now and then.
func (m *model) check(t *rapid.T) {
	points, err := m.store.Points(context.Background())
	if err != nil || len(points) != len(m.points) {
		t.Fatalf("%d points instead of %d, %v", len(points), len(m.points), err)
	}
	for i, p := range points {
		want, ok := m.points[p.ID]
		if !ok {
			t.Fatalf("point %s should not be there", p.ID)
		}
		if i > 0 {
			continue
		}
		d, err := p.Disk("os")
		if err != nil {
			t.Fatal(err)
		}
		var got target
		if _, err := m.store.Restore(context.Background(), d, &got, recovery.RestoreOptions{}); err != nil || !bytes.Equal(got.data, want) {
			t.Fatalf("restore %s: %v, or bytes differ", p.ID, err)
		}
		off := len(want) / 3
		part := make([]byte, min(100*kib, len(want)-off))
		if _, err := d.ReadAt(part, int64(off)); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(part, want[off:off+len(part)]) {
			t.Fatalf("read %s: %v, or bytes differ", p.ID, err)
		}
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{bucket: objectstest.NewMemory(), clock: newClock(), points: map[string][]byte{}}
		s, err := recovery.Create(context.Background(), m.bucket, m.options())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		m.live = make([]byte, rapid.IntRange(1, 12*cs).Draw(t, "size"))
		m.open(t)
		defer func() { _ = m.store.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"write":   m.write,
			"backup":  m.backup,
			"delete":  m.delete,
			"collect": m.collect,
			"reopen":  m.open,
			"":        m.check,
		})
		report, err := m.store.Check(context.Background(), recovery.CheckOptions{Level: recovery.LevelContent})
		if err != nil || len(report.Damage) > 0 {
			t.Fatalf("at the end: %+v, %v", report, err)
		}
	})
}
