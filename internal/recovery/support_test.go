package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kluis/internal/objects"
	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	kib = 1 << 10
	mib = 1 << 20
	cs  = 64 * kib
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func testKey() secret.Bytes { return secret.New(bytes.Repeat([]byte{7}, 32)) }

func options(c *clock) recovery.Options {
	return recovery.Options{Key: testKey(), Now: c.Now, PackSize: 1 * mib, Reserve: -1}
}

// newBucket makes a folder bucket that ends with the test.
func newBucket(t testing.TB) objects.Bucket {
	t.Helper()
	f, err := folder.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func create(t testing.TB, b objects.Bucket, o recovery.Options) *recovery.Store {
	t.Helper()
	s, err := recovery.Create(context.Background(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func open(t testing.TB, b objects.Bucket, o recovery.Options) *recovery.Store {
	t.Helper()
	s, err := recovery.Open(context.Background(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// image is a disk in memory.
type image struct {
	data    []byte
	extents []recovery.Extent // nil means all of it
	badAt   int64             // reads that touch this offset fail, if it isn't 0
	read    func(off int64)   // called before each read, if it isn't nil
}

var errBadSector = errors.New("bad sector")

func (m *image) ReadAt(p []byte, off int64) (int, error) {
	if m.read != nil {
		m.read(off)
	}
	n := copy(p, m.data[min(off, int64(len(m.data))):])
	if m.badAt > 0 && off <= m.badAt && m.badAt < off+int64(n) {
		return int(m.badAt - off), errBadSector
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *image) Size() int64 { return int64(len(m.data)) }

func (m *image) Extents(context.Context) iter.Seq2[recovery.Extent, error] {
	return func(yield func(recovery.Extent, error) bool) {
		if m.extents == nil {
			yield(recovery.Extent{Offset: 0, Length: m.Size()}, nil)
		}
		for _, e := range m.extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// noise returns n bytes like ciphertext, the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = r.Read(b)
	return b
}

// mixed returns a disk of n bytes with ciphertext, text, holes and an odd end.
func mixed(seed uint64, n int) []byte {
	b := noise(seed, n)
	line := []byte(fmt.Sprintf("line %d of a log file that repeats itself\n", seed))
	for off := 0; off < n; off += cs {
		end := min(off+cs, n)
		switch off / cs % 5 {
		case 1:
			clear(b[off:end])
		case 2:
			for i := off; i < end; i += len(line) {
				copy(b[i:end], line)
			}
		case 3:
			clear(b[off+1 : end])
		}
	}
	return b
}

// target is a file in memory.
type target struct {
	mu      sync.Mutex
	data    []byte
	written int64
	synced  bool
}

func (f *target) Truncate(n int64) error {
	if n == 0 {
		f.data = nil
	}
	f.data = append(f.data, make([]byte, n-int64(len(f.data)))...)
	return nil
}

func (f *target) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written += int64(len(p))
	return copy(f.data[off:], p), nil
}

func (f *target) Sync() error { f.synced = true; return nil }

// backup makes a point with one disk named "os".
func backup(t testing.TB, s *recovery.Store, id string, src recovery.Source, o recovery.DiskOptions) (*recovery.Point, recovery.Counters) {
	t.Helper()
	p, c, err := tryBackup(s, id, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func tryBackup(s *recovery.Store, id string, src recovery.Source, o recovery.DiskOptions) (*recovery.Point, recovery.Counters, error) {
	ctx := context.Background()
	w, err := s.Begin(ctx, id)
	if err != nil {
		return nil, recovery.Counters{}, err
	}
	defer w.Abort()
	c, err := w.WriteDisk(ctx, "os", src, o)
	if err != nil {
		return nil, c, err
	}
	if err := w.Attach("vm.json", []byte(`{"id":"`+id+`"}`)); err != nil {
		return nil, c, err
	}
	p, err := w.Commit(ctx, map[string]string{"vm": "web1"})
	return p, c, err
}

func disk(t testing.TB, s *recovery.Store, id string) *recovery.Disk {
	t.Helper()
	p, err := s.Point(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Disk("os")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wantRestored restores a point's disk and compares.
func wantRestored(t testing.TB, s *recovery.Store, id string, want []byte) {
	t.Helper()
	var got target
	if _, err := s.Restore(context.Background(), disk(t, s, id), &got, recovery.RestoreOptions{}); err != nil {
		t.Fatalf("restore %s: %v", id, err)
	}
	if !bytes.Equal(got.data, want) {
		t.Fatalf("restored disk of %s differs", id)
	}
	if !got.synced {
		t.Errorf("restored disk of %s was not synced", id)
	}
}

// stat returns the number of objects and their bytes.
func stat(t testing.TB, b objects.Bucket, prefix string) (n int, bytes int64) {
	t.Helper()
	for o, err := range b.List(context.Background(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		bytes += o.Size
	}
	return n, bytes
}

type iterExtents = iter.Seq2[recovery.Extent, error]

type iterObjects = iter.Seq2[objects.Object, error]
