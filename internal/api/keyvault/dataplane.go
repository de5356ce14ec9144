package keyvault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
)

// Options is what DataPlane needs from outside. Logger and NewID may be nil.
type Options struct {
	// Authenticate returns a context that carries the caller (identity.With), or an Unauthenticated problem, which
	// becomes the 401 with the challenge. vaultHost is "<name>.<suffix>", also for requests that came in path form.
	Authenticate func(ctx context.Context, r *http.Request, vaultHost string) (context.Context, error)

	Authority string // where a client gets a token: https://host/tenant
	Suffix    string // "vault.localhost:8443"; the challenge names https://<suffix> as the resource
	Logger    *slog.Logger
	NewID     func() string // ids of requests
}

// DataPlane returns the door to keys and secrets. It answers for hosts <name>.<suffix>, and for /keyvault/<name>/… on any
// other host, for clients in places where such hosts don't resolve. It must not stand behind an http.ServeMux,
// which would redirect a path with an empty version ("/keys/n//wrapkey").
func DataPlane(s *keyvault.Service, o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.NewID == nil {
		o.NewID = uuid.NewString
	}
	d := &dataPlane{s: s, o: o}
	d.routes = withoutVersions(d.table())
	return d
}

type dataPlane struct {
	s      *keyvault.Service
	o      Options
	routes []route
}

// route is one operation. In the pattern {name} stands for a segment that is not empty and {version} for any.
// nil as the answer is a 204. An operation that came with a later api-version than 7.0 says so in since.
type route struct {
	method, pattern string
	handle          func(context.Context, *request) (any, error)
	since           int
}

// request is a call on its way.
type request struct {
	*http.Request
	vault, name, version string
	path                 string // without the prefix of the path form
	prefix               string // of the path form
	apiVersion           string
	minor                int // n of the api-version 7.n
	query                url.Values
}

func (d *dataPlane) table() []route {
	return []route{
		{"POST", "keys/restore", d.restoreKey, 0},
		{"POST", "keys/{name}/create", d.createKey, 0},
		{"PUT", "keys/{name}", d.importKey, 0},
		{"GET", "keys", d.listKeys, 0},
		{"GET", "keys/{name}/versions", d.listKeyVersions, 0},
		{"POST", "keys/{name}/backup", d.backUpKey, 0},
		{"GET", "keys/{name}", d.getKey, 0},
		{"GET", "keys/{name}/rotationpolicy", d.getRotationPolicy, 3},
		{"GET", "keys/{name}/{version}", d.getKey, 0},
		{"PATCH", "keys/{name}", d.updateKey, 0},
		{"PATCH", "keys/{name}/{version}", d.updateKey, 0},
		{"DELETE", "keys/{name}", d.deleteKey, 0},
		{"POST", "keys/{name}/{version}/wrapkey", d.wrapKey, 0},
		{"POST", "keys/{name}/{version}/unwrapkey", d.unwrapKey, 0},
		{"POST", "keys/{name}/{version}/encrypt", d.encrypt, 0},
		{"POST", "keys/{name}/{version}/decrypt", d.decrypt, 0},
		{"POST", "keys/{name}/{version}/sign", d.sign, 0},
		{"POST", "keys/{name}/{version}/verify", d.verify, 0},
		{"POST", "keys/{name}/{version}/release", d.releaseKey, 3},
		{"POST", "keys/{name}/rotate", d.rotateKey, 3},
		{"PUT", "keys/{name}/rotationpolicy", d.putRotationPolicy, 3},
		{"POST", "rng", d.randomBytes, 3},
		{"GET", "deletedkeys", d.listDeletedKeys, 0},
		{"GET", "deletedkeys/{name}", d.getDeletedKey, 0},
		{"DELETE", "deletedkeys/{name}", d.purgeKey, 0},
		{"POST", "deletedkeys/{name}/recover", d.recoverKey, 0},

		{"POST", "secrets/restore", d.restoreSecret, 0},
		{"PUT", "secrets/{name}", d.setSecret, 0},
		{"GET", "secrets", d.listSecrets, 0},
		{"GET", "secrets/{name}/versions", d.listSecretVersions, 0},
		{"POST", "secrets/{name}/backup", d.backUpSecret, 0},
		{"GET", "secrets/{name}", d.getSecret, 0},
		{"GET", "secrets/{name}/{version}", d.getSecret, 0},
		{"PATCH", "secrets/{name}", d.updateSecret, 0},
		{"PATCH", "secrets/{name}/{version}", d.updateSecret, 0},
		{"DELETE", "secrets/{name}", d.deleteSecret, 0},
		{"GET", "deletedsecrets", d.listDeletedSecrets, 0},
		{"GET", "deletedsecrets/{name}", d.getDeletedSecret, 0},
		{"DELETE", "deletedsecrets/{name}", d.purgeSecret, 0},
		{"POST", "deletedsecrets/{name}/recover", d.recoverSecret, 0},
	}
}

