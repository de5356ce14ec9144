package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kluis/internal/objects"
	"kluis/internal/recovery"
)

// recipientsDocument notes, beside the wrapped key of a store, for whom it was wrapped.
const recipientsDocument = "key.recipients"

// Rewrap wraps the key of every recovery store for those who may open it now, where it was wrapped for others.
// Nothing else of a store is written. It goes on where it was cut short, and past a store that fails.
func (s *Service) Rewrap(ctx context.Context) (n int, err error) {
	names, err := s.stores.names(ctx, "")
	if err != nil {
		return 0, err
	}
	var failed []error
	for _, name := range names {
		done, err := s.stores.rewrap(ctx, name)
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("wrap the key of recovery store %s anew: %w", name, err))
		}
		if done {
			n++
		}
	}
	return n, errors.Join(failed...)
}

// rewrap tells whether the key had to be wrapped anew. The key comes before the note: a process that dies between
// them does it again.
func (s *stores) rewrap(ctx context.Context, name string) (done bool, err error) {
	noted, err := recovery.ReadDocument(ctx, s.bucketOf(name), recipientsDocument)
	if err != nil && !errors.Is(err, objects.ErrNotExist) {
		return false, err
	}
	if bytes.Equal(noted, s.recipients()) {
		return false, nil
	}
	store, leave, err := s.write(ctx, name)
	if err != nil {
		return false, err
	}
	defer leave()
	wrapped, err := recovery.ReadDocument(ctx, s.bucketOf(name), keyDocument)
	if err != nil {
		return false, err
	}
	key, err := s.wrapper.Unwrap(wrapped)
	if err != nil {
		return false, err
	}
	defer clear(key)
	if wrapped, err = s.wrapper.Wrap(key); err != nil {
		return false, err
	}
	if err := store.PutDocument(ctx, keyDocument, wrapped); err != nil {
		return false, err
	}
	return true, s.noteRecipients(ctx, store)
}

func (s *stores) noteRecipients(ctx context.Context, store *recovery.Store) error {
	if err := store.PutDocument(ctx, recipientsDocument, s.recipients()); err != nil {
		return fmt.Errorf("note who can open the key: %w", err)
	}
	return nil
}

// recipients is a digest of those who can open what is wrapped now: who looks at a store need not learn them.
func (s *stores) recipients() []byte {
	all := s.wrapper.Recipients()
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "\n")))
	return fmt.Appendf(nil, "%x\n", sum)
}
