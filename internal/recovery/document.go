package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kluis/internal/objects"
)

const (
	documentPrefix = "documents/"
	maxDocument    = 1 << 20
)

// PutDocument stores a document of up to 1 MiB beside the points, in place of the one that had this name.
// The store keeps it as it is: what must not be read by everybody is encrypted by the caller. This is the
// place for the store's own key, wrapped.
//
// Each version is an object of its own, documents/name/number; the highest number counts. So there
// is a whole document at every instant.
func (s *Store) PutDocument(ctx context.Context, name string, data []byte) error {
	if !validDocumentName(name) || len(data) > maxDocument {
		return fmt.Errorf("put document %q of %d bytes: want a name of a-z 0-9 . _ - and at most %d bytes", name, len(data), maxDocument)
	}
	if err := s.owns(ctx); err != nil {
		return fmt.Errorf("put document %q: %w", name, err)
	}
	if err := checkErased(ctx, s.bucket); err != nil {
		return fmt.Errorf("put document %q: %w", name, err)
	}
	versions, err := documentVersions(ctx, s.bucket, name)
	if err != nil {
		return fmt.Errorf("put document %q: %w", name, err)
	}
	next := uint64(1)
	if len(versions) > 0 {
		next = versions[len(versions)-1] + 1
	}
	if err := s.bucket.Put(ctx, documentObject(name, next), int64(len(data)), bytes.NewReader(data)); err != nil {
		return fmt.Errorf("put document %q: %w", name, err)
	}
	for _, v := range versions {
		if err := s.bucket.Delete(ctx, documentObject(name, v)); err != nil {
			return fmt.Errorf("remove the former document %q: %w", name, err)
		}
	}
	return nil
}

// ReadDocument returns a document of the store in b, for which no key is needed. It returns
// objects.ErrNotExist if there is none of that name.
func ReadDocument(ctx context.Context, b objects.Bucket, name string) ([]byte, error) {
	if !validDocumentName(name) {
		return nil, fmt.Errorf("read document %q: %w", name, objects.ErrNotExist)
	}
	for {
		versions, err := documentVersions(ctx, b, name)
		if err != nil {
			return nil, fmt.Errorf("read document %q: %w", name, err)
		}
		if len(versions) == 0 {
			return nil, fmt.Errorf("read document %q: %w", name, objects.ErrNotExist)
		}
		data, err := readAll(ctx, b, documentObject(name, versions[len(versions)-1]), maxDocument)
		if errors.Is(err, objects.ErrNotExist) {
			continue // it was replaced after it was listed
		} else if err != nil {
			return nil, fmt.Errorf("read document %q: %w", name, err)
		}
		return data, nil
	}
}

// documentVersions returns the numbers of a document's versions, ascending.
func documentVersions(ctx context.Context, b objects.Bucket, name string) ([]uint64, error) {
	var versions []uint64
	prefix := documentPrefix + name + "/"
	for o, err := range b.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		v, err := strconv.ParseUint(strings.TrimPrefix(o.Name, prefix), 16, 64)
		if err == nil && documentObject(name, v) == o.Name {
			versions = append(versions, v)
		}
	}
	return versions, nil
}

func documentObject(name string, version uint64) string {
	return fmt.Sprintf("%s%s/%016x", documentPrefix, name, version)
}

func validDocumentName(name string) bool {
	return validPointID(name) && name[0] != '.' && strings.ToLower(name) == name
}
