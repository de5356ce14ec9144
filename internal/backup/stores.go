package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

// Each protected item has a recovery store of its own (docs/decisions/0004), under a key of its own that
// is kept in the store itself, wrapped: the store and the recovery kit are enough to read it. A store is
// named {vault}/{item}, by the ids of the two. In the bucket lie
//
//	stores/{vault}/{item}/…    the store
//	register/{vault}/{item}    an empty object, so that stores are found without listing what is in them
//
// A store is open as long as somebody uses it and no longer: memory follows the items that are worked on
// and not those there are, and so does the ownership, which keeps other processes from writing.

const (
	storePrefix    = "stores/"
	registerPrefix = "register/"
	keyDocument    = "key.age"
)

// stores opens, makes and erases recovery stores.
type stores struct {
	bucket  objects.Bucket
	wrapper Wrapper
	now     func() time.Time
	rand    io.Reader
	owner   string
	cache   string
	log     *slog.Logger

	mu   sync.Mutex
	open map[string]*sharedStore
}

// sharedStore is an open store and how many use it.
type sharedStore struct {
	*recovery.Store

	users int           // under stores.mu
	turn  sync.Mutex    // held while the store is being opened or closed
	idle  chan struct{} // closed when nobody uses it any more
}

func (s *stores) bucketOf(name string) objects.Bucket {
	return objects.Prefix(s.bucket, storePrefix+name+"/")
}

// create makes an empty store. What is left of it when the process dies meanwhile is in nobody's way.
func (s *stores) create(ctx context.Context, name string) (err error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(s.rand, key); err != nil {
		return fmt.Errorf("make store key: %w", err)
	}
	defer clear(key)
	wrapped, err := s.wrapper.Wrap(key)
	if err != nil {
		return fmt.Errorf("wrap store key: %w", err)
	}
	store, err := recovery.Create(ctx, s.bucketOf(name), s.options(secret.New(key)))
	if err != nil {
		return fmt.Errorf("create recovery store %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.PutDocument(ctx, keyDocument, wrapped); err != nil {
		return fmt.Errorf("keep wrapped key of recovery store %s: %w", name, err)
	}
	if err := s.noteRecipients(ctx, store); err != nil {
		return fmt.Errorf("recovery store %s: %w", name, err)
	}
	if err := s.bucket.Put(ctx, registerPrefix+name, 0, bytes.NewReader(nil)); err != nil {
		return fmt.Errorf("register recovery store %s: %w", name, err)
	}
	return nil
}

func (s *stores) options(key secret.Bytes) recovery.Options {
	return recovery.Options{Key: key, Now: s.now, Rand: s.rand, Grace: storeGrace, Owner: s.owner, Cache: s.cache}
}

// write opens a store as its owner. All who write, restore or collect share it; each calls done.
func (s *stores) write(ctx context.Context, name string) (_ *recovery.Store, done func(), err error) {
	s.mu.Lock()
	shared := s.open[name]
	if shared == nil {
		shared = &sharedStore{idle: make(chan struct{})}
		s.open[name] = shared
	}
	shared.users++
	s.mu.Unlock()
	shared.turn.Lock()
	if shared.Store == nil {
		shared.Store, err = s.openAs(ctx, name, func(*recovery.Options) {})
	}
	store := shared.Store
	shared.turn.Unlock()
	done = sync.OnceFunc(func() { s.leave(name, shared) })
	if err != nil {
		done()
		return nil, nil, err
	}
	return store, done, nil
}

// leave closes a store after its last user. Who comes while it is being closed opens it anew.
func (s *stores) leave(name string, shared *sharedStore) {
	shared.turn.Lock()
	defer shared.turn.Unlock()
	s.mu.Lock()
	shared.users--
	last := shared.users == 0
	s.mu.Unlock()
	if !last {
		return
	}
	if shared.Store != nil {
		if err := shared.Close(); err != nil {
			s.log.Error("close recovery store", "store", name, "error", err)
		}
		shared.Store = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared.users == 0 {
		delete(s.open, name)
		close(shared.idle)
	}
}

// read opens a store to look at what it has, whoever owns it. The caller closes it.
func (s *stores) read(ctx context.Context, name string) (*recovery.Store, error) {
	return s.openAs(ctx, name, func(o *recovery.Options) { o.ReadOnly, o.Owner = true, "" })
}

func (s *stores) openAs(ctx context.Context, name string, adjust func(*recovery.Options)) (*recovery.Store, error) {
	wrapped, err := recovery.ReadDocument(ctx, s.bucketOf(name), keyDocument)
	if err != nil {
		return nil, fmt.Errorf("read wrapped key of recovery store %s: %w", name, err)
	}
	key, err := s.wrapper.Unwrap(wrapped)
	if err != nil {
		return nil, fmt.Errorf("unwrap key of recovery store %s: %w", name, err)
	}
	o := s.options(secret.New(key))
	defer o.Key.Wipe() // the store has derived its own
	adjust(&o)
	store, err := recovery.Open(ctx, s.bucketOf(name), o)
	if err != nil {
		return nil, fmt.Errorf("open recovery store %s: %w", name, err)
	}
	return store, nil
}

// names returns the stores there are whose names begin with prefix.
func (s *stores) names(ctx context.Context, prefix string) (names []string, err error) {
	for o, err := range s.bucket.List(ctx, registerPrefix+prefix) {
		if err != nil {
			return nil, fmt.Errorf("list recovery stores: %w", err)
		}
		names = append(names, strings.TrimPrefix(o.Name, registerPrefix))
	}
	return names, nil
}

// erase destroys a store, its key before all else. It waits until nobody in this process uses it, and refuses while another process
// owns it. Erasing what is erased in part goes on with it; what is not there is no error.
func (s *stores) erase(ctx context.Context, name string) error {
	if err := s.awaitIdle(ctx, name); err != nil {
		return err
	}
	_, done, err := s.write(ctx, name)
	switch {
	case err == nil:
		done() // nobody else owned it
	case errors.Is(err, objects.ErrNotExist), errors.Is(err, recovery.ErrErased): // an earlier attempt got this far
	default:
		if _, owned := errors.AsType[*recovery.OwnedError](err); owned {
			return err
		}
		s.log.Warn("a recovery store that cannot be opened is erased", "store", name, "error", err)
	}
	if err := recovery.Erase(ctx, s.bucketOf(name)); err != nil && !errors.Is(err, recovery.ErrNoStore) {
		return fmt.Errorf("erase recovery store %s: %w", name, err)
	}
	return s.bucket.Delete(ctx, registerPrefix+name)
}

func (s *stores) awaitIdle(ctx context.Context, name string) error {
	s.mu.Lock()
	shared := s.open[name]
	s.mu.Unlock()
	if shared == nil {
		return nil
	}
	select {
	case <-shared.idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close closes what is still open. No job may be running.
func (s *stores) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for name, shared := range s.open {
		if shared.Store != nil {
			errs = append(errs, shared.Close())
		}
		delete(s.open, name)
	}
	return errors.Join(errs...)
}
