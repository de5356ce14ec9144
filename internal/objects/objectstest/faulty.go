package objectstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"kluis/internal/objects"
)

// ErrInjected is the error that Faulty returns, unless it was given another one.
var ErrInjected = errors.New("injected fault")

// Mode says what becomes of the operation that fails.
type Mode int

// What a failing operation does before it returns the error.
const (
	Before Mode = iota // nothing
	After              // all of it: a Put stores the object, as when the answer is lost
	Tear               // a part: a Put reads half of its source and stores nothing; a Get gives half of the bytes

	// What no Bucket may do, and the users of one must survive nevertheless.

	Duplicate // a Put stores the object and says that the name was taken, as a layer that asks twice would
	Half      // a Put stores the first half of the object, under its name
	Short     // a Get gives half of the bytes, and then a plain end without an error
)

// Faulty is a Bucket whose operations fail from the FailAt-th on (counted from 1; 0 means never), as if
// the process or the storage had died there. With Once, only that one operation fails.
type Faulty struct {
	Bucket objects.Bucket
	FailAt int64
	Mode   Mode
	Once   bool
	Err    error // what to return; nil means ErrInjected
	// Only limits which operations count; nil means all. op is "put", "get", "list" or "delete".
	Only func(op, name string) bool

	done atomic.Int64
}

// Operations returns how many operations were counted so far.
func (f *Faulty) Operations() int64 { return f.done.Load() }

// Failed tells whether an operation has failed.
func (f *Faulty) Failed() bool { return f.FailAt > 0 && f.done.Load() >= f.FailAt }

// next counts an operation; first tells that it is the FailAt-th.
func (f *Faulty) next(op, name string) (first bool, err error) {
	if f.Only != nil && !f.Only(op, name) {
		return false, nil
	}
	k := f.done.Add(1)
	if f.FailAt == 0 || k < f.FailAt || f.Once && k > f.FailAt {
		return false, nil
	}
	cause := f.Err
	if cause == nil {
		cause = ErrInjected
	}
	return k == f.FailAt, fmt.Errorf("%s %s: %w", op, name, cause)
}

// Put stores an object or fails.
func (f *Faulty) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	first, err := f.next("put", name)
	switch {
	case err == nil:
		return f.Bucket.Put(ctx, name, size, r)
	case first && f.Mode == After:
		return errors.Join(err, f.Bucket.Put(ctx, name, size, r))
	case first && f.Mode == Tear:
		_, _ = io.CopyN(io.Discard, r, max(size/2, 100))
	case first && f.Mode == Duplicate:
		if err := f.Bucket.Put(ctx, name, size, r); err != nil {
			return err
		}
		return fmt.Errorf("put %s: %w", name, objects.ErrExists)
	case first && f.Mode == Half:
		content, readErr := io.ReadAll(r)
		half := bytes.NewReader(content[:len(content)/2])
		return errors.Join(err, readErr, f.Bucket.Put(ctx, name, half.Size(), half))
	}
	return err
}

// Get reads an object or fails.
func (f *Faulty) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	first, err := f.next("get", name)
	if err == nil {
		return f.Bucket.Get(ctx, name, off, n)
	}
	if !first || f.Mode != Tear && f.Mode != Short {
		return nil, err
	}
	if f.Mode == Short {
		err = io.EOF
	}
	r, getErr := f.Bucket.Get(ctx, name, off, n)
	if getErr != nil {
		return nil, getErr
	}
	return &torn{r, max(n/2, 10), err}, nil
}

// torn gives the first bytes of an object and then an error.
type torn struct {
	io.ReadCloser
	left int64
	err  error
}

func (t *torn) Read(p []byte) (int, error) {
	if t.left <= 0 {
		return 0, t.err
	}
	n, err := t.ReadCloser.Read(p[:min(int64(len(p)), t.left)])
	t.left -= int64(n)
	if err == io.EOF {
		err = t.err
	}
	return n, err
}

// List lists objects or fails.
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		first, fault := f.next("list", prefix)
		if fault != nil && (!first || f.Mode == Before) {
			yield(objects.Object{}, fault)
			return
		}
		n := 0
		for o, err := range f.Bucket.List(ctx, prefix) {
			if !yield(o, err) {
				return
			}
			if n++; fault != nil && f.Mode == Tear {
				break
			}
		}
		if fault != nil {
			yield(objects.Object{}, fault)
		}
	}
}

// Delete removes an object or fails.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	first, err := f.next("delete", name)
	switch {
	case err == nil:
		return f.Bucket.Delete(ctx, name)
	case first && f.Mode == After:
		return errors.Join(err, f.Bucket.Delete(ctx, name))
	}
	return err
}

var _ objects.Bucket = (*Faulty)(nil)
