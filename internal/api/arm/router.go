package arm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// RouterOptions is what a Router needs from outside.
type RouterOptions struct {
	// Authenticate returns a context that carries the caller (identity.With), or the error for one who
	// has no valid token. It runs before anything of the path is looked at.
	Authenticate func(ctx context.Context, r *http.Request) (context.Context, error)

	// AuthorizationURI is where a client gets a token; it is named in the challenge of a 401. May be nil.
	AuthorizationURI func(r *http.Request) string

	Logger *slog.Logger
	NewID  func() string // ids of requests

	// InSubscription is nil for an id in a subscription that is there, and GroupExists for a group. They say why a
	// resource is not found, where the reason is further up. Either may be nil.
	InSubscription func(id armid.ID) error
	GroupExists    func(ctx context.Context, name string) error

	Limits Limits           // how much one principal may ask
	Now    func() time.Time // needed with Limits

	// LinkKey authenticates the links from page to page of a list. One made with another key is refused.
	LinkKey []byte
}

// Router sends requests to the handlers of providers. It is an http.Handler for every path that is a
// resource id.
type Router struct {
	options  RouterOptions
	table    *table
	throttle *throttle
	locks    locks
}

// NewRouter checks the providers' tables and makes a Router of them.
func NewRouter(o RouterOptions, providers ...Provider) (*Router, error) {
	if o.Authenticate == nil || o.Logger == nil || o.NewID == nil {
		return nil, errors.New("router needs Authenticate, Logger and NewID")
	}
	if o.Now == nil && o.Limits != (Limits{}) {
		return nil, errors.New("router needs Now to limit requests")
	}
	t, err := newTable(providers)
	if err != nil {
		return nil, err
	}
	return &Router{options: o, table: t, throttle: &throttle{limits: o.Limits, now: o.Now, buckets: map[bucketKey]bucket{}},
		locks: locks{held: map[string]*heldLock{}}}, nil
}

// ServeHTTP answers one request and logs one line for it.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{router: rt, w: w, r: r, requestID: rt.options.NewID()}
	x.begin()
	defer x.end()
	reply, err := x.serve()
	if err != nil {
		x.fail(err)
		return
	}
	x.write(reply)
}

// exchange is one request on its way, and what the log line will say of it.
type exchange struct {
	router    *Router
	w         http.ResponseWriter
	r         *http.Request
	requestID string

	principal identity.Principal
	trail     *identity.Trail
	request   Request
	operation string // "Microsoft.RecoveryServices/vaults/read": type and what is done to it
	resource  string
	status    int
	err       error
}

var sane = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

