package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/objects"
)

// MaxBlobSize bounds a blob: what belongs here is documents, not disks.
const MaxBlobSize = 64 << 20

// Blob describes a blob; Size is in bytes.
type Blob struct {
	Name        string
	Size        int64
	ContentType string
	Modified    time.Time

	object string
}

// ETag names the bytes of the blob: it changes whenever the blob is written.
func (b Blob) ETag() string { return `"` + b.object + `"` }

// Condition is what must hold of the blob that is there, if one is, for a call to change it.
type Condition func(b Blob, found bool) error

// IfMatch wants a blob with one of these etags, "*" for any; ConditionNotMet otherwise.
func IfMatch(etags string) Condition {
	return func(b Blob, found bool) error {
		if !found || !lists(etags, b) {
			return conditionNotMet()
		}
		return nil
	}
}

// IfNoneMatch wants no blob with one of these etags, "*" for any; BlobAlreadyExists otherwise.
func IfNoneMatch(etags string) Condition {
	return func(b Blob, found bool) error {
		if found && lists(etags, b) {
			return blobExists(b.Name)
		}
		return nil
	}
}

// lists reports whether a list of etags, as HTTP writes it, has the blob's.
func lists(etags string, b Blob) bool {
	for e := range strings.SplitSeq(etags, ",") {
		if e = strings.TrimSpace(e); e == "*" || e == b.ETag() {
			return true
		}
	}
	return false
}

// CreateContainer makes a container; ContainerAlreadyExists if it is there.
func (s *Service) CreateContainer(ctx context.Context, account, container string) error {
	a, err := s.open(ctx, account, accountType+"/blobServices/containers/write")
	if err != nil {
		return err
	}
	if !isContainerName(container) {
		return invalidContainerName(container)
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		found, err := hasContainer(ctx, tx, a.ID.Name(), container)
		if err != nil {
			return err
		}
		if found {
			return containerExists(container)
		}
		return putContainer(ctx, tx, a.ID.Name(), container)
	})
}

// Containers lists the names of an account's containers.
func (s *Service) Containers(ctx context.Context, account string) (containers []string, err error) {
	a, err := s.open(ctx, account, accountType+"/blobServices/containers/read")
	if err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		containers, err = selectContainers(ctx, tx, a.ID.Name())
		return err
	})
	return containers, err
}

// open authorizes the caller on the account of that name.
func (s *Service) open(ctx context.Context, account, action string) (Account, error) {
	a, err := s.account(ctx, account)
	if err != nil {
		return Account{}, err
	}
	return a, s.o.Authorizer.Authorize(ctx, action, a.ID)
}

// PutBlob writes a blob of the given size, over an older one of the same name.
func (s *Service) PutBlob(ctx context.Context, account, container, name, contentType string, size int64, data io.Reader, conditions ...Condition) (Blob, error) {
	a, err := s.open(ctx, account, writeBlobs)
	if err != nil {
		return Blob{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error { return checkContainer(ctx, tx, a, container) })
	if err != nil {
		return Blob{}, err
	}
	return s.put(ctx, a, container, name, contentType, size, data, conditions...)
}

// checkContainer is nil when the container exists. Its name may be any text.
func checkContainer(ctx context.Context, tx *database.Tx, a Account, container string) error {
	if !isContainerName(container) {
		return containerNotFound(container)
	}
	found, err := hasContainer(ctx, tx, a.ID.Name(), container)
	if err == nil && !found {
		return containerNotFound(container)
	}
	return err
}

func (s *Service) put(ctx context.Context, a Account, container, name, contentType string, size int64, data io.Reader, conditions ...Condition) (Blob, error) {
	if !isBlobName(name) {
		return Blob{}, invalidBlobName(name)
	}
	if size > MaxBlobSize {
		return Blob{}, blobTooLarge(size)
	}
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	if !contentTypes.MatchString(contentType) {
		return Blob{}, invalidContentType()
	}
	// What is told of a blob now is what its row will tell, and rows have microseconds.
	b := Blob{Name: name, Size: size, ContentType: contentType, Modified: s.o.Now().Truncate(time.Microsecond), object: s.o.NewID()}
	if err := s.o.Bucket.Put(ctx, b.object, size, data); err != nil {
		return Blob{}, fmt.Errorf("store blob %s: %w", name, err)
	}
	var old string
	var written bool
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, written = "", false
		if err := checkContainer(ctx, tx, a, container); err != nil {
			return err // the account was deleted since
		}
		before, found, err := selectBlob(ctx, tx, a.ID.Name(), container, name)
		if err != nil {
			return err
		}
		if err := check(conditions, before, found); err != nil {
			return err
		}
		if found {
			old = before.object
		}
		err = putBlob(ctx, tx, a.ID.Name(), container, b)
		written = err == nil
		return err
	})
	switch {
	case err != nil && written: // the commit's answer was lost: the row may name the new object or the old one
		return Blob{}, err
	case err != nil:
		return Blob{}, errors.Join(err, s.drop(ctx, b.object))
	case old != "":
		return b, s.drop(ctx, old)
	}
	return b, nil
}

