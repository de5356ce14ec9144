// Package blob is the door to storage accounts: the part of Azure's Blob service that a person needs to
// fetch what a restore has left, and to put a template where a deployment finds it.
//
// An account answers at https://{account}.blob.{domain}/{container}/{blob}, and at /blob/{account}/… on any
// other host, for clients in places where such hosts don't resolve. Block blobs are written whole; a
// caller shows a bearer token, there are no account keys. Errors are the Blob service's XML.
package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
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
	log.Info("blob request", "account", x.account, "container", x.container, "blob", x.blob, "error", err)
}

func (d *door) parse(r *http.Request) request {
	x := request{Request: r}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if rest, ok := strings.CutPrefix(path, "blob/"); ok && !d.isAccountHost(r.Host) {
		x.account, path, _ = strings.Cut(rest, "/")
	} else {
		x.account, _, _ = strings.Cut(strings.ToLower(r.Host), ".")
	}
	x.container, x.blob, _ = strings.Cut(path, "/")
	return x
}

func (d *door) isAccountHost(host string) bool {
	name, _, _ := strings.Cut(host, ":")
	return strings.HasSuffix(strings.ToLower(name), "."+d.o.Suffix)
}

func (d *door) serve(w http.ResponseWriter, x request) error {
	ctx, err := d.o.Authenticate(x.Context(), x.Request)
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+d.o.Authority+`", resource_id="`+audience+`"`)
		return err
	}
	onContainer := x.URL.Query().Get("restype") == "container"
	switch {
	case x.container == "":
		return unsupported("calls on an account as a whole")
	case onContainer && x.Method == http.MethodPut:
		if err := d.s.CreateContainer(ctx, x.account, x.container); err != nil {
			return err
		}
		w.WriteHeader(http.StatusCreated)
		return nil
	case onContainer && x.Method == http.MethodGet && x.URL.Query().Get("comp") == "list":
		return d.list(ctx, w, x)
	case onContainer || x.blob == "":
		return unsupported(x.Method + " on a container")
	case x.URL.Query().Get("comp") != "":
		return unsupported("comp=" + x.URL.Query().Get("comp"))
	}
	switch x.Method {
	case http.MethodGet, http.MethodHead:
		return d.read(ctx, w, x)
	case http.MethodPut:
		return d.write(ctx, w, x)
	case http.MethodDelete:
		if err := d.s.DeleteBlob(ctx, x.account, x.container, x.blob); err != nil {
			return err
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	return unsupported("the method " + x.Method)
}

func (d *door) read(ctx context.Context, w http.ResponseWriter, x request) error {
	b, data, err := d.s.ReadBlob(ctx, x.account, x.container, x.blob)
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }() // only read
	describe(w.Header(), b)
	w.Header().Set("Content-Type", b.ContentType)
	w.Header().Set("Content-Length", fmt.Sprint(b.Size))
	w.WriteHeader(http.StatusOK)
	if x.Method == http.MethodGet {
		if _, err := io.Copy(w, data); err != nil {
			panic(http.ErrAbortHandler) // the length is promised: what is cut short must not look whole
		}
	}
	return nil
}

func describe(h http.Header, b storage.Blob) {
	h.Set("X-Ms-Blob-Type", "BlockBlob")
	h.Set("Etag", etag(b))
	h.Set("Last-Modified", b.Modified.UTC().Format(http.TimeFormat))
}

func etag(b storage.Blob) string { return fmt.Sprintf(`"0x%X"`, b.Modified.UnixNano()) }

func (d *door) write(ctx context.Context, w http.ResponseWriter, x request) error {
	if kind := x.Header.Get("X-Ms-Blob-Type"); !strings.EqualFold(kind, "BlockBlob") {
		return unsupported("blobs of another type than BlockBlob")
	}
	if x.ContentLength < 0 {
		return problem.New(problem.Invalid, "MissingContentLengthHeader", "Content-Length was not specified.").WithAdvice("Send the length of the blob.")
	}
	contentType := x.Header.Get("X-Ms-Blob-Content-Type")
	if contentType == "" {
		contentType = x.Header.Get("Content-Type")
	}
	body := http.MaxBytesReader(w, x.Body, storage.MaxBlobSize)
	b, err := d.s.PutBlob(ctx, x.account, x.container, x.blob, contentType, x.ContentLength, body)
	if err != nil {
		return err
	}
	describe(w.Header(), b)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// enumeration is the answer to a list.
type enumeration struct {
	XMLName   xml.Name `xml:"EnumerationResults"`
	Container string   `xml:"ContainerName,attr"`
	Prefix    string   `xml:"Prefix,omitempty"`
	Blobs     []listed `xml:"Blobs>Blob"`
	Next      string   `xml:"NextMarker"`
}

type listed struct {
	Name       string           `xml:"Name"`
	Properties listedProperties `xml:"Properties"`
}

type listedProperties struct {
	Modified    string `xml:"Last-Modified"`
	Etag        string `xml:"Etag"`
	Length      int64  `xml:"Content-Length"`
	ContentType string `xml:"Content-Type"`
	BlobType    string `xml:"BlobType"`
}

func (d *door) list(ctx context.Context, w http.ResponseWriter, x request) error {
	prefix := x.URL.Query().Get("prefix")
	blobs, err := d.s.Blobs(ctx, x.account, x.container, prefix)
	if err != nil {
		return err
	}
	e := enumeration{Container: x.container, Prefix: prefix, Blobs: []listed{}}
	for _, b := range blobs {
		e.Blobs = append(e.Blobs, listed{b.Name, listedProperties{b.Modified.UTC().Format(http.TimeFormat), etag(b), b.Size, b.ContentType, "BlockBlob"}})
	}
	return writeXML(w, http.StatusOK, e)
}

func writeXML(w http.ResponseWriter, status int, v any) error {
	text, err := xml.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, err = io.WriteString(w, xml.Header+string(text))
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

func unsupported(what string) error {
	return problem.New(problem.Unsupported, "UnsupportedOperation", "This storage account does not do %.60s.", what).
		WithAdvice("Block blobs can be read, written whole, listed and deleted; containers can be created.")
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
	if p := problem.Of(err); p != nil {
		body.Code, body.Message, body.Advice = p.Code, p.Message, p.Advice
	}
	w.Header().Set("X-Ms-Error-Code", body.Code)
	if r.Method == http.MethodHead {
		w.WriteHeader(arm.Status(err))
		return
	}
	_ = writeXML(w, arm.Status(err), body) // nothing is left to be told
}
