package storage_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/objects"
	"kluis/internal/objects/objectstest"
	"kluis/internal/problem"
	"kluis/internal/seal"
	"kluis/internal/storage"
)

const accountType = "Microsoft.Storage/storageAccounts"

var (
	subscription = armid.Subscription("00000000-0000-0000-0000-000000000000")
	group        = subscription.Group("rg")
	start        = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
)

func id(name string) armid.ID { return group.Resource(accountType, name) }

// world is a storage service and all that it asks of others.
type world struct {
	*storage.Service
	t      testing.TB
	bucket *objectstest.Memory
	root   *seal.Root
	now    time.Time
	denied string // the action that is denied, if any
	asked  []string
	ids    atomic.Int64
	caller string // object id of the principal, if there is one
	gone   string // object id of one that is not there any more
}

type callerKey struct{}

func (w *world) Caller(context.Context) (objectID, tenantID string, ok bool) {
	return w.caller, "tenant", w.caller != ""
}

func (w *world) As(ctx context.Context, objectID string) (context.Context, error) {
	if objectID == w.gone {
		return nil, problem.New(problem.NotFound, "PrincipalNotFound", "gone")
	}
	return context.WithValue(ctx, callerKey{}, objectID), nil
}

func (w *world) Authorize(ctx context.Context, action string, scope armid.ID) error {
	w.asked = append(w.asked, action+" at "+scope.String())
	if as, ok := ctx.Value(callerKey{}).(string); ok {
		w.asked = append(w.asked, "as "+as)
	}
	if action == w.denied {
		return problem.New(problem.Denied, "AuthorizationFailed", "denied")
	}
	return nil
}

func (w *world) GroupExists(_ context.Context, name string) error {
	if strings.EqualFold(name, "rg") || strings.EqualFold(name, "other") {
		return nil
	}
	return problem.New(problem.NotFound, "ResourceGroupNotFound", "no group %s", name)
}

// newWorld makes a service; wrap may stand between it and its bucket.
func newWorld(t testing.TB, db *database.DB, wrap func(objects.Bucket) objects.Bucket) *world {
	w := &world{t: t, bucket: objectstest.NewMemory(), root: newRoot(t), now: start}
	bucket := objects.Bucket(w.bucket)
	if wrap != nil {
		bucket = wrap(bucket)
	}
	w.Service = storage.New(storage.Options{DB: db, Authorizer: w, Groups: w, Principals: w, Bucket: bucket, DNSSuffix: "blob.localhost:8443",
		Seal: w.root, Rand: rand.Reader, Now: func() time.Time { return w.now }, NewID: func() string { return fmt.Sprintf("object-%d", w.ids.Add(1)) }})
	return w
}

func sqlite(t *testing.T) *database.DB {
	return databasetest.Open(t, "sqlite:"+t.TempDir()+"/kluis.db")
}

