package storage

import (
	"context"
	"strings"
)

// Grant is what an account's key, or a signature, allows in ctx instead of a role. It is made
// by Service.SignedBy and Service.Redeem alone, which have checked that it is genuine and holds now.
type Grant struct {
	account   string
	every     bool   // the account's key itself
	levels    string // of an account SAS: 's' the service, 'c' containers, 'o' blobs
	container string // of a service SAS: this container, and
	blob      string // this blob of it, or all where it is empty
	letters   string // what is permitted: sp
	principal string // of a signature with a user delegation key: whose roles must allow it as well

	// Response has the headers that a signature sets on what is read with it, by the name of a header.
	Response map[string]string
}

type grantKey struct{}

// WithGrant returns a context in which the grant counts, and no role.
func WithGrant(ctx context.Context, g Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, g)
}

func grantOf(ctx context.Context) (Grant, bool) {
	g, ok := ctx.Value(grantKey{}).(Grant)
	return g, ok
}

// operation is something that is done to data, as roles and as signatures name it.
type operation struct {
	action  string // of a role
	level   byte   // 's', 'c' or 'o', as in a grant's levels
	letters string // any of these permits it
}

const containerActions = accountType + "/blobServices/containers/"

var (
	readService     = operation{accountType + "/blobServices/read", 's', "rl"}
	listContainers  = operation{containerActions + "read", 's', "l"}
	createContainer = operation{containerActions + "write", 'c', "cw"}
	readContainer   = operation{containerActions + "read", 'c', "r"}
	writeContainer  = operation{containerActions + "write", 'c', "w"}
	deleteContainer = operation{containerActions + "delete", 'c', "d"}
	listBlobs       = operation{containerActions + "blobs/read", 'c', "l"}
	readBlobs       = operation{containerActions + "blobs/read", 'o', "r"}
	createBlobs     = operation{containerActions + "blobs/write", 'o', "cw"}
	writeBlobs      = operation{containerActions + "blobs/write", 'o', "w"}
	deleteBlobs     = operation{containerActions + "blobs/delete", 'o', "d"}
	breakLeases     = operation{containerActions + "blobs/write", 'o', "dw"}
	leaseContainers = operation{containerActions + "write", 'c', "w"}
	readPolicies    = operation{containerActions + "getAcl/action", 'c', ""} // no signature permits these
	writePolicies   = operation{containerActions + "setAcl/action", 'c', ""}
	delegate        = operation{accountType + "/blobServices/generateUserDelegationKey/action", 's', ""}
)

// open authorizes the caller for an operation on the account of that name. container and blob are what it
// touches, as far as it touches any.
func (s *Service) open(ctx context.Context, account, container, blob string, op operation) (Account, error) {
	a, err := s.account(ctx, account)
	if err != nil {
		return Account{}, err
	}
	g, ok := grantOf(ctx)
	if !ok {
		return a, s.o.Authorizer.Authorize(ctx, op.action, a.ID)
	}
	if err := g.allows(a, container, blob, op); err != nil || g.principal == "" {
		return a, err
	}
	as, err := s.o.Principals.As(ctx, g.principal)
	if isNotFound(err) {
		err = authorizationFailure("whoever signed it is no principal any more")
	}
	if err != nil {
		return Account{}, err
	}
	return a, s.o.Authorizer.Authorize(as, op.action, a.ID)
}

// allows is nil if the grant is good for the operation.
func (g Grant) allows(a Account, container, blob string, op operation) error {
	if g.account != a.ID.Name() {
		return authorizationFailure("it is for another storage account")
	}
	if g.every {
		return nil
	}
	if g.container == "" && !strings.ContainsRune(g.levels, rune(op.level)) {
		return resourceTypeMismatch()
	}
	if g.container != "" {
		if g.container != container || g.blob != "" && g.blob != blob {
			return authorizationFailure("it is for another container or blob")
		}
		if op.level == 'o' || op == listBlobs && g.blob == "" {
			return g.permits(op)
		}
		return authorizationFailure("a signature for a container or a blob is not good for this")
	}
	return g.permits(op)
}

func (g Grant) permits(op operation) error {
	if !strings.ContainsAny(g.letters, op.letters) {
		return permissionMismatch(op.letters)
	}
	return nil
}

// creating is a condition of its own for who may create a blob but not overwrite one.
func creating(ctx context.Context) Condition {
	g, ok := grantOf(ctx)
	mayOverwrite := !ok || g.every || strings.Contains(g.letters, "w")
	return Condition{holds: func(_ Blob, found bool) error {
		if found && !mayOverwrite {
			return overwriteNotPermitted()
		}
		return nil
	}}
}
