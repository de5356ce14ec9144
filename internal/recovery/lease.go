package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"kluis/internal/objects"
)

const (
	ownerLock    = "owner"
	defaultLease = 30 * time.Second
)

// OwnedError means that another process owns the store.
type OwnedError struct {
	Owner string // its name; empty if that is not known
	Epoch uint64
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("the recovery store is owned by %q (epoch %d); it can be opened to be read", e.Owner, e.Epoch)
}

// lease is what makes a process the one owner of a store.
//
// The objects are owner/epoch-beat: who puts the first of a new epoch owns the store from then on, and
// shows that it lives by putting the next beat, a few times in the time of the lease. Of several that want
// the same epoch one wins, because names are put once. No two clocks are compared: whoever
// wants to take over watches, and where no beat came for the time of the lease by its own clock, takes the
// next epoch; and an owner stops by its own clock when it could not put a beat for that
// time. Where the bucket has a lock that dies with the process, holding it is proof enough that the
// former owner is gone, and nobody has to wait.
type lease struct {
	bucket objects.Bucket
	now    func() time.Time
	claim  claim
	epoch  uint64
	unlock func() error // nil if the bucket has no lock
	// contested means that a former owner was not seen to end: what it has under way may still arrive.
	contested bool

	cancel context.CancelFunc
	done   chan struct{} // closed when beating has ended

	mu    sync.Mutex
	beat  uint64
	until time.Time // when the lease ends, by our clock
	lost  error     // why it is over for good
}

// checkUnowned refuses to write to a store without a lease while somebody has one.
func checkUnowned(ctx context.Context, b objects.Bucket) error {
	c, err := newestClaim(ctx, b)
	if err != nil || c == nil || c.Released {
		return err
	}
	return &OwnedError{c.Owner, c.epoch}
}

// takeLease makes this process the owner. It returns an OwnedError if another lives.
func takeLease(ctx context.Context, b objects.Bucket, o Options) (*lease, error) {
	l := &lease{
		bucket: b, now: o.Now, done: make(chan struct{}),
		claim: claim{Owner: o.Owner, Lease: int64(o.Lease / time.Microsecond)},
	}
	if err := l.lock(ctx); err != nil {
		return nil, err
	}
	if err := l.take(ctx); err != nil {
		return nil, errors.Join(err, l.free())
	}
	beating, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		l.keepBeating(beating)
	}()
	return l, nil
}

// lock takes the lock of the bucket, if it has one.
func (l *lease) lock(ctx context.Context) error {
	locker, ok := l.bucket.(objects.Locker)
	if !ok {
		return nil
	}
	unlock, err := locker.Lock(ownerLock)
	switch {
	case errors.Is(err, objects.ErrLocked):
		c, err := newestClaim(ctx, l.bucket)
		if err != nil {
			return err
		}
		if c == nil {
			c = new(claimed) // it has the lock, and is about to claim
		}
		return &OwnedError{c.Owner, c.epoch}
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		return fmt.Errorf("become owner: %w", err)
	}
	l.unlock = unlock
	return nil
}

func (l *lease) free() error {
	if l.unlock == nil {
		return nil
	}
	return l.unlock()
}

// take claims the next epoch, after the last owner has ended.
func (l *lease) take(ctx context.Context) error {
	last, err := newestClaim(ctx, l.bucket)
	if err != nil {
		return err
	}
	if last == nil {
		last = &claimed{claim: claim{Released: true}}
	}
	wait := time.Duration(last.Lease) * time.Microsecond
	l.contested = !last.Released && l.unlock == nil
	if l.contested {
		if err := l.watch(ctx, last, wait); err != nil {
			return err
		}
	}
	l.epoch = last.epoch + 1
	start := l.now()
	err = l.put(ctx, 0, l.claim)
	if errors.Is(err, objects.ErrExists) {
		return l.outrun(ctx)
	} else if err != nil {
		return fmt.Errorf("become owner: %w", err)
	}
	if l.contested {
		// A beat that was under way when we looked last makes the former owner go on for the time of the
		// lease at most: its next one finds our claim.
		again, err := l.former(ctx, last)
		if err != nil {
			return err
		}
		if again {
			if err := pause(ctx, wait); err != nil {
				return err
			}
			start = l.now()
			if err := l.renew(ctx); err != nil {
				return err
			}
		}
	}
	l.until = start.Add(time.Duration(l.claim.Lease) * time.Microsecond)
	return l.removeFormer(ctx, l.beat)
}

// outrun tells who was faster.
func (l *lease) outrun(ctx context.Context) error {
	c, err := newestClaim(ctx, l.bucket)
	if err != nil {
		return err
	}
	if c == nil {
		c = &claimed{epoch: l.epoch}
	}
	return &OwnedError{c.Owner, c.epoch}
}

