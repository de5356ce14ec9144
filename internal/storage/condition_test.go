package storage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/objects"
	"kluis/internal/storage"
)

// A caller who says which bytes they mean to replace replaces no others.
func TestConditions(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		put := func(content string, c ...storage.Condition) (string, error) {
			b, err := w.PutBlob(ctx, "one", "container", "b", text(int64(len(content)), ""), strings.NewReader(content), c...)
			return b.ETag(), err
		}
		_, err := put("x", storage.IfMatch("*"))
		wantCode(t, err, "ConditionNotMet")
		first, err := put("1", storage.IfNoneMatch("*"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = put("x", storage.IfNoneMatch("*"))
		wantCode(t, err, "BlobAlreadyExists")
		b, err := w.Blob(ctx, "one", "container", "b")
		if err != nil || b.ETag() != first {
			t.Errorf("etag %s, written as %s: %v", b.ETag(), first, err)
		}
		// The clock of this test stands still: an etag that was made of the time would be the same.
		second, err := put("2", storage.IfMatch(`"other", `+first))
		if err != nil || second == first {
			t.Fatalf("etag %s after %s: %v", second, first, err)
		}
		_, err = put("x", storage.IfMatch(first))
		wantCode(t, err, "ConditionNotMet")
		wantCode(t, w.DeleteBlob(ctx, "one", "container", "b", storage.IfMatch(first)), "ConditionNotMet")
		if got := w.read("b"); got != "2" || len(w.kept()) != 1 {
			t.Errorf("refused calls left %q and the objects %v", got, w.kept())
		}
		if err := w.DeleteBlob(ctx, "one", "container", "b", storage.IfMatch(second)); err != nil {
			t.Error(err)
		}
	})
}

type allowed struct{}

func (allowed) Authorize(context.Context, string, armid.ID) error { return nil }

// Of many who create the same blob, one does.
func TestCreateOnce(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		var created atomic.Int64
		var mu sync.Mutex
		var refused []error
		var wait sync.WaitGroup
		service := storage.New(storage.Options{DB: db, Authorizer: allowed{}, Bucket: w.bucket, Seal: newRoot(t), Rand: rand.Reader, Now: func() time.Time { return start },
			NewID: func() string { return fmt.Sprintf("racer-%d", w.ids.Add(1)) }})
		for range 8 {
			wait.Go(func() {
				_, err := service.PutBlob(t.Context(), "one", "container", "b", text(1, ""), strings.NewReader("x"), storage.IfNoneMatch("*"))
				if err == nil {
					created.Add(1)
					return
				}
				mu.Lock()
				refused = append(refused, err)
				mu.Unlock()
			})
		}
		wait.Wait()
		if created.Load() != 1 || len(w.kept()) != 1 {
			t.Errorf("%d created it; objects %v", created.Load(), w.kept())
		}
		for _, err := range refused {
			wantCode(t, err, "BlobAlreadyExists")
		}
	})
}

func TestRanges(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	for name, content := range map[string]string{"b": "0123456789", "empty": ""} {
		if err := w.put(name, content); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		off, n int64
		want   string
	}{
		{"b", 0, -1, "0123456789"}, {"b", 3, 4, "3456"}, {"b", 9, 1, "9"}, {"b", 8, 100, "89"}, {"b", 4, -1, "456789"}, {"b", 2, 0, ""},
		{"empty", 0, -1, ""}, {"empty", 0, 10, ""},
	} {
		b, data, err := w.ReadBlobRange(t.Context(), "one", "container", c.name, c.off, c.n)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(data)
		if err != nil || string(got) != c.want || b.Name != c.name {
			t.Errorf("%s from %d, %d bytes: %q, want %q: %v", c.name, c.off, c.n, got, c.want, err)
		}
	}
	for _, off := range []int64{-1, 10, 11, 1 << 62} {
		_, _, err := w.ReadBlobRange(t.Context(), "one", "container", "b", off, 1)
		wantCode(t, err, "InvalidRange")
	}
}

// An object that is shorter than its row says is damage, not a short blob.
func TestCutObject(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	if err := w.put("b", "0123456789"); err != nil {
		t.Fatal(err)
	}
	w.bucket.Replace(w.kept()[0], []byte("01234"))
	if _, _, err := w.ReadBlob(t.Context(), "one", "container", "b"); !errors.Is(err, objects.ErrTruncated) {
		t.Errorf("got %v", err)
	}
}

func TestContainers(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		w.account("two")
		if _, err := w.CreateContainer(t.Context(), "ONE", "another", nil); err != nil {
			t.Fatal(err)
		}
		if got, err := w.Containers(t.Context(), "one", ""); err != nil || len(got) != 2 || got[0].Name != "another" || got[1].Name != "container" {
			t.Errorf("containers %v: %v", got, err)
		}
		w.denied = accountType + "/blobServices/containers/read"
		_, err := w.Containers(t.Context(), "one", "")
		wantCode(t, err, "AuthorizationFailed")
	})
}
