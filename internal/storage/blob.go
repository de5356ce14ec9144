package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"kluis/internal/database"
	"kluis/internal/objects"
)

// Blob describes a blob; Size is in bytes.
type Blob struct {
	Name     string
	Size     int64
	Headers  Headers
	Metadata map[string]string
	Created  time.Time
	Modified time.Time
	Lease    Lease

	etag string
}

// Described is a blob that is kept elsewhere, for conditions to be held against.
func Described(name string, size int64, modified time.Time, etag string) Blob {
	return Blob{Name: name, Size: size, Created: modified, Modified: modified, etag: etag}
}

// ETag changes whenever the blob does: its bytes, headers or metadata.
func (b Blob) ETag() string { return `"` + b.etag + `"` }

// Headers are how a blob is to be served.
type Headers struct {
	ContentType        string `json:"-"`
	ContentEncoding    string `json:"encoding,omitempty"`
	ContentLanguage    string `json:"language,omitempty"`
	ContentDisposition string `json:"disposition,omitempty"`
	CacheControl       string `json:"cache,omitempty"`
	ContentMD5         []byte `json:"md5,omitempty"` // of the whole blob; nil where nobody said
}

// Or are the headers, with those of another blob where there are none.
func (h Headers) Or(other Headers) Headers {
	h.ContentType = cmp.Or(h.ContentType, other.ContentType)
	h.ContentEncoding = cmp.Or(h.ContentEncoding, other.ContentEncoding)
	h.ContentLanguage = cmp.Or(h.ContentLanguage, other.ContentLanguage)
	h.ContentDisposition = cmp.Or(h.ContentDisposition, other.ContentDisposition)
	h.CacheControl = cmp.Or(h.CacheControl, other.CacheControl)
	if h.ContentMD5 == nil {
		h.ContentMD5 = other.ContentMD5
	}
	return h
}

// check says what is wrong with headers, and completes them.
func (h *Headers) check() error {
	if h.ContentType == "" {
		h.ContentType = "application/octet-stream"
	}
	for name, value := range map[string]string{"Content-Type": h.ContentType, "Content-Encoding": h.ContentEncoding, "Content-Language": h.ContentLanguage,
		"Content-Disposition": h.ContentDisposition, "Cache-Control": h.CacheControl} {
		if value != "" && !headerText.MatchString(value) {
			return invalidHeader(name)
		}
	}
	return nil
}

// block is a part of a blob's bytes.
type block struct {
	id      string // the client's, in base64; empty for a blob that was written whole
	object  string
	size    int64
	written time.Time
}

// Blob describes a blob.
func (s *Service) Blob(ctx context.Context, account, container, name string) (b Blob, err error) {
	a, err := s.open(ctx, account, container, name, readBlobs)
	if err != nil {
		return Blob{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		b, err = findBlob(ctx, tx, a, container, name)
		return err
	})
	return b, err
}

// findBlob finds a blob, or says what is not there. The names may be any text.
func findBlob(ctx context.Context, tx *database.Tx, a Account, container, name string) (Blob, error) {
	if _, err := findContainer(ctx, tx, a, container); err != nil {
		return Blob{}, err
	}
	if !isBlobName(name) {
		return Blob{}, blobNotFound(name)
	}
	b, found, err := selectBlob(ctx, tx, a.ID.Name(), container, name)
	if err == nil && !found {
		return Blob{}, blobNotFound(name)
	}
	return b, err
}

// maxOverwrites is how often a blob may be overwritten between the look at its rows and at its objects,
// until a reader gives up.
const maxOverwrites = 10

// ReadBlob returns a blob and its bytes, which the caller closes.
func (s *Service) ReadBlob(ctx context.Context, account, container, name string) (Blob, io.ReadCloser, error) {
	return s.ReadBlobRange(ctx, account, container, name, 0, -1)
}