// account makes an account with a container c.
func (w *world) account(name string) {
	w.t.Helper()
	if _, _, err := w.PutAccount(w.t.Context(), storage.Account{ID: id(name), Location: "westeurope", Kind: "StorageV2", SKU: "Standard_LRS"}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.CreateContainer(w.t.Context(), name, "container", nil); err != nil {
		w.t.Fatal(err)
	}
}

// text is an upload of so many bytes.
func text(size int64, contentType string) storage.Upload {
	return storage.Upload{Size: size, Headers: storage.Headers{ContentType: contentType}}
}

func (w *world) put(name, content string) error {
	_, err := w.PutBlob(w.t.Context(), "one", "container", name, text(int64(len(content)), "text/plain"), strings.NewReader(content))
	return err
}

// read returns a blob's bytes.
func (w *world) read(name string) string {
	w.t.Helper()
	_, data, err := w.ReadBlob(w.t.Context(), "one", "container", name)
	if err != nil {
		w.t.Fatal(err)
	}
	defer data.Close()
	b, err := io.ReadAll(data)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// list lists blobs' names.
func (w *world) list(prefix string) (names []string, err error) {
	all, _, err := w.ListBlobs(w.t.Context(), "one", "container", storage.Listing{Prefix: prefix, Most: 100})
	for _, l := range all {
		names = append(names, l.Blob.Name)
	}
	return names, err
}

// kept lists the bucket's objects.
func (w *world) kept() (names []string) {
	w.t.Helper()
	for o, err := range w.bucket.List(w.t.Context(), "") {
		if err != nil {
			w.t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	return names
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	p := problem.Of(err)
	if p == nil || p.Code != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	if p.Kind == problem.Internal || p.Message == "" || p.Advice == "" && code != "AuthorizationFailed" && code != "ResourceGroupNotFound" {
		t.Errorf("%s is half a problem: %+v", code, p)
	}
}

func TestAccounts(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		ctx := t.Context()
		a := storage.Account{ID: id("one"), Location: "westeurope", Tags: map[string]string{"a": "b"}, Kind: "StorageV2", SKU: "Standard_LRS"}
		got, created, err := w.PutAccount(ctx, a)
		if a.Created = start; err != nil || !created || !cmp.Equal(got, a) {
			t.Fatalf("put: %+v %v %v", got, created, err)
		}
		// Again, in other letters: the tags change, the rest is as it was.
		again := storage.Account{ID: subscription.Group("RG").Resource(strings.ToLower(accountType), "one"), Location: "elsewhere", Kind: "StorageV2", SKU: "Standard_LRS"}
		a.Tags = nil
		if got, created, err = w.PutAccount(ctx, again); err != nil || created || !cmp.Equal(got, a) {
			t.Fatalf("put again: %+v %v %v", got, created, err)
		}
		if got, err = w.Account(ctx, again.ID); err != nil || !cmp.Equal(got, a) {
			t.Errorf("account: %+v %v", got, err)
		}
		other := subscription.Group("other").Resource(accountType, "two")
		if _, _, err := w.PutAccount(ctx, storage.Account{ID: other, Location: "x"}); err != nil {
			t.Fatal(err)
		}
		for scope, want := range map[string][]string{group.String(): {"one"}, subscription.String(): {"one", "two"}, subscription.Group("r").String(): nil} {
			all, err := w.Accounts(ctx, armid.Must(scope))
			var names []string
			for _, a := range all {
				names = append(names, a.ID.Name())
			}
			if n, countErr := w.CountIn(ctx, armid.Must(scope)); err != nil || countErr != nil || n != len(want) || !slices.Equal(names, want) {
				t.Errorf("accounts of %s: %v, %d, %v %v", scope, names, n, err, countErr)
			}
		}
		_, _, err = w.PutAccount(ctx, storage.Account{ID: group.Resource(accountType, "two"), Location: "x"})
		wantCode(t, err, "StorageAccountAlreadyTaken")
		_, err = w.Account(ctx, group.Resource(accountType, "two"))
		wantCode(t, err, "StorageAccountNotFound")
	})
}

func TestDeleteAccount(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		w.account("two")
		for _, name := range []string{"a", "b"} {
			if err := w.put(name, "x"); err != nil {
				t.Fatal(err)
			}
		}
		of := w.kept()
		if _, err := w.PutBlob(t.Context(), "two", "container", "c", text(1, ""), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if existed, err := w.DeleteAccount(t.Context(), subscription.Group("other").Resource(accountType, "one")); err != nil || existed {
			t.Errorf("delete of an account of another group: %v %v", existed, err)
		}
		if existed, err := w.DeleteAccount(t.Context(), id("ONE")); err != nil || !existed {
			t.Fatalf("delete: %v %v", existed, err)
		}
		if existed, err := w.DeleteAccount(t.Context(), id("one")); err != nil || existed {
			t.Errorf("delete again: %v %v", existed, err)
		}
		if _, err := w.Account(t.Context(), id("one")); !problem.Is(err, "StorageAccountNotFound") {
			t.Errorf("the account is still there: %v", err)
		}
		if kept := w.kept(); len(kept) != 1 || slices.Contains(of, kept[0]) {
			t.Errorf("the bucket holds %v, want the blob of the other account", kept)
		}
	})
}

func TestBlobs(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		for _, name := range []string{"b", "a/2", "a/1", "Ä ?#%", "%41"} {
			if err := w.put(name, "content of "+name); err != nil {
				t.Fatal(err)
			}
		}
		for prefix, want := range map[string][]string{"": {"%41", "a/1", "a/2", "b", "Ä ?#%"}, "a/": {"a/1", "a/2"}, "A": nil, "\xff\x00": nil} {
			names, err := w.list(prefix)
			if err != nil || !slices.Equal(names, want) {
				t.Errorf("blobs with %q: %q %v", prefix, names, err)
			}
		}
		// Names of accounts are host names, so they count in any case.
		b, err := w.PutBlob(ctx, "ONE", "container", "b", text(3, ""), strings.NewReader("new"))
		if err != nil || w.read("b") != "new" {
			t.Fatalf("overwrite: %v", err)
		}
		shown, err := w.Blob(ctx, "One", "container", "b")
		if want := (storage.Blob{Name: "b", Size: 3, Headers: storage.Headers{ContentType: "application/octet-stream", ContentMD5: b.Headers.ContentMD5},
			Created: start.Truncate(time.Microsecond), Modified: start.Truncate(time.Microsecond)}); err != nil ||
			!cmp.Equal(shown, want, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "etag" }, cmp.Ignore())) || !shown.Modified.Equal(b.Modified) {
			t.Errorf("blob %+v, want %+v (%v)", shown, want, err)
		}
		if err := w.DeleteBlob(ctx, "one", "container", "b"); err != nil {
			t.Fatal(err)
		}
		wantCode(t, w.DeleteBlob(ctx, "one", "container", "b"), "BlobNotFound")
		_, _, err = w.ReadBlob(ctx, "one", "container", "b")
		wantCode(t, err, "BlobNotFound")
		if kept := w.kept(); len(kept) != 4 {
			t.Errorf("four blobs, objects %v", kept)
		}
	})
}

