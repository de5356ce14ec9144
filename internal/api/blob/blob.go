// Package blob is the door to storage accounts: the part of Azure's Blob service that a person and their
// tools need to fetch what a restore has left, and to keep block blobs of their own.
//
// An account answers at https://{account}.blob.{domain}/{container}/{blob}, and at /blob/{account}/… on any
// other host, for clients in places where such hosts don't resolve. A caller shows a bearer token, signs the
// request with one of the account's keys, or comes with a shared access signature (auth.go). Block blobs are
// written whole or in blocks, and read whole or by range. Disks to which access was granted are page blobs that are
// only read, at hosts of their own (disk.go). Errors are the Blob service's XML. What a caller
// asks for and does not get, such as a snapshot or a condition that is not known here, is refused,
// never passed over.
//
// Source: Azure Storage's REST reference for the Blob service.
package blob

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
	"kluis/internal/storage"
)

// Options are what the door needs from outside.
type Options struct {
	Authenticate func(context.Context, *http.Request) (context.Context, error) // of a bearer token
	Authority    string                                                        // where a client gets a token: https://host/tenant
	Suffix       string                                                        // "blob.localhost": hosts are {account}.{suffix}, with any port
	Disks        Disks
	Now          func() time.Time
	NewID        func() string
	Logger       *slog.Logger
}

// audience is what clients of Azure's storage ask tokens for.
const audience = "https://storage.azure.com"

// The version that answers a client which names none, and the first one whose ways are known here.
const (
	serviceVersion = "2023-11-03"
	oldestVersion  = "2015-04-05"
)

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
	response                 map[string]string // headers that a signature sets on what is read with it
	operation                string            // once it is found
}

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := d.o.NewID()
	h := w.Header()
	h.Set("X-Ms-Request-Id", id)
	h.Set("X-Ms-Version", serviceVersion)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	if client := r.Header.Get("X-Ms-Client-Request-Id"); sane.MatchString(client) {
		h.Set("X-Ms-Client-Request-Id", client)
	}
	ctx, trail := identity.WithTrail(identity.WithCorrelation(r.Context(), id))
	r = r.WithContext(ctx)
	log := d.o.Logger.With("request", id, "correlation", id, "method", r.Method)
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
	err := d.serve(w, &x)
	if err != nil {
		d.fail(w, r, err)
	}
	decided := trail.Of(err)
	d.log(ctx, log.With("principal", decided.Principal, "action", decided.Action, "scope", decided.Scope.String(), "agent", arm.Agent(r)), x, err)
}

var sane = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

// log writes one line for a request. The text of an error that a person can read is theirs already; a query
// may hold a signature, so it is in no line.
func (d *door) log(ctx context.Context, log *slog.Logger, x request, err error) {
	log = log.With("operation", x.operation, "account", x.account, "container", x.container, "blob", x.blob)
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
	account, container, blob := d.locate(r.Host, r.URL.Path)
	return request{Request: r, query: r.URL.Query(), account: account, container: container, blob: blob}
}

// locate says what a host and a path name.
func (d *door) locate(host, path string) (account, container, blob string) {
	path = strings.TrimPrefix(path, "/")
	account, ok := d.accountOf(host)
	if !ok {
		account, path, _ = strings.Cut(strings.TrimPrefix(path, "blob/"), "/")
	}
	container, blob, _ = strings.Cut(path, "/")
	return account, container, blob
}

// accountOf returns the account that a Host header names; false if it is no account's.
func (d *door) accountOf(host string) (string, bool) {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	return strings.CutSuffix(name, "."+strings.ToLower(d.o.Suffix))
}

func (d *door) serve(w http.ResponseWriter, x *request) error {
	if version := x.Header.Get("X-Ms-Version"); version != "" {
		if !versionText.MatchString(version) || version < oldestVersion {
			return invalidHeader("x-ms-version", "it is no version of the Blob service from "+oldestVersion+" on")
		}
		w.Header().Set("X-Ms-Version", version)
	}
	if d.o.Disks != nil && x.isDisk() {
		x.operation = x.ofDisk()
		return d.serveDisk(x.Context(), w, *x)
	}
	ctx, err := d.authenticate(w, x)
	if err != nil {
		return err
	}
	if err := x.refuseUnknown(); err != nil {
		return err
	}
	o, err := x.find()
	if err != nil {
		return err
	}
	x.operation = o.name
	return o.answer(d, ctx, w, *x)
}

var versionText = regexp.MustCompile(`^20\d\d-[01]\d-[0-3]\d$`)

// refused are headers, or what they begin with, that ask for what there is not.
var refused = map[string]string{
	"X-Ms-Encryption": "encryption with keys of the client", "X-Ms-Tags": "tags of blobs", "X-Ms-Immutability": "immutability policies", "X-Ms-Legal-Hold": "legal holds",
	"X-Ms-If-Tags": "conditions on tags", "X-Ms-Structured-Body": "structured bodies", "X-Ms-Blob-Public-Access": "public access",
	"X-Ms-Source-If": "conditions on the source of a copy", "X-Ms-Source-Lease": "leases on the source of a copy",
}

// refuseUnknown refuses what no operation here looks at.
func (x request) refuseUnknown() error {
	for name := range x.Header {
		for prefix, what := range refused {
			if strings.HasPrefix(name, prefix) {
				return unsupported(what)
			}
		}
	}
	if tier := x.Header.Get("X-Ms-Access-Tier"); tier != "" && !strings.EqualFold(tier, accessTier) {
		return unsupported("access tiers other than " + accessTier)
	}
	return nil
}

// accessTier is the only one there is.
const accessTier = "Hot"

// accountInformation tells what kind of account this is.
func (d *door) accountInformation(ctx context.Context, w http.ResponseWriter, x request) error {
	a, err := d.s.Information(ctx, x.account)
	if err != nil {
		return err
	}
	w.Header().Set("X-Ms-Sku-Name", a.SKU)
	w.Header().Set("X-Ms-Account-Kind", a.Kind)
	w.Header().Set("X-Ms-Is-Hns-Enabled", "false")
	w.WriteHeader(http.StatusOK)
	return nil
}

func unsupported(what string) error {
	return problem.New(problem.Unsupported, "UnsupportedOperation", "This storage account does not do %.60s.", what).
		WithAdvice("Block blobs can be written whole or in blocks, read, listed, copied, leased and deleted; containers can be created, listed, leased and deleted.")
}

func invalidHeader(name, why string) error {
	return problem.New(problem.Invalid, "InvalidHeaderValue", "The header %s is invalid: %s.", name, why).WithTarget(name).WithAdvice("Correct the header.")
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

// preconditions are the codes of what the caller has said must hold, and does not.
var preconditions = map[string]bool{"ConditionNotMet": true, "LeaseNotPresentWithBlobOperation": true, "LeaseNotPresentWithContainerOperation": true,
	"LeaseIdMismatchWithBlobOperation": true, "LeaseIdMismatchWithContainerOperation": true, "LeaseIdMissing": true, "LeaseLost": true}

// status is Resource Manager's for the kind of an error, but where the Blob service has one of its own.
func status(err error) int {
	p := problem.Of(err)
	switch {
	case problem.Is(err, "InvalidRange"):
		return http.StatusRequestedRangeNotSatisfiable
	case p != nil && preconditions[p.Code]:
		return http.StatusPreconditionFailed
	case problem.Is(err, "MissingContentLengthHeader"):
		return http.StatusLengthRequired
	}
	return arm.Status(err)
}

// addressOf is where a request comes from.
func addressOf(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr()
}
