package storage

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"kluis/internal/database"
)

// Lease is a claim on a blob or a container. While it lasts, only who names its id changes the blob or deletes the
// container. It ends with its time, unless it is renewed; by release; or because somebody breaks it, which may take
// the rest of its time. One that has ended leaves a trace until the blob is changed: who had it can have it again.
type Lease struct {
	ID      string        // a UUID; "" where there is no lease
	For     time.Duration // -1: for ever
	Expires time.Time     // zero: never
	Broken  time.Time     // from when on it is broken; zero where nobody has asked for that
}

// forever is the duration of a lease that does not expire.
const forever = -1

// The states of a lease, in Azure's words.
const (
	available = "available"
	leased    = "leased"
	expired   = "expired"
	breaking  = "breaking"
	broken    = "broken"
)

// State says how it stands with the lease now.
func (l Lease) State(now time.Time) string {
	switch {
	case l.ID == "":
		return available
	case !l.Broken.IsZero() && !now.Before(l.Broken):
		return broken
	case !l.Broken.IsZero():
		return breaking
	case !l.Expires.IsZero() && !now.Before(l.Expires):
		return expired
	}
	return leased
}

// IsHeld reports whether the lease keeps others away.
func (l Lease) IsHeld(now time.Time) bool {
	state := l.State(now)
	return state == leased || state == breaking
}

// LeaseAction is what is done to a lease.
type LeaseAction struct {
	Verb     string // "acquire", "renew", "change", "release", "break"
	ID       string // of the lease
	Proposed string // the id that it is to have
	Seconds  int    // of acquire: 15 to 60, or -1 for ever
	Period   int    // of break: how long it may still last; -1 where nobody said
}

func (a LeaseAction) check() error {
	switch {
	case a.Verb == "acquire" && a.Seconds != forever && (a.Seconds < 15 || a.Seconds > 60):
		return invalidLease("x-ms-lease-duration", "it is not between 15 and 60, or -1")
	case a.Verb == "break" && a.Period > 60:
		return invalidLease("x-ms-lease-break-period", "it is not between 0 and 60")
	case a.Proposed != "" && uuid.Validate(a.Proposed) != nil:
		return invalidLease("x-ms-proposed-lease-id", "it is no UUID")
	case a.Verb == "change" && a.Proposed == "":
		return invalidLease("x-ms-proposed-lease-id", "it is missing")
	case a.Verb != "acquire" && a.Verb != "break" && uuid.Validate(a.ID) != nil:
		return invalidLease("x-ms-lease-id", "it is no UUID")
	}
	return nil
}

// after is the lease once the action is done; one without an id is none. newID is for one that nobody named.
func (l Lease) after(a LeaseAction, now time.Time, newID func() string) (Lease, error) {
	state := l.State(now)
	switch a.Verb {
	case "acquire":
		return l.acquired(a, state, now, newID)
	case "renew":
		switch {
		case state == available, l.ID != a.ID:
			return l, leaseMismatch()
		case state == breaking, state == broken:
			return l, leaseIsBroken("renewed")
		}
		return leaseFrom(l.ID, l.For, now), nil
	case "change":
		switch {
		case state == available || state == expired || state == broken:
			return l, leaseMissing("WithLeaseOperation")
		case state == breaking:
			return l, leaseIsBreaking("changed")
		case l.ID != a.ID && l.ID != a.Proposed:
			return l, leaseMismatch()
		}
		l.ID = a.Proposed
		return l, nil
	case "release":
		if state == available || l.ID != a.ID {
			return l, leaseMismatch()
		}
		return Lease{}, nil
	}
	return l.broke(a, state, now)
}

func (l Lease) acquired(a LeaseAction, state string, now time.Time, newID func() string) (Lease, error) {
	switch {
	case state == breaking && l.ID == a.Proposed:
		return l, leaseIsBreaking("acquired")
	case (state == leased || state == breaking) && l.ID != a.Proposed:
		return l, leasePresent()
	}
	id := a.Proposed
	if id == "" {
		id = newID()
	}
	return leaseFrom(id, time.Duration(a.Seconds)*time.Second, now), nil
}

func leaseFrom(id string, d time.Duration, now time.Time) Lease {
	l := Lease{ID: id, For: d}
	if d < 0 {
		l.For = forever
		return l
	}
	l.Expires = now.Add(d)
	return l
}

