package blob_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"kluis/internal/api/blob"
	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/database/databasetest"
	"kluis/internal/identity"
	"kluis/internal/objects/objectstest"
	"kluis/internal/problem"
	"kluis/internal/seal"
	"kluis/internal/storage"
)

const (
	suffix = "blob.localhost"
	bearer = "Bearer right"
)

var group = armid.Subscription("00000000-0000-0000-0000-000000000000").Group("rg")

// world allows everything to whoever shows the right token, but what is denied.
type world struct{ denied string }

func (w *world) Authorize(_ context.Context, action string, _ armid.ID) error {
	if w.denied != "" && strings.HasSuffix(action, w.denied) {
		return problem.New(problem.Denied, "AuthorizationPermissionMismatch", "no %s", action)
	}
	return nil
}

func (*world) GroupExists(context.Context, string) error { return nil }

func (*world) Caller(ctx context.Context) (objectID, tenantID string, ok bool) {
	p, ok := identity.From(ctx)
	return p.ObjectID, "t", ok
}

func (*world) As(ctx context.Context, objectID string) (context.Context, error) {
	return identity.With(ctx, identity.Principal{ObjectID: objectID}), nil
}

type door struct {
	*world
	t       testing.TB
	s       *storage.Service
	bucket  *objectstest.Memory
	handler http.Handler
	log     bytes.Buffer
}