// Names come from outside as any text, and mean the same on both databases: no such thing.
func TestRefusals(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx := t.Context()
		if err := w.put("b", "x"); err != nil {
			t.Fatal(err)
		}
		put := func(account, container, name, contentType string, size int64) func() error {
			return func() error {
				_, err := w.PutBlob(ctx, account, container, name, text(size, contentType), strings.NewReader("x"))
				return err
			}
		}
		account := func(id armid.ID, location string) func() error {
			return func() error {
				_, _, err := w.PutAccount(ctx, storage.Account{ID: id, Location: location})
				return err
			}
		}
		cases := []struct {
			name, code string
			do         func() error
		}{
			{"account with a bad name", "AccountNameInvalid", account(id("No"), "x")},
			{"account with a long name", "AccountNameInvalid", account(id(strings.Repeat("a", 25)), "x")},
			{"account without location", "LocationRequired", account(id("two"), "")},
			{"account without group", "ResourceGroupNotFound", account(subscription.Group("none").Resource(accountType, "two"), "x")},
			{"container of no account", "StorageAccountNotFound", func() error { _, err := w.CreateContainer(ctx, "none", "c", nil); return err }},
			{"container twice", "ContainerAlreadyExists", func() error { _, err := w.CreateContainer(ctx, "one", "container", nil); return err }},
			{"blob of no account", "StorageAccountNotFound", put("none", "container", "b", "", 1)},
			{"blob of a nonsense account", "StorageAccountNotFound", put("\xff\x00", "container", "b", "", 1)},
			{"blob of no container", "ContainerNotFound", put("one", "none", "b", "", 1)},
			{"blob of a nonsense container", "ContainerNotFound", put("one", "\xff\x00", "b", "", 1)},
			{"blob without a name", "InvalidResourceName", put("one", "container", "", "", 1)},
			{"blob with a long name", "InvalidResourceName", put("one", "container", strings.Repeat("x", 1025), "", 1)},
			{"blob with a NUL", "InvalidResourceName", put("one", "container", "a\x00", "", 1)},
			{"blob with bad UTF-8", "InvalidResourceName", put("one", "container", "a\xff", "", 1)},
			{"blob of a nonsense type", "InvalidHeaderValue", put("one", "container", "a", "text/\xff", 1)},
			{"blob of a type with a line break", "InvalidHeaderValue", put("one", "container", "a", "a\r\nb: c", 1)},
			{"blob too large", "RequestBodyTooLarge", put("one", "container", "a", "", storage.MaxBlobSize+1)},
			{"read of no container", "ContainerNotFound", func() error { _, err := w.Blob(ctx, "one", "none", "b"); return err }},
			{"read of nonsense", "BlobNotFound", func() error { _, _, err := w.ReadBlob(ctx, "one", "container", "\x00\xff"); return err }},
			{"list of no container", "ContainerNotFound", func() error { _, _, err := w.ListBlobs(ctx, "one", "none", storage.Listing{Most: 1}); return err }},
			{"delete in no container", "ContainerNotFound", func() error { return w.DeleteBlob(ctx, "one", "none", "b") }},
			{"artifact for no account", "StorageAccountNotFound", func() error { _, err := w.WriteArtifact(ctx, id("none"), "c-1", "n", nil); return err }},
			{"artifact for an account elsewhere", "StorageAccountNotFound", func() error {
				_, err := w.WriteArtifact(ctx, subscription.Group("other").Resource(accountType, "one"), "c-1", "n", nil)
				return err
			}},
			{"artifact for a container that no client could name", "InvalidResourceName", func() error { _, err := w.WriteArtifact(ctx, id("one"), "A_B", "n", nil); return err }},
			{"a name that is no account's", "AccountNameInvalid", func() error { return w.CheckName(ctx, subscription, "\xff") }},
			{"a name that is taken", "StorageAccountAlreadyTaken", func() error { return w.CheckName(ctx, subscription, "one") }},
		}
		for _, name := range []string{"ab", "A-container", "-abc", "abc-", "a--b", "a.b", strings.Repeat("a", 64), strings.Repeat("a-", 40) + "a", ""} {
			cases = append(cases, struct {
				name, code string
				do         func() error
			}{"container " + name, "InvalidResourceName", func() error { _, err := w.CreateContainer(ctx, "one", name, nil); return err }})
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { wantCode(t, c.do(), c.code) })
		}
		if err := w.CheckName(ctx, subscription, "two"); err != nil {
			t.Errorf("the name two: %v", err)
		}
		if w.read("b") != "x" || len(w.kept()) != 1 {
			t.Errorf("refusals left %v", w.kept())
		}
	})
}

