package arm

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"kluis/internal/problem"
)

// Limits are how many requests of a kind one principal may make in a minute; zero is as many as it likes.
// Who was idle for a minute may make all of them at once.
type Limits struct{ Reads, Writes, Deletes int }

// throttle counts the requests of each principal, with a bucket of tokens for each kind of request that fills
// steadily and from which each request takes one. Its memory is bounded by the principals there are: nobody
// comes here without a token.
type throttle struct {
	limits Limits
	now    func() time.Time

	mu      sync.Mutex
	buckets map[bucketKey]bucket
}

type bucketKey struct{ principal, kind string }

type bucket struct {
	tokens float64
	at     time.Time
}

// take lets one request pass, and says how many more would now; or how long to wait for the next.
func (t *throttle) take(principal, kind string, perMinute int) (remaining int, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key, now := bucketKey{principal, kind}, t.now()
	b, known := t.buckets[key]
	if !known {
		b = bucket{float64(perMinute), now}
	}
	elapsed := max(0, now.Sub(b.at)) // a clock that was set back gives nothing
	b.tokens, b.at = min(float64(perMinute), b.tokens+elapsed.Minutes()*float64(perMinute)), now
	if b.tokens < 1 {
		missing := (1 - b.tokens) / float64(perMinute)
		t.buckets[key] = b
		return 0, time.Duration(missing * float64(time.Minute))
	}
	b.tokens--
	t.buckets[key] = b
	return int(b.tokens), 0
}

// throttle counts the request, and tells in a header how many more of its kind are left, as Azure does.
func (x *exchange) throttle() error {
	t := x.router.throttle
	kind, perMinute := "reads", t.limits.Reads
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodDelete:
		kind, perMinute = "deletes", t.limits.Deletes
	default:
		kind, perMinute = "writes", t.limits.Writes
	}
	if perMinute <= 0 {
		return nil
	}
	remaining, wait := t.take(x.principal.ObjectID, kind, perMinute)
	scope := "subscription"
	if x.request.ID.Subscription == "" {
		scope = "tenant"
	}
	x.w.Header().Set("X-Ms-Ratelimit-Remaining-"+scope+"-"+kind, strconv.Itoa(remaining))
	if wait > 0 {
		return tooManyRequests(kind, perMinute, int(math.Ceil(wait.Seconds())))
	}
	return nil
}

func tooManyRequests(kind string, perMinute, seconds int) error {
	p := problem.New(problem.Unavailable, "TooManyRequests",
		"The number of %s of this principal exceeded the limit of '%d' per '00:01:00'. Please try again after '%d' seconds.", kind, perMinute, seconds).
		WithAdvice("Ask less often, or let the server allow more: kluis serve --requests-per-minute.")
	return &statusError{p, http.StatusTooManyRequests, http.Header{"Retry-After": {strconv.Itoa(seconds)}}}
}