// withoutVersions adds to each operation of a version the path that names none: some clients leave the empty segment out.
func withoutVersions(routes []route) []route {
	for _, r := range slices.Clone(routes) {
		if short := strings.Replace(r.pattern, "/{version}/", "/", 1); short != r.pattern {
			r.pattern = short
			routes = append(routes, r)
		}
	}
	return routes
}

// ServeHTTP answers one call and logs one line for it, without any of its content.
func (d *dataPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := d.o.NewID()
	d.begin(w, r, id)
	x := &request{Request: r.WithContext(identity.WithCorrelation(r.Context(), id))}
	var operation string
	var reply any
	var err error
	defer func() {
		if p := recover(); p != nil {
			if e, ok := p.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
		status := d.write(w, r, reply, err, id)
		d.log(x, operation, status, err, id)
	}()
	operation, reply, err = d.serve(w, x)
}

var sane = regexp.MustCompile(`^[0-9A-Za-z._-]{1,128}$`)

func (d *dataPlane) begin(w http.ResponseWriter, r *http.Request, id string) {
	h := w.Header()
	h.Set("X-Ms-Request-Id", id)
	if c := r.Header.Get("X-Ms-Client-Request-Id"); sane.MatchString(c) {
		h.Set("X-Ms-Client-Request-Id", c)
	}
	h.Set("X-Ms-Keyvault-Service-Version", serviceVersion)
	h.Set("Cache-Control", "no-cache")
	h.Set("Pragma", "no-cache")
	h.Set("Expires", "-1")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
}

// Bodies. A value of 25 KiB may be six times as long when each character is escaped; a backup is base64.
const (
	maxBody        = 256 << 10
	maxRestoreBody = keyvault.MaxBlobSize/3*4 + 1024
)

func (d *dataPlane) serve(w http.ResponseWriter, x *request) (operation string, reply any, err error) {
	if !d.readAddress(x) {
		return "", nil, noSuchPath()
	}
	ctx, err := d.o.Authenticate(x.Context(), x.Request, x.vault+"."+d.o.Suffix)
	if err != nil {
		return "", nil, err
	}
	x.Request = x.WithContext(ctx)
	if x.query, err = url.ParseQuery(x.URL.RawQuery); err != nil {
		return "", nil, badParameter("the query string", "it is not well-formed")
	}
	x.apiVersion = x.query.Get("api-version")
	var known bool
	if x.minor, known = minorOf(x.apiVersion); !known {
		return "", nil, badAPIVersion()
	}
	found, err := d.find(x)
	if err != nil {
		return "", nil, err
	}
	limit := int64(maxBody)
	if strings.HasSuffix(found.pattern, "/restore") {
		limit = maxRestoreBody
	}
	x.Body = http.MaxBytesReader(w, x.Body, limit)
	reply, err = found.handle(ctx, x)
	if x.minor == 0 {
		reply = as70(reply)
	}
	return found.method + " " + found.pattern, reply, err
}

var apiVersion = regexp.MustCompile(`^(?:7\.([0-6])(?:-preview\.[0-9]+)?|([0-9]{4})-[0-9]{2}-[0-9]{2}(?:-preview)?)$`)

const newestMinor = 6

// minorOf reads an api-version: n of 7.n. Versions that are dates came before 7.0 or after 7.6, and are taken for the
// nearest.
func minorOf(version string) (minor int, known bool) {
	m := apiVersion.FindStringSubmatch(version)
	switch {
	case m == nil:
		return 0, false
	case m[2] == "":
		return int(m[1][0] - '0'), true
	case m[2] >= "2025":
		return newestMinor, true
	}
	return 0, true
}

// readAddress finds out which key vault is meant: from the host, else from the path form.
func (d *dataPlane) readAddress(x *request) bool {
	host, suffix := hostname(x.Host), hostname(d.o.Suffix)
	x.path = x.URL.Path
	if name, ok := cutSuffixFold(host, "."+suffix); ok && name != "" && !strings.Contains(name, ".") {
		x.vault = name
		return true
	}
	rest, ok := strings.CutPrefix(x.path, "/keyvault/")
	name, rest, found := strings.Cut(rest, "/")
	if !ok || !found || name == "" {
		return false
	}
	x.vault, x.path, x.prefix = name, "/"+rest, "/keyvault/"+name
	return true
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) || !strings.EqualFold(s[len(s)-len(suffix):], suffix) {
		return "", false
	}
	return s[:len(s)-len(suffix)], true
}