// broke is the lease once somebody has asked to break it: at the end of its time, or sooner if they say so. One that
// never ends is broken at once, unless they give it time.
func (l Lease) broke(a LeaseAction, state string, now time.Time) (Lease, error) {
	if state == available {
		return l, leaseMissing("WithLeaseOperation")
	}
	if state == broken || state == expired {
		l.Broken = now
		return l, nil
	}
	end := now
	switch {
	case state == breaking:
		end = l.Broken
	case l.For != forever:
		end = l.Expires
	case a.Period >= 0:
		end = now.Add(time.Duration(a.Period) * time.Second)
	}
	if wanted := now.Add(time.Duration(a.Period) * time.Second); a.Period >= 0 && wanted.Before(end) {
		end = wanted
	}
	l.Broken = end
	return l, nil
}

// Left is how many seconds it takes until a lease that is being broken is.
func (l Lease) Left(now time.Time) int {
	return int(max(0, l.Broken.Sub(now)+time.Second-1) / time.Second)
}

// LeaseBlob does something to the lease of a blob.
func (s *Service) LeaseBlob(ctx context.Context, account, container, name string, action LeaseAction, conditions ...Condition) (b Blob, err error) {
	op := writeBlobs
	if action.Verb == "break" {
		op = breakLeases
	}
	a, err := s.open(ctx, account, container, name, op)
	if err == nil {
		err = action.check()
	}
	if err != nil {
		return Blob{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if b, err = findBlob(ctx, tx, a, container, name); err != nil {
			return err
		}
		if err := Check(conditions, b, true, s.o.Now()); err != nil {
			return err
		}
		if b.Lease, err = b.Lease.after(action, s.o.Now(), s.o.NewID); err != nil {
			return err
		}
		return putLease(ctx, tx, a.ID.Name(), container, name, b.Lease)
	})
	return b, err
}

// LeaseContainer does something to the lease of a container.
func (s *Service) LeaseContainer(ctx context.Context, account, container string, action LeaseAction) (c Container, err error) {
	a, err := s.open(ctx, account, container, "", leaseContainers)
	if err == nil {
		err = action.check()
	}
	if err != nil {
		return Container{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if c, err = findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		if c.Lease, err = c.Lease.after(action, s.o.Now(), s.o.NewID); err != nil {
			return err
		}
		return putLease(ctx, tx, a.ID.Name(), container, "", c.Lease)
	})
	return c, err
}

// outlive forgets a lease that has ended when its blob is changed: who had it can't have it again.
func (s *Service) outlive(ctx context.Context, tx *database.Tx, a Account, container string, b Blob) error {
	if b.Lease.ID == "" || b.Lease.IsHeld(s.o.Now()) {
		return nil
	}
	return putLease(ctx, tx, a.ID.Name(), container, b.Name, Lease{})
}

// HoldsLease wants the lease of that id to be on the blob or container, and to be held.
func HoldsLease(id string) Condition { return Condition{lease: id} }

// heldBy is nil if a lease is held and has that id; what is the kind of thing that it is on.
func (l Lease) heldBy(id, what string, now time.Time) error {
	held := l.IsHeld(now)
	switch {
	case l.ID != id && held:
		return leaseMismatchOn(what)
	case l.ID != id:
		return leaseMissing(what)
	case !held:
		return leaseLost()
	}
	return nil
}

// checkChange is nil if the conditions hold and no lease keeps the caller away.
func (s *Service) checkChange(conditions []Condition, b Blob, found bool) error {
	now := s.o.Now()
	if found && b.Lease.IsHeld(now) && !slices.ContainsFunc(conditions, Condition.namesLease) {
		return leaseIDMissing("blob")
	}
	return Check(conditions, b, found, now)
}

// checkContainer is nil if the caller has the container's lease, should they name one. Only its deletion needs it.
func (s *Service) checkContainer(conditions []Condition, c Container, deleting bool) error {
	now, named := s.o.Now(), false
	for _, condition := range conditions {
		if condition.namesLease() {
			named = true
			if err := c.Lease.heldBy(condition.lease, "WithContainerOperation", now); err != nil {
				return err
			}
		}
	}
	if deleting && !named && c.Lease.IsHeld(now) {
		return leaseIDMissing("container")
	}
	return nil
}
