package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
)

// The tests against servers are a module of their own, test/cloud.

func inMemory() *Bucket { return &Bucket{memblob.OpenBucket(nil), stallTime} }

func TestBucketInMemory(t *testing.T) {
	objectstest.Run(t, func(t *testing.T) objects.Bucket { return inMemory() })
}

func TestProbe(t *testing.T) {
	b := inMemory()
	if err := b.probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.blobs.List(nil).Next(t.Context()); err == nil {
		t.Error("the probe has left something")
	}
}

// An object of somebody else is not ours, whatever its content, and one without a token neither.
func TestStranger(t *testing.T) {
	b := inMemory()
	if err := b.blobs.WriteAll(t.Context(), "x", []byte("same"), nil); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "x", 4, strings.NewReader("same")); !errors.Is(err, objects.ErrExists) {
		t.Errorf("Put over a stranger's object: %v", err)
	}
	if again, err := b.upload(t.Context(), "y", "token", 1, strings.NewReader("1")); again || err != nil {
		t.Fatal(again, err)
	}
	if again, err := b.upload(t.Context(), "y", "token", 1, strings.NewReader("1")); again || err != nil {
		t.Errorf("the second request of one Put: %v, %v", again, err)
	}
	if again, err := b.upload(t.Context(), "y", "other", 1, strings.NewReader("1")); again || !errors.Is(err, objects.ErrExists) {
		t.Errorf("another Put: %v, %v", again, err)
	}
}

// What lies in the bucket under names that Kluis cannot have made is not listed.
func TestForeignNames(t *testing.T) {
	b := inMemory()
	for _, name := range []string{"a", ".hidden", "b/.c", "d e", "z"} {
		if err := b.blobs.WriteAll(t.Context(), name, nil, &blob.WriterOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Name)
	}
	if strings.Join(got, " ") != "a z" {
		t.Errorf("listed %q", got)
	}
}

func TestURLs(t *testing.T) {
	for given, prefix := range map[string]string{
		"s3://bucket":                                        "",
		"s3://bucket/":                                       "",
		"s3://bucket/a/b/?region=eu-central-1":               "a/b/",
		"azblob://container/x?storage_account=y":             "x/",
		"s3://b?endpoint=http://127.0.0.1:9&region=r&fips=1": "",
	} {
		u, got, err := parse(given)
		if err != nil || got != prefix || u.Path != "" {
			t.Errorf("%s: prefix %q, %v", given, got, err)
		}
	}
	const secret = "hunter2"
	for _, bad := range []string{
		"", "bucket", "gs://bucket", "file:///x", "mem://", "s3://", "s3:///x", "s3://key:" + secret + "@bucket", "s3://bucket?secret=" + secret,
		"s3://bucket?%zz=" + secret, "s3://bucket/../x", "s3://bucket/.x", "azblob://c?sig=" + secret, "azblob://c?region=x", "s3://b#" + secret,
		"s3://b\x00" + secret, "s3://b?region=x&prefix=" + secret,
	} {
		if err := Check(bad); err == nil {
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error repeats the secret: %v", bad, err)
		}
		if b, err := Open(t.Context(), bad); err == nil {
			t.Errorf("%q was opened", bad)
			_ = b.Close()
		}
	}
}

func TestErrorsHoldNoSignature(t *testing.T) {
	err := plain(fmt.Errorf("upload: %w", &url.Error{Op: "Put", URL: "https://a.blob.core.windows.net/c/x?sv=1&sig=abc%2Bdef", Err: errors.New("reset\n by peer")}))
	if text := err.Error(); strings.Contains(text, "sig") || strings.Contains(text, "\n") || !strings.Contains(text, "/c/x") {
		t.Errorf("%q", text)
	}
}

// A request that does not move is ended, and the error says why; one that was cancelled says that.
func TestStall(t *testing.T) {
	ctx, w := watch(t.Context(), time.Nanosecond)
	defer w.stop()
	<-ctx.Done()
	if err := w.explain(ctx.Err()); !errors.Is(err, errStalled) {
		t.Errorf("stalled: %v", err)
	}
	outer, cancel := context.WithCancel(t.Context())
	ctx, other := watch(outer, time.Hour)
	defer other.stop()
	cancel()
	<-ctx.Done()
	if err := other.explain(ctx.Err()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
