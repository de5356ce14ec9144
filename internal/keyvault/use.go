package keyvault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kluis/internal/database"
	"kluis/internal/identity"
	"kluis/internal/keyvault/audit"
	"kluis/internal/problem"
)

// operation is something that is done with a key or a secret: its name in the record of uses, and the
// permission that it needs.
type operation struct {
	name       string
	kind       Kind
	permission string
}

// The operations, with the names of Azure's audit events.
var (
	keyCreate            = operation{"KeyCreate", Keys, "create"}
	keyImport            = operation{"KeyImport", Keys, "import"}
	keyGet               = operation{"KeyGet", Keys, "get"}
	keyList              = operation{"KeyList", Keys, "list"}
	keyListVersions      = operation{"KeyListVersions", Keys, "list"}
	keyUpdate            = operation{"KeyUpdate", Keys, "update"}
	keyDelete            = operation{"KeyDelete", Keys, "delete"}
	keyGetDeleted        = operation{"KeyGetDeleted", Keys, "get"}
	keyListDeleted       = operation{"KeyListDeleted", Keys, "list"}
	keyRecover           = operation{"KeyRecover", Keys, "recover"}
	keyPurge             = operation{"KeyPurge", Keys, "purge"}
	keyBackup            = operation{"KeyBackup", Keys, "backup"}
	keyRestore           = operation{"KeyRestore", Keys, "restore"}
	keyWrap              = operation{"KeyWrap", Keys, "wrapKey"}
	keyUnwrap            = operation{"KeyUnwrap", Keys, "unwrapKey"}
	keyEncrypt           = operation{"KeyEncrypt", Keys, "encrypt"}
	keyDecrypt           = operation{"KeyDecrypt", Keys, "decrypt"}
	keySign              = operation{"KeySign", Keys, "sign"}
	keyVerify            = operation{"KeyVerify", Keys, "verify"}
	keyRotate            = operation{"KeyRotate", Keys, "rotate"}
	keyRotateIfDue       = operation{"KeyRotateIfDue", Keys, ""} // by policy, for which nobody needs a permission
	keyRelease           = operation{"KeyRelease", Keys, "release"}
	keyGetRotationPolicy = operation{"KeyRotationPolicyGet", Keys, "getrotationpolicy"}
	keySetRotationPolicy = operation{"KeyRotationPolicySet", Keys, "setrotationpolicy"}
	randomBytesGet       = operation{"RandomBytesGet", Keys, "get"}

	secretSet          = operation{"SecretSet", Secrets, "set"}
	secretGet          = operation{"SecretGet", Secrets, "get"}
	secretList         = operation{"SecretList", Secrets, "list"}
	secretListVersions = operation{"SecretListVersions", Secrets, "list"}
	secretUpdate       = operation{"SecretUpdate", Secrets, "set"}
	secretDelete       = operation{"SecretDelete", Secrets, "delete"}
	secretGetDeleted   = operation{"SecretGetDeleted", Secrets, "get"}
	secretListDeleted  = operation{"SecretListDeleted", Secrets, "list"}
	secretRecover      = operation{"SecretRecover", Secrets, "recover"}
	secretPurge        = operation{"SecretPurge", Secrets, "purge"}
	secretBackup       = operation{"SecretBackup", Secrets, "backup"}
	secretRestore      = operation{"SecretRestore", Secrets, "restore"}
	secretDisclose     = operation{"SecretDisclose", Secrets, ""} // by the right to decrypt recovery points
)

// use is an operation under way: by whom, on what.
type use struct {
	s         *Service
	operation operation
	target    target // its version is filled in once it is known
	who       identity.Principal
	recorded  bool
}

// use runs one operation on a key or a secret and records it. work reaches the database through u.read and
// u.change, which check the caller's permission first, and may do slow work between them. What work has found
// out must not be returned when use fails.
func (s *Service) use(ctx context.Context, op operation, t target, work func(u *use) error) error {
	who, known := identity.From(ctx)
	if !known {
		return noPrincipal()
	}
	t.kind = op.kind
	u := &use{s: s, operation: op, target: t, who: who}
	if err := u.check(); err != nil {
		return err
	}
	err := work(u)
	if u.recorded && err == nil {
		return nil
	}
	if recordErr := u.record(ctx, err); recordErr != nil {
		return errors.Join(err, recordErr)
	}
	return err
}

// check refuses names that could not exist, before they reach the database or the record.
func (u *use) check() error {
	switch t := u.target; {
	case !validVaultName(t.vault):
		return vaultNotFound(clip(t.vault))
	case t.name != "" && !validObjectName(t.name):
		return badParameter("name", "the %s's name %q is malformed: it may hold 1 to 127 letters, digits and hyphens", t.kind.word(), clip(t.name))
	case t.version != "" && !validVersion(t.version):
		return badParameter("version", "the version %q is malformed: it has 32 hexadecimal digits", clip(t.version))
	}
	return nil
}

// read runs f in a transaction that reads, if the caller may do the operation.
func (u *use) read(ctx context.Context, f func(tx *database.Tx, v Vault) error) error {
	return u.s.o.DB.Read(ctx, func(tx *database.Tx) error {
		v, err := u.admit(ctx, tx)
		if err != nil {
			return err
		}
		return f(tx, v)
	})
}

// change runs f in a transaction that writes, if the caller may do the operation, and records the use in the
// same transaction.
func (u *use) change(ctx context.Context, f func(tx *database.Tx, v Vault) error) error {
	asked := u.target
	err := u.s.log.Change(ctx, func(tx *database.Tx) (audit.Entry, error) {
		u.target = asked // a transaction may run again
		v, err := u.admit(ctx, tx)
		if err != nil {
			return audit.Entry{}, err
		}
		if err := f(tx, v); err != nil {
			return audit.Entry{}, err
		}
		return u.entry(ctx, nil), nil
	})
	u.recorded = err == nil
	return err
}

// admit returns the key vault if it is there and the caller may do the operation in it.
func (u *use) admit(ctx context.Context, tx *database.Tx) (Vault, error) {
	v, err := u.s.liveVaultByName(ctx, tx, u.target.vault)
	if err != nil {
		return Vault{}, err
	}
	if u.operation.permission == "" {
		return v, nil
	}
	if u.who.ObjectID == identity.AzureDiskEncryption.ObjectID {
		return v, u.admitDiskEncryption(v)
	}
	if v.RBAC {
		return v, u.admitByRole(ctx, tx, v)
	}
	if !v.allows(u.who, u.operation.kind, u.operation.permission) {
		return Vault{}, accessDenied(u.who, u.s.o.Issuer, u.operation, v)
	}
	return v, nil
}

const recordTimeout = 10 * time.Second

// record writes the entry of a use that has changed nothing or was refused. It outlives a caller who went away.
func (u *use) record(ctx context.Context, result error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := u.s.log.Record(ctx, u.entry(ctx, result)); err != nil {
		return fmt.Errorf("record use of %s: %w", u.target, err)
	}
	return nil
}

func (u *use) entry(ctx context.Context, result error) audit.Entry {
	return audit.Entry{At: u.s.now(), Principal: u.who, Operation: u.operation.name, Vault: fold(u.target.vault), Kind: string(u.target.kind),
		Name: u.target.name, Version: u.target.version, Result: resultOf(result), Correlation: identity.Correlation(ctx)}
}

// resultOf is the most precise code of an error: the inner one where there is one.
func resultOf(err error) string {
	p := problem.Of(err)
	switch {
	case err == nil:
		return "Success"
	case p == nil:
		return "InternalError"
	case len(p.Details) > 0:
		return p.Details[0].Code
	}
	return p.Code
}
