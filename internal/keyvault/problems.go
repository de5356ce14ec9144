package keyvault

import (
	"fmt"

	"kluis/internal/armid"
	"kluis/internal/identity"
	"kluis/internal/problem"
)

// All that can be said to a person. A problem of the data door carries Azure's inner code, where Azure has one, as
// its first detail.

func inner(p *problem.Error, code string) *problem.Error {
	p.Details = []*problem.Error{{Kind: p.Kind, Code: code, Message: p.Message}}
	return p
}

func noPrincipal() *problem.Error {
	return problem.New(problem.Unauthenticated, "Unauthorized", "The request names no caller.").
		WithAdvice("Sign in, and send the token with the request.")
}

func accessDenied(p identity.Principal, issuer string, op operation, v Vault) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden",
		"The user, group or application 'appid=%s;oid=%s;iss=%s' does not have %s %s permission on key vault '%s;location=%s'.",
		p.AppID, p.ObjectID, issuer, op.kind, op.permission, v.Name(), v.Location).
		WithTarget(v.ID.String()).
		WithAdvice("Add an access policy to the key vault that grants this caller the permission %s in the group %s.", op.permission, op.kind), "AccessDenied")
}

// deniedByRole is accessDenied where roles decide. Clients show the message as it is, lines and all.
func deniedByRole(p identity.Principal, issuer, action string, scope armid.ID, v Vault) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden",
		"Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\n"+
			"Caller: appid=%s;oid=%s;iss=%s\r\nAction: '%s'\r\nResource: '%s'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null\r\nVault: %s;location=%s\r\n",
		p.AppID, p.ObjectID, issuer, action, scope, v.Name(), v.Location).
		WithTarget(scope.String()).
		WithAdvice("Assign the caller a role with this data action at the key vault, such as one of the Key Vault roles (kluis role list)."), "ForbiddenByRbac")
}

func notForDiskEncryption(v Vault) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden", "The key vault '%s' is not enabled for disk encryption: virtual machines that start get no keys from it.", v.Name()).
		WithTarget(v.ID.String()).WithAdvice("Set its property enabledForDiskEncryption: az keyvault update --name %s --enabled-for-disk-encryption true.", v.Name()), "AccessDenied")
}

func vaultNotFound(name string) *problem.Error {
	return problem.New(problem.NotFound, "VaultNotFound", "The key vault '%s' does not exist.", name).WithTarget(name).
		WithAdvice("Check the name in the URL. If the key vault was purged, create it again and restore its keys and secrets from a backup.")
}

func vaultIsDeleted(name string) *problem.Error {
	return inner(problem.New(problem.NotFound, "VaultNotFound", "The key vault '%s' is deleted.", name).WithTarget(name).
		WithAdvice("Recover the key vault, or purge it, create it again and restore its keys and secrets from a backup."), "VaultIsDeleted")
}

func vaultResourceNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound",
		"The Resource '%s/%s' under resource group '%s' was not found.", VaultType, id.Name(), id.ResourceGroup).WithTarget(id.String()).
		WithAdvice("Check the resource group and the name. A deleted key vault must be recovered before it can be used.")
}

func deletedVaultNotFound(name string) *problem.Error {
	return problem.New(problem.NotFound, "DeletedVaultNotFound", "There is no deleted key vault '%s' in this subscription and location.", name).WithTarget(name).
		WithAdvice("List the deleted key vaults of the subscription to see name and location of each.")
}

func vaultNameTaken(name string) *problem.Error {
	return problem.New(problem.Conflict, "VaultAlreadyExists",
		"The vault name '%s' is already in use. Vault names are globally unique, so it is possible that the name is taken in another resource group or subscription.", name).WithTarget(name).
		WithAdvice("Choose another name.")
}

func vaultNameDeleted(name string) *problem.Error {
	return problem.New(problem.Conflict, "ConflictError",
		"A vault with the same name already exists in deleted state. You need to either recover or purge existing key vault '%s'.", name).WithTarget(name).
		WithAdvice("Recover the deleted key vault, or purge it and create it again.")
}

func vaultPurgeProtected(name string) *problem.Error {
	return problem.New(problem.Conflict, "MethodNotAllowed", "The key vault '%s' has purge protection and can't be purged.", name).WithTarget(name).
		WithAdvice("Wait for the scheduled purge date, or recover the key vault.")
}

func badVaultName(name string) *problem.Error {
	return problem.New(problem.Invalid, "VaultNameNotValid", "The vault name '%s' is invalid.", clip(name)).WithTarget("name").
		WithAdvice("Use 3 to 24 letters, digits and hyphens; begin with a letter, end with a letter or digit, and write no two hyphens in a row.")
}

func badVault(target, format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "BadRequest", "The key vault can't be written: %s.", fmt.Sprintf(format, args...)).WithTarget(target).
		WithAdvice("Correct the property %s and send the request again.", target)
}

func badPolicy(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "InvalidAccessPolicy", "An access policy is invalid: %s.", fmt.Sprintf(format, args...)).WithTarget("accessPolicies").
		WithAdvice("Correct the access policy and send the request again.")
}

func badPolicyChange(change string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidAccessPolicyOperation", "'%s' is not something that can be done with access policies.", clip(change)).WithTarget("operationKind").
		WithAdvice("Use add, replace or remove.")
}

func tooManyPolicies() *problem.Error {
	return problem.New(problem.Invalid, "TooManyAccessPolicies", "A key vault may have at most %d access policies.", maxPolicies).WithTarget("accessPolicies").
		WithAdvice("Remove the access policies of principals that no longer need them.")
}

