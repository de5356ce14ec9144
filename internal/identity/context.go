package identity

import (
	"context"
	"errors"
	"sync"

	"kluis/internal/armid"
)

type contextKey int

const (
	principalKey contextKey = iota
	correlationKey
	trailKey
)

// With returns a context that carries the caller. Doors call it once a token is verified; the backup
// service calls it with BackupManagementService when it reads keys and secrets.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey, p)
}

// From returns the caller, and whether there is one.
func From(ctx context.Context) (Principal, bool) {
	p, ok := ctx.Value(principalKey).(Principal)
	return p, ok
}

// WithCorrelation returns a context that carries the id under which everything that one request
// causes can be found in logs and jobs.
func WithCorrelation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey, id)
}

// Correlation returns the correlation id, or "".
func Correlation(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey).(string)
	return id
}

// Decision is an answer of Authorize.
type Decision struct {
	Principal string // object id of the caller, if there was one
	Action    string
	Scope     armid.ID

	err error // nil: allowed
}

// Trail is what was decided for one request, for the line that a door writes into its log.
type Trail struct {
	mu        sync.Mutex
	decisions []Decision
}

// WithTrail returns a context in which Authorize notes what it decides.
func WithTrail(ctx context.Context) (context.Context, *Trail) {
	t := &Trail{}
	return context.WithValue(ctx, trailKey, t), t
}

// Of is the decision that a request which ended with err is about: the one that refused it, else what was asked
// first. It is empty where nothing was asked.
func (t *Trail) Of(err error) Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range t.decisions {
		if d.err != nil && errors.Is(err, d.err) {
			return d
		}
	}
	if len(t.decisions) == 0 {
		return Decision{}
	}
	return t.decisions[0]
}

const maxTrail = 16 // lists ask for each entry

func note(ctx context.Context, action string, scope armid.ID, err error) {
	t, ok := ctx.Value(trailKey).(*Trail)
	if !ok {
		return
	}
	p, _ := From(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.decisions) < maxTrail {
		t.decisions = append(t.decisions, Decision{p.ObjectID, action, scope, err})
	}
}
