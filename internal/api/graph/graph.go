// Package graph answers the few questions that Azure's clients put to Microsoft Graph: which principal has this
// application id or sign-in name, which have these object ids, and who am I.
//
// az asks before it writes an access policy (keyvault create, set-policy --spn) or a role assignment (--assignee), because
// both name a principal by its object id, which people don't know. So a caller with a token learns of the principals
// whose ids or names it has, and there is no list of all of them. There are no groups, so what asks for one by name finds
// none; nothing can be written.
//
// Source: Microsoft Graph REST API v1.0, servicePrincipal, user and directoryObject; what az 2.45 sends.
package graph

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// Directory knows the principals. identity.Service is one.
type Directory interface {
	Principal(ctx context.Context, idOrAppID string) (identity.Principal, error)
	UserNamed(ctx context.Context, signInName string) (identity.Principal, error)
}

// Options is what the door needs from outside.
type Options struct {
	Authenticate func(ctx context.Context, r *http.Request) (context.Context, error)
	Logger       *slog.Logger
}

// Owns reports whether a path belongs to this door.
func Owns(path string) bool { return strings.HasPrefix(path, "/v1.0/") }

// Handler answers the paths that Owns reports.
func Handler(d Directory, o Options) http.Handler {
	h := &door{d, o}
	mux := http.NewServeMux()
	for pattern, answer := range operations {
		mux.HandleFunc(pattern, h.answer(answer))
	}
	mux.HandleFunc("/", h.answer(notSupported))
	return mux
}

// operations are what is answered, by the patterns of their paths.
var operations = map[string]func(*door, *http.Request) (any, error){
	"GET /v1.0/me":                         me,
	"GET /v1.0/servicePrincipals":          (*door).search,
	"GET /v1.0/servicePrincipals/{id}":     (*door).one,
	"GET /v1.0/users":                      (*door).users,
	"GET /v1.0/users/{id}":                 (*door).user,
	"GET /v1.0/groups":                     none,
	"POST /v1.0/directoryObjects/getByIds": (*door).byIDs,
}

// Operations are the patterns of all that the door answers.
func Operations() []string { return slices.Sorted(maps.Keys(operations)) }

type door struct {
	directory Directory
	options   Options
}

