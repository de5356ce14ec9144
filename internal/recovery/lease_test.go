package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/recovery"
)

func ownedBy(name string) recovery.Options {
	return recovery.Options{
		Key: testKey(), Now: time.Now, PackSize: mib, Reserve: -1, Owner: name, Lease: 30 * time.Second, Grace: time.Hour,
	}
}

func wantOwnedBy(t *testing.T, err error, owner string, epoch uint64) {
	t.Helper()
	var owned *recovery.OwnedError
	if !errors.As(err, &owned) || owned.Owner != owner || owned.Epoch != epoch {
		t.Errorf("%v, want the store to be owned by %s, epoch %d", err, owner, epoch)
	}
}

// One owner, who lives; the second process may read and is told so.
func TestOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objectstest.NewMemory()
		a, err := recovery.Create(t.Context(), b, ownedBy("a"))
		if err != nil {
			t.Fatal(err)
		}
		data := mixed(1, mib)
		if p, _ := backup(t, a, "1", &image{data: data}, recovery.DiskOptions{}); p.Epoch != 1 {
			t.Errorf("point of epoch %d", p.Epoch)
		}
		time.Sleep(5 * time.Minute)
		_, err = recovery.Open(t.Context(), b, ownedBy("b"))
		wantOwnedBy(t, err, "a", 1)
		unowned := ownedBy("")
		_, err = recovery.Open(t.Context(), b, unowned)
		wantOwnedBy(t, err, "a", 1)

		reader := unowned
		reader.ReadOnly = true
		r := open(t, b, reader)
		wantRestored(t, r, "1", data)
		_, begin := r.Begin(t.Context(), "2")
		_, collected := r.Collect(t.Context(), recovery.CollectOptions{})
		for what, err := range map[string]error{
			"begin": begin, "collect": collected, "delete": r.Delete(t.Context(), "1"), "document": r.PutDocument(t.Context(), "x", nil),
		} {
			if !errors.Is(err, recovery.ErrNotOwner) {
				t.Errorf("%s: %v", what, err)
			}
		}

		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		next := open(t, b, ownedBy("b"))
		if next.Epoch() != 2 || time.Since(start) > 0 {
			t.Errorf("epoch %d, after %v", next.Epoch(), time.Since(start))
		}
		if p, err := next.Point(t.Context(), "1"); err != nil || p.Epoch != 1 {
			t.Errorf("%+v, %v", p, err)
		}
		if err := next.Close(); err != nil {
			t.Fatal(err)
		}
		open(t, b, unowned) // who has ended keeps nobody off
		if n, _ := stat(t, b, "owner/"); n != 1 {
			t.Errorf("%d claims", n)
		}
	})
}

// Of several that want to take over one wins.
func TestOneOfManyBecomesOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objectstest.NewMemory()
		if err := create(t, b, ownedBy("a")).Close(); err != nil {
			t.Fatal(err)
		}
		var won atomic.Int32
		for range 8 {
			go func() {
				s, err := recovery.Open(context.Background(), b, ownedBy("many"))
				if err == nil {
					won.Add(1)
					time.Sleep(time.Hour)
					_ = s.Close()
					return
				}
				var owned *recovery.OwnedError
				if !errors.As(err, &owned) {
					t.Error(err)
				}
			}()
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if won.Load() != 1 {
			t.Errorf("%d owners", won.Load())
		}
		time.Sleep(2 * time.Hour)
	})
}

// gate is a bucket that stops a process: its operations wait until it is opened again.
type gate struct {
	objects.Bucket
	shut atomic.Pointer[barrier]
}

type barrier struct {
	open chan struct{}
	only func(op, name string) bool // nil means every operation
}

func (g *gate) close(only func(op, name string) bool) (open func()) {
	b := &barrier{make(chan struct{}), only}
	g.shut.Store(b)
	return func() {
		g.shut.CompareAndSwap(b, nil)
		close(b.open)
	}
}

func (g *gate) wait(op, name string) {
	if b := g.shut.Load(); b != nil && (b.only == nil || b.only(op, name)) {
		<-b.open
	}
}

func (g *gate) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	g.wait("put", name)
	return g.Bucket.Put(ctx, name, size, r)
}

func (g *gate) List(ctx context.Context, prefix string) iterObjects {
	g.wait("list", prefix)
	return g.Bucket.List(ctx, prefix)
}

func (g *gate) Delete(ctx context.Context, name string) error {
	g.wait("delete", name)
	return g.Bucket.Delete(ctx, name)
}