// find picks the operation. A path with a slash at its end means an empty version, or nothing.
func (d *dataPlane) find(x *request) (route, error) {
	parts := strings.Split(strings.TrimPrefix(x.path, "/"), "/")
	known := false
	for _, p := range [][]string{parts, withoutEnd(parts)} {
		for _, r := range d.routes {
			if !x.match(r.pattern, p) {
				continue
			}
			switch {
			case r.since > x.minor:
			case r.method == x.Method:
				return r, nil
			default:
				known = true
			}
		}
	}
	if known {
		return route{}, methodNotAllowed(x.Method)
	}
	return route{}, noSuchPath()
}

func withoutEnd(parts []string) []string {
	if parts[len(parts)-1] == "" {
		return parts[:len(parts)-1]
	}
	return parts
}

func (x *request) match(pattern string, parts []string) bool {
	words := strings.Split(pattern, "/")
	if len(words) != len(parts) {
		return false
	}
	x.name, x.version = "", ""
	for i, w := range words {
		switch {
		case w == "{name}" && parts[i] != "":
			x.name = parts[i]
		case w == "{version}":
			x.version = strings.ToLower(parts[i])
		case !strings.EqualFold(w, parts[i]):
			return false
		}
	}
	return true
}

// decode reads the JSON body; what it doesn't know is ignored. Its errors never repeat what was sent.
func (x *request) decode(v any) error {
	b, err := io.ReadAll(x.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return problem.New(problem.TooLarge, "RequestEntityTooLarge", "The request's body has more than %d bytes.", tooLarge.Limit).
			WithAdvice("Send a smaller body; a secret's value may have at most %d bytes.", keyvault.MaxSecretSize)
	case err != nil:
		return badParameter("the body", "it could not be read to its end").WithCause(err)
	}
	defer clear(b)
	err = json.Unmarshal(b, v)
	var typ *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case problem.Of(err) != nil:
		return problem.Of(err)
	case errors.As(err, &typ) && typ.Field != "":
		return badParameter(typ.Field, "it has another JSON type")
	}
	return badParameter("the body", "it is not the JSON object that this operation needs")
}

// page reads maxresults and $skiptoken.
func (x *request) page() (keyvault.Page, error) {
	var p keyvault.Page
	if s := x.query.Get("maxresults"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 25 {
			return p, badParameter("maxresults", "it must be from 1 to 25")
		}
		p.Max = n
	}
	if s := x.query.Get("$skiptoken"); s != "" {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(b) > 128 {
			return p, badParameter("$skiptoken", "it is not one from a nextLink")
		}
		p.After = string(b)
	}
	return p, nil
}

type listBody[T any] struct {
	Value    []T     `json:"value"`
	NextLink *string `json:"nextLink"` // null on the last page
}

func list[T, From any](x *request, items []From, next string, convert func(From) T) listBody[T] {
	out := listBody[T]{Value: make([]T, len(items))}
	for i, item := range items {
		out.Value[i] = convert(item)
	}
	if next != "" {
		q := url.Values{"api-version": {x.apiVersion}, "$skiptoken": {base64.RawURLEncoding.EncodeToString([]byte(next))}}
		if m := x.query.Get("maxresults"); m != "" {
			q.Set("maxresults", m)
		}
		out.NextLink = new("https://" + x.Host + x.prefix + x.path + "?" + q.Encode())
	}
	return out
}

// write sends the answer and returns its status.
func (d *dataPlane) write(w http.ResponseWriter, r *http.Request, reply any, err error, id string) int {
	status := http.StatusOK
	switch {
	case err != nil:
		status, reply = d.refusal(w, r, err, id)
	case reply == nil:
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent
	}
	b, err := json.Marshal(reply)
	if err != nil { // a defect: no type here can fail to marshal
		status, b = http.StatusInternalServerError, []byte(`{"error":{"code":"InternalServerError","message":"The answer could not be written."}}`)
	}
	defer clear(b)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client is gone; nobody is left to tell
	return status
}

func (d *dataPlane) log(x *request, operation string, status int, err error, id string) {
	ctx := x.Context()
	who, _ := identity.From(ctx)
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("operation", operation), slog.String("vault", x.vault), slog.String("name", x.name), slog.Int("status", status),
		slog.String("principal", who.ObjectID), slog.String("agent", arm.Agent(x.Request)), slog.String("correlation", identity.Correlation(ctx)), slog.String("request", id),
	}
	if err != nil {
		if p := problem.Of(err); p != nil {
			attrs = append(attrs, slog.String("code", p.Code))
		}
		if status >= http.StatusInternalServerError {
			level = slog.LevelError
			attrs = append(attrs, slog.String("error", err.Error()))
		}
	}
	d.o.Logger.LogAttrs(ctx, level, "key vault request", attrs...)
}