func TestEverythingIsAuthorized(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	if err := w.put("b", "x"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	blobs := accountType + "/blobServices/containers/blobs/"
	for action, do := range map[string]func() error{
		accountType + "/write": func() error {
			_, _, err := w.PutAccount(ctx, storage.Account{ID: id("two"), Location: "x"})
			return err
		},
		accountType + "/read":                          func() error { _, err := w.Account(ctx, id("one")); return err },
		accountType + "/delete":                        func() error { _, err := w.DeleteAccount(ctx, id("one")); return err },
		accountType + "/blobServices/containers/write": func() error { _, err := w.CreateContainer(ctx, "one", "two", nil); return err },
		"Microsoft.Storage/checkNameAvailability/read": func() error { return w.CheckName(ctx, subscription, "one") },
		blobs + "write":                                func() error { return w.put("b", "y") },
		blobs + "read":                                 func() error { _, err := w.Blob(ctx, "one", "container", "b"); return err },
		blobs + "delete":                               func() error { return w.DeleteBlob(ctx, "one", "container", "b") },
	} {
		w.asked, w.denied = nil, action
		wantCode(t, do(), "AuthorizationFailed")
		scope := id("one")
		switch {
		case strings.Contains(action, "checkName"):
			scope = subscription
		case action == accountType+"/write":
			scope = id("two")
		}
		if want := []string{action + " at " + scope.String()}; !slices.Equal(w.asked, want) {
			t.Errorf("asked %q, want %q", w.asked, want)
		}
	}
	w.denied = accountType + "/read"
	_, err := w.Accounts(ctx, group)
	wantCode(t, err, "AuthorizationFailed")
	w.denied = blobs + "read"
	_, _, err = w.ReadBlob(ctx, "one", "container", "b")
	wantCode(t, err, "AuthorizationFailed")
	_, err = w.list("")
	wantCode(t, err, "AuthorizationFailed")
	w.denied = ""
	if w.read("b") != "x" {
		t.Error("a denied call changed the blob")
	}
}

func TestArtifacts(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		w.asked, w.denied = nil, "*"
		for _, content := range []string{"{}", "[1]"} {
			url, err := w.WriteArtifact(t.Context(), id("one"), "vm-0123", "config vm.json", []byte(content))
			if err != nil || url != "https://one.blob.localhost:8443/vm-0123/config%20vm.json" {
				t.Fatalf("url %q %v", url, err)
			}
			account, container, name, ok := w.ParseURL(url)
			b, data, err := w.ReadBlob(t.Context(), account, container, name)
			if !ok || err != nil || b.Headers.ContentType != "application/json" {
				t.Fatalf("%+v %v %v", b, ok, err)
			}
			if got, err := io.ReadAll(data); err != nil || string(got) != content {
				t.Errorf("artifact is %q %v", got, err)
			}
		}
		if kept := w.kept(); len(kept) != 1 {
			t.Errorf("the bucket holds %v", kept)
		}
	})
}

