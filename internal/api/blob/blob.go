// Package blob is the door to storage accounts: the part of Azure's Blob service that a person needs to
// fetch what a restore has left, and to put a template where a deployment finds it.
//
// An account answers at https://{account}.blob.{domain}/{container}/{blob}, and at /blob/{account}/… on any
// other host, for clients in places where such hosts don't resolve. Block blobs are written whole and read
// whole or by range; a caller shows a bearer token, there are no account keys. Errors are the Blob service's
// XML. What a caller asks for and does not get, such as metadata or a condition that is not known here, is
// refused, never passed over.
package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

// Options are what the door needs from outside.
type Options struct {
	Authenticate func(context.Context, *http.Request) (context.Context, error)
	Authority    string // where a client gets a token: https://host/tenant
	Suffix       string // "blob.localhost": hosts are {account}.{suffix}, with any port
	NewID        func() string
	Logger       *slog.Logger
}

// audience is what clients of Azure's storage ask tokens for.
const audience = "https://storage.azure.com"

const serviceVersion = "2023-11-03"

// Handler returns the door.
func Handler(s *storage.Service, o Options) http.Handler { return &door{s, o} }

type door struct {
	s *storage.Service
	o Options
}

// request is what a path means.
type request struct {
	*http.Request
	query                    url.Values
	account, container, blob string
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := d.o.NewID()
	h := w.Header()
	h.Set("X-Ms-Request-Id", id)
	h.Set("X-Ms-Version", serviceVersion)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	log := d.o.Logger.With("request", id, "method", r.Method)
	defer func() {
		p := recover()
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // means to cut the connection
		}
		if p != nil {
			log.Error("blob request panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			d.fail(w, r, errors.New("panic"))
		}
	}()
	x := d.parse(r)
	err := d.serve(w, x)
	if err != nil {
		d.fail(w, r, err)
	}
	d.log(r.Context(), log, x, err)
}

// log writes one line for a request. The text of an error that a person can read is theirs already.
func (d *door) log(ctx context.Context, log *slog.Logger, x request, err error) {
	log = log.With("account", x.account, "container", x.container, "blob", x.blob)
	p := problem.Of(err)
	switch {
	case err == nil:
		log.InfoContext(ctx, "blob request")
	case p != nil && p.Kind != problem.Internal:
		log.InfoContext(ctx, "blob request", "code", p.Code)
	default:
		log.ErrorContext(ctx, "blob request", "error", err)
	}
}

func (d *door) parse(r *http.Request) request {
	x := request{Request: r, query: r.URL.Query()}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if account, ok := d.accountOf(r.Host); ok {
		x.account = account
	} else {
		x.account, path, _ = strings.Cut(strings.TrimPrefix(path, "blob/"), "/")
	}
	x.container, x.blob, _ = strings.Cut(path, "/")
	return x
}

// accountOf returns the account that a Host header names; false if it is no account's.
func (d *door) accountOf(host string) (string, bool) {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	return strings.CutSuffix(name, "."+strings.ToLower(d.o.Suffix))
}

func (d *door) serve(w http.ResponseWriter, x request) error {
	ctx, err := d.o.Authenticate(x.Context(), x.Request)
	if problem.KindOf(err) == problem.Unauthenticated {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+d.o.Authority+`", resource_id="`+audience+`"`)
	}
	if err != nil {
		return err
	}
	switch kind := x.query.Get("restype"); {
	case kind == "container" && x.container != "" && x.blob == "":
		return d.serveContainer(ctx, w, x)
	case kind != "":
		return unsupported("restype=" + kind)
	case x.container == "":
		return d.serveAccount(ctx, w, x)
	case x.blob == "":
		return unsupported(x.Method + " on a container without restype=container")
	}
	for _, name := range []string{"comp", "snapshot", "versionid"} {
		if value := x.query.Get(name); value != "" {
			return unsupported(name + "=" + value)
		}
	}
	return d.serveBlob(ctx, w, x)
}

func (d *door) serveAccount(ctx context.Context, w http.ResponseWriter, x request) error {
	if x.Method != http.MethodGet || x.query.Get("comp") != "list" {
		return unsupported(x.Method + " on an account as a whole")
	}
	return d.listContainers(ctx, w, x)
}

func (d *door) serveContainer(ctx context.Context, w http.ResponseWriter, x request) error {
	switch comp := x.query.Get("comp"); {
	case x.Method == http.MethodPut && comp == "":
		if err := d.s.CreateContainer(ctx, x.account, x.container); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		return nil
	case x.Method == http.MethodGet && comp == "list":
		return d.listBlobs(ctx, w, x)
	}
	return unsupported(x.Method + " on a container")
}

