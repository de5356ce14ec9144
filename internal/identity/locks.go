package identity

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Lock keeps a subscription, a resource group or a resource, and everything in it, from being deleted or
// changed, by whomever. It does not touch the data of a resource, and not what the server does by itself: a
// vault that is read-only goes on making backups, and lets old recovery points go.
type Lock struct {
	Scope armid.ID
	Name  string
	Level LockLevel
	Notes string

	Created, Updated     time.Time
	CreatedBy, UpdatedBy string // object ids
}

// LockLevel says what a lock forbids.
type LockLevel string

// The levels, in Azure's words.
const (
	CanNotDelete LockLevel = "CanNotDelete" // to delete
	ReadOnly     LockLevel = "ReadOnly"     // all but to read
)

// ID returns the lock's id.
func (l Lock) ID() armid.ID { return LockID(l.Scope, l.Name) }

// LockID returns the id of the lock of that name at a scope.
func LockID(scope armid.ID, name string) armid.ID { return scope.Extension(LockType, name) }

// forbids reports whether the lock stands in the way of an action at a scope. Deleting a thing deletes what is in
// it, so a lock there counts too. Locks themselves can always be set and removed.
func (l Lock) forbids(action string, scope armid.ID) bool {
	action = strings.ToLower(action)
	switch {
	case strings.HasSuffix(action, "/read"), strings.HasPrefix(action, strings.ToLower(LockType)+"/"):
		return false
	case l.Level == CanNotDelete && !strings.HasSuffix(action, "/delete"):
		return false
	case scope.Within(l.Scope):
		return true
	}
	return strings.HasSuffix(action, "/resourcegroups/delete") && l.Scope.Within(scope)
}

// checkLocks is the one place where locks are heeded.
func checkLocks(ctx context.Context, tx *database.Tx, action string, scope armid.ID) error {
	if strings.HasSuffix(strings.ToLower(action), "/read") {
		return nil
	}
	locks, err := allLocks(ctx, tx)
	if err != nil {
		return fmt.Errorf("read locks: %w", err)
	}
	locks = slices.DeleteFunc(locks, func(l Lock) bool { return !l.forbids(action, scope) })
	if len(locks) > 0 {
		return scopeLocked(action, scope, locks)
	}
	return nil
}

// Locks returns the locks of a scope: those that are set there, above it and below it, or, with atScope, not
// those below.
func (s *Service) Locks(ctx context.Context, scope armid.ID, atScope bool) (locks []Lock, err error) {
	if err := s.Authorize(ctx, LockType+"/read", scope); err != nil {
		return nil, err
	}
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		locks, err = allLocks(ctx, tx)
		return err
	})
	return slices.DeleteFunc(locks, func(l Lock) bool {
		return !scope.Within(l.Scope) && (atScope || !l.Scope.Within(scope))
	}), err
}

// Lock returns one.
func (s *Service) Lock(ctx context.Context, scope armid.ID, name string) (l Lock, err error) {
	if err := s.Authorize(ctx, LockType+"/read", scope); err != nil {
		return Lock{}, err
	}
	err = s.db.Read(ctx, func(tx *database.Tx) error {
		l, err = lockNamed(ctx, tx, scope, name)
		if errors.Is(err, database.ErrNoRows) {
			return lockNotFound(scope, name)
		}
		return err
	})
	return l, err
}

// PutLock sets a lock, or changes level and notes of one.
func (s *Service) PutLock(ctx context.Context, l Lock) (put Lock, created bool, err error) {
	if err := s.Authorize(ctx, LockType+"/write", l.Scope); err != nil {
		return Lock{}, false, err
	}
	if err := s.checkLock(&l); err != nil {
		return Lock{}, false, err
	}
	who, _ := From(ctx)
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		put = l
		put.Updated, put.UpdatedBy = s.now(), who.ObjectID
		old, err := lockNamed(ctx, tx, l.Scope, l.Name)
		switch {
		case err == nil:
			put.Scope, put.Name, put.Created, put.CreatedBy, created = old.Scope, old.Name, old.Created, old.CreatedBy, false
			return updateLock(ctx, tx, put)
		case errors.Is(err, database.ErrNoRows):
			put.Created, put.CreatedBy, created = put.Updated, put.UpdatedBy, true
			return insertLock(ctx, tx, put)
		}
		return err
	})
	return put, created, err
}

// DeleteLock removes a lock, and reports whether it was there.
func (s *Service) DeleteLock(ctx context.Context, scope armid.ID, name string) (existed bool, err error) {
	if err := s.Authorize(ctx, LockType+"/delete", scope); err != nil {
		return false, err
	}
	err = s.db.InTx(ctx, func(tx *database.Tx) error {
		existed, err = deleteLock(ctx, tx, scope, name)
		return err
	})
	return existed, err
}

var lockName = regexp.MustCompile(`^[^<>%&:\\?/\x00-\x1f]{1,90}$`)

const maxNotes = 512

func (s *Service) checkLock(l *Lock) error {
	switch {
	case !lockName.MatchString(l.Name):
		return badLock("name", "it has 1 to 90 characters, none of them <, >, %, &, :, \\, ? or /")
	case len(l.Notes) > maxNotes:
		return badLock("notes", fmt.Sprintf("they have more than %d bytes", maxNotes))
	case !strings.EqualFold(l.Scope.Subscription, s.subscription):
		return badLock("scope", "it is not in the subscription "+s.subscription)
	case len(l.Scope.Segments) > 1 || l.Scope.Provider != "" && len(l.Scope.Segments) == 0:
		return badLock("scope", "locks are set on a subscription, a resource group or a resource, and hold for all that is in it")
	}
	for _, level := range []LockLevel{CanNotDelete, ReadOnly} {
		if strings.EqualFold(string(l.Level), string(level)) {
			l.Level = level
			return nil
		}
	}
	return badLock("level", "it is CanNotDelete or ReadOnly")
}
