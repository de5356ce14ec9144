package backup

import (
	"context"
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// The policies of a vault, as callers make and change them. What a policy says is in policy.go, calendar.go and retention.go.

// PutPolicy creates or changes a policy of a vault. A change counts for the next run of its items and for the recovery
// points that its schedule has already made; what is kept for less long now goes with the next backup.
func (s *Service) PutPolicy(ctx context.Context, p Policy) (Policy, error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupPolicies/write", p.ID); err != nil {
		return Policy{}, err
	}
	p.Body = p.Body.complete()
	if err := p.Body.check(); err != nil {
		return Policy{}, invalidPolicy(p.ID, err)
	}
	if p.Body.instantExceeds() {
		return Policy{}, instantExceedsRetention(p)
	}
	var following []Item
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := selectVault(ctx, tx, p.ID.Parent()); err != nil {
			return err
		}
		if err := s.roomForPolicy(ctx, tx, p.ID); err != nil {
			return err
		}
		if err := putPolicy(ctx, tx, p); err != nil {
			return err
		}
		following, p.Body.ProtectedItemsCount = nil, 0
		items, err := selectItems(ctx, tx, p.ID.Parent())
		if err != nil {
			return err
		}
		for _, item := range items {
			if item.Policy.Equal(p.ID) {
				p.Body.ProtectedItemsCount++
				following = append(following, item)
				item.next = p.Body.Next(s.o.Now())
				if err := putItem(ctx, tx, item); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, item := range following {
		s.applyPolicy(ctx, item)
	}
	return p, err
}

// roomForPolicy refuses one policy more than a vault may have.
func (s *Service) roomForPolicy(ctx context.Context, tx *database.Tx, id armid.ID) error {
	if _, err := selectPolicy(ctx, tx, id); !isNotFound(err) {
		return err
	}
	n, err := countPolicies(ctx, tx, id.Parent())
	if err == nil && n >= s.o.Limits.Policies {
		err = tooManyPolicies(id.Parent(), s.o.Limits.Policies)
	}
	return err
}

// applyPolicy re-evaluates the recovery points of an item whose policy was changed. Where it fails the change stands all the
// same: the next backup does it again before anything goes.
func (s *Service) applyPolicy(ctx context.Context, item Item) {
	if err := s.reevaluate(ctx, item.ID); err != nil {
		s.o.Log.Error("apply a changed policy to recovery points", "item", item.ID.String(), "error", err)
	}
}

// reevaluate gives the recovery points that an item's schedule has made the expiry that its policy says now. Of an item
// whose protection is stopped all are kept as they are.
func (s *Service) reevaluate(ctx context.Context, id armid.ID) error {
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		item, err := selectItem(ctx, tx, id)
		if err != nil || item.Policy.IsZero() {
			return err
		}
		policy, err := selectPolicy(ctx, tx, item.Policy)
		if err != nil {
			return err
		}
		points, err := selectPoints(ctx, tx, item.ID)
		if err != nil {
			return err
		}
		for _, p := range points {
			if p.Scheduled.IsZero() {
				continue
			}
			expiry := policy.Body.Expiry(p.Scheduled, p.Time)
			if expiry.Equal(p.Expiry) {
				continue
			}
			p.Expiry = expiry
			if err := putPoint(ctx, tx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// putDefaultPolicies gives a new vault the policies that Azure gives it.
func putDefaultPolicies(ctx context.Context, tx *database.Tx, v RecoveryVault) error {
	if err := putPolicy(ctx, tx, defaultPolicy(v.ID, v.Changed)); err != nil {
		return err
	}
	return putPolicy(ctx, tx, enhancedPolicy(v.ID, v.Changed))
}

// Policy returns a policy, with the number of items that follow it.
func (s *Service) Policy(ctx context.Context, id armid.ID) (Policy, error) {
	policies, err := s.Policies(ctx, id.Parent())
	if err != nil {
		return Policy{}, err
	}
	for _, p := range policies {
		if p.ID.Equal(id) {
			return p, nil
		}
	}
	return Policy{}, policyNotFound(id)
}

// Policies returns the policies of a vault, by id.
func (s *Service) Policies(ctx context.Context, vault armid.ID) (policies []Policy, err error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupPolicies/read", vault); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if _, err := selectVault(ctx, tx, vault); err != nil {
			return err
		}
		if policies, err = selectPolicies(ctx, tx, vault); err != nil {
			return err
		}
		items, err := selectItems(ctx, tx, vault)
		if err != nil {
			return err
		}
		for _, item := range items {
			for i := range policies {
				if item.Policy.Equal(policies[i].ID) {
					policies[i].Body.ProtectedItemsCount++
				}
			}
		}
		return nil
	})
	return policies, err
}

// DeletePolicy removes a policy that no item follows.
func (s *Service) DeletePolicy(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, vaultType+"/backupPolicies/delete", id); err != nil {
		return false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		items, err := selectItems(ctx, tx, id.Parent())
		if err != nil {
			return err
		}
		for _, item := range items {
			if item.Policy.Equal(id) {
				return policyInUse(id, item)
			}
		}
		existed, err = deletePolicy(ctx, tx, id)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("delete policy: %w", err)
	}
	return existed, nil
}