func (d *door) serveBlob(ctx context.Context, w http.ResponseWriter, x request) error {
	switch x.Method {
	case http.MethodGet:
		return d.read(ctx, w, x)
	case http.MethodHead:
		return d.head(ctx, w, x)
	case http.MethodPut:
		return d.write(ctx, w, x)
	case http.MethodDelete:
		conditions, err := x.conditions()
		if err != nil {
			return err
		}
		if err := d.s.DeleteBlob(ctx, x.account, x.container, x.blob, conditions...); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return unsupported("the method " + x.Method)
}

// conditions are those of the headers; a condition of another kind is refused.
func (x request) conditions() (all []storage.Condition, err error) {
	for _, name := range []string{"If-Modified-Since", "If-Unmodified-Since", "X-Ms-If-Tags"} {
		if x.Header.Get(name) != "" {
			return nil, unsupported("the condition " + name)
		}
	}
	if etags := x.Header.Get("If-Match"); etags != "" {
		all = append(all, storage.IfMatch(etags))
	}
	if etags := x.Header.Get("If-None-Match"); etags != "" {
		all = append(all, storage.IfNoneMatch(etags))
	}
	return all, nil
}

func (d *door) head(ctx context.Context, w http.ResponseWriter, x request) error {
	b, err := d.s.Blob(ctx, x.account, x.container, x.blob)
	if err != nil {
		return err
	}
	if answered, err := x.unwanted(w, b); answered || err != nil {
		return err
	}
	describe(w.Header(), b)
	w.Header().Set("Content-Length", fmt.Sprint(b.Size))
	w.WriteHeader(http.StatusOK)
	return nil
}

func (d *door) read(ctx context.Context, w http.ResponseWriter, x request) error {
	off, n, partial := x.wanted()
	b, data, err := d.s.ReadBlobRange(ctx, x.account, x.container, x.blob, off, n)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }() // only read
	if answered, err := x.unwanted(w, b); answered || err != nil {
		return err
	}
	status, length := http.StatusOK, b.Size
	if partial && b.Size > 0 {
		if length -= off; n >= 0 {
			length = min(length, n)
		}
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+length-1, b.Size))
	}
	describe(w.Header(), b)
	w.Header().Set("Content-Length", fmt.Sprint(length))
	w.WriteHeader(status)
	if _, err := io.Copy(w, data); err != nil {
		panic(http.ErrAbortHandler) // the length is promised: what is cut short must not look whole
	}
	return nil
}

// unwanted looks at the conditions of a read. A blob that the client has already is answered with 304, one
// that is not the one it means is an error.
func (x request) unwanted(w http.ResponseWriter, b storage.Blob) (answered bool, err error) {
	conditions, err := x.conditions()
	for _, holds := range conditions {
		err = errors.Join(err, holds(b, true))
	}
	if !problem.Is(err, "BlobAlreadyExists") {
		return false, err
	}
	w.Header().Set("Etag", b.ETag())
	w.WriteHeader(http.StatusNotModified)
	return true, nil
}

var rangeHeader = regexp.MustCompile(`^bytes=(\d{1,18})-(\d{0,18})$`)

// wanted is the part of a blob that the headers ask for: n bytes from off on, or all of them if n is less
// than zero. As HTTP allows, a range in a form that is not known here is answered with the whole blob.
func (x request) wanted() (off, n int64, partial bool) {
	header := x.Header.Get("X-Ms-Range")
	if header == "" {
		header = x.Header.Get("Range")
	}
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

func describe(h http.Header, b storage.Blob) {
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", b.ContentType)
	h.Set("Etag", b.ETag())
	h.Set("Last-Modified", b.Modified.UTC().Format(http.TimeFormat))
}

func (d *door) write(ctx context.Context, w http.ResponseWriter, x request) error {
	if kind := x.Header.Get("X-Ms-Blob-Type"); !strings.EqualFold(kind, "BlockBlob") {
		return unsupported("blobs of another type than BlockBlob")
	}
	if x.ContentLength < 0 {
		return problem.New(problem.Invalid, "MissingContentLengthHeader", "Content-Length was not specified.").WithAdvice("Send the length of the blob.")
	}
	conditions, err := x.conditions()
	if err != nil {
		return err
	}
	for name := range x.Header {
		if strings.HasPrefix(strings.ToLower(name), "x-ms-meta-") {
			return unsupported("metadata of blobs")
		}
	}
	contentType := x.Header.Get("X-Ms-Blob-Content-Type")
	if contentType == "" {
		contentType = x.Header.Get("Content-Type")
	}
	body := http.MaxBytesReader(w, x.Body, storage.MaxBlobSize)
	b, err := d.s.PutBlob(ctx, x.account, x.container, x.blob, contentType, x.ContentLength, body, conditions...)
	if err != nil {
		return err
	}
	w.Header().Set("Etag", b.ETag())
	w.Header().Set("Last-Modified", b.Modified.UTC().Format(http.TimeFormat))
	w.WriteHeader(http.StatusCreated)
	return nil
}

func unsupported(what string) error {
	return problem.New(problem.Unsupported, "UnsupportedOperation", "This storage account does not do %.60s.", what).
		WithAdvice("Block blobs without metadata can be read, written whole, listed and deleted; containers can be created and listed.")
}

// fail answers with the Blob service's error. An error without a code is told as internal; its text goes
// to the log alone.
func (d *door) fail(w http.ResponseWriter, r *http.Request, err error) {
	body := struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
		Advice  string `xml:"RecommendedAction,omitempty"`
	}{Code: "InternalError", Message: "The server encountered an internal error. RequestId: " + w.Header().Get("X-Ms-Request-Id")}
	if p := problem.Of(err); p != nil && p.Kind != problem.Internal {
		body.Code, body.Message, body.Advice = p.Code, p.Message, p.Advice
	}
	w.Header().Set("X-Ms-Error-Code", body.Code)
	if r.Method == http.MethodHead {
		w.WriteHeader(status(err))
		return
	}
	_ = writeXML(w, status(err), body) // nothing is left to be told
}

// status is Resource Manager's for the kind of an error, but where HTTP has one of its own.
func status(err error) int {
	switch {
	case problem.Is(err, "InvalidRange"):
		return http.StatusRequestedRangeNotSatisfiable
	case problem.Is(err, "ConditionNotMet"):
		return http.StatusPreconditionFailed
	case problem.Is(err, "MissingContentLengthHeader"):
		return http.StatusLengthRequired
	}
	return arm.Status(err)
}