// answer lets nobody in who has no token, and writes what f returns.
func (d *door) answer(f func(*door, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, err := d.options.Authenticate(r.Context(), r)
		var body any
		if err == nil {
			r = r.WithContext(ctx)
			body, err = f(d, r)
		}
		status := http.StatusOK
		if err != nil {
			status, body = refusal(err)
		}
		p, _ := identity.From(ctx)
		d.options.Logger.LogAttrs(ctx, slog.LevelInfo, "graph request", slog.String("operation", r.Pattern), slog.String("resource", r.URL.Path),
			slog.Int("status", status), slog.String("principal", p.ObjectID), slog.String("agent", arm.Agent(r)))
		if status == http.StatusInternalServerError {
			d.options.Logger.LogAttrs(ctx, slog.LevelError, "graph", slog.String("error", err.Error()))
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // the client may have gone
	}
}

// principal is a principal in Graph's shape.
type principal struct {
	Type       string   `json:"@odata.type"`
	ID         string   `json:"id"`
	AppID      string   `json:"appId,omitempty"`
	Name       string   `json:"displayName"`
	Kind       string   `json:"servicePrincipalType,omitempty"`
	Names      []string `json:"servicePrincipalNames,omitempty"`
	SignInName string   `json:"userPrincipalName,omitempty"`
}

func encode(p identity.Principal) principal {
	if p.Kind == identity.User {
		return principal{Type: "#microsoft.graph.user", ID: p.ObjectID, Name: p.Name, SignInName: p.SignInName}
	}
	return principal{Type: "#microsoft.graph.servicePrincipal", ID: p.ObjectID, AppID: p.AppID, Name: p.Name, Kind: "Application", Names: []string{p.AppID}}
}

type list struct {
	Value []principal `json:"value"`
}

func none(*door, *http.Request) (any, error) { return list{[]principal{}}, nil }

// me is for people; an application is told so, and az then looks itself up by its application id.
func me(_ *door, r *http.Request) (any, error) {
	if p, ok := identity.From(r.Context()); ok && p.Kind == identity.User {
		return encode(p), nil
	}
	return nil, problem.New(problem.Invalid, "BadRequest", "/me request is only valid with delegated authentication flow.")
}

func (d *door) one(r *http.Request) (any, error) {
	found, err := d.find(r.Context(), r.PathValue("id"), ofApplication)
	return theOne(r, found, err)
}

// user finds a person by object id or sign-in name.
func (d *door) user(r *http.Request) (any, error) {
	found, err := d.find(r.Context(), r.PathValue("id"), ofUser)
	if err == nil && len(found) == 0 {
		found, err = d.named(r.Context(), r.PathValue("id"))
	}
	return theOne(r, found, err)
}

func theOne(r *http.Request, found []principal, err error) (any, error) {
	if err == nil && len(found) == 0 {
		return nil, problem.New(problem.NotFound, "Request_ResourceNotFound",
			"Resource '%.100s' does not exist or one of its queried reference-property objects are not present.", r.PathValue("id"))
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// users finds a person by what clients filter for. A filter of another kind finds nobody: az asks for people whose
// mail or display name it is before it asks for groups.
func (d *door) users(r *http.Request) (any, error) {
	m := userFilter.FindStringSubmatch(r.URL.Query().Get("$filter"))
	if m == nil {
		return none(d, r)
	}
	if m[1] == "id" {
		found, err := d.find(r.Context(), m[2], ofUser)
		return list{found}, err
	}
	found, err := d.named(r.Context(), m[2])
	return list{found}, err
}

var userFilter = regexp.MustCompile(`^\s*(userPrincipalName|id)\s+eq\s+'([^']*)'\s*$`)

// named returns the person with a sign-in name, or nobody.
func (d *door) named(ctx context.Context, name string) ([]principal, error) {
	p, err := d.directory.UserNamed(ctx, name)
	if e := problem.Of(err); e != nil && e.Kind == problem.NotFound {
		return []principal{}, nil
	}
	if err != nil {
		return nil, err
	}
	return []principal{encode(p)}, nil
}

// search finds a principal by what clients filter for: an application id, or an object id.
func (d *door) search(r *http.Request) (any, error) {
	m := filter.FindStringSubmatch(r.URL.Query().Get("$filter"))
	if m == nil {
		return nil, problem.New(problem.Invalid, "Request_UnsupportedQuery",
			"Principals are found by id alone: $filter=appId eq '…', id eq '…' or servicePrincipalNames/any(c:c eq '…').")
	}
	which := appID
	if m[1] == "id" {
		which = ofApplication
	}
	found, err := d.find(r.Context(), m[2]+m[3], which)
	return list{found}, err
}

var filter = regexp.MustCompile(`^\s*(?:(appId|id)\s+eq\s+'([^']*)'|servicePrincipalNames/any\(\s*(?:\w+)\s*:\s*(?:\w+)\s+eq\s+'([^']*)'\s*\))\s*$`)

// maxIDs is how many ids Graph takes in one request.
const maxIDs = 1000

// byIDs finds the principals that have these object ids.
func (d *door) byIDs(r *http.Request) (any, error) {
	var body struct{ IDs []string }
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&body); err != nil || len(body.IDs) > maxIDs {
		return nil, problem.New(problem.Invalid, "Request_BadRequest", "The body is not {\"ids\": [\"…\"]} with at most %d ids.", maxIDs)
	}
	all := list{[]principal{}}
	for _, id := range body.IDs {
		found, err := d.find(r.Context(), id, objectID)
		if err != nil {
			return nil, err
		}
		all.Value = append(all.Value, found...)
	}
	return all, nil
}

func objectID(p identity.Principal) string { return p.ObjectID }

func ofApplication(p identity.Principal) string {
	if p.Kind == identity.User {
		return ""
	}
	return p.ObjectID
}

func ofUser(p identity.Principal) string {
	if p.Kind != identity.User {
		return ""
	}
	return p.ObjectID
}

func appID(p identity.Principal) string { return p.AppID }

// find returns the principal with this id, of the two that it has, or nobody.
func (d *door) find(ctx context.Context, id string, which func(identity.Principal) string) ([]principal, error) {
	p, err := d.directory.Principal(ctx, id)
	if e := problem.Of(err); e != nil && e.Kind == problem.NotFound || err == nil && !strings.EqualFold(which(p), id) {
		return []principal{}, nil
	}
	if err != nil {
		return nil, err
	}
	return []principal{encode(p)}, nil
}

func notSupported(_ *door, r *http.Request) (any, error) {
	return nil, problem.New(problem.Invalid, "Request_BadRequest", "Microsoft Graph is not here, but for looking up principals; %s %.200s is not supported.", r.Method, r.URL.Path)
}

// refusal is an error in Graph's envelope.
func refusal(err error) (int, any) {
	status, code, message := http.StatusInternalServerError, "InternalServerError", "An internal error occurred."
	if p := problem.Of(err); p != nil {
		code, message = p.Code, p.Message
		switch p.Kind {
		case problem.Unauthenticated:
			status, code = http.StatusUnauthorized, "InvalidAuthenticationToken"
		case problem.NotFound:
			status = http.StatusNotFound
		default:
			status = http.StatusBadRequest
		}
	}
	return status, map[string]any{"error": map[string]any{"code": code, "message": message}}
}
