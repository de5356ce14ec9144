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
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/uuid"

	"kluis/internal/api/blob"
	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/fabric/image"
)

// images gives the fabric the shape that the compute service asks for.
type images struct{ *image.Fabric }

// Inspect implements compute.Images.
func (f images) Inspect(ctx context.Context, path string) (compute.Image, error) {
	i, err := f.Fabric.Inspect(ctx, path)
	return compute.Image{Path: i.Path, Format: i.Format, Size: i.Size}, err
}

// showcase is a door at which one disk is read.
type showcase struct {
	t       *testing.T
	s       *compute.Service
	handler http.Handler
	disk    armid.ID
	url     *url.URL
	content []byte
}

const diskSize = 8 << 20

// show registers a disk with data in its second and sixth MiB, and grants access to it.
func show(t *testing.T) *showcase {
	t.Helper()
	dir := t.TempDir()
	c := &showcase{t: t, disk: group.Resource(compute.DiskType, "data"), content: make([]byte, diskSize)}
	for _, mib := range []int{1, 5} {
		_, _ = rand.Read(c.content[mib<<20 : (mib+1)<<20])
	}
	path := filepath.Join(dir, "data")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, mib := range []int64{1, 5} {
		if _, err := f.WriteAt(c.content[mib<<20:(mib+1)<<20], mib<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	fabric, err := image.New(image.Options{Allow: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	world := &world{}
	c.s = compute.New(compute.Options{DB: sqlite(t), Authorizer: world, Groups: world, Images: images{fabric}, Seal: newRoot(t), Rand: rand.Reader,
		BlobSuffix: suffix + ":8443", Now: now, NewID: uuid.NewString})
	t.Cleanup(func() { _ = c.s.Close(context.Background()) })
	d := compute.Disk{ID: c.disk, Location: "westeurope"}
	d.Properties.CreationData = compute.CreationData{CreateOption: "Import", SourceURI: "file://" + path}
	if _, _, err := c.s.PutDisk(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	a, err := c.s.BeginAccess(t.Context(), c.disk, compute.AccessRequest{Access: "Read", Seconds: 60})
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.s.AccessURL(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if c.url, err = url.Parse(text); err != nil {
		t.Fatal(err)
	}
	c.handler = blob.Handler(nil, blob.Options{Suffix: suffix, Disks: c.s, Now: now, NewID: uuid.NewString, Logger: slog.New(slog.DiscardHandler)})
	return c
}

// ask sends a request to the disk's URL with more in its query; headers are pairs.
func (c *showcase) ask(method, query string, headers ...string) answer {
	c.t.Helper()
	r := httptest.NewRequest(method, c.url.String()+query, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Body)
	return answer{w.Result(), string(body)}
}

func (c *showcase) want(status int, a answer, headers ...string) answer {
	c.t.Helper()
	if a.StatusCode != status {
		c.t.Errorf("status %d, want %d: %.300s", a.StatusCode, status, a.body)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if got := a.Header.Get(headers[i]); got != headers[i+1] {
			c.t.Errorf("%s is %q, want %q", headers[i], got, headers[i+1])
		}
	}
	return a
}

func TestDiskIsReadAsAPageBlob(t *testing.T) {
	c := show(t)
	length := strconv.Itoa(diskSize + 512)
	head := c.want(200, c.ask("HEAD", ""), "Content-Length", length, "X-Ms-Blob-Type", "PageBlob", "Accept-Ranges", "bytes")
	whole := c.want(200, c.ask("GET", ""), "Content-Length", length, "Etag", head.Header.Get("Etag"))
	if body := []byte(whole.body); len(body) != diskSize+512 || !bytes.Equal(body[:diskSize], c.content) || !bytes.HasPrefix(body[diskSize:], []byte("conectix")) {
		t.Errorf("%d bytes that are not the disk and a footer", len(whole.body))
	}
	for asked, want := range map[string][2]int{
		"bytes=0-0": {0, 1}, "bytes=1048570-1048581": {1048570, 1048582}, "bytes=8388600-": {8388600, diskSize + 512}, "bytes=8388607-99999999": {8388607, diskSize + 512},
	} {
		for _, header := range []string{"Range", "X-Ms-Range"} {
			a := c.want(206, c.ask("GET", "", header, asked), "Content-Range", fmt.Sprintf("bytes %d-%d/%s", want[0], want[1]-1, length))
			if a.body != whole.body[want[0]:want[1]] {
				t.Errorf("%s %s: other bytes", header, asked)
			}
		}
	}
	c.want(206, c.ask("GET", "", "Range", "bytes=0-3", "X-Ms-Range-Get-Content-Md5", "true"), "Content-Md5", "8dP/hEMpdzKGLfIdxOVyYg==")
	c.want(416, c.ask("GET", "", "Range", "bytes=9000000-"), "X-Ms-Error-Code", "InvalidRange")
	c.want(304, c.ask("GET", "", "If-None-Match", head.Header.Get("Etag")))
	c.want(412, c.ask("GET", "", "If-Match", `"other"`), "X-Ms-Error-Code", "ConditionNotMet")
	c.want(412, c.ask("GET", "&comp=pagelist", "If-Match", `"other"`), "X-Ms-Error-Code", "ConditionNotMet")
}

func TestPagesOfADisk(t *testing.T) {
	c := show(t)
	type list struct {
		XMLName xml.Name                     `xml:"PageList"`
		Ranges  []struct{ Start, End int64 } `xml:"PageRange"`
		Next    string                       `xml:"NextMarker"`
	}
	pages := func(query string, headers ...string) (l list) {
		t.Helper()
		a := c.want(200, c.ask("GET", "&comp=pagelist"+query, headers...), "X-Ms-Blob-Content-Length", strconv.Itoa(diskSize+512))
		if err := xml.Unmarshal([]byte(a.body), &l); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		return l
	}
	const want = "[{1048576 2097151} {5242880 6291455} {8388608 8389119}]"
	if all := pages(""); fmt.Sprint(all.Ranges) != want || all.Next != "" {
		t.Errorf("%+v", all)
	}
	var walked list
	for query := "&maxresults=1"; ; query = "&maxresults=1&marker=" + walked.Next {
		l := pages(query)
		walked.Ranges, walked.Next = append(walked.Ranges, l.Ranges...), l.Next
		if l.Next == "" || len(walked.Ranges) > 3 {
			break
		}
	}
	if fmt.Sprint(walked.Ranges) != want {
		t.Errorf("one by one: %+v", walked)
	}
	if part := pages("", "Range", "bytes=2000000-5300000"); fmt.Sprint(part.Ranges) != "[{2000000 2097151} {5242880 5300000}]" {
		t.Errorf("a part: %+v", part)
	}
	c.want(400, c.ask("GET", "&comp=pagelist&marker=x"))
	c.want(400, c.ask("GET", "&comp=pagelist&maxresults=0"))
	c.want(400, c.ask("GET", "&comp=pagelist&prevsnapshot=2026-01-01T00:00:00.0000000Z"), "X-Ms-Error-Code", "UnsupportedOperation")
}

func TestDiskIsOnlyRead(t *testing.T) {
	c := show(t)
	for method, query := range map[string]string{"PUT": "&comp=page", "DELETE": "", "POST": ""} {
		c.want(403, c.ask(method, query), "X-Ms-Error-Code", "AuthorizationPermissionMismatch")
	}
	c.want(400, c.ask("GET", "&comp=blocklist"), "X-Ms-Error-Code", "UnsupportedOperation")
	c.want(400, c.ask("GET", "&snapshot=2026-01-01T00:00:00.0000000Z"), "X-Ms-Error-Code", "UnsupportedOperation")
	good := *c.url
	q := good.Query()
	q.Set("sig", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	c.url.RawQuery = q.Encode()
	c.want(403, c.ask("GET", ""), "X-Ms-Error-Code", "AuthenticationFailed")
	c.want(403, c.ask("HEAD", ""), "X-Ms-Error-Code", "AuthenticationFailed")
	c.url = &good
	if err := c.s.EndAccess(t.Context(), c.disk); err != nil {
		t.Fatal(err)
	}
	c.want(403, c.ask("GET", ""), "X-Ms-Error-Code", "AuthenticationFailed")
}
