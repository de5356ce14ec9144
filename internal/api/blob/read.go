package blob

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kluis/internal/problem"
	"kluis/internal/storage"
)

// conditions are those of the headers, for a call that changes something.
func (x request) conditions() ([]storage.Condition, error) {
	must, unless, err := x.readConditions()
	return append(must, unless...), err
}

// readConditions are those of the headers, for a call that reads: what must hold of the blob, and what must
// hold for the client not to have it already.
func (x request) readConditions() (must, unless []storage.Condition, err error) {
	must = x.leaseHeader()
	if etags := x.Header.Get("If-Match"); etags != "" {
		must = append(must, storage.IfMatch(etags))
	}
	if etags := x.Header.Get("If-None-Match"); etags != "" {
		unless = append(unless, storage.IfNoneMatch(etags))
	}
	for name, add := range map[string]func(time.Time){
		"If-Unmodified-Since": func(t time.Time) { must = append(must, storage.IfUnmodifiedSince(t)) },
		"If-Modified-Since":   func(t time.Time) { unless = append(unless, storage.IfModifiedSince(t)) },
	} {
		value := x.Header.Get(name)
		if value == "" {
			continue
		}
		t, err := http.ParseTime(value)
		if err != nil {
			return nil, nil, invalidHeader(name, "it is no time as HTTP writes it")
		}
		add(t)
	}
	return must, unless, nil
}

func (d *door) head(ctx context.Context, w http.ResponseWriter, x request) error {
	must, unless, err := x.readConditions()
	if err != nil {
		return err
	}
	b, err := d.s.Blob(ctx, x.account, x.container, x.blob)
	if err != nil {
		return err
	}
	if err := storage.Check(must, b, true, d.o.Now()); err != nil {
		return err
	}
	if notModified(w, b, unless) {
		return nil
	}
	x.describe(w.Header(), b, d.o.Now())
	w.Header().Set("Content-Length", fmt.Sprint(b.Size))
	w.WriteHeader(http.StatusOK)
	return nil
}

// notModified answers with 304 if the client has the blob already.
func notModified(w http.ResponseWriter, b storage.Blob, unless []storage.Condition) bool {
	if storage.Check(unless, b, true, time.Time{}) == nil {
		return false
	}
	w.Header().Set("Etag", b.ETag())
	w.WriteHeader(http.StatusNotModified)
	return true
}

// maxRangeMD5 is the largest range whose MD5 is told.
const maxRangeMD5 = 4 << 20

func (d *door) read(ctx context.Context, w http.ResponseWriter, x request) error {
	must, unless, err := x.readConditions()
	if err != nil {
		return err
	}
	off, n, partial := x.wanted()
	b, data, err := d.s.ReadBlobRange(ctx, x.account, x.container, x.blob, off, n, must...)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }() // only read
	if notModified(w, b, unless) {
		return nil
	}
	status, length := http.StatusOK, b.Size
	x.describe(w.Header(), b, d.o.Now())
	if partial && b.Size > 0 {
		if length -= off; n >= 0 {
			length = min(length, n)
		}
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+length-1, b.Size))
		w.Header().Del("Content-Md5") // it is the whole blob's
		if sum := b.Headers.ContentMD5; sum != nil {
			w.Header().Set("X-Ms-Blob-Content-Md5", base64.StdEncoding.EncodeToString(sum))
		}
		if strings.EqualFold(x.Header.Get("X-Ms-Range-Get-Content-Md5"), "true") {
			if data, err = hashed(w, data, length); err != nil {
				return err
			}
		}
	}
	w.Header().Set("Content-Length", fmt.Sprint(length))
	w.WriteHeader(status)
	if _, err := io.Copy(w, data); err != nil {
		panic(http.ErrAbortHandler) // the length is promised: what is cut short must not look whole
	}
	return nil
}

// hashed reads a range, which is bounded, to tell its MD5 before it.
func hashed(w http.ResponseWriter, data io.Reader, length int64) (io.ReadCloser, error) {
	if length > maxRangeMD5 {
		return nil, invalidHeader("x-ms-range-get-content-md5", "the MD5 of at most 4 MiB is told")
	}
	text, err := io.ReadAll(data)
	if err != nil {
		return nil, err
	}
	sum := md5.Sum(text)
	w.Header().Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
	return io.NopCloser(strings.NewReader(string(text))), nil
}

var rangeHeader = regexp.MustCompile(`^bytes=(\d{1,18})-(\d{0,18})$`)

