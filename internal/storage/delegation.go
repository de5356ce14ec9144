package storage

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/secret"
)

// A user delegation key lets a principal sign for others what it may do itself, without a key of the account. It is
// made of a secret of the account's and of what stands in the signature, so none is kept. What is signed with it is
// good for what it says and for what the principal's roles allow at the time it is used, whichever is less. Revoking
// the keys of an account draws its secret anew.

// Principals knows those who have roles.
type Principals interface {
	// Caller is the principal in ctx, if there is one.
	Caller(ctx context.Context) (objectID, tenantID string, ok bool)
	// As returns a context with that principal in it, if it is one that may do anything.
	As(ctx context.Context, objectID string) (context.Context, error)
}

// delegationNumber is the place of the secret among an account's keys. It has no name that a client could use.
const delegationNumber = 3

// longestDelegation is Azure's limit of a user delegation key.
const longestDelegation = 7 * 24 * time.Hour

// DelegationKey is a key with which a principal signs. The texts are those that go into signatures.
type DelegationKey struct {
	ObjectID, TenantID string
	Start, Expiry      string
	Service, Version   string
	Value              secret.Bytes
}

// UserDelegationKey gives the caller a key that is good from one time to another, seven days away at the most. version
// is that of the caller's request.
func (s *Service) UserDelegationKey(ctx context.Context, account, start, expiry, version string) (DelegationKey, error) {
	a, err := s.open(ctx, account, "", "", delegate)
	if err != nil {
		return DelegationKey{}, err
	}
	object, tenant, ok := s.o.Principals.Caller(ctx)
	if _, signed := grantOf(ctx); signed || !ok {
		return DelegationKey{}, authorizationFailure("a user delegation key is given to who has a token alone")
	}
	now := s.o.Now()
	from, to, err := keyTimes(start, expiry, now)
	if err != nil {
		return DelegationKey{}, err
	}
	k := DelegationKey{ObjectID: object, TenantID: tenant, Start: from, Expiry: to, Service: "b", Version: version}
	root, err := s.delegationSecret(ctx, a)
	if err != nil {
		return DelegationKey{}, err
	}
	defer root.Wipe()
	k.Value = k.derive(root)
	return k, nil
}

// keyTimes are the times of a key, as they are signed.
func keyTimes(start, expiry string, now time.Time) (from, to string, err error) {
	begins := now
	if start != "" {
		if begins, err = parseSASTime(start); err != nil {
			return "", "", invalidDelegation("Start is no time")
		}
	}
	ends, err := parseSASTime(expiry)
	if err != nil || !ends.After(now) || !ends.After(begins) {
		return "", "", invalidDelegation("Expiry is no time to come, or not after Start")
	}
	if ends.Sub(now) > longestDelegation {
		return "", "", invalidDelegation("Expiry is more than seven days away")
	}
	const layout = "2006-01-02T15:04:05Z"
	return begins.UTC().Format(layout), ends.UTC().Format(layout), nil
}

func (k DelegationKey) derive(root secret.Bytes) secret.Bytes {
	m := hmac.New(sha256.New, root.Reveal())
	m.Write([]byte(strings.Join([]string{k.ObjectID, k.TenantID, k.Start, k.Expiry, k.Service, k.Version}, "\n")))
	return secret.New(m.Sum(nil))
}

// RevokeDelegationKeys makes void what was signed with any user delegation key of an account.
func (s *Service) RevokeDelegationKeys(ctx context.Context, id armid.ID) error {
	if err := s.o.Authorizer.Authorize(ctx, accountType+"/revokeUserDelegationKeys/action", id); err != nil {
		return err
	}
	if _, err := s.keysOf(ctx, id); err != nil {
		return err
	}
	k, err := s.drawKey(strings.ToLower(id.Name()), delegationNumber)
	if err != nil {
		return err
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error { return putKey(ctx, tx, k) })
}

// delegationSecret opens the secret of an account, which is drawn when it is first needed.
func (s *Service) delegationSecret(ctx context.Context, a Account) (secret.Bytes, error) {
	k, err := s.drawKey(a.ID.Name(), delegationNumber)
	if err != nil {
		return secret.Bytes{}, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		all, err := selectKeys(ctx, tx, a.ID.Name())
		if err != nil {
			return err
		}
		for _, stored := range all {
			if stored.number == delegationNumber {
				k = stored
				return nil
			}
		}
		return putKey(ctx, tx, k)
	})
	if err != nil {
		return secret.Bytes{}, err
	}
	plain, err := s.o.Seal.Open(k.context(), k.sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open the delegation secret of storage account %s: %w", a.ID.Name(), err)
	}
	return secret.New(plain), nil
}

// redeemDelegated returns what a signature with a user delegation key allows.
func (s *Service) redeemDelegated(ctx context.Context, v SAS, account, container, blob string) (Grant, error) {
	a, err := s.account(ctx, account)
	if isNotFound(err) {
		return Grant{}, authenticationFailed("the signature is not made with a key of this account")
	}
	if err != nil {
		return Grant{}, err
	}
	root, err := s.delegationSecret(ctx, a)
	if err != nil {
		return Grant{}, err
	}
	defer root.Wipe()
	key := v.Key.derive(root)
	defer key.Wipe()
	if !hmac.Equal(sign(key, v.delegatedText(strings.ToLower(account), container, blob)), v.Signature) {
		return Grant{}, authenticationFailed("the signature is not made with a key of this account")
	}
	if err := (SAS{Start: v.Key.Start, Expiry: v.Key.Expiry}).holds(s.o.Now()); err != nil {
		return Grant{}, err
	}
	return Grant{account: a.ID.Name(), principal: v.Key.ObjectID}, nil
}

// The first versions with the lines that delegate to one person, and with those for headers and queries.
const (
	authorizedLines = "2020-02-10"
	delegatedLines  = "2025-07-05"
	requestLines    = "2026-04-06"
)

// delegatedText is what is signed with a user delegation key.
func (v SAS) delegatedText(account, container, blob string) string {
	lines := []string{v.Permissions, v.Start, v.Expiry, v.resource(account, container, blob),
		v.Key.ObjectID, v.Key.TenantID, v.Key.Start, v.Key.Expiry, v.Key.Service, v.Key.Version}
	if v.Version >= authorizedLines {
		lines = append(lines, "", "", v.Correlation) // nobody is authorized, or not, in a directory
	}
	if v.Version >= delegatedLines {
		lines = append(lines, "", "") // it is for whoever has it
	}
	lines = append(lines, v.Addresses, v.Protocol, v.Version, v.Resource, "") // the time of a snapshot
	if v.Version >= scopeLine {
		lines = append(lines, v.Scope)
	}
	if v.Version >= requestLines {
		lines = append(lines, "", "") // no headers and no parameters are prescribed
	}
	return strings.Join(append(lines, v.Override[:]...), "\n")
}
