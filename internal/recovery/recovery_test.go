package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"kluis/internal/objects"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

func TestRoundTrip(t *testing.T) {
	c := newClock()
	b := newBucket(t)
	s := create(t, b, options(c))
	data := mixed(1, 5*mib+12345)
	p, counters := backup(t, s, "1001", &image{data: data}, recovery.DiskOptions{})
	if counters.Size != int64(len(data)) || counters.Read != int64(len(data)) ||
		counters.Zero+counters.New+counters.Reused != counters.Size || counters.Zero < 1*mib {
		t.Errorf("counters: %+v", counters)
	}
	if !p.Time.Equal(c.Now()) {
		t.Errorf("time of the point: %v", p.Time)
	}

	s = open(t, b, options(c))
	wantRestored(t, s, "1001", data)

	p, err := s.Point(t.Context(), "1001")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Time.Equal(c.Now()) || !maps.Equal(p.Labels, map[string]string{"vm": "web1"}) {
		t.Errorf("point: %+v", p)
	}
	if got, err := p.Attachment("vm.json"); err != nil || string(got) != `{"id":"1001"}` {
		t.Errorf("attachment: %q, %v", got, err)
	}
	if _, err := p.Attachment("other"); err == nil {
		t.Error("an attachment that does not exist was returned")
	}
	if _, err := p.Disk("other"); err == nil {
		t.Error("a disk that does not exist was returned")
	}
	if got := p.Disks(); len(got) != 1 || got[0].Name != "os" || got[0].Size != int64(len(data)) || got[0].Counters != counters || len(got[0].Digest) != 64 {
		t.Errorf("disks: %+v", got)
	}
	d := disk(t, s, "1001")
	for _, r := range []struct{ off, n int }{{0, 1}, {cs - 1, 2}, {3 * cs, 3 * cs}, {len(data) - 5, 5}, {1000, 2 * mib}, {7, 0}} {
		got := make([]byte, r.n)
		if n, err := d.ReadAt(got, int64(r.off)); n != r.n || err != nil || !bytes.Equal(got, data[r.off:r.off+r.n]) {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v, or bytes differ", r.n, r.off, n, err)
		}
	}
	if n, err := d.ReadAt(make([]byte, 10), int64(len(data))-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt over the end = %d, %v", n, err)
	}
	if _, err := d.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt took a negative offset")
	}
}

func TestCreateAndOpen(t *testing.T) {
	b := newBucket(t)
	o := options(newClock())
	if _, err := recovery.Open(t.Context(), b, o); !errors.Is(err, recovery.ErrNoStore) {
		t.Errorf("open nothing: %v", err)
	}
	s := create(t, b, o)
	if _, err := recovery.Create(t.Context(), b, o); !errors.Is(err, objects.ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	other := o
	other.Key = secret.New(bytes.Repeat([]byte{8}, 32))
	if _, err := recovery.Open(t.Context(), b, other); !errors.Is(err, recovery.ErrWrongKey) {
		t.Errorf("open with another key: %v", err)
	}
	other.Key = secret.New([]byte("short"))
	if _, err := recovery.Open(t.Context(), b, other); err == nil || errors.Is(err, recovery.ErrWrongKey) {
		t.Errorf("open with a key of 5 bytes: %v", err)
	}
	if again := open(t, b, o); again.ID() != s.ID() || len(s.ID()) != 32 {
		t.Errorf("ids %q and %q", s.ID(), again.ID())
	}
}

func TestPoints(t *testing.T) {
	b := newBucket(t)
	s := create(t, b, options(newClock()))
	ids := []string{"a.B_c-9", "A.b_C-9", strings.Repeat("x", 64)}
	for i, id := range ids {
		backup(t, s, id, &image{data: noise(uint64(i), 100)}, recovery.DiskOptions{})
	}
	if _, err := s.Begin(t.Context(), ids[0]); !errors.Is(err, recovery.ErrPointExists) {
		t.Errorf("an id twice: %v", err)
	}
	for _, id := range []string{"", strings.Repeat("x", 65), "a/b", "a b", "ä"} {
		if _, err := s.Begin(t.Context(), id); err == nil {
			t.Errorf("Begin took the id %q", id)
		}
		if _, err := s.Point(t.Context(), id); !errors.Is(err, recovery.ErrNoPoint) {
			t.Errorf("Point(%q): %v", id, err)
		}
	}
	w, err := s.Begin(t.Context(), "new")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := s.Begin(t.Context(), "new"); !errors.Is(err, recovery.ErrPointExists) {
		t.Errorf("two writers of one id: %v", err)
	}
	points, err := s.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range points {
		got = append(got, p.ID)
	}
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("points: %q", got)
	}
	// Two processes may write the same id: one commits.
	other := open(t, b, options(newClock()))
	w2, err := other.Begin(t.Context(), "new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w2.Commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context(), nil); !errors.Is(err, recovery.ErrPointExists) {
		t.Errorf("commit of an id that is taken meanwhile: %v", err)
	}
}

func TestReadBackBeforeCommit(t *testing.T) {
	s := create(t, newBucket(t), options(newClock()))
	w, err := s.Begin(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	disks := map[string][]byte{"os": mixed(1, 3*mib), "data": mixed(2, 2*mib+1), "empty": nil, "hole": make([]byte, mib)}
	for name, data := range disks {
		if _, err := w.WriteDisk(t.Context(), name, &image{data: data}, recovery.DiskOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Disk("other"); err == nil {
		t.Error("a disk that was not written was returned")
	}
	check := func(get func(string) (*recovery.Disk, error)) {
		for name, data := range disks {
			d, err := get(name)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(data))
			if n, err := d.ReadAt(got, 0); n != len(data) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
				t.Errorf("disk %s: %d bytes, %v", name, n, err)
			}
		}
	}
	check(w.Disk)
	if points, err := s.Points(t.Context()); err != nil || len(points) != 0 {
		t.Errorf("before the commit there are %d points, %v", len(points), err)
	}
	p, err := w.Commit(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	check(p.Disk)
	if _, err := w.WriteDisk(t.Context(), "late", &image{}, recovery.DiskOptions{}); err == nil {
		t.Error("a disk was written after the commit")
	}
	if _, err := w.Commit(context.Background(), nil); err == nil {
		t.Error("a point was committed twice")
	}
}
