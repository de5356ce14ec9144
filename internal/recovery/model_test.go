package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

// model is a store together with what it ought to hold.
type model struct {
	bucket *objectstest.Memory
	cache  string // of the machine, with the index
	store  *recovery.Store
	owners int
	points map[string][]byte
	live   []byte            // the disk now
	dirty  []recovery.Extent // what changed since the point base
	base   string
	next   int
}

// create makes the store, which is empty.
func (m *model) create(t *rapid.T) {
	m.points, m.base, m.dirty = map[string][]byte{}, "", nil
	s, err := recovery.Create(context.Background(), m.bucket, m.options())
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
}

// open lets another process become the owner.
func (m *model) open(t *rapid.T) {
	_ = m.store.Close()
	var err error
	if m.store, err = recovery.Open(context.Background(), m.bucket, m.options()); err != nil {
		t.Fatal(err)
	}
}

func (m *model) options() recovery.Options {
	m.owners++
	return recovery.Options{
		Key: testKey(), Now: time.Now, PackSize: 200 * kib, Reserve: 10 * kib,
		Owner: fmt.Sprint("owner ", m.owners), Lease: 24 * time.Hour, Cache: m.cache,
	}
}

// mayDie does f with another process as the owner, which may die at some operation, and then lets the next
// take over. It returns the error of a process that has died, and fails for any other.
func (m *model) mayDie(t *rapid.T, f func(s *recovery.Store) error) error {
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	faulty := &objectstest.Faulty{Bucket: m.bucket}
	if rapid.IntRange(0, 3).Draw(t, "dies") == 0 {
		faulty.FailAt = int64(rapid.IntRange(1, 60).Draw(t, "fails at"))
		faulty.Mode = objectstest.Mode(rapid.IntRange(0, 2).Draw(t, "mode"))
	}
	s, err := recovery.Open(context.Background(), faulty, m.options())
	if err == nil {
		err = errors.Join(f(s), s.Close())
	}
	if err != nil && !errors.Is(err, objectstest.ErrInjected) {
		t.Fatal(err)
	}
	m.open(t)
	return err
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

// backup makes a point, in one of the three ways.
func (m *model) backup(t *rapid.T) {
	src := &image{data: bytes.Clone(m.live)}
	way := rapid.SampledFrom([]string{"full", "compare", "changed"}).Draw(t, "way")
	m.next++
	id := fmt.Sprint(m.next)
	err := m.mayDie(t, func(s *recovery.Store) error {
		var o recovery.DiskOptions
		if _, exists := m.points[m.base]; exists && way != "full" {
			p, err := s.Point(context.Background(), m.base)
			if err == nil {
				o.Parent, err = p.Disk("os")
			}
			if err != nil {
				return err
			}
			if o.Changed = way == "changed"; o.Changed {
				src.extents = m.dirtyExtents()
			}
		}
		_, c, err := tryBackup(s, id, src, o)
		if err == nil && c.Size != c.Zero+c.New+c.Reused {
			t.Fatalf("counters don't add up: %+v", c)
		}
		return err
	})
	if err != nil {
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

// collect collects, with compaction that takes more or less.
func (m *model) collect(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(0, 30).Draw(t, "hours")) * time.Hour)
	o := recovery.CollectOptions{
		NoGrace: rapid.Bool().Draw(t, "no grace"),
		MinDead: rapid.SampledFrom([]float64{0, 0.01, 0.6}).Draw(t, "at least dead"),
		Budget:  rapid.SampledFrom([]int64{0, -1, 300 * kib}).Draw(t, "budget"),
	}
	_ = m.mayDie(t, func(s *recovery.Store) error {
		got, err := s.Collect(context.Background(), o)
		if len(got.Damage) > 0 {
			t.Fatalf("collect: %+v", got)
		}
		return err
	})
}

// erase destroys the store, in several goes if need be, and makes a new one.
func (m *model) erase(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "really") > 0 {
		return
	}
	_ = m.store.Close()
	faulty := &objectstest.Faulty{Bucket: m.bucket, FailAt: int64(rapid.IntRange(1, 60).Draw(t, "fails at"))}
	if err := recovery.Erase(context.Background(), faulty); err != nil {
		if err := recovery.Erase(context.Background(), m.bucket); err != nil {
			t.Fatal(err)
		}
	}
	m.create(t)
}

// decay flips a bit of the index, or takes a file of it away.
func (m *model) decay(t *rapid.T) {
	files, err := filepath.Glob(filepath.Join(m.cache, "*", "*"))
	if err != nil || len(files) == 0 {
		return
	}
	name := files[rapid.IntRange(0, len(files)-1).Draw(t, "file")]
	if rapid.Bool().Draw(t, "lose it") {
		_ = os.Remove(name)
		return
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[rapid.IntRange(0, len(content)-1).Draw(t, "byte")] ^= 1
	if err := os.WriteFile(name, content, 0o600); err != nil { // in place: it is open
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
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // how rapid ends a property that fails
		synctest.Test(t, func(*testing.T) {
			defer func() { failure = recover() }()
			modelled(rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

func modelled(t *rapid.T) {
	cache, err := os.MkdirTemp("", "index")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(cache) }()
	m := &model{bucket: objectstest.NewMemory(), cache: cache}
	m.live = make([]byte, rapid.IntRange(1, 12*cs).Draw(t, "size"))
	m.create(t)
	defer func() { _ = m.store.Close() }()
	t.Repeat(map[string]func(*rapid.T){
		"write":   m.write,
		"backup":  m.backup,
		"delete":  m.delete,
		"collect": m.collect,
		"erase":   m.erase,
		"reopen":  m.open,
		"decay":   m.decay,
		"":        m.check,
	})
	report, err := m.store.Check(context.Background(), recovery.CheckOptions{Level: recovery.LevelContent})
	if err != nil || len(report.Damage) > 0 {
		t.Fatalf("at the end: %+v, %v", report, err)
	}
}
