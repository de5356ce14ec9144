package storage_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

func blockID(name string) string { return base64.StdEncoding.EncodeToString([]byte(name)) }

func (w *world) block(name, id, content string) error {
	_, err := w.PutBlock(w.t.Context(), "one", "container", name, blockID(id), text(int64(len(content)), ""), strings.NewReader(content))
	return err
}

// commit commits blocks; "-a" is a committed one, "+a" one that is not, "a" the newer.
func (w *world) commit(name string, ids ...string) error {
	var refs []storage.BlockRef
	for _, id := range ids {
		r := storage.BlockRef{Committed: id[0] != '+', Uncommitted: id[0] != '-'}
		r.ID = blockID(strings.TrimLeft(id, "+-"))
		refs = append(refs, r)
	}
	_, err := w.CommitBlocks(w.t.Context(), "one", "container", name, refs, storage.Upload{})
	return err
}

// A blob of blocks appears when their list is committed, and consists of them alone.
func TestBlocks(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		for id, content := range map[string]string{"a": "aaa", "b": "bb", "c": "c"} {
			if err := w.block("blob", id, content); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.Blob(ctx, "one", "container", "blob")
		wantCode(t, err, "BlobNotFound")
		if _, committed, pending, err := w.BlockList(ctx, "one", "container", "blob"); err != nil || len(committed) != 0 || len(pending) != 3 {
			t.Errorf("before the commit: %v, %v: %v", committed, pending, err)
		}
		wantCode(t, w.commit("blob", "a", "missing"), "InvalidBlockList")
		wantCode(t, w.commit("blob", "-a"), "InvalidBlockList")
		if err := w.commit("blob", "b", "a", "b"); err != nil {
			t.Fatal(err)
		}
		if got := w.read("blob"); got != "bbaaabb" || len(w.kept()) != 2 {
			t.Errorf("the blob is %q, of the objects %v", got, w.kept())
		}
		for off := range int64(7) {
			for n := int64(0); off+n <= 7; n++ {
				_, data, err := w.ReadBlobRange(ctx, "one", "container", "blob", off, n)
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if _, err := got.ReadFrom(data); err != nil || got.String() != "bbaaabb"[off:off+n] {
					t.Errorf("%d bytes from %d: %q, %v", n, off, &got, err)
				}
			}
		}
		// One block anew, one kept, the other gone.
		if err := w.block("blob", "a", "AAA"); err != nil {
			t.Fatal(err)
		}
		if err := w.commit("blob", "-b", "-a", "+a"); err != nil {
			t.Fatal(err)
		}
		if got := w.read("blob"); got != "bbaaaAAA" || len(w.kept()) != 3 {
			t.Errorf("the blob is %q, of the objects %v", got, w.kept())
		}
		// Written whole, it has no blocks; and what was not committed is gone.
		if err := w.block("blob", "x", "xxx"); err != nil {
			t.Fatal(err)
		}
		if err := w.put("blob", "whole"); err != nil {
			t.Fatal(err)
		}
		_, committed, pending, err := w.BlockList(ctx, "one", "container", "blob")
		if err != nil || len(committed)+len(pending) != 0 || w.read("blob") != "whole" || len(w.kept()) != 1 {
			t.Errorf("written whole: %v, %v, objects %v: %v", committed, pending, w.kept(), err)
		}
	})
}

func TestBlocksThatAreNeverCommitted(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	for _, id := range []string{"a", "a", "b"} {
		if err := w.block("blob", id, "content"); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.kept()) != 2 {
		t.Errorf("the same block twice left %v", w.kept())
	}
	w.now = start.Add(7 * 24 * time.Hour)
	if err := w.DropPending(t.Context()); err != nil || len(w.kept()) != 2 {
		t.Errorf("after seven days: %v, %v", w.kept(), err)
	}
	w.now = w.now.Add(time.Second)
	if err := w.DropPending(t.Context()); err != nil || len(w.kept()) != 0 {
		t.Errorf("later: %v, %v", w.kept(), err)
	}
	wantCode(t, w.commit("blob", "a"), "InvalidBlockList")
	for _, id := range []string{"", "no base64", base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		_, err := w.PutBlock(t.Context(), "one", "container", "blob", id, text(1, ""), strings.NewReader("x"))
		wantCode(t, err, "InvalidQueryParameterValue")
	}
	wantCode(t, w.block("blob", "a", ""), "RequestBodyTooLarge")
}

