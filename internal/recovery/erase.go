package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kluis/internal/objects"
)

// erasedName is an object that says that the store is being erased.
const erasedName = "erased"

// ErrErased means that the store is being erased. Erase finishes that.
var ErrErased = errors.New("the recovery store is being erased")

// Erase destroys the store in b. It needs no key, and may be called again after it was stopped, however that
// came about. The order is what matters: first the store is marked, so that nobody opens it any more; then the
// documents go, the wrapped key among them, and from there on nobody can read a point, whatever is left of
// the bytes; then the points; then everything else.
//
// What was deleted may be found on the medium for a while, and in copies of the bucket: of the key, too.
// Who must be sure destroys what wraps the key.
func Erase(ctx context.Context, b objects.Bucket) error {
	if err := erase(ctx, b); err != nil {
		return fmt.Errorf("erase recovery store: %w", err)
	}
	return nil
}

func erase(ctx context.Context, b objects.Bucket) error {
	for _, name := range []string{headerName, erasedName} {
		r, err := b.Get(ctx, name, 0, 0)
		if err == nil {
			_ = r.Close()
			break
		} else if !errors.Is(err, objects.ErrNotExist) {
			return err
		}
		if name == erasedName {
			return ErrNoStore
		}
	}
	err := b.Put(ctx, erasedName, 0, strings.NewReader(""))
	if isNoSpace(err) { // not even for an empty object
		if err = b.Delete(ctx, reserveName); err == nil {
			err = b.Put(ctx, erasedName, 0, strings.NewReader(""))
		}
	}
	if err != nil && !errors.Is(err, objects.ErrExists) {
		return err
	}
	for _, prefix := range []string{documentPrefix, pointPrefix, trashPrefix, ""} {
		if err := deleteAll(ctx, b, prefix); err != nil {
			return err
		}
	}
	for _, name := range []string{headerName, erasedName} {
		if err := b.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// deleteAll deletes the objects that begin with prefix, but for the header and the mark.
func deleteAll(ctx context.Context, b objects.Bucket, prefix string) error {
	for o, err := range b.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if o.Name == headerName || o.Name == erasedName {
			continue
		}
		if err := b.Delete(ctx, o.Name); err != nil {
			return err
		}
	}
	return nil
}

// checkErased returns ErrErased if the store is being erased.
func checkErased(ctx context.Context, b objects.Bucket) error {
	r, err := b.Get(ctx, erasedName, 0, 0)
	if errors.Is(err, objects.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	_ = r.Close()
	return ErrErased
}