// ReadBlobRange returns a blob and its bytes from off on: n of them, or all that are left where those are
// fewer or n is less than zero.
func (s *Service) ReadBlobRange(ctx context.Context, account, container, name string, off, n int64, conditions ...Condition) (Blob, io.ReadCloser, error) {
	a, err := s.open(ctx, account, container, name, readBlobs)
	if err != nil {
		return Blob{}, nil, err
	}
	for range maxOverwrites {
		b, blocks, err := s.blobWithBlocks(ctx, a, container, name)
		if err == nil {
			err = Check(conditions, b, true, s.o.Now())
		}
		if err != nil {
			return Blob{}, nil, err
		}
		if off < 0 || off > 0 && off >= b.Size {
			return Blob{}, nil, invalidRange(off, b.Size)
		}
		length := b.Size - off
		if n >= 0 {
			length = min(length, n)
		}
		data, err := s.readBlocks(ctx, blocks, off, length)
		if err == nil {
			return b, data, nil
		}
		if !errors.Is(err, objects.ErrNotExist) {
			return Blob{}, nil, fmt.Errorf("read blob %s: %w", name, err)
		}
		if again, _, lookErr := s.blobWithBlocks(ctx, a, container, name); lookErr == nil && again.etag == b.etag {
			return Blob{}, nil, fmt.Errorf("read blob %s: %w", name, err)
		}
	}
	return Blob{}, nil, fmt.Errorf("read blob %s: it is overwritten all the time", name)
}

func (s *Service) blobWithBlocks(ctx context.Context, a Account, container, name string) (b Blob, blocks []block, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if b, err = findBlob(ctx, tx, a, container, name); err != nil {
			return err
		}
		blocks, err = selectBlocks(ctx, tx, a.ID.Name(), container, name)
		return err
	})
	return b, blocks, err
}

// readBlocks returns n bytes from off on, of blocks one after the other. The first objects are open when it
// returns: a blob of few blocks that is overwritten meanwhile is read on as it was. One of many is cut short.
func (s *Service) readBlocks(ctx context.Context, blocks []block, off, n int64) (io.ReadCloser, error) {
	r := &blockReader{ctx: ctx, bucket: s.o.Bucket}
	for _, b := range blocks {
		if off >= b.size {
			off -= b.size
			continue
		}
		length := min(b.size-off, n)
		if length <= 0 {
			break
		}
		r.left = append(r.left, blockRange{b.object, off, length})
		off, n = 0, n-length
	}
	if n > 0 {
		return nil, errors.New("the blob's blocks are shorter than the blob")
	}
	for len(r.open) < openAhead && len(r.left) > 0 {
		if err := r.openNext(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// openAhead is how many objects of a blob a reader has open.
const openAhead = 4

type blockRange struct {
	object string
	off, n int64
}

// blockReader reads ranges of objects one after the other.
type blockReader struct {
	ctx    context.Context
	bucket objects.Bucket
	left   []blockRange
	open   []io.ReadCloser
}

func (r *blockReader) openNext() error {
	next := r.left[0]
	data, err := r.bucket.Get(r.ctx, next.object, next.off, next.n)
	if err == nil {
		r.left, r.open = r.left[1:], append(r.open, data)
	}
	return err
}

// Read implements io.Reader.
func (r *blockReader) Read(p []byte) (int, error) {
	for {
		if len(r.open) == 0 {
			if len(r.left) == 0 {
				return 0, io.EOF
			}
			if err := r.openNext(); err != nil {
				return 0, err
			}
		}
		n, err := r.open[0].Read(p)
		if errors.Is(err, io.EOF) {
			err = r.open[0].Close()
			r.open = r.open[1:]
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Close implements io.Closer.
func (r *blockReader) Close() error {
	var errs []error
	for _, o := range r.open {
		errs = append(errs, o.Close())
	}
	r.open, r.left = nil, nil
	return errors.Join(errs...)
}

// DeleteBlob removes a blob.
func (s *Service) DeleteBlob(ctx context.Context, account, container, name string, conditions ...Condition) error {
	a, err := s.open(ctx, account, container, name, deleteBlobs)
	if err != nil {
		return err
	}
	var unused []string
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		b, err := findBlob(ctx, tx, a, container, name)
		if err != nil {
			return err
		}
		if err := s.checkChange(conditions, b, true); err != nil {
			return err
		}
		unused, err = deleteBlob(ctx, tx, a.ID.Name(), container, name)
		return errors.Join(err, putLease(ctx, tx, a.ID.Name(), container, name, Lease{}))
	})
	if err != nil {
		return err
	}
	return s.drop(ctx, unused...)
}

// drop deletes objects that no row names any longer, also for a caller who has gone.
func (s *Service) drop(ctx context.Context, objects ...string) error {
	var errs []error
	for _, o := range objects {
		if err := s.o.Bucket.Delete(context.WithoutCancel(ctx), o); err != nil {
			errs = append(errs, fmt.Errorf("delete object of a blob: %w", err))
		}
	}
	return errors.Join(errs...)
}
