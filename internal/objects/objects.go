// Package objects says what Kluis needs from a place that keeps bytes: four operations on named,
// immutable objects.
//
// An object appears whole or not at all, is durable once Put has returned, and never changes: a name
// that is taken stays taken until it is deleted. This is what makes "the root is written last" a
// commit, without a lock and without a rename. A Bucket is a local folder (package folder) or a cloud
// container; package objectstest holds the tests that every Bucket passes.
//
// Names are segments of ASCII letters, digits, '.', '_' and '-', joined by '/'. No segment begins with
// a dot, so a bucket may keep its own files under such names. Where "a/b" is an object, "a" can be none.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

var (
	// ErrExists is returned by Put when the name is taken.
	ErrExists = errors.New("object exists already")
	// ErrNotExist is returned by Get when there is no such object.
	ErrNotExist = errors.New("object does not exist")
	// ErrTruncated is returned by Get, or while reading what it returned, when the object ends before
	// the range that was asked for.
	ErrTruncated = errors.New("object is shorter than expected")
)

// MaxName is the length in bytes of the longest name a Bucket takes.
const MaxName = 512

// Object is what List says about one object.
type Object struct {
	Name string
	Size int64
}

// Bucket keeps objects. All methods may be called at the same time from several goroutines.
type Bucket interface {
	// Put stores what r holds under name, whole or not at all, and returns nil only when it is durable.
	// A size of zero or more must be what r holds, or Put fails; less than zero means that the size is
	// not known before r ends. It returns ErrExists if the name is taken: of several Puts of one name
	// one wins. After any other error the object may exist or not, but never in part.
	Put(ctx context.Context, name string, size int64, r io.Reader) error

	// Get reads n bytes from offset off, or up to the end if n is less than zero. It returns ErrNotExist
	// or ErrTruncated, at once or from Read; never fewer bytes than n with a plain end of file.
	Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)

	// List yields the objects whose names begin with prefix, by name, ascending. It ends after the
	// first error.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]

	// Delete removes the object; it returns nil if there is none.
	Delete(ctx context.Context, name string) error
}

// CheckName returns an error unless name can name an object.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("object name of %d bytes: want 1 to %d", len(name), MaxName)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment[0] == '.' {
			return fmt.Errorf("object name %q has a segment that is empty or begins with a dot", name)
		}
		for i := range len(segment) {
			if !nameByte(segment[i]) {
				return fmt.Errorf("object name %q holds a character that is not allowed", name)
			}
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// Prefix returns a bucket within a bucket: its object "x" is b's object "prefix/x".
func Prefix(b Bucket, prefix string) Bucket {
	return prefixed{b, strings.TrimSuffix(prefix, "/") + "/"}
}

type prefixed struct {
	bucket Bucket
	prefix string
}

func (p prefixed) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return p.bucket.Put(ctx, p.prefix+name, size, r)
}

func (p prefixed) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return p.bucket.Get(ctx, p.prefix+name, off, n)
}

func (p prefixed) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range p.bucket.List(ctx, p.prefix+prefix) {
			o.Name = strings.TrimPrefix(o.Name, p.prefix)
			if !yield(o, err) || err != nil {
				return
			}
		}
	}
}

func (p prefixed) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return p.bucket.Delete(ctx, p.prefix+name)
}

var _ Bucket = prefixed{}
