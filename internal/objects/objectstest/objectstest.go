// Package objectstest holds the tests that every objects.Bucket passes, and buckets that fail on purpose:
// Faulty, whose operations go wrong, and Stale, whose lists lag behind.
package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"kluis/internal/objects"
)

// Run tests the buckets that open makes; each must be empty.
func Run(t *testing.T, open func(t *testing.T) objects.Bucket) {
	tests := map[string]func(*testing.T, objects.Bucket){
		"round trip":          roundTrip,
		"ranges":              ranges,
		"never replaced":      neverReplaced,
		"one of many wins":    oneOfManyWins,
		"whole or not at all": wholeOrNotAtAll,
		"listed in order":     listedInOrder,
		"deleted":             deleted,
		"names":               names,
		"cancelled":           cancelled,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
		t.Run(name+", prefixed", func(t *testing.T) {
			outer := open(t)
			put(t, outer, "within.not", "a neighbour")
			put(t, outer, "within-not/a", "another neighbour")
			test(t, objects.Prefix(outer, "within/deep"))
		})
	}
}

func roundTrip(t *testing.T, b objects.Bucket) {
	big := strings.Repeat("0123456789abcdef", 300_000)
	for name, content := range map[string]string{"empty": "", "a/b/c": "x", "big": big} {
		put(t, b, name, content)
		if got := get(t, b, name, 0, -1); got != content {
			t.Errorf("%s: got %d bytes that differ from the %d put", name, len(got), len(content))
		}
	}
	// A size that is not known before the end.
	if err := b.Put(t.Context(), "stream", -1, iotest.OneByteReader(strings.NewReader("streamed"))); err != nil {
		t.Fatal(err)
	}
	if got := get(t, b, "stream", 0, -1); got != "streamed" {
		t.Errorf("stream: got %q", got)
	}
}

func ranges(t *testing.T, b objects.Bucket) {
	put(t, b, "x", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 10, "0123456789"}, {3, 4, "3456"}, {9, 1, "9"}, {4, -1, "456789"}, {10, 0, ""}, {10, -1, ""}, {5, 0, ""}} {
		if got := get(t, b, "x", c.off, c.n); got != c.want {
			t.Errorf("Get(%d, %d) = %q, want %q", c.off, c.n, got, c.want)
		}
	}
	for _, c := range []struct{ off, n int64 }{{0, 11}, {5, 6}, {11, 1}, {11, -1}, {1 << 60, 1 << 62}, {-1, 3}} {
		if _, err := tryGet(t.Context(), b, "x", c.off, c.n); !errors.Is(err, objects.ErrTruncated) {
			t.Errorf("Get(%d, %d): %v, want ErrTruncated", c.off, c.n, err)
		}
	}
	if _, err := tryGet(t.Context(), b, "y", 0, -1); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("Get of nothing: %v, want ErrNotExist", err)
	}
}

func neverReplaced(t *testing.T, b objects.Bucket) {
	put(t, b, "a/x", "first")
	if err := b.Put(t.Context(), "a/x", 6, strings.NewReader("second")); !errors.Is(err, objects.ErrExists) {
		t.Errorf("second Put: %v, want ErrExists", err)
	}
	if got := get(t, b, "a/x", 0, -1); got != "first" {
		t.Errorf("after the second Put the object holds %q", got)
	}
}

