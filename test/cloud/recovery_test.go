package cloud_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"testing"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

// disk is a disk in memory, to be backed up or restored.
type disk struct{ data []byte }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(p, off)
}

func (d *disk) Size() int64 { return int64(len(d.data)) }

func (d *disk) Extents(context.Context) iter.Seq2[recovery.Extent, error] {
	return func(yield func(recovery.Extent, error) bool) { yield(recovery.Extent{Length: d.Size()}, nil) }
}

func (d *disk) Truncate(n int64) error {
	if n == 0 || d.data == nil {
		d.data = make([]byte, n)
	}
	d.data = append(d.data, make([]byte, n-int64(len(d.data)))...)
	return nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) { return copy(d.data[off:], p), nil }

func (d *disk) Sync() error { return nil }

// clock is moved by the tests.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func options(c *clock) recovery.Options {
	return recovery.Options{Key: secret.New(bytes.Repeat([]byte{7}, 32)), Now: c.Now, PackSize: 4 * mib, Reserve: -1}
}

func backUp(ctx context.Context, s *recovery.Store, id string, data []byte) error {
	w, err := s.Begin(ctx, id)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.WriteDisk(ctx, "os", &disk{data}, recovery.DiskOptions{}); err != nil {
		return err
	}
	_, err = w.Commit(ctx, nil)
	return err
}

func restore(ctx context.Context, s *recovery.Store, id string) ([]byte, error) {
	p, err := s.Point(ctx, id)
	if err != nil {
		return nil, err
	}
	d, err := p.Disk("os")
	if err != nil {
		return nil, err
	}
	var to disk
	_, err = s.Restore(ctx, d, &to, recovery.RestoreOptions{})
	return to.data, err
}

func wantPoints(t *testing.T, s *recovery.Store, want map[string][]byte) {
	t.Helper()
	points, err := s.Points(t.Context())
	if err != nil || len(points) != len(want) {
		t.Fatalf("%d points instead of %d, %v", len(points), len(want), err)
	}
	for id, data := range want {
		if got, err := restore(t.Context(), s, id); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("restore %s: %v, or bytes differ", id, err)
		}
	}
}

func openStore(t *testing.T, b objects.Bucket, c *clock) *recovery.Store {
	t.Helper()
	s, err := recovery.Open(t.Context(), b, options(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The life of a store: backups, deletions and collections in random order, now and then from scratch, and
// always every point as it was.
func TestRecoveryStore(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		ctx, b, c := t.Context(), s.open(t), &clock{time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
		store, err := recovery.Create(ctx, b, options(c))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.Close() }()
		random := rand.New(rand.NewPCG(1, 2))
		live, points := noise(6*mib), map[string][]byte{}
		for i := range 30 {
			switch random.IntN(6) {
			case 0, 1, 2:
				off := random.IntN(5 * mib)
				_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(live[off : off+mib/2])
				id := fmt.Sprint(i)
				if err := backUp(ctx, store, id, live); err != nil {
					t.Fatal(err)
				}
				points[id] = bytes.Clone(live)
			case 3:
				for id := range points {
					if err := store.Delete(ctx, id); err != nil {
						t.Fatal(err)
					}
					delete(points, id)
					break
				}
			case 4:
				c.now = c.now.Add(20 * time.Hour)
				if _, err := store.Collect(ctx, recovery.CollectOptions{}); err != nil {
					t.Fatal(err)
				}
			case 5:
				_ = store.Close()
				store = openStore(t, b, c)
			}
		}
		wantPoints(t, store, points)
		if report, err := store.Check(ctx, recovery.CheckOptions{Level: recovery.LevelContent}); err != nil || len(report.Damage) > 0 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// A backup that is stopped before, after or in the middle of any request, opened again: what was committed
// is there, and the backup can be made.
func TestRecoveryCrashes(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		one, two := noise(2*mib), noise(3*mib)
		for mode, name := range map[objectstest.Mode]string{objectstest.Before: "before", objectstest.After: "after", objectstest.Tear: "torn"} {
			for k, finished := int64(1), false; !finished; k++ {
				b, c := s.open(t), &clock{time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
				if store, err := recovery.Create(t.Context(), b, options(c)); err != nil {
					t.Fatal(err)
				} else if err := errors.Join(backUp(t.Context(), store, "1", one), store.Close()); err != nil {
					t.Fatal(err)
				}
				faulty := &objectstest.Faulty{Bucket: b, FailAt: k, Mode: mode}
				store, err := recovery.Open(t.Context(), faulty, options(c))
				if err == nil {
					err = errors.Join(backUp(t.Context(), store, "2", two), store.Close())
				}
				if finished = !faulty.Failed(); finished != (err == nil) {
					t.Fatalf("%s %d: %v", name, k, err)
				}
				again := openStore(t, b, c)
				if err := backUp(t.Context(), again, "2", two); err != nil && !errors.Is(err, recovery.ErrPointExists) {
					t.Fatalf("%s %d: the backup after the crash: %v", name, k, err)
				}
				wantPoints(t, again, map[string][]byte{"1": one, "2": two})
			}
		}
	})
}

// One process owns a store in a bucket, too, though a bucket has no locks: by the claims that only one can
// put.
func TestOneOwner(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b, c := s.open(t), &clock{time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
		o := options(c)
		o.Owner, o.Lease, o.Now = "one", 2*time.Second, time.Now
		one, err := recovery.Create(t.Context(), b, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Owner = "two"
		if _, err := recovery.Open(t.Context(), b, o); !isOwned(err, "one") {
			t.Errorf("a second owner: %v", err)
		}
		if err := one.Close(); err != nil {
			t.Fatal(err)
		}
		two, err := recovery.Open(t.Context(), b, o)
		if err != nil {
			t.Fatalf("after the first has ended: %v", err)
		}
		if err := errors.Join(backUp(t.Context(), two, "1", noise(mib)), two.Close()); err != nil {
			t.Error(err)
		}
	})
}

func isOwned(err error, by string) bool {
	owned, ok := errors.AsType[*recovery.OwnedError](err)
	return ok && owned.Owner == by
}

// A large pack of unknown size goes through in bounded memory, whatever its size.
func TestLargeStream(t *testing.T) {
	each(t, func(t *testing.T, s *service) {
		b := s.open(t)
		const size = 100*mib + 7
		if err := b.Put(t.Context(), "x", -1, io.LimitReader(rand.NewChaCha8([32]byte{3}), size)); err != nil {
			t.Fatal(err)
		}
		r, err := b.Get(t.Context(), "x", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		want := io.LimitReader(rand.NewChaCha8([32]byte{3}), size)
		got, expected := make([]byte, mib), make([]byte, mib)
		for total := 0; ; {
			n, err := io.ReadFull(r, got)
			m, _ := io.ReadFull(want, expected)
			if total += n; !bytes.Equal(got[:n], expected[:m]) {
				t.Fatalf("after %d bytes the stream differs", total)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}
