package keyvault

import (
	"context"
	"errors"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// A key vault whose setting RBAC is on leaves access to its content to roles: its access policies count for nothing.
// Each operation then needs a data action, at the key or the secret, at the key vault, or at a scope above. Lists and
// what makes or brings in something of a name not yet known need it at the key vault.
//
// Source: Azure's documentation of the Key Vault roles ("Azure RBAC for Key Vault data plane operations").

const actionPrefix = VaultType + "/"

// dataActions are what stands for a permission of an access policy.
var dataActions = map[Kind]map[string]string{
	Keys: {
		"get": "keys/read", "list": "keys/read", "create": "keys/create/action", "import": "keys/import/action", "update": "keys/update/action",
		"delete": "keys/delete", "backup": "keys/backup/action", "restore": "keys/restore/action", "recover": "keys/recover/action",
		"purge": "keys/purge/action", "encrypt": "keys/encrypt/action", "decrypt": "keys/decrypt/action", "wrapkey": "keys/wrap/action",
		"unwrapkey": "keys/unwrap/action", "sign": "keys/sign/action", "verify": "keys/verify/action", "release": "keys/release/action",
		"rotate": "keys/rotate/action", "getrotationpolicy": "keyrotationpolicies/read", "setrotationpolicy": "keyrotationpolicies/write",
	},
	Secrets: {
		"get": "secrets/getSecret/action", "list": "secrets/readMetadata/action", "set": "secrets/setSecret/action", "delete": "secrets/delete",
		"backup": "secrets/backup/action", "restore": "secrets/restore/action", "recover": "secrets/recover/action", "purge": "secrets/purge/action",
	},
}

// action is the data action that an operation needs. Two operations on secrets share a permission with one that
// does more, and have an action that does not.
func (op operation) action() string {
	switch op {
	case secretUpdate:
		return actionPrefix + "secrets/update/action"
	case secretGetDeleted:
		return actionPrefix + "secrets/readMetadata/action"
	}
	return actionPrefix + dataActions[op.kind][fold(op.permission)]
}

// scope is where the target lies in the tree of ids.
func (t target) scope(v Vault) armid.ID {
	if t.name == "" {
		return v.ID
	}
	return v.ID.Child(string(t.kind), t.name)
}

func (u *use) admitByRole(ctx context.Context, tx *database.Tx, v Vault) error {
	action, scope := u.operation.action(), u.target.scope(v)
	ok, err := u.s.roleAllows(ctx, tx, u.who.ObjectID, action, scope)
	if err == nil && !ok {
		err = deniedByRole(u.who, u.s.o.Issuer, action, scope, v)
	}
	return err
}

func (s *Service) roleAllows(ctx context.Context, tx *database.Tx, objectID, action string, scope armid.ID) (bool, error) {
	if s.o.Roles == nil || objectID == "" {
		return false, nil
	}
	return s.o.Roles.AllowsData(ctx, tx, objectID, action, scope)
}

// missingRoles are the wanted permissions whose data actions no role allows everywhere in the key vault.
func (s *Service) missingRoles(ctx context.Context, tx *database.Tx, v Vault, objectID string, want Permissions) (missing Permissions, err error) {
	wanted, result := want.each(), missing.each()
	for i, list := range wanted {
		for _, word := range *list.words {
			action, known := dataActions[Kind(list.name)][fold(word)]
			ok := known
			if known {
				if ok, err = s.roleAllows(ctx, tx, objectID, actionPrefix+action, v.ID); err != nil {
					return Permissions{}, err
				}
			}
			if !ok {
				*result[i].words = append(*result[i].words, word)
			}
		}
	}
	return missing, nil
}

// errModelChange says that a change moves a key vault from access policies to roles or back.
var errModelChange = errors.New("the change of the permission model is not authorized yet")

// askingForModel runs a change of a key vault. If that moves access from policies to roles or back, it gives and takes
// access, and whoever asks for it must be somebody who may: else one who manages key vaults, and is kept from their
// content, would let himself in.
func (s *Service) askingForModel(ctx context.Context, id armid.ID, change func(mayChangeModel bool) error) error {
	err := change(false)
	if !errors.Is(err, errModelChange) {
		return err
	}
	if err := s.o.Authorizer.Authorize(ctx, "Microsoft.Authorization/roleAssignments/write", id); err != nil {
		return err
	}
	return change(true)
}