func oneOfManyWins(t *testing.T, b objects.Bucket) {
	const writers = 16
	var won atomic.Int32
	var winner atomic.Value
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			content := strings.Repeat(fmt.Sprintf("%02d", i), 1000)
			switch err := b.Put(t.Context(), "contested", 2000, strings.NewReader(content)); {
			case err == nil:
				won.Add(1)
				winner.Store(content)
			case !errors.Is(err, objects.ErrExists):
				t.Errorf("Put: %v, want nil or ErrExists", err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d writers of one name won", won.Load())
	}
	if got := get(t, b, "contested", 0, -1); got != winner.Load() {
		t.Error("the object does not hold what the winner put")
	}
}

func wholeOrNotAtAll(t *testing.T, b objects.Bucket) {
	broken := errors.New("broken source")
	for name, r := range map[string]io.Reader{
		"short":  strings.NewReader("123"),
		"long":   strings.NewReader("12345"),
		"broken": io.MultiReader(strings.NewReader("12"), iotest.ErrReader(broken)),
	} {
		err := b.Put(t.Context(), name, 4, r)
		if err == nil || name == "broken" && !errors.Is(err, broken) {
			t.Errorf("%s: Put returned %v", name, err)
		}
		if _, err := tryGet(t.Context(), b, name, 0, -1); !errors.Is(err, objects.ErrNotExist) {
			t.Errorf("%s: after a failed Put, Get returned %v, want ErrNotExist", name, err)
		}
		put(t, b, name, "1234")
	}
	if got := list(t, b, ""); !slices.Equal(got, []string{"broken", "long", "short"}) {
		t.Errorf("listed: %q", got)
	}
}

func listedInOrder(t *testing.T, b objects.Bucket) {
	if got := list(t, b, ""); len(got) != 0 {
		t.Fatalf("a new bucket lists %q", got)
	}
	all := []string{"B", "a-b", "a.c/x", "a/1", "a/b/2", "a/c", "a0", "packs/00/1", "packs/01/2", "packs2"}
	for _, name := range slices.Backward(all) {
		put(t, b, name, name)
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "packs/", "packs/01", "packs/01/2", "z", "a//", "../"} {
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		if got := list(t, b, prefix); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", prefix, got, want)
		}
	}
	for o, err := range b.List(t.Context(), "a") {
		if err != nil || o.Size != int64(len(o.Name)) {
			t.Errorf("listed %v, %v", o, err)
		}
		break // must not panic or go on
	}
}

func deleted(t *testing.T, b objects.Bucket) {
	put(t, b, "d/x", "1")
	for range 2 {
		if err := b.Delete(t.Context(), "d/x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tryGet(t.Context(), b, "d", 0, -1); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("Get of what is no object: %v", err)
	}
	if _, err := tryGet(t.Context(), b, "d/x/y", 0, -1); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("Get below an object: %v", err)
	}
	if got := list(t, b, "d/x/"); len(got) != 0 {
		t.Errorf("List below an object: %q", got)
	}
	if err := b.Delete(t.Context(), "d"); err != nil {
		t.Errorf("Delete of what is no object: %v", err)
	}
	if _, err := tryGet(t.Context(), b, "d/x", 0, -1); !errors.Is(err, objects.ErrNotExist) {
		t.Errorf("after Delete: %v", err)
	}
	put(t, b, "d/x", "2")
	if got := get(t, b, "d/x", 0, -1); got != "2" {
		t.Errorf("put again after Delete: got %q", got)
	}
}

func names(t *testing.T, b objects.Bucket) {
	for _, name := range []string{"", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", ".tmp/x", "a/.b", "a b", "ä", "a\x00", "a\\b", strings.Repeat("n", objects.MaxName+1)} {
		if err := b.Put(t.Context(), name, 1, strings.NewReader("x")); err == nil {
			t.Errorf("Put took the name %q", name)
		}
		if _, err := tryGet(t.Context(), b, name, 0, -1); err == nil {
			t.Errorf("Get took the name %q", name)
		}
		if err := b.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete took the name %q", name)
		}
	}
}

func cancelled(t *testing.T, b objects.Bucket) {
	ctx, cancel := context.WithCancel(t.Context())
	// The source cancels after its first piece and would never end by itself.
	endless := iotest.OneByteReader(readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	if err := b.Put(ctx, "x", -1, io.LimitReader(endless, 64<<20)); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v, want context.Canceled", err)
	}
	if got := list(t, b, ""); len(got) != 0 {
		t.Errorf("a cancelled Put left %q", got)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func put(t *testing.T, b objects.Bucket, name, content string) {
	t.Helper()
	if err := b.Put(t.Context(), name, int64(len(content)), strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, b objects.Bucket, name string, off, n int64) string {
	t.Helper()
	got, err := tryGet(t.Context(), b, name, off, n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func tryGet(ctx context.Context, b objects.Bucket, name string, off, n int64) (string, error) {
	r, err := b.Get(ctx, name, off, n)
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	_, err = buf.ReadFrom(r)
	return buf.String(), errors.Join(err, r.Close())
}

func list(t *testing.T, b objects.Bucket, prefix string) []string {
	t.Helper()
	var got []string
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Name)
	}
	return got
}