// wanted is the part of a blob that the headers ask for: n bytes from off on, or all of them if n is less
// than zero. As HTTP allows, a range in a form that is not known here is answered with the whole blob.
func (x request) wanted() (off, n int64, partial bool) {
	header := x.Header.Get("X-Ms-Range")
	if header == "" {
		header = x.Header.Get("Range")
	}
	return parseRange(header)
}

func parseRange(header string) (off, n int64, partial bool) {
	m := rangeHeader.FindStringSubmatch(header)
	if m == nil {
		return 0, -1, false
	}
	off, _ = strconv.ParseInt(m[1], 10, 64) // 18 digits fit
	if m[2] == "" {
		return off, -1, true
	}
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if last < off {
		return 0, -1, false
	}
	return off, last - off + 1, true
}

// describe sets the headers that tell of a blob, with what the caller's signature sets instead.
func (x request) describe(h http.Header, b storage.Blob, now time.Time) {
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	tell(h, b)
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	h.Set("X-Ms-Server-Encrypted", "false")
	h.Set("X-Ms-Access-Tier", accessTier)
	h.Set("X-Ms-Access-Tier-Inferred", "true")
	tellLease(h, leaseOf(b.Lease, now))
	h.Set("X-Ms-Creation-Time", b.Created.UTC().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	set("Content-Type", b.Headers.ContentType)
	set("Content-Encoding", b.Headers.ContentEncoding)
	set("Content-Language", b.Headers.ContentLanguage)
	set("Content-Disposition", b.Headers.ContentDisposition)
	set("Cache-Control", b.Headers.CacheControl)
	if b.Headers.ContentMD5 != nil {
		set("Content-Md5", base64.StdEncoding.EncodeToString(b.Headers.ContentMD5))
	}
	setMetadata(h, b.Metadata)
	for name, value := range x.response {
		h.Set(name, value)
	}
}

// tell sets the headers that name this state of a blob.
func tell(h http.Header, b storage.Blob) {
	h.Set("Etag", b.ETag())
	h.Set("Last-Modified", b.Modified.UTC().Format(http.TimeFormat))
}

const metadataPrefix = "X-Ms-Meta-"

func setMetadata(h http.Header, metadata map[string]string) {
	for name, value := range metadata {
		h[strings.ToLower(metadataPrefix)+name] = []string{value} // az looks for it in lower case
	}
}

// metadata is what the request says in x-ms-meta-… headers. HTTP folds the case of their names.
func (x request) metadata() map[string]string {
	metadata := map[string]string{}
	for name, values := range x.Header {
		if name, ok := strings.CutPrefix(name, metadataPrefix); ok {
			metadata[strings.ToLower(name)] = strings.Join(values, ",")
		}
	}
	return metadata
}

// listBlocks tells of a blob's blocks.
func (d *door) listBlocks(ctx context.Context, w http.ResponseWriter, x request) error {
	kind := strings.ToLower(x.query.Get("blocklisttype"))
	if kind != "" && kind != "committed" && kind != "uncommitted" && kind != "all" {
		return invalidQuery("blocklisttype", "it is not committed, uncommitted or all")
	}
	b, committed, pending, err := d.s.BlockList(ctx, x.account, x.container, x.blob)
	if err != nil {
		return err
	}
	body := blockListBody{}
	if kind != "uncommitted" {
		body.Committed = &listedBlocks{encodeBlocks(committed)}
	}
	if kind == "uncommitted" || kind == "all" {
		body.Uncommitted = &listedBlocks{encodeBlocks(pending)}
	}
	if b.Name != "" {
		tell(w.Header(), b)
	}
	w.Header().Set("X-Ms-Blob-Content-Length", fmt.Sprint(b.Size))
	return writeXML(w, http.StatusOK, body)
}

type blockListBody struct {
	XMLName     xml.Name      `xml:"BlockList"`
	Committed   *listedBlocks `xml:"CommittedBlocks"`
	Uncommitted *listedBlocks `xml:"UncommittedBlocks"`
}

type listedBlocks struct{ Block []listedBlock }

type listedBlock struct {
	Name string
	Size int64
}

func encodeBlocks(blocks []storage.ListedBlock) (all []listedBlock) {
	for _, b := range blocks {
		all = append(all, listedBlock{b.ID, b.Size})
	}
	return all
}

func missingLength() error {
	return problem.New(problem.Invalid, "MissingContentLengthHeader", "Content-Length was not specified.").WithAdvice("Send the length of the body.")
}
