package arm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"kluis/internal/problem"
)

// A resource has an ETag, which its GET tells, and a change of it can be made to depend on that: If-Match is
// "only as I have read it", If-None-Match: * is "only if there is none". The tag is the one in the body, where
// the type has one there, else a digest of the body. Check and change are one step, because nobody else's
// change of the resource comes in between (locks).

// etag is the tag of a body as a GET answers it.
func etag(body any) string {
	text := encode(body)
	var own struct{ Etag string } // in any case: some types write eTag
	if json.Unmarshal(text, &own) == nil && own.Etag != "" {
		if strings.HasSuffix(own.Etag, `"`) {
			return own.Etag
		}
		return strconv.Quote(own.Etag)
	}
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// tagged returns the GET of a resource that tells its tag.
func tagged(get Handler) Handler {
	return func(ctx context.Context, r *Request) (*Reply, error) {
		reply, err := get(ctx, r)
		if err == nil && reply != nil && reply.Status == http.StatusOK && reply.Body != nil && reply.Header.Get("ETag") == "" {
			reply.With("ETag", etag(reply.Body))
		}
		return reply, err
	}
}

// present returns the HEAD of a resource that can be read: it tells whether it is there.
func present(get Handler) Handler {
	return func(ctx context.Context, r *Request) (*Reply, error) {
		reply, err := tagged(get)(ctx, r)
		if err != nil || reply == nil {
			return reply, err
		}
		return &Reply{Status: http.StatusNoContent, Header: reply.Header}, nil
	}
}

// conditional returns the handler of a change with the request's conditions before it.
func (x *exchange) conditional(change, get Handler) Handler {
	if change == nil || get == nil {
		return change
	}
	match, none := x.r.Header.Get("If-Match"), x.r.Header.Get("If-None-Match")
	return func(ctx context.Context, r *Request) (*Reply, error) {
		defer x.router.locks.lock(r.ID.Key(), match+none != "")()
		if match+none == "" {
			return change(ctx, r)
		}
		current, err := currentTag(ctx, r, get)
		if err != nil {
			return nil, err
		}
		switch {
		case match != "" && !covers(match, current):
			return nil, preconditionFailed(r, "If-Match", match)
		case none != "" && covers(none, current):
			return nil, preconditionFailed(r, "If-None-Match", none)
		}
		return change(ctx, r)
	}
}

// currentTag is "" when the resource is not there.
func currentTag(ctx context.Context, r *Request, get Handler) (string, error) {
	reply, err := tagged(get)(ctx, r)
	switch {
	case problem.KindOf(err) == problem.NotFound:
		return "", nil
	case err != nil || reply == nil:
		return "", err
	}
	return reply.Header.Get("ETag"), nil
}

// covers reports whether a list of tags, or *, is fulfilled by the current one. Weak tags are compared as what
// they are: Azure's own are weak, and clients send them back here.
func covers(list, current string) bool {
	if current == "" {
		return false
	}
	if strings.TrimSpace(list) == "*" {
		return true
	}
	for tag := range strings.SplitSeq(list, ",") {
		if tag = strings.TrimSpace(tag); tag == current || `"`+tag+`"` == current {
			return true
		}
	}
	return false
}

func preconditionFailed(r *Request, header, sent string) error {
	p := problem.New(problem.Conflict, "PreconditionFailed",
		"The condition '%s' in the request header '%s' was not satisfied.", clip(sent), header).
		WithTarget(r.ID.String()).WithAdvice("Read the resource again, make the change to what is there now, and send it with the new ETag.")
	return &statusError{p, http.StatusPreconditionFailed, nil}
}

// locks are those of the resources that are being changed. A change with a condition has its resource for
// itself; others go side by side, and the service decides which of them wins.
type locks struct {
	mu   sync.Mutex
	held map[string]*heldLock
}

type heldLock struct {
	sync.RWMutex
	users int
}

// lock waits for its turn, and returns what ends it.
func (l *locks) lock(key string, alone bool) (unlock func()) {
	l.mu.Lock()
	h := l.held[key]
	if h == nil {
		h = &heldLock{}
		l.held[key] = h
	}
	h.users++
	l.mu.Unlock()
	end := h.RUnlock
	if alone {
		h.Lock()
		end = h.Unlock
	} else {
		h.RLock()
	}
	return func() {
		end()
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(l.held, key)
		}
	}
}