func badParameter(target, format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "%s.", upper(fmt.Sprintf(format, args...))).WithTarget(target).
		WithAdvice("Correct %s and send the request again.", target)
}

func upper(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-0x20) + s[1:]
	}
	return s
}

func objectNotFound(t target) *problem.Error {
	what, code := "key", "KeyNotFound"
	if t.kind == Secrets {
		what, code = "secret", "SecretNotFound"
	}
	name := t.name
	if t.version != "" {
		name += "/" + t.version
	}
	return problem.New(problem.NotFound, code, "A %s with (name/id) %s was not found in this key vault.", what, name).WithTarget(t.String()).
		WithAdvice("If you recently deleted this %s you may be able to recover it; if it was purged, restore it from a backup.", what)
}

func deletedObjectNotFound(t target) *problem.Error {
	p := objectNotFound(t)
	p.Message = fmt.Sprintf("A deleted %s with (name/id) %s was not found in this key vault.", t.kind.word(), t.name)
	return p.WithAdvice("List the deleted %s to see which can be recovered; if it was purged, restore it from a backup.", t.kind)
}

func objectIsDeleted(t target) *problem.Error {
	return inner(problem.New(problem.Conflict, "Conflict",
		"%s %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the %s can only be recovered or purged.",
		upper(t.kind.word()), t.name, t.kind.word()).WithTarget(t.String()).
		WithAdvice("Recover the %s, or purge it first.", t.kind.word()), "ObjectIsDeletedButRecoverable")
}

func objectInTheWay(t target) *problem.Error {
	return problem.New(problem.Conflict, "Conflict", "The %s %s exists in this key vault, and a backup can't be restored over it.", t.kind.word(), t.name).WithTarget(t.String()).
		WithAdvice("Delete and purge the %s first, or restore into another key vault.", t.kind.word())
}

func objectExists(t target) *problem.Error {
	return inner(problem.New(problem.Invalid, "MethodNotAllowed", "%s exists already: %s", upper(t.kind.word()), t.name).WithTarget(t.String()).
		WithAdvice("Nothing is deleted under this name, so there is nothing to recover."), "RequestNotAllowedOnNonDeletedObject")
}

func objectPurgeProtected(t target) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden", "The key vault has purge protection, so the %s %s can't be purged.", t.kind.word(), t.name).WithTarget(t.String()).
		WithAdvice("Wait for the scheduled purge date, or recover the %s.", t.kind.word()), "ForbiddenByPolicy")
}

func disabled(op operation, kind Kind) *problem.Error {
	code := "KeyDisabled"
	if kind == Secrets {
		code = "SecretDisabled"
	}
	return inner(problem.New(problem.Denied, "Forbidden", "Operation %s is not allowed on a disabled %s.", op.permission, kind.word()).
		WithAdvice("Set the attribute enabled of this version to true."), code)
}

func notYetValid(op operation) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden", "Operation %s is not allowed on a key that is not yet valid.", op.permission).
		WithAdvice("Wait for the time in the attribute nbf, or change it."), "KeyNotYetValid")
}

func expired(op operation) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden", "Operation %s is not allowed on an expired key.", op.permission).
		WithAdvice("Use a newer version of the key, or change the attribute exp."), "KeyExpired")
}

func operationForbidden(op operation) *problem.Error {
	return inner(problem.New(problem.Denied, "Forbidden", "Operation %s is not permitted on this key.", op.permission).
		WithAdvice("Add %s to the key's key_ops, or use another key.", op.permission), "KeyOperationForbidden")
}

func releaseUnsupported() *problem.Error {
	return problem.New(problem.Unsupported, "NotSupported", "Keys can't be released: there is nothing here that could check an enclave's attestation.").
		WithAdvice("Use the key where it is, with wrapKey, unwrapKey, encrypt, decrypt or sign.")
}

func rootFixed() *problem.Error {
	return problem.New(problem.Unsupported, "NotSupported", "The root key of this server can't be changed.").
		WithAdvice("Change it where it is kept.")
}

func badRecipient(recipient string, err error) *problem.Error {
	return problem.New(problem.Invalid, "BadRecipient", "The recipient %q can't be changed: %s.", clip(recipient), err).WithTarget("recipient").
		WithAdvice("List the recipients, and write one as age shows it: age1 and 58 letters and digits. For a key service outside, write azure-key-vault:https://{vault}/keys/{name} or transit:https://{host}/v1/{mount}/keys/{name}; its host stands in the file of --key-services, with credentials that may wrap and unwrap with this key.")
}

func badRotationPolicy(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The rotation policy is invalid: %s.", fmt.Sprintf(format, args...)).WithTarget("lifetimeActions").
		WithAdvice("Correct the rotation policy and send the request again.")
}

func badPeriod(target, text string) *problem.Error {
	return badParameter(target, "%q is not a duration such as P90D, P2Y or P1Y6M", clip(text))
}

func unwrapFailed(op operation) *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The parameter value can't be opened with this key and algorithm.").WithTarget("value").
		WithAdvice("Check that key version and algorithm are those of the %s that made the value.", map[string]string{"unwrapKey": "wrapKey", "decrypt": "encrypt"}[op.permission])
}

func badBlob() *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The backup blob can't be opened: it was changed, or made in another installation or tenant.").WithTarget("value").
		WithAdvice("Send the value exactly as the backup returned it, to the installation that made it.")
}

func wrongBlob(got, want Kind) *problem.Error {
	return problem.New(problem.Invalid, "BadParameter", "The backup blob holds a %s, not a %s.", got.word(), want.word()).WithTarget("value").
		WithAdvice("Restore it with the operation for %s.", got)
}