// watch waits for the time of the lease, and returns an OwnedError if the owner gives a sign of life.
func (l *lease) watch(ctx context.Context, last *claimed, wait time.Duration) error {
	const looks = 4
	for range looks {
		if err := pause(ctx, wait/looks+wait/32); err != nil {
			return err
		}
		c, err := newestClaim(ctx, l.bucket)
		if err != nil {
			return err
		}
		if c != nil && (c.epoch != last.epoch || c.beat != last.beat) {
			if c.Released {
				last.claim, last.epoch, last.beat = c.claim, c.epoch, c.beat
				l.contested = false
				return nil
			}
			return &OwnedError{c.Owner, c.epoch}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// former tells whether the former owner has given a sign of life after it was watched.
func (l *lease) former(ctx context.Context, last *claimed) (bool, error) {
	for o, err := range l.bucket.List(ctx, ownerPrefix) {
		if err != nil {
			return false, fmt.Errorf("list owners: %w", err)
		}
		if epoch, beat, ok := parseClaimName(o.Name); ok && epoch == last.epoch && beat > last.beat {
			return true, nil
		}
	}
	return false, nil
}

func (l *lease) put(ctx context.Context, beat uint64, c claim) error {
	content, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return l.bucket.Put(ctx, claimName(l.epoch, beat), int64(len(content)), bytes.NewReader(content))
}

// removeFormer removes the claims before ours.
func (l *lease) removeFormer(ctx context.Context, beat uint64) error {
	for o, err := range l.bucket.List(ctx, ownerPrefix) {
		if err != nil {
			return fmt.Errorf("list owners: %w", err)
		}
		epoch, b, ok := parseClaimName(o.Name)
		if ok && (epoch < l.epoch || epoch == l.epoch && b < beat) {
			if err := l.bucket.Delete(ctx, o.Name); err != nil {
				return fmt.Errorf("remove a former claim: %w", err)
			}
		}
	}
	return nil
}

// keepBeating puts a beat three times in the time of the lease. One that fails is put again the next
// time; if none arrives for the time of the lease, until is over and nothing can be written.
func (l *lease) keepBeating(ctx context.Context) {
	t := time.NewTicker(time.Duration(l.claim.Lease) * time.Microsecond / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		start := l.now()
		if err := l.renew(ctx); err != nil {
			var owned *OwnedError
			if errors.As(err, &owned) {
				return
			}
			continue
		}
		l.mu.Lock()
		l.until = start.Add(time.Duration(l.claim.Lease) * time.Microsecond)
		l.mu.Unlock()
	}
}

// renew puts the next beat, and looks whether somebody has taken over.
func (l *lease) renew(ctx context.Context) error {
	l.mu.Lock()
	l.beat++
	beat := l.beat
	l.mu.Unlock()
	if err := l.put(ctx, beat, l.claim); err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	if err := l.compare(ctx); err != nil {
		return err
	}
	return l.removeFormer(ctx, beat)
}

// compare returns an OwnedError if there is a newer epoch than ours.
func (l *lease) compare(ctx context.Context) error {
	c, err := newestClaim(ctx, l.bucket)
	if err != nil {
		return err
	}
	if c == nil || c.epoch <= l.epoch {
		return nil
	}
	owned := &OwnedError{c.Owner, c.epoch}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = owned
	return owned
}

// valid tells whether the lease holds by our own clock.
func (l *lease) valid() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return fmt.Errorf("%w: %w", ErrNotOwner, l.lost)
	}
	if !l.now().Before(l.until) {
		return fmt.Errorf("%w: the lease could not be renewed in time", ErrNotOwner)
	}
	return nil
}

// holds tells whether the lease holds by our own clock, and nobody has taken over.
func (l *lease) holds(ctx context.Context) error {
	if err := l.compare(ctx); err != nil {
		var owned *OwnedError
		if errors.As(err, &owned) {
			return fmt.Errorf("%w: %w", ErrNotOwner, err)
		}
		return err
	}
	return l.valid()
}

// release ends the lease, so that the next owner need not wait.
func (l *lease) release(ctx context.Context) error {
	l.cancel()
	<-l.done
	var err error
	if l.valid() == nil {
		l.claim.Released = true
		l.beat++
		if err = l.put(ctx, l.beat, l.claim); err == nil {
			err = l.removeFormer(ctx, l.beat)
		}
	}
	return errors.Join(err, l.free())
}

// readOnly tells whether the store was opened to be read.
func (s *Store) readOnly() bool { return s.opts.ReadOnly }

// mayWrite returns an error unless this process may change the store, as far as it knows.
func (s *Store) mayWrite() error {
	switch {
	case s.readOnly():
		return ErrNotOwner
	case s.lease != nil:
		return s.lease.valid()
	}
	return nil
}

// owns is mayWrite for what must not happen twice: it asks the bucket, too.
func (s *Store) owns(ctx context.Context) error {
	if s.lease == nil || s.readOnly() {
		return s.mayWrite()
	}
	return s.lease.holds(ctx)
}

// Epoch returns the epoch of the ownership, or 0 if the store was opened without.
func (s *Store) Epoch() uint64 {
	if s.lease == nil {
		return 0
	}
	return s.lease.epoch
}

// own becomes the owner, as the options say.
func (s *Store) own(ctx context.Context) (err error) {
	switch {
	case s.opts.ReadOnly:
		return nil
	case s.opts.Owner == "":
		return checkUnowned(ctx, s.bucket)
	case len(s.opts.Owner) > 256 || strings.ContainsFunc(s.opts.Owner, func(r rune) bool { return r < ' ' }):
		return errors.New("the owner's name is too long, or holds control characters")
	}
	s.lease, err = takeLease(ctx, s.bucket, s.opts)
	return err
}