func now() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// newRoot makes a root key.
func newRoot(t testing.TB) *seal.Root {
	t.Helper()
	root, _, err := seal.OpenOrCreate(t.TempDir(), seal.Options{Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// open makes a door with one account, "one", that has a container, "box".
func open(t testing.TB, db *database.DB) *door {
	t.Helper()
	return openWith(t, db, nil)
}

// openWith makes one that shows disks, too.
func openWith(t testing.TB, db *database.DB, disks blob.Disks) *door {
	t.Helper()
	d := &door{world: &world{}, t: t, bucket: objectstest.NewMemory()}
	s := storage.New(storage.Options{DB: db, Authorizer: d.world, Groups: d.world, Principals: d.world, Bucket: d.bucket, DNSSuffix: suffix + ":8443", NewID: uuid.NewString,
		Seal: newRoot(t), Rand: rand.Reader, Now: now})
	d.s = s
	account := storage.Account{ID: group.Resource("Microsoft.Storage/storageAccounts", "one"), Location: "westeurope", Kind: "StorageV2", SKU: "Standard_LRS"}
	if _, _, err := s.PutAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	d.handler = blob.Handler(s, blob.Options{Authority: "https://localhost/tenant", Suffix: suffix, Disks: disks, Now: now, NewID: uuid.NewString,
		Logger: slog.New(slog.NewTextHandler(&d.log, nil)),
		Authenticate: func(ctx context.Context, r *http.Request) (context.Context, error) {
			if r.Header.Get("Authorization") != bearer {
				return nil, problem.New(problem.Unauthenticated, "InvalidAuthenticationInfo", "no token that is valid").WithAdvice("Get a token.")
			}
			return identity.With(ctx, identity.Principal{ObjectID: "o"}), nil
		}})
	d.want(201, "", d.send("PUT", "/box?restype=container", ""))
	return d
}

func sqlite(t *testing.T) *database.DB {
	t.Helper()
	return databasetest.Open(t, "sqlite:"+filepath.Join(t.TempDir(), "db"))
}

type answer struct {
	*http.Response
	body string
}

// send makes a request to the account "one"; headers are "Name: value".
func (d *door) send(method, path, body string, headers ...string) answer {
	d.t.Helper()
	r := httptest.NewRequest(method, "https://one."+suffix+":8443"+path, strings.NewReader(body))
	r.Header.Set("Authorization", bearer)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		switch name {
		case "Content-Length":
			r.ContentLength = -1
		case "Host":
			r.Host = value
		default:
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	response := w.Result()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer{response, string(text)}
}

// objects are the names of what the bucket holds.
func (d *door) objects() (names []string) {
	d.t.Helper()
	for o, err := range d.bucket.List(d.t.Context(), "") {
		if err != nil {
			d.t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	return names
}

func (d *door) put(name, content string, headers ...string) answer {
	d.t.Helper()
	return d.send("PUT", "/box/"+name, content, append([]string{"X-Ms-Blob-Type: BlockBlob"}, headers...)...)
}

// want checks the status and, of an error, that it is the Blob service's: code, message and advice.
func (d *door) want(status int, code string, a answer) answer {
	d.t.Helper()
	if a.StatusCode != status {
		d.t.Fatalf("status %d, want %d: %s", a.StatusCode, status, a.body)
	}
	if a.Header.Get("X-Ms-Request-Id") == "" || a.Header.Get("X-Ms-Version") == "" || a.Header.Get("X-Ms-Error-Code") != code {
		d.t.Errorf("the headers are %v, want the error code %q", a.Header, code)
	}
	if code == "" || a.body == "" { // HEAD has no body
		return a
	}
	var e struct{ Code, Message, RecommendedAction string }
	if err := xml.Unmarshal([]byte(a.body), &e); err != nil || e.Code != code || e.Message == "" || e.RecommendedAction == "" {
		d.t.Errorf("the error is %s (%v), want code, message and advice of %s", a.body, err, code)
	}
	return a
}

func TestBlobs(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		d := open(t, db)
		const name, content = "a%20b/%C3%BC.json", "0123456789"
		written := d.want(201, "", d.put(name, content, "X-Ms-Blob-Content-Type: application/json", "Content-Type: text/plain"))
		a := d.want(200, "", d.send("GET", "/box/"+name, ""))
		if a.body != content || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Content-Length") != "10" ||
			a.Header.Get("Etag") != written.Header.Get("Etag") || a.Header.Get("Last-Modified") != "Sun, 01 Mar 2026 12:00:00 GMT" {
			t.Errorf("read %q with %v", a.body, a.Header)
		}
		a = d.want(200, "", d.send("HEAD", "/box/"+name, ""))
		if a.body != "" || a.Header.Get("Content-Length") != "10" || a.Header.Get("X-Ms-Blob-Type") != "BlockBlob" {
			t.Errorf("head has %q with %v", a.body, a.Header)
		}
		// The same by path, for places where the account's host is not known.
		if a := d.want(200, "", d.send("GET", "/blob/one/box/"+name, "", "Host: localhost:8443")); a.body != content {
			t.Errorf("by path: %q", a.body)
		}
		d.want(201, "", d.put(name, "anew"))
		if a := d.send("GET", "/box/"+name, ""); a.body != "anew" || a.Header.Get("Etag") == written.Header.Get("Etag") {
			t.Errorf("overwritten: %q %v", a.body, a.Header)
		}
		d.want(202, "", d.send("DELETE", "/box/"+name, ""))
		d.want(404, "BlobNotFound", d.send("GET", "/box/"+name, ""))
		d.want(404, "BlobNotFound", d.send("HEAD", "/box/"+name, ""))
		d.want(201, "", d.put("empty", ""))
		if a := d.want(200, "", d.send("GET", "/box/empty", "", "Range: bytes=0-99")); a.body != "" {
			t.Errorf("an empty blob has %q", a.body)
		}
	})
}

func TestRanges(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("digits", "0123456789"))
	for _, test := range []struct {
		header string
		status int
		body   string
		says   string
	}{
		{"Range: bytes=0-0", 206, "0", "bytes 0-0/10"},
		{"Range: bytes=2-5", 206, "2345", "bytes 2-5/10"},
		{"X-Ms-Range: bytes=8-", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=8-4096", 206, "89", "bytes 8-9/10"},
		{"Range: bytes=9-999999999999999999", 206, "9", "bytes 9-9/10"},
		// In a form that is not known here, or none at all: the whole blob, as HTTP has it.
		{"Range: bytes=-3", 200, "0123456789", ""},
		{"Range: bytes=5-2", 200, "0123456789", ""},
		{"Range: bytes=0-1,4-5", 200, "0123456789", ""},
		{"Range: bytes=0-9999999999999999999999", 200, "0123456789", ""},
		{"Range: lines=1-2", 200, "0123456789", ""},
		{"Range: ", 200, "0123456789", ""},
	} {
		a := d.want(test.status, "", d.send("GET", "/box/digits", "", test.header))
		if a.body != test.body || a.Header.Get("Content-Range") != test.says || a.Header.Get("Content-Length") != fmt.Sprint(len(test.body)) {
			t.Errorf("%s: %q with %v, want %q", test.header, a.body, a.Header, test.body)
		}
	}
	d.want(416, "InvalidRange", d.send("GET", "/box/digits", "", "Range: bytes=10-"))
	d.want(416, "InvalidRange", d.send("GET", "/box/digits", "", "X-Ms-Range: bytes=900000000000000000-900000000000000001"))
}

func TestConditions(t *testing.T) {
	d := open(t, sqlite(t))
	etag := d.want(201, "", d.put("b", "first", "If-None-Match: *")).Header.Get("Etag")
	d.want(409, "BlobAlreadyExists", d.put("b", "second", "If-None-Match: *"))
	d.want(412, "ConditionNotMet", d.put("b", "second", `If-Match: "another"`))
	d.want(412, "ConditionNotMet", d.put("new", "second", "If-Match: *"))
	d.want(412, "ConditionNotMet", d.send("DELETE", "/box/b", "", `If-Match: "another"`))
	d.want(412, "ConditionNotMet", d.send("DELETE", "/box/b", "", "If-None-Match: "+etag))

	for _, method := range []string{"GET", "HEAD"} {
		d.want(412, "ConditionNotMet", d.send(method, "/box/b", "", `If-Match: "another"`))
		d.want(200, "", d.send(method, "/box/b", "", "If-Match: "+etag))
		d.want(200, "", d.send(method, "/box/b", "", `If-None-Match: "another"`))
		a := d.want(304, "", d.send(method, "/box/b", "", "If-None-Match: "+etag))
		if a.body != "" || a.Header.Get("Etag") != etag {
			t.Errorf("%s of what is known: %q with %v", method, a.body, a.Header)
		}
		d.want(304, "", d.send(method, "/box/b", "", "If-Modified-Since: Sun, 01 Mar 2026 12:00:00 GMT"))
		d.want(200, "", d.send(method, "/box/b", "", "If-Modified-Since: Sun, 01 Mar 2026 11:59:59 GMT"))
		d.want(200, "", d.send(method, "/box/b", "", "If-Unmodified-Since: Sun, 01 Mar 2026 12:00:00 GMT"))
		d.want(412, "ConditionNotMet", d.send(method, "/box/b", "", "If-Unmodified-Since: Sun, 01 Mar 2026 11:59:59 GMT"))
		d.want(400, "InvalidHeaderValue", d.send(method, "/box/b", "", "If-Modified-Since: yesterday"))
		d.want(400, "UnsupportedOperation", d.send(method, "/box/b", "", "X-Ms-If-Tags: a = 'b'"))
	}
	d.want(412, "ConditionNotMet", d.put("b", "second", "If-Modified-Since: Sun, 01 Mar 2026 12:00:00 GMT"))
	d.want(412, "ConditionNotMet", d.send("DELETE", "/box/b", "", "If-Unmodified-Since: Sun, 01 Mar 2026 11:59:59 GMT"))

	if a := d.send("GET", "/box/b", ""); a.body != "first" || a.Header.Get("Etag") != etag {
		t.Errorf("after all that the blob is %q with %v", a.body, a.Header)
	}
	d.want(404, "BlobNotFound", d.send("GET", "/box/new", ""))
	d.want(202, "", d.send("DELETE", "/box/b", "", `If-Match: "another", `+etag))
}

// What is not done here is refused by name, and nothing of it is done.
func TestRefusals(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("b", "content"))
	long := strings.Repeat("n", 1025)
	const block = "X-Ms-Blob-Type: BlockBlob"
	for _, test := range []struct {
		method, path string
		headers      []string
		status       int
		code         string
	}{
		{"PUT", "/box?restype=container", nil, 409, "ContainerAlreadyExists"},
		{"PUT", "/Bad_Name?restype=container", nil, 400, "InvalidResourceName"},
		{"PUT", "/ab?restype=container", nil, 400, "InvalidResourceName"},
		{"PUT", "/-abc?restype=container", nil, 400, "InvalidResourceName"},
		{"PUT", "/" + strings.Repeat("c", 64) + "?restype=container", nil, 400, "InvalidResourceName"},
		{"DELETE", "/box?restype=container", []string{"If-Match: *"}, 400, "UnsupportedOperation"},
		{"DELETE", "/nothing?restype=container", nil, 404, "ContainerNotFound"},
		{"PUT", "/box?restype=container&comp=acl", []string{"X-Ms-Blob-Public-Access: blob"}, 400, "UnsupportedOperation"},
		{"PUT", "/box?restype=container&comp=lease", nil, 400, "InvalidHeaderValue"},
		{"PUT", "/box/b?comp=lease", []string{"X-Ms-Lease-Action: acquire"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/b?comp=lease", []string{"X-Ms-Lease-Action: break", "X-Ms-Lease-Break-Period: x"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/b?comp=lease", []string{"X-Ms-Lease-Action: renew", "X-Ms-Lease-Id: x"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/nothing?comp=lease", []string{"X-Ms-Lease-Action: break"}, 404, "BlobNotFound"},
		{"PUT", "/box/b?comp=snapshot", nil, 400, "UnsupportedOperation"},
		{"PUT", "/box/b?comp=tier", nil, 400, "UnsupportedOperation"},
		{"GET", "/box/b", []string{"X-Ms-Lease-Id: a"}, 412, "LeaseNotPresentWithBlobOperation"},
		{"GET", "/box/b", []string{"X-Ms-Version: 2012-02-12"}, 400, "InvalidHeaderValue"},
		{"GET", "/box/b", []string{"X-Ms-Version: newest"}, 400, "InvalidHeaderValue"},
		{"GET", "/box/b", []string{"X-Ms-Encryption-Key: AAAA"}, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{block, "Content-Md5: AAAA"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/b", []string{block, "Content-Md5: AAAAAAAAAAAAAAAAAAAAAA=="}, 400, "Md5Mismatch"},
		{"PUT", "/box/b", []string{block, "X-Ms-Content-Crc64: AAAAAAAAAAE="}, 400, "Crc64Mismatch"},
		{"PUT", "/box/b", []string{block, "X-Ms-Access-Tier: Archive"}, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{block, "X-Ms-Meta-Colour: \xff"}, 400, "InvalidMetadata"},
		{"PUT", "/box/b?comp=blocklist", nil, 400, "InvalidXmlDocument"},
		{"GET", "/box/b?comp=blocklist&blocklisttype=some", nil, 400, "InvalidQueryParameterValue"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: http://one.blob.localhost/box/b"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: https://two.blob.localhost/box/b"}, 403, "CannotVerifyCopySource"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: https://two.blob.localhost/box/b", "X-Ms-Copy-Source-Authorization: Bearer wrong"}, 401, "InvalidAuthenticationInfo"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: https://two.blob.localhost/box/b", "X-Ms-Copy-Source-Authorization: " + bearer}, 404, "StorageAccountNotFound"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: https://one.blob.localhost/box/b", "X-Ms-Source-If-Match: *"}, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{"X-Ms-Blob-Type: PageBlob", "X-Ms-Copy-Source: https://one.blob.localhost/box/b"}, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{"X-Ms-Copy-Source: https://evil.example/blob/one/box/b"}, 400, "CannotVerifyCopySource"},
		{"PUT", "/box", nil, 400, "UnsupportedOperation"},
		{"GET", "/?restype=service&comp=properties", nil, 400, "UnsupportedOperation"},
		{"GET", "/", nil, 400, "UnsupportedOperation"},
		{"PUT", "/", nil, 400, "UnsupportedOperation"},

		{"GET", "/nothing/b", nil, 404, "ContainerNotFound"},
		{"GET", "/..%2Fbox/b", nil, 404, "ContainerNotFound"},
		{"GET", "/box/%00", nil, 404, "BlobNotFound"},
		{"GET", "/box/" + long, nil, 404, "BlobNotFound"},
		{"DELETE", "/box/nothing", nil, 404, "BlobNotFound"},
		{"GET", "/box/b", []string{"Host: two." + suffix}, 404, "StorageAccountNotFound"},
		{"GET", "/box/b", []string{"Host: .." + suffix}, 404, "StorageAccountNotFound"},
		{"GET", "/blob/", []string{"Host: localhost"}, 400, "UnsupportedOperation"},

		{"PUT", "/nothing/b", []string{block}, 404, "ContainerNotFound"},
		{"PUT", "/box/b", nil, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{"X-Ms-Blob-Type: PageBlob"}, 400, "UnsupportedOperation"},
		{"PUT", "/box/b", []string{block, "Content-Length: "}, 411, "MissingContentLengthHeader"},
		{"PUT", "/box/b", []string{block, "Content-Type: \x01"}, 400, "InvalidHeaderValue"},
		{"PUT", "/box/" + long, []string{block}, 400, "InvalidResourceName"},
		{"PUT", "/box/%07", []string{block}, 400, "InvalidResourceName"},
		{"PUT", "/box/b?comp=block&blockid=!", []string{block}, 400, "InvalidQueryParameterValue"},
		{"GET", "/box/b?comp=tags", nil, 400, "UnsupportedOperation"},
		{"GET", "/box/b?snapshot=2026-03-01T12:00:00Z", nil, 400, "UnsupportedOperation"},
		{"DELETE", "/box/b?versionid=1", nil, 400, "UnsupportedOperation"},
		{"POST", "/box/b", nil, 400, "UnsupportedOperation"},

		{"GET", "/box?restype=container&comp=list&include=uncommittedblobs", nil, 400, "UnsupportedOperation"},
		{"GET", "/box?restype=container&comp=list&marker=%21", nil, 400, "InvalidQueryParameterValue"},
		{"GET", "/box?restype=container&comp=list&maxresults=0", nil, 400, "InvalidQueryParameterValue"},
		{"GET", "/box?restype=container&comp=list&maxresults=many", nil, 400, "InvalidQueryParameterValue"},
		{"GET", "/nothing?restype=container&comp=list", nil, 404, "ContainerNotFound"},
		{"GET", "/?comp=list&maxresults=-1", nil, 400, "InvalidQueryParameterValue"},
	} {
		t.Run(test.method+" "+test.path[:min(len(test.path), 40)], func(t *testing.T) {
			d.t = t
			d.want(test.status, test.code, d.send(test.method, test.path, "other", test.headers...))
		})
	}
	d.t = t
	if a := d.send("GET", "/box/b", ""); a.body != "content" {
		t.Errorf("refused requests made the blob %q", a.body)
	}
	if n := len(d.objects()); n != 1 {
		t.Errorf("refused requests left %d objects, want the one blob's", n)
	}
}

// A body that is longer than it says, or than is taken, leaves nothing.
func TestBodiesTooLarge(t *testing.T) {
	d := open(t, sqlite(t))
	r := httptest.NewRequest("PUT", "https://one."+suffix+"/box/b", strings.NewReader("short"))
	r.Header.Set("Authorization", bearer)
	r.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	for _, length := range []int64{storage.MaxBlobSize + 1, 1 << 60} {
		r.ContentLength = length
		w := httptest.NewRecorder()
		d.handler.ServeHTTP(w, r)
		if w.Code != 413 || w.Header().Get("X-Ms-Error-Code") != "RequestBodyTooLarge" {
			t.Errorf("%d bytes: %d %s", length, w.Code, w.Body)
		}
	}
	r.ContentLength = 4096 // and the connection ends after five
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	if w.Code < 400 {
		t.Errorf("a body that was cut short: %d %s", w.Code, w.Body)
	}
	d.want(404, "BlobNotFound", d.send("GET", "/box/b", ""))
	if n := len(d.objects()); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func TestTokensAndRoles(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("b", "content"))
	for _, token := range []string{"", "Bearer wrong", "Basic cmlnaHQ="} {
		for _, request := range [][2]string{{"GET", "/box/b"}, {"HEAD", "/box/b"}, {"PUT", "/box/b"}, {"DELETE", "/box/b"}, {"GET", "/?comp=list"},
			{"GET", "/nothing/b"}, {"PUT", "/other?restype=container"}, {"POST", "/"}} {
			a := d.want(401, "InvalidAuthenticationInfo", d.send(request[0], request[1], "", "Authorization: "+token, "X-Ms-Blob-Type: BlockBlob"))
			if h := a.Header.Get("WWW-Authenticate"); !strings.Contains(h, "https://localhost/tenant") || !strings.Contains(h, "https://storage.azure.com") {
				t.Errorf("%q: the challenge is %q", token, h)
			}
		}
	}
	for _, test := range [][3]string{{"blobs/read", "GET", "/box/b"}, {"blobs/read", "GET", "/box?restype=container&comp=list"}, {"blobs/write", "PUT", "/box/b"},
		{"blobs/delete", "DELETE", "/box/b"}, {"containers/read", "GET", "/?comp=list"}, {"containers/write", "PUT", "/other?restype=container"}} {
		d.denied = test[0]
		a := d.send(test[1], test[2], "", "X-Ms-Blob-Type: BlockBlob")
		if a.StatusCode != 403 || a.Header.Get("X-Ms-Error-Code") != "AuthorizationPermissionMismatch" {
			t.Errorf("%v: %d %s", test, a.StatusCode, a.body)
		}
	}
	d.denied = ""
	if a := d.send("GET", "/box/b", ""); a.body != "content" {
		t.Errorf("requests without a right made the blob %q", a.body)
	}
}

type list struct {
	Names      []string `xml:"Blobs>Blob>Name"`
	Containers []string `xml:"Containers>Container>Name"`
	NextMarker string
}

// walk follows a list from page to page.
func (d *door) walk(path string) (pages [][]string) {
	d.t.Helper()
	for marker := ""; ; {
		var l list
		if err := xml.Unmarshal([]byte(d.want(200, "", d.send("GET", path+"&marker="+marker, "")).body), &l); err != nil {
			d.t.Fatal(err)
		}
		pages = append(pages, append(l.Names, l.Containers...))
		if marker = l.NextMarker; marker == "" || len(pages) > 10 {
			return pages
		}
	}
}

func TestLists(t *testing.T) {
	d := open(t, sqlite(t))
	for _, name := range []string{"a", "b%3C%26%3E", "b/1", "b/2", "c"} {
		d.want(201, "", d.put(name, name))
	}
	for path, want := range map[string][][]string{
		"/box?restype=container&comp=list":                         {{"a", "b/1", "b/2", "b<&>", "c"}},
		"/box?restype=container&comp=list&maxresults=2":            {{"a", "b/1"}, {"b/2", "b<&>"}, {"c"}},
		"/box?restype=container&comp=list&maxresults=1&prefix=b/":  {{"b/1"}, {"b/2"}},
		"/box?restype=container&comp=list&prefix=nothing":          {nil},
		"/box?restype=container&comp=list&maxresults=999999999999": {{"a", "b/1", "b/2", "b<&>", "c"}},
		"/?comp=list":              {{"box"}},
		"/?comp=list&prefix=other": {nil},
	} {
		if diff := cmp.Diff(want, d.walk(path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	// A marker whose blob has gone meanwhile goes on with what comes after.
	var first list
	if err := xml.Unmarshal([]byte(d.send("GET", "/box?restype=container&comp=list&maxresults=1", "").body), &first); err != nil {
		t.Fatal(err)
	}
	d.want(202, "", d.send("DELETE", "/box/b/1", ""))
	if rest := d.walk("/box?restype=container&comp=list&x=&marker=" + first.NextMarker + "&y="); rest[0][0] != "b/2" {
		t.Errorf("after a blob that has gone comes %v", rest)
	}
}

// An error inside is told as one, without its text, and logged with it.
func TestInternalError(t *testing.T) {
	d := open(t, sqlite(t))
	d.want(201, "", d.put("b", "content"))
	for _, name := range d.objects() {
		if err := d.bucket.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	a := d.send("GET", "/box/b", "")
	if a.StatusCode != 500 || a.Header.Get("X-Ms-Error-Code") != "InternalError" || strings.Contains(a.body, "object") || !strings.Contains(d.log.String(), "level=ERROR") {
		t.Errorf("%d %s; the log: %s", a.StatusCode, a.body, &d.log)
	}
}