// bucketHook runs before an operation of a bucket.
type bucketHook struct {
	objects.Bucket
	beforeDelete, beforeGet func(name string)
}

func (b *bucketHook) Delete(ctx context.Context, name string) error {
	if b.beforeDelete != nil {
		b.beforeDelete(name)
	}
	return b.Bucket.Delete(ctx, name)
}

func (b *bucketHook) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if b.beforeGet != nil {
		b.beforeGet(name)
	}
	return b.Bucket.Get(ctx, name, off, n)
}

// When the old object is deleted, the row names the new one already.
func TestOverwriteSwitchesFirst(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		hook := &bucketHook{}
		w := newWorld(t, db, func(b objects.Bucket) objects.Bucket { hook.Bucket = b; return hook })
		w.account("one")
		if err := w.put("b", "old"); err != nil {
			t.Fatal(err)
		}
		first := w.kept()
		var deleted []string
		hook.beforeDelete = func(name string) {
			deleted = append(deleted, name)
			if got := w.read("b"); got != "new" {
				t.Errorf("at the delete of %s the blob is %q", name, got)
			}
		}
		if err := w.put("b", "new"); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(deleted, first) {
			t.Errorf("deleted %v", deleted)
		}
	})
}

// Whichever operation of the bucket fails, and however, a blob is its old self or its new one, and what a
// failed call leaves behind is named by no row.
func TestFaults(t *testing.T) {
	for _, mode := range []objectstest.Mode{objectstest.Before, objectstest.After, objectstest.Tear} {
		for at := int64(1); ; at++ {
			faulty := &objectstest.Faulty{Mode: mode, Only: func(op, _ string) bool { return op != "get" }}
			w := newWorld(t, sqlite(t), func(b objects.Bucket) objects.Bucket { faulty.Bucket = b; return faulty })
			w.account("one")
			if err := w.put("b", "old"); err != nil {
				t.Fatal(err)
			}
			faulty.FailAt = faulty.Operations() + at
			err := w.put("b", "new")
			if !faulty.Failed() {
				if err != nil || at != 3 {
					t.Fatalf("an overwrite took %d operations: %v", at-1, err)
				}
				break
			}
			if !errors.Is(err, objectstest.ErrInjected) || problem.Of(err) != nil {
				t.Errorf("mode %d, operation %d: error %v", mode, at, err)
			}
			want := "old"
			if at == 2 { // the delete of the old object
				want = "new"
			}
			faulty.FailAt = 0
			if got := w.read("b"); got != want {
				t.Errorf("mode %d, operation %d: the blob is %q, want %q", mode, at, got, want)
			}
			if err := w.put("b", "third"); err != nil || w.read("b") != "third" {
				t.Errorf("mode %d, operation %d: the blob cannot be written any more: %v", mode, at, err)
			}
		}
	}
}

// A put that the database refuses leaves no object, also when its caller has gone by then.
func TestNoRowNoObject(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		w := newWorld(t, db, nil)
		w.account("one")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := w.PutBlob(ctx, "one", "container", "b", text(1, ""), &cancelAtEnd{strings.NewReader("x"), cancel})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if kept := w.kept(); len(kept) != 0 {
			t.Errorf("the bucket holds %v", kept)
		}
	})
}

// cancelAtEnd cancels when all is read, as a client that goes away after its last byte.
type cancelAtEnd struct {
	io.Reader
	cancel func()
}

func (c *cancelAtEnd) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		defer c.cancel()
		return n, io.EOF
	}
	return n, err
}

