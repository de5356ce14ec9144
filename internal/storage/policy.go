package storage

import (
	"context"

	"kluis/internal/database"
)

// Policy is a stored access policy of a container: what signatures that name it leave to it. To change or remove it
// changes what they are good for.
type Policy struct {
	ID          string `json:"id"`
	Start       string `json:"start,omitempty"` // as in a signature
	Expiry      string `json:"expiry,omitempty"`
	Permissions string `json:"permissions,omitempty"`
}

// Azure's limits.
const (
	maxPolicies = 5
	maxPolicyID = 64
)

func checkPolicies(policies []Policy) error {
	if len(policies) > maxPolicies {
		return invalidPolicies("there are more than five")
	}
	seen := map[string]bool{}
	for _, p := range policies {
		switch {
		case p.ID == "" || len(p.ID) > maxPolicyID || !isPrefix(p.ID):
			return invalidPolicies("an id has no, or more than 64 bytes")
		case seen[p.ID]:
			return invalidPolicies("two have the same id")
		}
		seen[p.ID] = true
		for _, text := range []string{p.Start, p.Expiry} {
			if _, err := parseSASTime(text); text != "" && err != nil {
				return invalidPolicies("a time is no time")
			}
		}
		if !headerText.MatchString(p.Permissions) && p.Permissions != "" {
			return invalidPolicies("permissions are letters")
		}
	}
	return nil
}

// Policies returns the stored access policies of a container.
func (s *Service) Policies(ctx context.Context, account, container string, conditions ...Condition) (Container, error) {
	return s.containerFor(ctx, account, container, readPolicies, conditions...)
}

// SetPolicies replaces the stored access policies of a container.
func (s *Service) SetPolicies(ctx context.Context, account, container string, policies []Policy, conditions ...Condition) (Container, error) {
	a, err := s.open(ctx, account, container, "", writePolicies)
	if err != nil {
		return Container{}, err
	}
	if err := checkPolicies(policies); err != nil {
		return Container{}, err
	}
	var c Container
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if c, err = findContainer(ctx, tx, a, container); err != nil {
			return err
		}
		if err := s.checkContainer(conditions, c, false); err != nil {
			return err
		}
		c = s.touched(c)
		c.Policies = policies
		return putContainer(ctx, tx, a.ID.Name(), c)
	})
	return c, err
}

// withPolicy is a signature that names a stored access policy, with what that says. Only one of both may say a thing.
func (s *Service) withPolicy(ctx context.Context, v SAS, a Account, container string) (SAS, error) {
	if v.Identifier == "" {
		return v, nil
	}
	var c Container
	err := s.o.DB.Read(ctx, func(tx *database.Tx) (err error) {
		c, err = findContainer(ctx, tx, a, container)
		return err
	})
	if err != nil && !isNotFound(err) {
		return SAS{}, err
	}
	for _, p := range c.Policies {
		if p.ID != v.Identifier {
			continue
		}
		for _, field := range []struct{ mine, stored *string }{{&v.Start, &p.Start}, {&v.Expiry, &p.Expiry}, {&v.Permissions, &p.Permissions}} {
			if *field.mine != "" && *field.stored != "" {
				return SAS{}, authenticationFailed("access policy fields can be associated with signature or SAS identifier but not both")
			}
			*field.mine += *field.stored
		}
		return v, nil
	}
	return SAS{}, authenticationFailed("the container has no stored access policy of that name (si)")
}
