// Package cloud keeps objects in a bucket of S3, or of what speaks like it, or in a container of Azure Blob
// Storage, through gocloud.dev.
//
// The idea. Both services know the condition If-None-Match: *, which makes an upload put-if-absent: the
// check and the write are one step of the service, and an object appears whole with the answer to the last
// request of its upload. That is Put. What the services do not give is certainty: an answer can be
// lost, and the SDK, which then asks again, meets its own object and is told that the name is
// taken. So each upload carries a token of its own in the object's metadata; where an answer leaves open
// what has become of the upload, the token of the object that is there says whose it is. Put never returns
// ErrExists for its own object, nor nil for a stranger's.
//
// Memory. An object of unknown size is uploaded in parts of 8 MiB, two at a time; up to 16 MiB are sent in
// one request, and larger ones become visible with the request that joins the parts. Parts of an upload
// that was given up are removed; those of a process that died are not objects and never listed, but
// cost room until a rule of the bucket removes them (docs/operations.md).
//
// Faults. 503 and broken connections are retried by the SDKs, a body that breaks off is continued here from
// where it ended, and what does not move for two minutes is given up. No error holds more of a request than
// its address without the query, where Azure keeps signatures.
//
// A look-alike may ignore the condition. Open finds out by writing a name twice, and refuses to go on if
// both succeed. It tries that with a small object, as points, claims and documents are; a look-alike that
// keeps the condition only there would still do, because objects of more than 16 MiB are packs, whose names
// are random.
//
// Sources: S3 "Conditional writes" and Azure "Specifying conditional headers for Blob service operations".
package cloud

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"kluis/internal/objects"
)

const (
	partSize  = 8 << 20
	parallel  = 2 // parts of one object under way
	stallTime = 2 * time.Minute
	tokenKey  = "kluis" // metadata: who put the object
	binary    = "application/octet-stream"
)

// Bucket is a bucket or container, or what lies below a prefix in it.
type Bucket struct {
	blobs *blob.Bucket
	stall time.Duration
}

// Close lets the connections go.
func (b *Bucket) Close() error { return b.blobs.Close() }

// Put stores an object; see objects.Bucket.
func (b *Bucket) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	if err := objects.CheckName(name); err != nil {
		return err
	}
	var err error
	if size >= 0 && size <= partSize {
		err = b.putSmall(ctx, name, size, r)
	} else {
		_, err = b.upload(ctx, name, rand.Text(), size, r)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// putSmall puts what fits into memory, and so can be sent again where the service asks for that: S3 answers
// a conflict when two upload one name at the same time.
func (b *Bucket) putSmall(ctx context.Context, name string, size int64, r io.Reader) error {
	content, err := readSmall(ctx, size, r)
	if err != nil {
		return err
	}
	token := rand.Text()
	for attempt := 0; ; attempt++ {
		again, err := b.upload(ctx, name, token, size, bytes.NewReader(content))
		if !again || attempt == attempts {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// readSmall reads r to its end, which must come after size bytes.
func readSmall(ctx context.Context, size int64, r io.Reader) ([]byte, error) {
	content := make([]byte, size+1)
	var n int
	for n < len(content) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		more, err := r.Read(content[n:])
		n += more
		if err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return content[:n], checkSize(int64(n), size)
}

func checkSize(got, announced int64) error {
	switch {
	case announced < 0 || got == announced:
		return nil
	case got > announced:
		return fmt.Errorf("got more than the %d bytes that were announced", announced)
	}
	return fmt.Errorf("got %d bytes, announced were %d", got, announced)
}

// upload uploads what r holds and finds out what has become of it. again tells that nothing has been stored
// and that the same may succeed later.
func (b *Bucket) upload(ctx context.Context, name, token string, size int64, r io.Reader) (again bool, err error) {
	sourceErr, err := b.send(ctx, name, token, size, r)
	switch {
	case sourceErr != nil:
		return false, sourceErr
	case err == nil:
		return false, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	}
	owner, known := b.owner(ctx, name)
	switch {
	case known && owner == token:
		return false, nil // the answer was lost, or came to the second of two requests
	case known && owner != "" && isTaken(err):
		return false, objects.ErrExists
	case known && owner == "" && isTaken(err):
		return true, errors.New("the name was taken by an object that has gone since")
	}
	return known && owner == "" && isTransient(err), plain(err)
}

// send uploads what r holds. If the fault lies with r, or with its caller, nothing is stored.
func (b *Bucket) send(ctx context.Context, name, token string, size int64, r io.Reader) (sourceErr, err error) {
	sending, w := watch(ctx, b.stall)
	defer w.stop()
	from := &source{ctx: ctx, r: r, size: size, w: w}
	err = b.blobs.Upload(sending, name, from, &blob.WriterOptions{
		BufferSize: partSize, MaxConcurrency: parallel, ContentType: binary, IfNotExist: true,
		Metadata: map[string]string{tokenKey: token},
	})
	return from.err, w.explain(err)
}

// source is what an upload reads. It ends with the context, and its size must be what was announced: after
// an error of its source an upload stores nothing.
type source struct {
	ctx  context.Context
	r    io.Reader
	size int64 // less than zero if not known
	w    *watcher

	read int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	s.w.rest() // the source may take its time
	defer s.w.moved()
	if s.err = context.Cause(s.ctx); s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.read += int64(n)
	if err != io.EOF {
		s.err = err
		return n, err
	}
	if s.err = checkSize(s.read, s.size); s.err != nil {
		return n, s.err
	}
	return n, io.EOF
}

// owner returns the token of the object that has the name: empty if there is none, "?" if it has no token.
func (b *Bucket) owner(ctx context.Context, name string) (token string, known bool) {
	ctx, w := watch(ctx, b.stall)
	defer w.stop()
	attributes, err := b.blobs.Attributes(ctx, name)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return "", true
	case err != nil:
		return "", false
	}
	if token = attributes.Metadata[tokenKey]; token == "" {
		token = "?"
	}
	return token, true
}

// List yields the objects that begin with prefix; see objects.Bucket.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	return func(yield func(objects.Object, error) bool) {
		last := ""
		all := b.blobs.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := b.next(ctx, all)
			if errors.Is(err, io.EOF) {
				return
			} else if err == nil && o.Key <= last {
				err = fmt.Errorf("the storage lists %q after %q; it must list names in order, "+
					"which directory buckets of S3 and hierarchical namespaces of Azure do not", o.Key, last)
			}
			if err != nil {
				yield(objects.Object{}, fmt.Errorf("list %q: %w", prefix, err))
				return
			}
			last = o.Key
			if objects.CheckName(o.Key) == nil && !yield(objects.Object{Name: o.Key, Size: o.Size}, nil) {
				return
			}
		}
	}
}

func (b *Bucket) next(ctx context.Context, all *blob.ListIterator) (*blob.ListObject, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	ctx, w := watch(ctx, b.stall)
	defer w.stop()
	o, err := all.Next(ctx)
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	return o, plain(w.explain(err))
}

// Delete removes an object; see objects.Bucket.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := errors.Join(objects.CheckName(name), context.Cause(ctx)); err != nil {
		return err
	}
	ctx, w := watch(ctx, b.stall)
	defer w.stop()
	err := b.blobs.Delete(ctx, name)
	if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete %s: %w", name, plain(w.explain(err)))
	}
	return nil
}

var _ objects.Bucket = (*Bucket)(nil)

// joinPrefix returns the prefix that a path in a URL names, with '/' at its end, or "".
func joinPrefix(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	if err := objects.CheckName(path); err != nil {
		return "", fmt.Errorf("prefix: %w", err)
	}
	return path + "/", nil
}