// An owner that stood still, and goes on when another has taken over, commits nothing and removes nothing.
func TestOwnerThatStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objectstest.NewMemory()
		g := &gate{Bucket: b}
		a := create(t, g, ownedBy("a"))
		data := noise(1, 3*mib)
		backup(t, a, "old", &image{data: data}, recovery.DiskOptions{})
		if err := a.Delete(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		w, err := a.Begin(t.Context(), "stale")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.WriteDisk(t.Context(), "os", &image{data: data}, recovery.DiskOptions{}); err != nil || got.New != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		goOn := g.close(nil)
		s := open(t, b, ownedBy("b"))
		if s.Epoch() != 2 {
			t.Errorf("epoch %d", s.Epoch())
		}
		fresh := noise(2, mib)
		backup(t, s, "new", &image{data: fresh}, recovery.DiskOptions{})
		if got, err := s.Collect(t.Context(), recovery.CollectOptions{}); err != nil || got.Left == 0 {
			t.Errorf("%+v, %v", got, err)
		}
		goOn()
		if _, err := w.Commit(t.Context(), nil); !errors.Is(err, recovery.ErrNotOwner) {
			t.Errorf("commit of the former owner: %v", err)
		}
		if _, err := a.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); !errors.Is(err, recovery.ErrNotOwner) {
			t.Errorf("collection of the former owner: %v", err)
		}
		if err := a.Delete(t.Context(), "new"); !errors.Is(err, recovery.ErrNotOwner) {
			t.Errorf("deletion by the former owner: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if points, err := s.Points(t.Context()); err != nil || len(points) != 1 {
			t.Errorf("%d points, %v", len(points), err)
		}
		wantRestored(t, s, "new", fresh)
		time.Sleep(time.Minute)
		if _, err := s.Begin(t.Context(), "more"); err != nil {
			t.Errorf("the owner, after the former one has ended: %v", err)
		}
	})
}

// The root of a point is under way while another takes over and collects. It arrives late: either it is
// taken back, or, when the former owner dies first, it is whole.
func TestCommitThatArrivesLate(t *testing.T) {
	for _, dies := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := objectstest.NewMemory()
			g := &gate{Bucket: b}
			a := create(t, g, ownedBy("a"))
			data := noise(1, 3*mib)
			backup(t, a, "old", &image{data: data}, recovery.DiskOptions{})
			if err := a.Delete(t.Context(), "old"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Hour)
			w, err := a.Begin(t.Context(), "late")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := w.WriteDisk(t.Context(), "os", &image{data: data}, recovery.DiskOptions{}); err != nil || got.New != 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			arrive := g.close(func(op, name string) bool {
				return op == "put" && (strings.HasPrefix(name, "points/") || strings.HasPrefix(name, "owner/"))
			})
			committed := make(chan error)
			go func() {
				_, err := w.Commit(context.Background(), nil)
				committed <- err
			}()
			synctest.Wait()
			s := open(t, b, ownedBy("b"))
			got, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true})
			if err != nil || got.Left == 0 || got.Packs != 0 {
				t.Errorf("collection after taking over: %+v, %v", got, err)
			}
			if dies {
				undo := g.close(func(op, name string) bool { return op == "delete" && strings.HasPrefix(name, "points/") })
				defer undo()
				defer func() { go func() { <-committed }() }()
			}
			arrive()
			if !dies {
				if err := <-committed; !errors.Is(err, recovery.ErrNotOwner) {
					t.Errorf("%v", err)
				}
			}
			synctest.Wait()
			points, err := s.Points(t.Context())
			if err != nil || (len(points) == 1) != dies {
				t.Errorf("%d points, %v", len(points), err)
			}
			time.Sleep(time.Hour)
			if _, err := s.Collect(t.Context(), recovery.CollectOptions{NoGrace: true}); err != nil {
				t.Fatal(err)
			}
			if dies {
				wantRestored(t, s, "late", data)
			}
		})
	}
}

// An owner whose beats don't arrive stops by itself, and goes on when they do again.
func TestLeaseThatCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := objectstest.NewMemory()
		var down atomic.Bool
		faulty := &objectstest.Faulty{Bucket: b, FailAt: 1, Only: func(op, name string) bool {
			return down.Load() && op == "put" && strings.HasPrefix(name, "owner/")
		}}
		s := create(t, faulty, ownedBy("a"))
		down.Store(true)
		time.Sleep(time.Minute)
		if _, err := s.Begin(t.Context(), "1"); !errors.Is(err, recovery.ErrNotOwner) {
			t.Errorf("%v", err)
		}
		down.Store(false)
		time.Sleep(time.Minute)
		data := mixed(1, mib)
		backup(t, s, "1", &image{data: data}, recovery.DiskOptions{})
		wantRestored(t, s, "1", data)
	})
}

// The folder's lock says at once who lives and who does not.
func TestOwnerOfAFolder(t *testing.T) {
	b := newBucket(t)
	o := options(newClock())
	o.Owner, o.Lease = "a", time.Hour
	a := create(t, b, o)
	o.Owner = "b"
	_, err := recovery.Open(t.Context(), b, o)
	wantOwnedBy(t, err, "a", 1)
	// What a process that died has left: a claim that is not released, and no lock.
	claims := map[string][]byte{}
	for object := range b.List(t.Context(), "owner/") {
		claims[object.Name] = contentOf(t, b, object.Name)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for object := range b.List(t.Context(), "owner/") {
		if err := b.Delete(t.Context(), object.Name); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range claims {
		if err := b.Put(t.Context(), name, int64(len(content)), bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, b, o) // does not wait for an hour
	if s.Epoch() != 2 {
		t.Errorf("epoch %d", s.Epoch())
	}
}