func TestChecksums(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	right, wrong := md5.Sum([]byte("x")), md5.Sum([]byte("y"))
	put := func(u storage.Upload) error {
		u.Size = 1
		_, err := w.PutBlob(t.Context(), "one", "container", "b", u, strings.NewReader("x"))
		return err
	}
	wantCode(t, put(storage.Upload{MD5: wrong[:]}), "Md5Mismatch")
	wantCode(t, put(storage.Upload{CRC64: make([]byte, 8)}), "Crc64Mismatch")
	if len(w.kept()) != 0 {
		t.Errorf("refused bytes are kept: %v", w.kept())
	}
	if err := put(storage.Upload{MD5: right[:]}); err != nil {
		t.Error(err)
	}
	if b, err := w.Blob(t.Context(), "one", "container", "b"); err != nil || !bytes.Equal(b.Headers.ContentMD5, right[:]) {
		t.Errorf("the blob's MD5 is %x: %v", b.Headers.ContentMD5, err)
	}
}

func TestMetadataAndHeaders(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		if err := w.put("b", "content"); err != nil {
			t.Fatal(err)
		}
		before, _ := w.Blob(ctx, "one", "container", "b")
		w.now = start.Add(time.Hour)
		if _, err := w.SetMetadata(ctx, "one", "container", "b", map[string]string{"colour": "red"}, storage.IfMatch(before.ETag())); err != nil {
			t.Fatal(err)
		}
		_, err := w.SetHeaders(ctx, "one", "container", "b", storage.Headers{ContentType: "text/html"}, storage.IfMatch(before.ETag()))
		wantCode(t, err, "ConditionNotMet")
		if _, err := w.SetHeaders(ctx, "one", "container", "b", storage.Headers{ContentType: "text/html", CacheControl: "no-store"}); err != nil {
			t.Fatal(err)
		}
		b, err := w.Blob(ctx, "one", "container", "b")
		if err != nil || b.Metadata["colour"] != "red" || b.Headers.CacheControl != "no-store" || b.Headers.ContentType != "text/html" ||
			!b.Modified.After(b.Created) || b.ETag() == before.ETag() || w.read("b") != "content" {
			t.Errorf("the blob is %+v: %v", b, err)
		}
		from, err := w.SourceBlob(ctx, "one", "container", "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.PutBlobFrom(ctx, "one", "container", "copy", from, storage.Upload{Headers: from.Headers, Metadata: from.Metadata}); err != nil {
			t.Fatal(err)
		}
		if c, err := w.Blob(ctx, "one", "container", "copy"); err != nil || c.Metadata["colour"] != "red" || w.read("copy") != "content" {
			t.Errorf("the copy is %+v: %v", c, err)
		}
		for name, value := range map[string]string{"1a": "x", "a-b": "x", "": "x", "a": "\xff", "b": "x\ny"} {
			_, err := w.SetMetadata(ctx, "one", "container", "b", map[string]string{name: value})
			wantCode(t, err, "InvalidMetadata")
		}
		_, err = w.SetMetadata(ctx, "one", "container", "b", map[string]string{"a": strings.Repeat("x", 900), "b": strings.Repeat("y", 8<<10)})
		if p := problem.Of(err); p == nil {
			t.Errorf("metadata of 9 KiB: %v", err)
		}
		if err := w.DeleteContainer(ctx, "one", "container"); err != nil || len(w.kept()) != 0 {
			t.Errorf("the container's delete left %v: %v", w.kept(), err)
		}
		wantCode(t, w.DeleteContainer(ctx, "one", "container"), "ContainerNotFound")
	})
}

// A list, page by page, has each name once and in order: those with the delimiter under what comes before it.
func TestListIsWhole(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	names := map[string]bool{}
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.StringMatching(`[ab/é]{1,6}`).Draw(r, "name")
		if !names[name] {
			if err := w.put(name, "x"); err != nil {
				r.Fatal(err)
			}
			names[name] = true
		}
		prefix := rapid.StringMatching(`[ab/]{0,2}`).Draw(r, "prefix")
		delimiter := rapid.SampledFrom([]string{"", "/", "b", "é", "a/"}).Draw(r, "delimiter")
		most := rapid.IntRange(1, 5).Draw(r, "most")
		var want []string
		for name := range names {
			rest, ok := strings.CutPrefix(name, prefix)
			if !ok {
				continue
			}
			if at := strings.Index(rest, delimiter); delimiter != "" && at >= 0 {
				name = prefix + rest[:at+len(delimiter)] + "*"
			}
			want = append(want, name)
		}
		slices.Sort(want)
		want = slices.Compact(want)
		var got []string
		for from := ""; ; {
			page, next, err := w.ListBlobs(w.t.Context(), "one", "container", storage.Listing{Prefix: prefix, Delimiter: delimiter, From: from, Most: most})
			if err != nil || len(page) > most {
				r.Fatal(page, err)
			}
			for _, l := range page {
				if l.Prefix != "" {
					got = append(got, l.Prefix+"*")
				} else {
					got = append(got, l.Blob.Name)
				}
			}
			if from = next; next == "" {
				break
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			r.Fatalf("prefix %q, delimiter %q, %d a page: %q, want %q", prefix, delimiter, most, got, want)
		}
	})
}