// A blob that is overwritten between the look at its row and at its object is read as its new self.
func TestReadWhileOverwritten(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		hook := &bucketHook{}
		w := newWorld(t, db, func(b objects.Bucket) objects.Bucket { hook.Bucket = b; return hook })
		w.account("one")
		if err := w.put("b", "0"); err != nil {
			t.Fatal(err)
		}
		n := 0
		hook.beforeGet = func(string) {
			if n++; n <= 3 {
				if err := w.put("b", fmt.Sprint(n)); err != nil {
					t.Error(err)
				}
			}
		}
		if got := w.read("b"); got != "3" {
			t.Errorf("read %q, want the third", got)
		}
		hook.beforeGet = func(string) {
			if err := w.DeleteBlob(t.Context(), "one", "container", "b"); err != nil && !problem.Is(err, "BlobNotFound") {
				t.Error(err)
			}
		}
		_, _, err := w.ReadBlob(t.Context(), "one", "container", "b")
		wantCode(t, err, "BlobNotFound")
	})
}

// A row whose object has gone is damage, which is no answer to a client.
func TestLostObject(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	if err := w.put("b", "x"); err != nil {
		t.Fatal(err)
	}
	w.bucket.Replace(w.kept()[0], nil)
	if _, _, err := w.ReadBlob(t.Context(), "one", "container", "b"); !errors.Is(err, objects.ErrNotExist) || problem.Of(err) != nil {
		t.Errorf("got %v", err)
	}
}

func TestSizeMustFit(t *testing.T) {
	w := newWorld(t, sqlite(t), nil)
	w.account("one")
	for _, size := range []int64{2, 4} {
		if _, err := w.PutBlob(t.Context(), "one", "container", "b", text(size, ""), bytes.NewReader([]byte("abc"))); err == nil {
			t.Errorf("3 bytes announced as %d were taken", size)
		}
	}
	if len(w.kept()) != 0 {
		t.Errorf("the bucket holds %v", w.kept())
	}
}

func TestURLs(t *testing.T) {
	w := newWorld(t, nil, nil)
	rapid.Check(t, func(t *rapid.T) {
		account := rapid.StringMatching(`[a-z0-9]{3,24}`).Draw(t, "account")
		container := rapid.StringMatching(`[a-z0-9](-?[a-z0-9]){2,30}`).Draw(t, "container")
		blob := rapid.StringN(1, 200, 1024).Filter(func(s string) bool { return !strings.ContainsFunc(s, unicode.IsControl) }).Draw(t, "blob")
		a, c, b, ok := w.ParseURL(w.URL(account, container, blob))
		if !ok || a != account || c != container || b != blob {
			t.Fatalf("%q became %q %q %q %v", w.URL(account, container, blob), a, c, b, ok)
		}
	})
	for _, url := range []string{
		"", "https://", "http://one.blob.localhost:8443/container/b", "https://one.blob.localhost/container/b", "https://one.blob.localhost:8443/container/",
		"https://one.blob.localhost:8443/container", "https://blob.localhost:8443/container/b", "https://a.b.blob.localhost:8443/container/b",
		"https://one.blob.localhost:8443.evil.example/container/b", "https://evil.example/one.blob.localhost:8443/container/b",
		"https://one.blob.localhost:8443@evil.example/container/b", "https://evil@one.blob.localhost:8443/container/b",
		"https://one.blob.localhost:8443/container/b?sig=x", "https://one.blob.localhost:8443/container/b#x", "https://one.blob.localhost:8443/A/b",
		"https://one.blob.localhost:8443/container/a%00b", "https://one.blob.localhost:8443/container/a%ffb", "file:///etc/passwd",
	} {
		if a, c, b, ok := w.ParseURL(url); ok {
			t.Errorf("%q is taken for %q %q %q", url, a, c, b)
		}
	}
	if a, _, _, ok := w.ParseURL("https://ONE.Blob.LocalHost:8443/container/b"); !ok || a != "one" {
		t.Error("hosts are compared by case")
	}
}

func FuzzParseURL(f *testing.F) {
	w := newWorld(f, nil, nil)
	f.Add("https://one.blob.localhost:8443/container/b")
	f.Add("https://one.blob.localhost:8443/container/%2e%2e/b%3f")
	f.Fuzz(func(t *testing.T, url string) {
		a, c, b, ok := w.ParseURL(url)
		if !ok {
			return
		}
		if a2, c2, b2, ok := w.ParseURL(w.URL(a, c, b)); !ok || a2 != a || c2 != c || b2 != b {
			t.Errorf("%q is %q %q %q, and that is %q", url, a, c, b, w.URL(a, c, b))
		}
	})
}
