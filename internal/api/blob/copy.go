package blob

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"

	"kluis/internal/compute"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

// A blob or a block can be copied from a URL of this server's: from a blob of any account, or from a disk to which
// access was granted. Other places are never asked: a server must not fetch what a stranger names. The source is read
// with the signature that its URL carries, with the token in x-ms-copy-source-authorization, or, in the same account,
// with what the caller may read.

// copySource returns what x-ms-copy-source names, and what is to be called when it has been read.
func (d *door) copySource(ctx context.Context, x request) (storage.Source, func(), error) {
	u, err := url.Parse(x.Header.Get("X-Ms-Copy-Source"))
	if err != nil || u.Scheme != "https" {
		return storage.Source{}, nil, invalidHeader("x-ms-copy-source", "it is no https URL")
	}
	if !d.isOwn(u.Host, x.Host) {
		return storage.Source{}, nil, problem.New(problem.Unsupported, "CannotVerifyCopySource", "Only blobs and disks of this server can be copied here.").
			WithTarget("x-ms-copy-source").WithAdvice("Download the blob and upload it.")
	}
	account, container, blob := d.locate(u.Host, u.Path)
	if (request{account: account}).isDisk() && d.o.Disks != nil {
		return d.diskSource(ctx, account, container, blob, u.Query())
	}
	rights, err := d.sourceRights(ctx, x, u.Query(), account, container, blob)
	if err != nil {
		return storage.Source{}, nil, err
	}
	s, err := d.s.SourceBlob(rights, account, container, blob)
	return s, func() {}, err
}

// sourceRights is a context with the right with which the source is read.
func (d *door) sourceRights(ctx context.Context, x request, q url.Values, account, container, blob string) (context.Context, error) {
	switch token := x.Header.Get("X-Ms-Copy-Source-Authorization"); {
	case q.Has("sig"):
		g, err := d.redeem(ctx, &x, q, account, container, blob)
		return storage.WithGrant(ctx, g), err
	case token != "":
		bearer := x.Clone(x.Context())
		bearer.Header.Set("Authorization", token)
		return d.o.Authenticate(x.Context(), bearer)
	case strings.EqualFold(account, x.account):
		return ctx, nil
	}
	return nil, problem.New(problem.Denied, "CannotVerifyCopySource", "The source of the copy is in another storage account, and nothing says that it may be read.").
		WithTarget("x-ms-copy-source").WithAdvice("Add a shared access signature to its URL, or x-ms-copy-source-authorization.")
}

func (d *door) diskSource(ctx context.Context, account, container, blob string, q url.Values) (storage.Source, func(), error) {
	disk, err := d.o.Disks.OpenShared(ctx, account, container, blob, q.Get("si"), q.Get("sig"))
	if err != nil {
		return storage.Source{}, nil, err
	}
	return storage.Source{Size: disk.Size, Open: func(off, n int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(disk, off, n)), nil
	}}, closing(disk), nil
}

func closing(disk *compute.Shared) func() { return func() { _ = disk.Close() } } // it was only read

// isOwn reports whether a URL's host is one of this server's: an account's, or the one that the client speaks to.
func (d *door) isOwn(host, spokenTo string) bool {
	_, ok := d.accountOf(host)
	return ok || strings.EqualFold(host, spokenTo)
}

// sourceSums are the checksums that the bytes of the source must have.
func (x request) sourceSums() (u storage.Upload, err error) {
	if x.ContentLength > 0 {
		return u, invalidHeader("Content-Length", "what is copied from a URL has no body")
	}
	if u.MD5, err = x.sum("X-Ms-Source-Content-Md5", 16); err != nil {
		return u, err
	}
	u.CRC64, err = x.sum("X-Ms-Source-Content-Crc64", 8)
	return u, err
}

// copyBlob copies a blob with its headers and, unless some is given, its metadata. It is done when it is answered.
func (d *door) copyBlob(ctx context.Context, w http.ResponseWriter, x request) error {
	from, done, err := d.copySource(ctx, x)
	if err != nil {
		return err
	}
	defer done()
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	u := storage.Upload{Headers: from.Headers, Metadata: x.metadata()}
	if len(u.Metadata) == 0 {
		u.Metadata = from.Metadata
	}
	b, err := d.s.PutBlobFrom(ctx, x.account, x.container, x.blob, from, u, conditions...)
	if err != nil {
		return err
	}
	tellCopy(w.Header(), b)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func tellCopy(h http.Header, b storage.Blob) {
	tell(h, b)
	h.Set("X-Ms-Copy-Id", strings.Trim(b.ETag(), `"`))
	h.Set("X-Ms-Copy-Status", "success")
}

// writeFromURL writes a block blob from a URL, with the source's headers where the request has none.
func (d *door) writeFromURL(ctx context.Context, w http.ResponseWriter, x request) error {
	if kind := x.Header.Get("X-Ms-Blob-Type"); !strings.EqualFold(kind, "BlockBlob") {
		return unsupported("blobs of another type than BlockBlob")
	}
	u, err := x.sourceSums()
	if err != nil {
		return err
	}
	from, done, err := d.copySource(ctx, x)
	if err != nil {
		return err
	}
	defer done()
	given, err := x.blobHeaders()
	if err != nil {
		return err
	}
	u.Headers, u.Metadata = given, x.metadata()
	if !strings.EqualFold(x.Header.Get("X-Ms-Copy-Source-Blob-Properties"), "false") {
		u.Headers = given.Or(from.Headers)
	}
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	b, err := d.s.PutBlobFrom(ctx, x.account, x.container, x.blob, from, u, conditions...)
	if err != nil {
		return err
	}
	tellCopy(w.Header(), b)
	w.Header().Set("Content-Md5", base64.StdEncoding.EncodeToString(b.Headers.ContentMD5))
	return created(w)
}

// putBlockFromURL writes a block from a range of a URL.
func (d *door) putBlockFromURL(ctx context.Context, w http.ResponseWriter, x request) error {
	u, err := x.sourceSums()
	if err != nil {
		return err
	}
	off, n, ok := parseRange(x.Header.Get("X-Ms-Source-Range"))
	if !ok && x.Header.Get("X-Ms-Source-Range") != "" {
		return invalidHeader("x-ms-source-range", "it is not bytes=FIRST-LAST")
	}
	from, done, err := d.copySource(ctx, x)
	if err != nil {
		return err
	}
	defer done()
	sum, err := d.s.PutBlockFrom(ctx, x.account, x.container, x.blob, x.query.Get("blockid"), from, off, n, u, x.leaseHeader()...)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Md5", base64.StdEncoding.EncodeToString(sum))
	return created(w)
}
