package identity

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// allowance is how often somebody may fail to log in: so many times at once, then once in so long.
type allowance struct {
	burst int
	every time.Duration
}

// What a server has drawn can't be guessed, what a person has chosen can.
var (
	drawn  = allowance{20, 3 * time.Second}
	chosen = allowance{10, time.Minute}
)

const maxFailing = 10_000 // names that are remembered at once

// attempts counts failed logins by name. It is safe for concurrent use.
type attempts struct {
	allowance
	mu      sync.Mutex
	failing map[string]*rate.Limiter
}

// failed counts one and reports whether it is one too many.
func (a *attempts) failed(name string, now time.Time) (tooMany bool) { return !a.try(name, now) }

// try counts an attempt before it is known how it ends, so that many at once don't get ahead of the count, and reports
// whether it may be made. One that succeeds is to be forgiven.
func (a *attempts) try(name string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(name, now).AllowN(now, 1)
}

// forgive forgets what was counted for a name.
func (a *attempts) forgive(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.failing, name)
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
	l := rate.NewLimiter(rate.Every(a.every), a.burst)
	a.failing[name] = l
	return l
}

// forget drops the names that have not failed for a while; if there are none of those, all.
func (a *attempts) forget(now time.Time) {
	for name, l := range a.failing {
		if l.TokensAt(now) >= float64(a.burst) {
			delete(a.failing, name)
		}
	}
	if len(a.failing) >= maxFailing {
		clear(a.failing)
	}
}