func check(conditions []Condition, b Blob, found bool) error {
	for _, c := range conditions {
		if err := c(b, found); err != nil {
			return err
		}
	}
	return nil
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

// Blob describes a blob.
func (s *Service) Blob(ctx context.Context, account, container, name string) (Blob, error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return Blob{}, err
	}
	return s.blob(ctx, a, container, name)
}

func (s *Service) blob(ctx context.Context, a Account, container, name string) (b Blob, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		b, err = findBlob(ctx, tx, a, container, name)
		return err
	})
	return b, err
}

// findBlob finds a blob, or says what is not there. The names may be any text.
func findBlob(ctx context.Context, tx *database.Tx, a Account, container, name string) (Blob, error) {
	if err := checkContainer(ctx, tx, a, container); err != nil {
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

// maxOverwrites is how often a blob may be overwritten between the look at its row and at its object,
// until a reader gives up.
const maxOverwrites = 10

// ReadBlob returns a blob and its bytes, which the caller closes.
func (s *Service) ReadBlob(ctx context.Context, account, container, name string) (Blob, io.ReadCloser, error) {
	return s.ReadBlobRange(ctx, account, container, name, 0, -1)
}

// ReadBlobRange returns a blob and its bytes from off on: n of them, or all that are left where those are
// fewer or n is less than zero.
func (s *Service) ReadBlobRange(ctx context.Context, account, container, name string, off, n int64) (Blob, io.ReadCloser, error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return Blob{}, nil, err
	}
	b, err := s.blob(ctx, a, container, name)
	for range maxOverwrites {
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
		data, getErr := s.o.Bucket.Get(ctx, b.object, off, length)
		if getErr == nil {
			return b, data, nil
		}
		gone := b.object
		if errors.Is(getErr, objects.ErrNotExist) {
			b, err = s.blob(ctx, a, container, name)
		}
		if err == nil && b.object == gone {
			return Blob{}, nil, fmt.Errorf("read blob %s: %w", name, getErr)
		}
	}
	return Blob{}, nil, fmt.Errorf("read blob %s: it is overwritten all the time", name)
}

// Blobs lists a container's blobs whose names begin with prefix, by name.
func (s *Service) Blobs(ctx context.Context, account, container, prefix string) (blobs []Blob, err error) {
	a, err := s.open(ctx, account, readBlobs)
	if err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if err := checkContainer(ctx, tx, a, container); err != nil {
			return err
		}
		all, err := selectBlobs(ctx, tx, a.ID.Name(), container)
		for _, b := range all {
			if strings.HasPrefix(b.Name, prefix) {
				blobs = append(blobs, b)
			}
		}
		return err
	})
	return blobs, err
}

// DeleteBlob removes a blob.
func (s *Service) DeleteBlob(ctx context.Context, account, container, name string, conditions ...Condition) error {
	a, err := s.open(ctx, account, deleteBlobs)
	if err != nil {
		return err
	}
	var b Blob
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if b, err = findBlob(ctx, tx, a, container, name); err != nil {
			return err
		}
		if err := check(conditions, b, true); err != nil {
			return err
		}
		return deleteBlob(ctx, tx, a.ID.Name(), container, name)
	})
	if err != nil {
		return err
	}
	return s.drop(ctx, b.object)
}

// WriteArtifact writes a document of a restore job into a container, which it makes if need be. The job
// was authorized when it was asked for, so no caller is checked here.
func (s *Service) WriteArtifact(ctx context.Context, account armid.ID, container, name string, data []byte) (url string, err error) {
	a, err := s.account(ctx, account.Name())
	if err != nil {
		return "", err
	}
	if !a.ID.Equal(account) {
		return "", accountNotFound(account)
	}
	if !isContainerName(container) {
		return "", invalidContainerName(container)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putContainer(ctx, tx, a.ID.Name(), container) })
	if err != nil {
		return "", err
	}
	_, err = s.put(ctx, a, container, name, "application/json", int64(len(data)), bytes.NewReader(data))
	return s.URL(a.ID.Name(), container, name), err
}