// begin sets the headers that every answer has, and the correlation id.
func (x *exchange) begin() {
	correlation := x.r.Header.Get("X-Ms-Correlation-Request-Id")
	if !sane.MatchString(correlation) {
		correlation = x.requestID
	}
	ctx, trail := identity.WithTrail(identity.WithCorrelation(x.r.Context(), correlation))
	x.r, x.trail = x.r.WithContext(ctx), trail
	h := x.w.Header()
	h.Set("X-Ms-Request-Id", x.requestID)
	h.Set("X-Ms-Correlation-Request-Id", correlation)
	h.Set("X-Ms-Routing-Request-Id", x.requestID)
	if id := x.r.Header.Get("X-Ms-Client-Request-Id"); sane.MatchString(id) && !strings.EqualFold(x.r.Header.Get("X-Ms-Return-Client-Request-Id"), "false") {
		h.Set("X-Ms-Client-Request-Id", id)
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
}

func (x *exchange) serve() (*Reply, error) {
	handler, err := x.route()
	if err != nil {
		x.w.Header().Set("X-Ms-Failure-Cause", "gateway")
		return nil, err
	}
	reply, err := handler(x.r.Context(), &x.request)
	if problem.KindOf(err) == problem.NotFound {
		err = x.whyNotFound(err)
	}
	if err == nil && reply == nil {
		return nil, fmt.Errorf("handler of %s returned neither reply nor error", x.operation)
	}
	return reply, err
}

// whyNotFound tells of the group where it is the group that is not there.
func (x *exchange) whyNotFound(err error) error {
	exists, group := x.router.options.GroupExists, x.request.ID.ResourceGroup
	if exists == nil || group == "" {
		return err
	}
	if missing := exists(x.r.Context(), group); problem.KindOf(missing) == problem.NotFound {
		return missing
	}
	return err
}

// route checks everything that can be said without the provider, and finds the handler.
func (x *exchange) route() (Handler, error) {
	ctx, err := x.router.options.Authenticate(x.r.Context(), x.r)
	if err != nil {
		return nil, err
	}
	var known bool
	if x.principal, known = identity.From(ctx); !known {
		return nil, errors.New("authentication succeeded without a principal")
	}
	x.r = x.r.WithContext(ctx)
	id, trailing, err := x.router.table.readPath(x.r.URL)
	if err != nil {
		return nil, invalidPath(err)
	}
	m := x.router.table.find(id, trailing)
	x.request = Request{ID: m.id, HTTP: x.r, BaseURL: baseURL(x.r), linkKey: x.router.options.LinkKey}
	x.resource = m.id.String()
	if err := x.throttle(); err != nil {
		return nil, err
	}
	if err := x.checkBody(); err != nil {
		return nil, err
	}
	if err := x.readQuery(); err != nil {
		return nil, err
	}
	if in := x.router.options.InSubscription; in != nil && m.id.Subscription != "" {
		if err := in(m.id); err != nil {
			return nil, err
		}
	}
	return x.choose(m)
}

// checkBody refuses a body that is too large, or that says of itself that it is no JSON.
func (x *exchange) checkBody() error {
	if x.r.ContentLength > MaxBody {
		return bodyTooLarge()
	}
	x.r.Body = http.MaxBytesReader(x.w, x.r.Body, MaxBody)
	sent := x.r.Header.Get("Content-Type")
	if sent == "" || x.r.ContentLength == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(sent)
	if err != nil || media != "application/json" && media != "text/json" && !strings.HasSuffix(media, "+json") {
		return mediaTypeNotSupported(sent)
	}
	return nil
}

// readQuery reads the query string, where Azure allows the semicolons that Go's parser refuses.
func (x *exchange) readQuery() error {
	q, err := url.ParseQuery(strings.ReplaceAll(x.r.URL.RawQuery, ";", "%3B"))
	if err != nil {
		return problem.New(problem.Invalid, "InvalidRequestUri", "The request's query string is malformed.").
			WithAdvice("Percent-encode the values of query parameters.").WithCause(err)
	}
	x.request.Query = q
	version := parameter(q, "api-version")
	if version == "" {
		return missingAPIVersion()
	}
	x.request.APIVersion = version
	if filter := parameter(q, "$filter"); strings.TrimSpace(filter) != "" {
		if x.request.Filter, err = parseFilter(filter); err != nil {
			return err
		}
	}
	return nil
}

// parameter returns a query parameter whose name clients write in any case.
func parameter(q url.Values, name string) string {
	if v := q.Get(name); v != "" {
		return v
	}
	for key, values := range q {
		if strings.EqualFold(key, name) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

// choose picks the handler for the method, and names the operation for the log.
func (x *exchange) choose(m match) (Handler, error) {
	if m.id.Provider != "" && x.router.table.namespaces[strings.ToLower(m.id.Namespace())] == "" {
		return nil, unknownNamespace(m.id.Namespace())
	}
	allow := m.allow()
	if len(allow) == 0 {
		typ := kind(m.id)
		if m.trailing != "" {
			typ = childKind(m.id, m.trailing)
		}
		return nil, unknownType(typ, clip(x.request.APIVersion))
	}
	if err := x.version(m); err != nil {
		return nil, err
	}
	handler, err := x.pick(m)
	if err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, methodNotAllowed(x.r.Method, m.id.String(), allow)
	}
	return handler, nil
}

func (x *exchange) pick(m match) (Handler, error) {
	method := x.r.Method
	if m.trailing != "" {
		var handler Handler
		switch method {
		case http.MethodGet:
			handler, x.request.Action = m.get()
			if m.collection != nil {
				return handler, x.prepareList(m)
			}
			x.operation = kind(m.id) + "/" + x.request.Action + "/read"
		case http.MethodPost:
			handler, x.request.Action = m.post()
			x.operation = kind(m.id) + "/" + x.request.Action + "/action"
		}
		return handler, nil
	}
	return x.pickResource(m.resource, kind(m.id))
}

// pickResource is pick for a whole id.
func (x *exchange) pickResource(r *row, typ string) (Handler, error) {
	switch x.r.Method {
	case http.MethodGet:
		x.operation = typ + "/read"
		if r.Get == nil {
			return nil, nil
		}
		return tagged(r.Get), nil
	case http.MethodHead:
		x.operation = typ + "/read"
		if r.Head != nil || r.Get == nil {
			return r.Head, nil
		}
		return present(r.Get), nil
	case http.MethodPut:
		x.operation = typ + "/write"
		return x.conditional(r.Put, r.Get), nil
	case http.MethodPatch:
		x.operation = typ + "/write"
		return x.conditional(r.Patch, r.Get), nil
	case http.MethodDelete:
		x.operation = typ + "/delete"
		return x.conditional(r.Delete, r.Get), nil
	}
	return nil, nil
}

// prepareList fills in what only lists have. Their id is the parent resource or the scope, without
// the namespace of the type that is listed.
func (x *exchange) prepareList(m match) error {
	words := m.collection.words
	x.operation = m.collection.Type + "/read"
	x.request.Collection = words[len(words)-1]
	if n := len(m.id.Segments); n == 0 || m.id.Segments[n-1].Type == "providers" {
		x.request.ID = m.id.Extended()
	}
	var err error
	x.request.page, err = x.request.readWindow()
	return err
}

func (x *exchange) write(reply *Reply) {
	h := x.w.Header()
	for name, values := range reply.Header {
		h[name] = values
	}
	x.status = reply.Status
	if reply.Body != nil {
		writeJSON(x.w, x.r, reply.Status, reply.Body)
		return
	}
	if reply.Status != http.StatusNoContent {
		h.Set("Content-Length", "0")
	}
	x.w.WriteHeader(reply.Status)
}

// statusClientGone is logged for a client that went away before its answer. It is never sent.
const statusClientGone = 499

func (x *exchange) fail(err error) {
	x.err, x.status = err, Status(err)
	if errors.Is(err, context.Canceled) && x.r.Context().Err() != nil {
		x.status = statusClientGone
		return
	}
	if x.status == http.StatusUnauthorized {
		x.w.Header().Set("WWW-Authenticate", x.challenge(err))
	}
	WriteError(x.w, x.r, err)
}

func (x *exchange) challenge(err error) string {
	var parts []string
	if uri := x.router.options.AuthorizationURI; uri != nil {
		parts = append(parts, "authorization_uri="+strconv.Quote(uri(x.r)))
	}
	parts = append(parts, `error="invalid_token"`)
	if p := problem.Of(err); p != nil {
		parts = append(parts, "error_description="+strconv.QuoteToASCII(p.Message))
	}
	return "Bearer " + strings.Join(parts, ", ")
}

// end logs the request. It also catches a panic of a handler: nothing has been written by then, so
// the client gets a clean 500.
func (x *exchange) end() {
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		x.fail(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
	ctx := x.r.Context()
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("method", x.r.Method), slog.String("operation", x.operation), slog.String("resource", x.resource),
		slog.Int("status", x.status), slog.String("principal", x.principal.ObjectID), slog.String("name", x.principal.Name),
		slog.String("agent", Agent(x.r)), slog.String("correlation", identity.Correlation(ctx)), slog.String("request", x.requestID),
	}
	if d := x.trail.Of(x.err); d.Action != "" {
		attrs = append(attrs, slog.String("action", d.Action), slog.String("scope", d.Scope.String()))
	}
	if x.err != nil {
		code := "InternalServerError"
		if p := problem.Of(x.err); p != nil {
			code = p.Code
		}
		attrs = append(attrs, slog.String("code", code))
		if x.status >= http.StatusInternalServerError {
			level = slog.LevelError
			attrs = append(attrs, slog.String("error", x.err.Error()))
		}
	}
	x.router.options.Logger.LogAttrs(ctx, level, "request", attrs...)
}
