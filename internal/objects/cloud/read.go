package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"gocloud.dev/gcerrors"

	"kluis/internal/objects"
)

// Get reads a range of an object; see objects.Bucket.
func (b *Bucket) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := errors.Join(objects.CheckName(name), context.Cause(ctx)); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: %w", name, objects.ErrTruncated)
	}
	r := &reader{b: b, ctx: ctx, name: name, at: off, left: min(n, math.MaxInt64-off)}
	if err := r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

// reader reads a range of an object, and continues where a connection broke off. The object cannot have
// become another one meanwhile: names are put once.
type reader struct {
	b    *Bucket
	ctx  context.Context
	name string

	at, left int64 // what is yet to be read; left is less than zero before the first opening if to the end
	body     io.ReadCloser
	watch    *watcher
	failed   int // attempts since the last byte
}

// open asks for what is yet to be read.
func (r *reader) open() error {
	ctx, w := watch(r.ctx, r.b.stall)
	body, err := r.b.blobs.NewRangeReader(ctx, r.name, r.at, r.left, nil)
	if err != nil {
		err = r.diagnose(w.explain(err))
		w.stop()
		if err == nil {
			r.body, r.left, r.watch = io.NopCloser(nothing{}), 0, w
			return nil
		}
		return fmt.Errorf("get %s: %w", r.name, err)
	}
	if r.at > body.Size() || r.left > body.Size()-r.at {
		err := errors.Join(objects.ErrTruncated, body.Close())
		w.stop()
		return fmt.Errorf("get %s: %w", r.name, err)
	}
	if r.left < 0 {
		r.left = body.Size() - r.at
	}
	r.body, r.watch = body, w
	w.rest()
	return nil
}

// diagnose tells why a range could not be opened. It returns nil where the range is empty and lies at the
// object's end, which the services refuse to read.
func (r *reader) diagnose(err error) error {
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return notFound(err)
	case r.ctx.Err() != nil:
		return context.Cause(r.ctx)
	case !isBeyondEnd(err):
		return plain(err)
	}
	ctx, w := watch(r.ctx, r.b.stall)
	defer w.stop()
	attributes, err := r.b.blobs.Attributes(ctx, r.name)
	switch {
	case err != nil && gcerrors.Code(err) == gcerrors.NotFound:
		return notFound(err)
	case err != nil:
		return plain(w.explain(err))
	case r.at == attributes.Size && r.left <= 0:
		return nil
	}
	return objects.ErrTruncated
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

func (r *reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	for {
		r.watch.moved()
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.watch.rest()
		r.at, r.left = r.at+int64(n), r.left-int64(n)
		if n > 0 {
			r.failed = 0
			return n, nil
		}
		if err == nil {
			return 0, nil
		}
		if err := r.reopen(r.watch.explain(err)); err != nil {
			return 0, err
		}
	}
}

// reopen continues after the body has ended too early, for whatever reason.
func (r *reader) reopen(reason error) error {
	if err := context.Cause(r.ctx); err != nil {
		return err
	}
	if r.failed == attempts {
		return fmt.Errorf("get %s, at %d: %w", r.name, r.at, plain(reason))
	}
	if err := pause(r.ctx, r.failed); err != nil {
		return err
	}
	r.failed++
	_ = r.body.Close()
	r.watch.stop()
	return r.open()
}

func (r *reader) Close() error {
	err := r.body.Close()
	r.watch.stop()
	if err != nil {
		return fmt.Errorf("get %s: %w", r.name, plain(err))
	}
	return nil
}
