package keyvault

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/identity"
	"kluis/internal/keyvault/audit"
)

// Root is the root key behind the Sealer, as it can be changed. Its older keys open what they have sealed.
type Root interface {
	Mark() []byte // what Seal's results begin with now, and those of older keys don't
	Rotate() error
	Recipients() []string
	AddRecipient(recipient string) error
	RemoveRecipient(recipient string) error
}

// SealStatus is how things stand with the root key.
type SealStatus struct {
	Mark       []byte
	Recipients []string
	Pending    int // versions that are still under an older root key
}

// Changing the root key or who opens it is as much as giving access to others, so it needs the same role: actions of
// this provider are what a Contributor doesn't have.
const (
	sealRead  = "Microsoft.Authorization/seal/read"
	sealWrite = "Microsoft.Authorization/seal/write"
)

// SealStatus tells who opens the root key, and whether all is under the present one.
func (s *Service) SealStatus(ctx context.Context, subscription armid.ID) (st SealStatus, err error) {
	if err := s.o.Authorizer.Authorize(ctx, sealRead, subscription); err != nil {
		return SealStatus{}, err
	}
	if s.o.Root == nil {
		return SealStatus{}, rootFixed()
	}
	st = SealStatus{Mark: s.o.Root.Mark(), Recipients: s.o.Root.Recipients()}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		st.Pending, err = countUnderOtherRoots(ctx, tx, st.Mark)
		return err
	})
	return st, err
}

// RotateRoot makes a new root key. What is stored is sealed anew behind it (RootRotated, Reseal).
func (s *Service) RotateRoot(ctx context.Context, subscription armid.ID) error {
	return s.changeRoot(ctx, subscription, "SealRotate", "", func() error {
		err := s.o.Root.Rotate()
		s.tellRotated()
		return err
	})
}

// tellRotated lets those who wait for RootRotated know.
func (s *Service) tellRotated() {
	select {
	case s.rotated <- struct{}{}:
	default: // somebody is told already
	}
}

// AddRecipient lets one more age identity open the root key.
func (s *Service) AddRecipient(ctx context.Context, subscription armid.ID, recipient string) error {
	return s.changeRoot(ctx, subscription, "SealRecipientAdd", recipient, func() error {
		if err := s.o.Root.AddRecipient(recipient); err != nil {
			return badRecipient(recipient, err)
		}
		s.tellRotated()
		return nil
	})
}

// RemoveRecipient takes a recipient away. Copies from before still open to it, so a rotation should follow.
func (s *Service) RemoveRecipient(ctx context.Context, subscription armid.ID, recipient string) error {
	return s.changeRoot(ctx, subscription, "SealRecipientRemove", recipient, func() error {
		if err := s.o.Root.RemoveRecipient(recipient); err != nil {
			return badRecipient(recipient, err)
		}
		s.tellRotated()
		return nil
	})
}

// changeRoot changes the root key, and records that somebody did or was refused.
func (s *Service) changeRoot(ctx context.Context, subscription armid.ID, operation, what string, change func() error) error {
	who, known := identity.From(ctx)
	if !known {
		return noPrincipal()
	}
	err := s.o.Authorizer.Authorize(ctx, sealWrite, subscription)
	if err == nil && s.o.Root == nil {
		err = rootFixed()
	}
	if err == nil {
		err = change()
	}
	recordErr := s.log.Record(context.WithoutCancel(ctx), audit.Entry{At: s.now(), Principal: who, Operation: operation, Kind: "seal", Name: clip(what),
		Result: resultOf(err), Correlation: identity.Correlation(ctx)})
	return errors.Join(err, recordErr)
}

// RootRotated gets a value when the root key has been rotated, or can be opened by others than before: it is time for
// Reseal, and to wrap anew what is wrapped for its recipients.
func (s *Service) RootRotated() <-chan struct{} { return s.rotated }

const resealBatch = 200

// Reseal brings what is stored under the present root key, a few versions a transaction, and returns how many it
// sealed anew. It may be killed at any moment and run again: what is left is what doesn't bear the mark yet. A
// version that doesn't open stays as it is and doesn't keep the others from it.
func (s *Service) Reseal(ctx context.Context) (n int, err error) {
	if s.o.Root == nil {
		return 0, nil
	}
	mark := s.o.Root.Mark()
	if err := s.resealCheck(ctx, mark); err != nil {
		return 0, err
	}
	var damaged []error
	for after := (target{}); ; {
		rows, failed, err := s.resealBatch(ctx, mark, after)
		damaged = append(damaged, failed...)
		if err != nil {
			return n, errors.Join(append(damaged, err)...)
		}
		n += len(rows) - len(failed)
		if len(rows) < resealBatch {
			return n, errors.Join(damaged...)
		}
		after = rows[len(rows)-1].target
	}
}

// resealBatch seals the next versions anew in one transaction. failed are those that don't open.
func (s *Service) resealBatch(ctx context.Context, mark []byte, after target) (rows []sealedRow, failed []error, err error) {
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) (err error) {
		failed = nil // a transaction may run again
		if rows, err = selectUnderOtherRoots(ctx, tx, mark, after, resealBatch); err != nil {
			return err
		}
		for _, r := range rows {
			if r.sealed, err = s.sealAnew(r.context(), r.sealed); err != nil {
				failed = append(failed, fmt.Errorf("seal %s/%s anew: %w", r.target, r.version, err))
				continue
			}
			if err := updateSealed(ctx, tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	return rows, failed, err
}

func (s *Service) resealCheck(ctx context.Context, mark []byte) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		sealed, err := selectSeal(ctx, tx)
		if err != nil || bytes.HasPrefix(sealed, mark) {
			return err
		}
		if sealed, err = s.sealAnew(sealContext, sealed); err != nil {
			return err
		}
		return updateSeal(ctx, tx, sealed)
	})
}

func (s *Service) sealAnew(context string, sealed []byte) ([]byte, error) {
	plain, err := s.o.Seal.Open(context, sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return s.o.Seal.Seal(context, plain)
}
