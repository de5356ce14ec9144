package recovery

import (
	"context"

	"golang.org/x/time/rate"
)

// Rate bounds how many bytes a second are read from disks, or written to them. Whoever shares a Rate shares what it allows.
// A nil Rate bounds nothing.
type Rate struct{ limiter *rate.Limiter }

// NewRate makes a rate of bytes a second; 0 is no bound.
func NewRate(bytesPerSecond int64) *Rate {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Rate{rate.NewLimiter(rate.Limit(bytesPerSecond), unitSize)}
}

// wait waits until n bytes, a unit at most, may be moved.
func (r *Rate) wait(ctx context.Context, n int) error {
	if r == nil {
		return nil
	}
	return r.limiter.WaitN(ctx, n)
}
