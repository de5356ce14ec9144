package identity

import "context"

type contextKey int

const (
	principalKey contextKey = iota
	correlationKey
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
