package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// callers ask at the same time, each the next thing when it has its answer.
const callers = 8

// load is what came of asking for a while.
type load struct {
	perSecond   float64
	middle, p99 time.Duration
}

func (l load) String() string {
	return fmt.Sprintf("%.0f/s, p50 %s, p99 %s", l.perSecond, l.middle.Round(10*time.Microsecond), l.p99.Round(10*time.Microsecond))
}

// request is one of many: what the n-th call asks for.
type request func(n int) (method, address, body string)

// ask calls for as long as told, or for so many calls if limit is not 0. An answer that is no success ends it.
func (s *server) ask(ctx context.Context, token string, long time.Duration, limit int, r request) (load, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	took := make([][]time.Duration, callers)
	start := time.Now()
	for caller := range callers {
		group.Go(func() {
			for n := caller; ctx.Err() == nil && (limit == 0 || n < limit) && (limit != 0 || time.Since(start) < long); n += callers {
				began := time.Now()
				if err := s.call(ctx, token, n, r); err != nil {
					cancel(err)
					return
				}
				took[caller] = append(took[caller], time.Since(began))
			}
		})
	}
	group.Wait()
	wall := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return load{}, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return load{float64(len(all)) / wall.Seconds(), all[len(all)/2], all[len(all)*99/100]}, nil
}

func (s *server) call(ctx context.Context, token string, n int, r request) error {
	method, address, body := r(n)
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s %s: %s\n%s", method, address, resp.Status, text)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
