package identity

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How often somebody may fail to log in: so many times at once, then once in so long.
const (
	failureBurst = 20
	failureEvery = 3 * time.Second
	maxFailing   = 10_000 // names that are remembered at once
)

// attempts counts failed logins by name. It is safe for concurrent use.
type attempts struct {
	mu      sync.Mutex
	failing map[string]*rate.Limiter
}

// failed counts one and reports whether it is one too many.
func (a *attempts) failed(name string, now time.Time) (tooMany bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.of(name, now).AllowN(now, 1)
}

func (a *attempts) of(name string, now time.Time) *rate.Limiter {
	if l, ok := a.failing[name]; ok {
		return l
	}
	if len(a.failing) >= maxFailing {
		a.forget(now)
	}
	if a.failing == nil {
		a.failing = map[string]*rate.Limiter{}
	}
	l := rate.NewLimiter(rate.Every(failureEvery), failureBurst)
	a.failing[name] = l
	return l
}

// forget drops the names that have not failed for a while; if there are none of those, all.
func (a *attempts) forget(now time.Time) {
	for name, l := range a.failing {
		if l.TokensAt(now) >= failureBurst {
			delete(a.failing, name)
		}
	}
	if len(a.failing) >= maxFailing {
		clear(a.failing)
	}
}
