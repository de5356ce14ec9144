package backup

import (
	"errors"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/keyservice"
	"kluis/internal/keyvault"
	"kluis/internal/objects"
	"kluis/internal/problem"
	"kluis/internal/proof"
	"kluis/internal/recovery"
)

// Everything this service says to a person stands here: what happened, and what to do. Codes are
// Azure's where Azure has one; those it has not are formed like its own.

// M1: only Resource Manager VMs.
func classicNotSupported(vm armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "UserErrorClassicVirtualMachineNotSupported",
		"The virtual machine %s uses the classic deployment model. Only virtual machines deployed through Resource Manager can be protected.", lastName(vm.Name())).
		WithTarget(vm.String()).
		WithAdvice("Migrate the virtual machine to the Resource Manager deployment model, then enable backup.")
}

// M3: BEK and KEK are both required.
func bekAlone(vm armid.ID, e compute.DiskEncryption) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorEncryptedVmWithBekAloneNotSupported",
		"Validation failed because the virtual machine %s is encrypted with a BEK alone: the secret of disk %s is wrapped by no key. Backup can be enabled only for virtual machines encrypted with both BEK and KEK.",
		vm.Name(), e.Name).
		WithTarget(vm.String()).
		WithAdvice("Encrypt the virtual machine with a KEK (wrap the BEK with a key of the key vault and name both in the encryption settings), then enable backup.")
}

// M8, M9, M14: the service lacks Key Vault permissions.
func keyVaultPermissions(vm, vault armid.ID, missing keyvault.Permissions) *problem.Error {
	return problem.New(problem.Denied, "UserErrorKeyVaultPermissionsNotConfigured",
		"Azure Backup Service does not have sufficient permissions to Key Vault for Backup of Encrypted Virtual Machines. Key vault %s of virtual machine %s lacks: %s.",
		vault.Name(), vm.Name(), permissionLists(missing)).
		WithTarget(vault.String()).
		WithAdvice("In key vault %s add an access policy for the principal 'Backup Management Service' from the template 'Azure Backup' (kluis keyvault grant-backup %s), then try again.",
			vault.Name(), vault.Name())
}

func permissionLists(missing keyvault.Permissions) string {
	var lists []string
	if len(missing.Keys) > 0 {
		lists = append(lists, "key permissions "+strings.Join(missing.Keys, ", "))
	}
	if len(missing.Secrets) > 0 {
		lists = append(lists, "secret permissions "+strings.Join(missing.Secrets, ", "))
	}
	return strings.Join(lists, "; ")
}

func keyVaultGoneForBackup(vm, vault armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "UserErrorKeyVaultNotFound",
		"The key vault %s that holds the keys of virtual machine %s does not exist.", vault.Name(), vm.Name()).
		WithTarget(vault.String()).
		WithAdvice("Create the key vault again and restore key and secret from a recovery point, or correct the encryption settings of the virtual machine. A key vault outside this server must be named in the file of --key-services.")
}

func keyNotReadable(what, name string, err error) *problem.Error {
	return problem.New(problem.NotFound, "UserErrorKeyOrSecretNotFound",
		"The %s %s that the virtual machine's encryption settings name cannot be backed up: it does not exist or is disabled.", what, name).
		WithAdvice("Restore or enable the %s in its key vault, or correct the encryption settings of the virtual machine, then back up again.", what).
		WithCause(err)
}

// M14: restore, the key vault is gone.
func keyVaultGone(vm string, vault armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "UserErrorKeyVaultNotFound",
		"This encrypted virtual machine (%s) cannot be restored because the key vault %s associated with it does not exist.", vm, vault.Name()).
		WithTarget(vault.String()).
		WithAdvice("Create the key vault %s in resource group %s, give the principal 'Backup Management Service' access to it, restore key and secret from the recovery point if they are not present, then restore the disks.",
			vault.Name(), vault.ResourceGroup)
}

// M14: restore, the keys are gone.
func keyAndSecretGone(vm string, gone []string) *problem.Error {
	return problem.New(problem.NotFound, "UserErrorKeyAndSecretNotFound",
		"This encrypted virtual machine (%s) cannot be restored because the key and secret associated with it do not exist: %s.", vm, strings.Join(gone, ", ")).
		WithAdvice("Restore key and secret from this recovery point into the key vault (kluis restore keys), then restore the disks.")
}

// Key vaults outside this server.

// outsideFailure tells what is wrong with a key vault outside. What is none of its errors stays; nil stays nil.
func outsideFailure(err error) error {
	e, ok := errors.AsType[*keyservice.Error](err)
	if !ok {
		return err
	}
	switch e.Kind {
	case keyservice.NotConfigured:
		return outsideNotConfigured(e.Host)
	case keyservice.Unreachable:
		return problem.New(problem.Unavailable, "UserErrorKeyVaultNotReachable", "The key vault %s outside this server does not answer: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Check from the server's host that %s and its authority can be reached, and address and ca-file of its entry in the file of --key-services; then try again.", e.Host)
	case keyservice.Unauthenticated:
		return problem.New(problem.Denied, "UserErrorKeyVaultCredentialsNotAccepted", "The key vault %s outside this server does not take the credentials: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Correct authority, tenant, client-id and secret-file or certificate-file of its entry in the file of --key-services (a client secret expires), and start the server again.")
	case keyservice.Denied:
		return problem.New(problem.Denied, "UserErrorKeyVaultPermissionsNotConfigured", "The key vault %s outside this server refuses: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Give the service principal that the file of --key-services names for %s the permissions of the template 'Azure Backup' there: get, list and backup of keys and of secrets.", e.Host)
	case keyservice.NotFound:
		return problem.New(problem.NotFound, "UserErrorKeyOrSecretNotFound", "The key or secret that the virtual machine's encryption settings name is not in the key vault %s: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Restore it from a recovery point (kluis restore keys), or correct the encryption settings of the virtual machine.")
	}
	return problem.New(problem.Conflict, "UserErrorKeyVaultOperationFailed", "The key vault %s outside this server did not do it: %s.", e.Host, saidBy(e)).
		WithTarget(e.Host).WithCause(err).
		WithAdvice("Look at key and secret in that key vault: both must be enabled and not expired. Then try again.")
}

func outsideNotConfigured(host string) *problem.Error {
	return problem.New(problem.Denied, "UserErrorKeyVaultNotConfigured", "The key vault %s lies outside this server, and this server is not told to ask it.", host).
		WithTarget(host).
		WithAdvice("Name it, with the credentials for it, in the file of --key-services, and start the server again.")
}

func outsidePermissions(vm armid.ID, host string, missing keyvault.Permissions) *problem.Error {
	return problem.New(problem.Denied, "UserErrorKeyVaultPermissionsNotConfigured",
		"Azure Backup Service does not have sufficient permissions to Key Vault for Backup of Encrypted Virtual Machines. The key vault %s outside this server, which holds the keys of virtual machine %s, denies: %s.",
		host, vm.Name(), permissionLists(missing)).
		WithTarget(host).
		WithAdvice("Give the service principal that the file of --key-services names for %s the permissions of the template 'Azure Backup' there, then try again.", host)
}

func keysInTwoPlaces(vm armid.ID, e compute.DiskEncryption) *problem.Error {
	return problem.New(problem.Unsupported, "UserErrorKeyAndSecretInDifferentPlaces",
		"Of disk %s of virtual machine %s, key or secret lies in a key vault outside this server and the other does not. That is not supported.", e.Name, vm.Name()).
		WithTarget(vm.String()).
		WithAdvice("Keep the secret and the key that wraps it on one side, and correct the encryption settings of the virtual machine.")
}

func secretNotWrapped(vm armid.ID, e compute.DiskEncryption, err error) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorEncryptedVmWithBekAloneNotSupported",
		"The secret of disk %s of virtual machine %s is not wrapped by a key, so it is not taken out of its key vault.", e.Name, vm.Name()).
		WithTarget(vm.String()).WithCause(err).
		WithAdvice("Wrap the BEK with a key of the key vault and name both in the encryption settings; the secret's content type is then 'Wrapped BEK' and its tags name the key.")
}

func noKeysOutside(point armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorNoKeysOutside", "The recovery point holds no keys of a key vault outside this server.").
		WithTarget(point.String()).
		WithAdvice("Give what it holds to a key vault of this server: kluis restore keys --keyvault NAME.")
}

// outsideRestoreFailure: a backup needs no right to restore, so this is the first call that needs it.
func outsideRestoreFailure(err error) error {
	e, ok := errors.AsType[*keyservice.Error](err)
	if ok && e.Kind == keyservice.Denied {
		return problem.New(problem.Denied, "UserErrorKeyVaultPermissionsNotConfigured", "The key vault %s outside this server does not let this server restore: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Give the service principal that the file of --key-services names for %s the permission restore for keys and secrets there, for as long as the restore takes.", e.Host)
	}
	if ok && e.Kind == keyservice.Conflict {
		return problem.New(problem.Conflict, "UserErrorKeyVaultNameTaken", "The name is taken in the key vault %s outside this server, by what was deleted there and can be recovered: %s.", e.Host, saidBy(e)).
			WithTarget(e.Host).WithCause(err).
			WithAdvice("Recover it there, which brings it back as well; or purge it, then restore again.")
	}
	return outsideFailure(err)
}

// saidBy is an error without its host, which the sentence around it names.
func saidBy(e *keyservice.Error) string { return strings.TrimPrefix(e.Error(), e.Host+": ") }

func vaultNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound",
		"The Resource '%s/%s' under resource group '%s' was not found.", vaultType, id.Name(), id.ResourceGroup).
		WithTarget(id.String()).
		WithAdvice("Check subscription, resource group and name; list the vaults with: kluis vault list.")
}

func invalidVaultName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidVaultName", "The name %.60q is not one for a Recovery Services vault.", name).
		WithAdvice("Use 2 to 50 letters, digits and hyphens, beginning with a letter.")
}

func locationRequired(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "LocationRequired", "The location property is required for this definition.").
		WithTarget(id.String()).WithAdvice("Name the location of the virtual machines that the vault is for.")
}

func locationFixed(v RecoveryVault) *problem.Error {
	return problem.New(problem.Conflict, "InvalidResourceLocation",
		"The vault %s exists in location %s; its location cannot be changed.", v.ID.Name(), v.Location).
		WithTarget(v.ID.String()).WithAdvice("Create a vault of another name in the other location.")
}

func invalidRedundancy(r string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidStorageRedundancy", "The storage redundancy %.40q does not exist.", r).
		WithAdvice("Use one of %s.", strings.Join(Redundancies, ", "))
}

func redundancyLocked(v RecoveryVault) *problem.Error {
	return problem.New(problem.Conflict, "BMSUserErrorStorageTypeLocked",
		"The storage redundancy of vault %s cannot be changed any more: the vault protects items.", v.ID.Name()).
		WithTarget(v.ID.String()).WithAdvice("Create another vault with the redundancy you need and protect the items there.")
}

func invalidSoftDelete(d SoftDelete) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidSoftDeleteSettings", "Soft delete cannot be %.40q for %d days.", d.State, d.Days).
		WithAdvice("Use %s, and %d to %d days.", strings.Join(SoftDeleteStates, ", "), minSoftDeleteDays, maxSoftDeleteDays)
}

func invalidEnhancedSecurity(state string) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidEnhancedSecurityState", "The enhanced security state %.40q does not exist.", state).
		WithAdvice("Use Enabled or Disabled.")
}

func softDeleteAlwaysOn(v RecoveryVault) *problem.Error {
	return problem.New(problem.Conflict, "BMSUserErrorSoftDeleteStateAlwaysOn", "Soft delete of vault %s is always on and cannot be changed any more.", v.ID.Name()).
		WithTarget(v.ID.String()).WithAdvice("Deleted backup data is erased when its time is over; use another vault for what must go at once.")
}

func vaultBeingChanged(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "ConcurrentOperation", "The vault %s is being created by another request.", id.Name()).
		WithTarget(id.String()).WithAdvice("Read the vault, then decide whether it must still be changed.")
}

// vaultNotEmpty is Invalid because Azure answers it with 400.
func vaultNotEmpty(v RecoveryVault, items []Item) *problem.Error {
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = item.VM.Name()
	}
	if !slices.ContainsFunc(items, func(i Item) bool { return !i.SoftDeleted() }) {
		return problem.New(problem.Invalid, "ServiceResourceNotEmptyWithBackendMessage",
			"Recovery Services vault %s cannot be deleted as there are backup items still present in soft delete state: %s.", v.ID.Name(), strings.Join(names, ", ")).
			WithTarget(v.ID.String()).
			WithAdvice("Wait until they are erased, or undelete them, disable soft delete of the vault (kluis vault update %s --soft-delete disabled), and delete their backup data again.", v.ID.Name())
	}
	return problem.New(problem.Invalid, "ServiceResourceNotEmptyWithContainerDetails",
		"Recovery Services vault %s cannot be deleted as there are existing resources within the vault: %s.", v.ID.Name(), strings.Join(names, ", ")).
		WithTarget(v.ID.String()).
		WithAdvice("Stop protection of these items and delete their backup data, then delete the vault.")
}

func invalidPolicy(id armid.ID, err error) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidPolicyInput", "The backup policy %s is not valid: %v.", id.Name(), err).
		WithTarget(id.String()).WithAdvice("Correct the policy; start from DefaultPolicy: kluis policy show DefaultPolicy --output json.")
}

func instantExceedsRetention(p Policy) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInstantRPRetentionExceedsVaultedRetention",
		"The backup policy %s would keep snapshots for %d days, and what is kept of every day for %d.", p.ID.Name(), p.Body.InstantRetentionDays, p.Body.Retention.Daily.Duration.Count).
		WithTarget(p.ID.String()).WithAdvice("Make instantRpRetentionRangeInDays shorter, or the daily retention longer.")
}

func policyNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "BMSUserErrorPolicyNotFound", "The backup policy %s does not exist in vault %s.", id.Name(), vaultOf(id).Name()).
		WithTarget(id.String()).WithAdvice("Choose one of the vault's policies: kluis policy list.")
}

func policyOfOtherVault(policy, vault armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorPolicyNotFound", "The backup policy %s belongs to vault %s, not to %s.",
		policy.Name(), vaultOf(policy).Name(), vault.Name()).
		WithTarget(policy.String()).WithAdvice("Choose a policy of the vault that protects the virtual machine.")
}

func policyInUse(id armid.ID, item Item) *problem.Error {
	return problem.New(problem.Conflict, "BMSUserErrorPolicyInUse", "The backup policy %s protects %s and cannot be deleted.", id.Name(), item.VM.Name()).
		WithTarget(id.String()).WithAdvice("Give the protected items another policy, then delete this one.")
}

func invalidItemName(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidProtectedItemName", "The name %.80q is not one of a protected virtual machine.", id.Name()).
		WithTarget(id.String()).WithAdvice("Use VM;iaasvmcontainerv2;<resource group>;<virtual machine>, as the vault's protectable items name it.")
}

func itemNotOfVM(id, vm armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorContainerObjectMismatch", "The protected item %s does not name the virtual machine %s.", id.Name(), vm.Name()).
		WithTarget(id.String()).WithAdvice("Name container and item after the virtual machine that sourceResourceId gives.")
}

func itemNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "BMSUserErrorProtectedItemNotFound", "The virtual machine %s is not protected in vault %s.",
		lastName(id.NameOf("protectedItems")), vaultOf(id).Name()).
		WithTarget(id.String()).WithAdvice("List what the vault protects: kluis item list.")
}

func lastName(s string) string { return s[strings.LastIndex(s, ";")+1:] }

func vmNotProtected(vm armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "BMSUserErrorProtectedItemNotFound", "The virtual machine %s is not protected by any vault.", vm.Name()).
		WithTarget(vm.String()).WithAdvice("Enable backup for it: kluis item enable.")
}

func notAVirtualMachine(id armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "BMSUserErrorUnsupportedWorkload", "%q is not the id of a virtual machine.", id.String()).
		WithTarget(id.String()).WithAdvice("Give a resource of type %s as sourceResourceId.", vmType)
}

func vmNotFound(vm armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "BCMV2VMNotFound", "The virtual machine %s in resource group %s does not exist.", vm.Name(), vm.ResourceGroup).
		WithTarget(vm.String()).
		WithAdvice("If the virtual machine was deleted, stop its protection; recovery points stay. Otherwise create it again under the same name.")
}

func otherSubscription(vm armid.ID, v RecoveryVault) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorVaultAndVirtualMachineSubscriptionMismatch",
		"The virtual machine %s is not in the subscription of vault %s.", vm.Name(), v.ID.Name()).
		WithTarget(vm.String()).WithAdvice("Protect it in a vault of its own subscription.")
}

func otherLocation(m compute.VM, v RecoveryVault) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorVaultAndVirtualMachineRegionMismatch",
		"The virtual machine %s is in location %s, the vault %s in %s.", m.ID.Name(), m.Location, v.ID.Name(), v.Location).
		WithTarget(m.ID.String()).WithAdvice("Protect the virtual machine in a vault of its own location.")
}

func alreadyProtected(vm armid.ID, item Item) *problem.Error {
	return problem.New(problem.Conflict, "VirtualMachineAlreadyProtected",
		"The virtual machine %s is already protected in vault %s.", vm.Name(), item.Vault().Name()).
		WithTarget(vm.String()).WithAdvice("Use that vault, or stop protection there and delete the backup data first.")
}

func protectionStopped(item Item) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorBcmDatasourceNotPresent",
		"The virtual machine %s is not actively protected.", item.VM.Name()).
		WithTarget(item.ID.String()).WithAdvice("Resume protection by giving it a policy: kluis item enable.")
}

func operationInProgress(item Item) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorBackupOperationInProgress",
		"Another job works on %s.", item.VM.Name()).
		WithTarget(item.ID.String()).WithAdvice("Wait for it to end (kluis job list), or cancel it, then try again.")
}

func itemBeingDeleted(item Item) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorBackupDataBeingDeleted",
		"The backup data of %s is being deleted.", item.VM.Name()).
		WithTarget(item.ID.String()).
		WithAdvice("Wait for the job that deletes it (kluis job list); if it failed, delete the backup data again. Then protect the virtual machine anew.")
}

func itemSoftDeleted(item Item) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorProtectedItemSoftDeleted",
		"The backup data of %s in vault %s is deleted; until %s it can be undeleted, and nothing else be done with it.",
		item.VM.Name(), item.Vault().Name(), item.Deferred.Until.UTC().Format(time.RFC3339)).
		WithTarget(item.ID.String()).
		WithAdvice("Undelete it (kluis item undelete %s), then try again. To be rid of it sooner, undelete it, disable soft delete of the vault, and delete the backup data again.", item.VM.Name())
}

func itemNotSoftDeleted(item Item) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorProtectedItemNotSoftDeleted", "The backup data of %s is not deleted, so it cannot be undeleted.", item.VM.Name()).
		WithTarget(item.ID.String()).WithAdvice("To go on with its backups, give it a policy (kluis item resume %s).", item.VM.Name())
}

func diskExclusionOfEncrypted(vm armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "UserErrorEncryptedVmNotSupportedWithDiskEx",
		"Disks of the encrypted virtual machine %s cannot be left out of its backup under a standard policy.", vm.Name()).
		WithTarget(vm.String()).
		WithAdvice("Back up all disks (az backup protection update-for-vm --disk-list-setting resetexclusionsettings), or choose an enhanced policy, such as EnhancedPolicy.")
}

func vmHasNoLun(vm armid.ID, lun int, luns []int) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidDiskLunList", "The virtual machine %s has no data disk with LUN %d.", vm.Name(), lun).
		WithTarget(vm.String()).WithAdvice("The LUNs of its data disks are %v; the OS disk is always backed up.", luns)
}

// storeUnreadable tells why the recovery store of an item can't be used; another error stays as it is.
func storeUnreadable(item Item, err error) error {
	if owned, ok := errors.AsType[*recovery.OwnedError](err); ok {
		return problem.New(problem.Unavailable, "UserErrorRecoveryStoreInUse",
			"Another process (%s) works on the recovery store of %s.", owned.Owner, item.VM.Name()).
			WithTarget(item.ID.String()).
			WithAdvice("Wait until it has ended, or stop it, then try again. One process at a time writes to a recovery store.").WithCause(err)
	}
	if errors.Is(err, objects.ErrNotExist) || errors.Is(err, recovery.ErrNoStore) || errors.Is(err, recovery.ErrWrongKey) {
		return problem.New(problem.Unavailable, "UserErrorRecoveryStoreMissing",
			"The recovery store of %s is not there, or its key is not.", item.VM.Name()).
			WithTarget(item.ID.String()).
			WithAdvice("Bring the folder or bucket of the recovery stores back to where the server looks for it (--store), and start the server again.").WithCause(err)
	}
	return err
}

func expiryInThePast(t time.Time) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRecoveryPointExpiryTime",
		"The recovery point would expire at %s, which is past.", t.Format(time.RFC3339)).
		WithAdvice("Give recoveryPointExpiryTimeInUTC a time to come, or leave it out to keep the point for 30 days.")
}

// Azure publishes that a vault has these limits, and not the codes of who reaches them.

func tooManyPolicies(vault armid.ID, most int) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorPolicyLimitReached", "The vault %s has %d backup policies already, and can have no more.", vault.Name(), most).
		WithTarget(vault.String()).WithAdvice("Use one of its policies, delete one that nothing is protected by (kluis policy list), or use another vault.")
}

func tooManyItems(vault armid.ID, most int) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorProtectedItemLimitReached", "The vault %s has %d protected items already, and can have no more.", vault.Name(), most).
		WithTarget(vault.String()).WithAdvice("Protect the virtual machine in another vault: kluis vault create. Items whose backup data is deleted count until they are gone.")
}

func expiryTooFar(t time.Time) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRecoveryPointExpiryTime",
		"The recovery point would expire at %s, which is more than %d years ahead.", t.Format(time.RFC3339), maxRetained).
		WithAdvice("Give recoveryPointExpiryTimeInUTC an earlier time, or leave it out to keep the point for 30 days.")
}

func noSuchPlace() *problem.Error {
	return problem.New(problem.Invalid, "InvalidQueryParameterValue", "The list has no such place to go on from.").
		WithTarget("$skipToken").WithAdvice("Follow the nextLink of the page before as it is.")
}

func jobNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "BMSUserErrorJobNotFound", "The job %.60q does not exist in this vault.", id).
		WithAdvice("List the vault's jobs: kluis job list.")
}

func jobNotCancellable(j job.Job) *problem.Error {
	return problem.New(problem.Conflict, "BMSUserErrorJobNotInCancellableState", "The job %s is over: %s.", j.ID, j.Status()).
		WithAdvice("Only a job in progress can be cancelled.")
}

func pointNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "BMSUserErrorRecoveryPointNotFound", "The recovery point %.60q does not exist.", id.Name()).
		WithTarget(id.String()).WithAdvice("List the recovery points of the item: kluis recovery-point list.")
}

// imageProblem tells what is wrong with a disk's image file.
func imageProblem(e *fabric.ImageError) *problem.Error {
	p := map[fabric.Kind][3]string{
		fabric.Missing: {"UserErrorDiskImageNotFound", "The disk image %s does not exist.",
			"Bring the file back to this path, or register the virtual machine's disk again."},
		fabric.NotAllowed: {"UserErrorDiskImageNotAllowed", "The disk image %s lies outside the folders that this server may read.",
			"Move the file into an allowed folder, or start the server with --allow-images for its folder."},
		fabric.Truncated: {"UserErrorDiskImageTruncated", "The disk image %s is shorter than it was.",
			"Find out what shortened the file. If the disk was meant to shrink, register it again; earlier recovery points hold the whole disk."},
		fabric.InUse: {"UserErrorDiskImageInUse", "The disk image %s is open for writing by another process.",
			"Stop the virtual machine, or whatever writes to the file, then back up again."},
		fabric.Changed: {"UserErrorDiskImageChanged", "The disk image %s changed while it was read, so the copy would be of no one moment.",
			"Stop whatever writes to the file, then back up again."},
		fabric.UnknownFormat: {"UserErrorDiskImageFormat", "The disk image %s has a format that cannot be read.",
			"Convert it to raw or qcow2 with qemu-img."},
		fabric.HasBackingFile: {"UserErrorDiskImageHasBackingFile", "The disk image %s depends on another image.",
			"Flatten it: qemu-img convert -O qcow2."},
		fabric.NotRegular: {"UserErrorDiskImageNotRegular", "The disk image %s is not a regular file.",
			"Name the image file itself."},
	}[e.Kind]
	if p[0] == "" {
		p = [3]string{"UserErrorDiskImageUnreadable", "The disk image %s cannot be read.",
			"Check the file's permissions and the health of its disk (dmesg), then back up again. Earlier recovery points are not touched."}
	}
	return problem.New(problem.Unavailable, p[0], p[1], e.Path).WithTarget(e.Path).WithAdvice("%s", p[2]).WithCause(e)
}

// hostProblem tells what kept a host from giving up its disks.
func hostProblem(e *fabric.HostError) *problem.Error {
	p := map[fabric.HostKind][3]string{
		fabric.Away: {"UserErrorHostNotReachable", "The host %s of the virtual machine cannot be reached.",
			"Check that the host and its libvirt daemon run, and the network between; the next backup goes on where the last one ended."},
		fabric.Gone: {"UserErrorVmNotFoundOnHost", "The host %s no longer has the virtual machine.",
			"If it was moved, protect it under its new host. Otherwise stop protection and keep the data, or restore it."},
		fabric.Busy: {"UserErrorVmNotInDesirableState", "The virtual machine is busy on its host %s.",
			"Wait until its migration, shutdown or other backup is over; the next backup takes it."},
		fabric.Held: {"UserErrorVmNotInDesirableState", "The host %s keeps the virtual machine for a backup that it has lost: its libvirt daemon was ended while that began.",
			"Stop the virtual machine, restart the libvirt daemon of the host (systemctl restart libvirtd) and start the machine again, in this order. Until then the guest goes on, and libvirt refuses every backup, snapshot and migration of it."},
		fabric.NoRoom: {"UserErrorSnapshotSpaceInsufficient", "The host %s has too little room for what the guest overwrites while it is backed up. The backup was given up so that the guest could go on.",
			"Make room in the folder of --live-dir on the host, or put it on a larger file system, then back up again."},
		fabric.Halted: {"UserErrorVmNotInDesirableState", "The virtual machine stopped on its host %s while it was backed up.",
			"Back up again: a machine that is stopped can be backed up too."},
	}[e.Kind]
	if p[0] == "" {
		p = [3]string{"UserErrorHostRefused", "The host %s refused what the backup needs of it.", "Read the cause in the job's details and in the host's log, then back up again."}
	}
	return problem.New(problem.Unavailable, p[0], p[1], e.Host).WithTarget(e.Host).WithAdvice("%s", p[2]).WithCause(e)
}

func drillNoHost() *problem.Error {
	return problem.New(problem.Unsupported, "UserErrorDrillHasNoHost", "A restore drill boots a machine, and this server looks after no libvirt host.").
		WithAdvice("Start the server with --hosts, such as --hosts lab=qemu:///system.")
}

func drillHostUnknown(host string, hosts []string) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorDrillHostUnknown", "There is no libvirt host %q on which the restore drill could take place. There are: %s.", host, strings.Join(hosts, ", ")).
		WithAdvice("Name one of them (kluis restore drill --host NAME).")
}

func drillInvalid() *problem.Error {
	return problem.New(problem.Invalid, "UserErrorDrillInvalid",
		"A restore drill lasts at most %d minutes, waits for texts of at most %d bytes, asks a TCP port from 1 to %d, which a text that a port is to say needs, and runs a program with at most %d words.",
		int(maxDrillTime.Minutes()), maxSignText, maxPort, maxCheckWords).
		WithAdvice("Correct the request.")
}

// drillFailed is said of a point whose machine does not boot, or not well.
func drillFailed(p Point, d Drill) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorDrillFailed", "The machine that was made of recovery point %s of virtual machine %s on host %s did not come up. %s", p.ID, p.VM.Name(), d.Host, d.Reason).
		WithTarget(p.VM.String()).
		WithAdvice("Look at what its console says in the job's details. An earlier point may boot (kluis restore drill); if none does, check that the guest unlocks its disks at boot from the BEK VOLUME.")
}

// unreportedChanges is said loudly: until it is found out why, no increment of the disk can be believed.
func unreportedChanges(p Point, d PointDisk) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorChangeTrackingNotTrusted",
		"Disk %s of virtual machine %s had changed in places that its host did not report. It was read as a whole, so this recovery point is right; the point before it may not be.", d.Name, p.VM.Name()).
		WithTarget(p.VM.String()).
		WithAdvice("Prove the older recovery points, and find out what writes to the image behind QEMU's back: another program on the host, a storage snapshot that was rolled back, a disk that two machines share.")
}

func storeFull(err error) *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorRecoveryStoreFull", "The recovery store has no space left.").
		WithAdvice("Free or add space where the recovery store lies, or delete recovery points, then back up again. Earlier recovery points are not touched.").WithCause(err)
}

func targetFull(disk string, err error) *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorRestoreTargetFull", "There is no space left for the restored disk %s.", disk).
		WithAdvice("Free or add space in the folder for restored disks, then restore again. What was written of this restore has been removed.").WithCause(err)
}

func pointDamaged(err error) *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorRecoveryPointDamaged", "The recovery point cannot be read back whole: %v.", err).
		WithAdvice("Restore another recovery point, and back up again: what the source still has is stored anew.").WithCause(err)
}

func notProved(reason, advice string) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorRecoveryPointNotProved", "The recovery point is complete, but it could not be proved to open: %s.", reason).
		WithAdvice("%s", advice)
}

const (
	codeDrift      = "UserErrorEncryptionSettingsDrift"
	codeConverting = "UserErrorEncryptionInProgress"
)

// encryptionDrift tells of a disk whose bytes and settings disagree, or are about to.
func encryptionDrift(p Point, d Drift) *problem.Error {
	var e *problem.Error
	switch d.Bytes {
	case converting:
		e = problem.New(problem.Conflict, codeConverting,
			"The encryption of disk %s of virtual machine %s is being changed: %s. The recovery point could not be proved to open.", d.Disk, p.VM.Name(), d.Found).
			WithAdvice("Wait until the guest has finished, see that the encryption settings name the key that opens the disk then, and back up again. Keep the recovery points before this one.")
	case plain:
		e = problem.New(problem.Conflict, codeDrift,
			"The encryption settings of virtual machine %s say that disk %s is encrypted, and no encryption is found on it: it holds %s in plain.", p.VM.Name(), d.Disk, d.Found).
			WithAdvice("Check that encryption of the disk was finished in the guest. If the disk is meant to be plain, remove it from the encryption settings of the virtual machine.")
	default:
		e = problem.New(problem.Conflict, codeDrift,
			"Disk %s holds an encrypted volume (%s), and the encryption settings of virtual machine %s name no key for it: nobody could open what is restored from this recovery point.",
			d.Disk, d.Found, p.VM.Name()).
			WithAdvice("Keep the key of the disk in a key vault and name it in the encryption settings (kluis vm encryption set %s), give Backup Management Service access to the key vault, then back up again.",
				p.VM.Name())
	}
	return e.WithTarget(p.VM.String())
}

// jobFailed is what an alert says of a backup or a restore that failed: the problem itself, where it is known.
func jobFailed(what string, vm armid.ID, cause error) *problem.Error {
	if p := problem.Of(cause); p != nil {
		return p
	}
	return problem.New(problem.Internal, "BMSUserErrorInternal", "The %s of %s met an internal error.", what, vm.Name()).
		WithAdvice("Try again; if it fails again, look in the server's log for the id of the job.")
}

// pointGone tells of a point that was listed and is not in the recovery store.
func pointGone(p Point) *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorRecoveryPointLost",
		"The recovery point of %s taken at %s is not in the recovery store and was taken off the list.", p.VM.Name(), p.Time.UTC().Format(time.RFC3339)).
		WithAdvice("Find out who removed it from the folder or bucket of the recovery stores, bring it back from a copy, and start the server again. Back up now.")
}

func storeDamaged(item Item, damage error) *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorRecoveryStoreDamaged", "The recovery store of %s is damaged: %v.", item.VM.Name(), damage).
		WithAdvice("Look at the health of the disk or bucket that holds the recovery stores. Back up now: what the source still has is stored anew.")
}

func dataDeleted(item Item) *problem.Error {
	if item.SoftDeleted() {
		return problem.New(problem.Conflict, "BackupDataSoftDeleted", "The backup data of %s was deleted; it will be erased after %s, with all recovery points.",
			item.VM.Name(), item.Deferred.Until.UTC().Format(time.RFC3339)).
			WithAdvice("If nobody meant to: undelete it before then (kluis item undelete %s).", item.VM.Name())
	}
	return problem.New(problem.Conflict, "BackupDataDeletionStarted", "The backup data of %s is being deleted, with all recovery points.", item.VM.Name()).
		WithAdvice("If nobody meant to: deletion cannot be undone; find out who asked for it, and protect the virtual machine anew.")
}

// Keys that are tried.

func keySizeInvalid(vm armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidEncryptionKey", "The key is empty or longer than %d bytes.", MaxTriedKey).
		WithTarget(vm.String()).WithAdvice("Give the passphrase, or the content of the .BEK file.")
}

func vmHasNoDisk(vm armid.ID, name string, names []string) *problem.Error {
	return problem.New(problem.NotFound, "DiskNotFound", "The virtual machine %s has no disk %.80q.", vm.Name(), name).
		WithTarget(vm.String()).WithAdvice("Its disks are: %s.", strings.Join(names, ", "))
}

// keyDoesNotOpen tells why a key was not taken. Advice of the proof is about recovery points; here nothing was
// kept, and a wrong key is most often a wrong file.
func keyDoesNotOpen(vm armid.ID, v proof.DiskVerdict) *problem.Error {
	advice := v.Advice
	switch v.Kind {
	case proof.WrongKey:
		advice = "Give the file that holds the passphrase of this disk, without a line end, or its .BEK file. In the guest, 'cryptsetup open --test-passphrase' tells whether it fits."
	case proof.NothingFound:
		advice = "Check that encryption of the disk was finished in the guest, and that this is the disk that is meant."
	}
	return problem.New(problem.Conflict, "EncryptionKeyDoesNotOpenDisk", "The key does not open disk %s of virtual machine %s; nothing was stored: %s.",
		v.Name, vm.Name(), strings.Replace(v.Reason, "the key in the recovery point", "the key", 1)).
		WithTarget(vm.String()).WithAdvice("%s", advice)
}

// Restore requests.

func restoreTypeNotSupported(t string) *problem.Error {
	return problem.New(problem.Unsupported, "UserErrorEncryptedVmRestoreTypeNotSupported",
		"The recovery type %.40q is not possible for this virtual machine: its disks are restored, then a virtual machine is created from them.", t).
		WithAdvice("Restore with recoveryType RestoreDisks, then deploy the template that the restore writes.")
}

func restoreElsewhere(vault RecoveryVault, region string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "The vault %s is in %s: disks are restored there, not in %.60s.", vault.ID.Name(), vault.Location, region).
		WithTarget("properties.region").WithAdvice("Name the vault's own region, or leave region out.")
}

func restoreNeeds(what string) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRestoreRequest", "The restore request has no %s.", what).
		WithAdvice("Give %s, as for: az backup restore restore-disks --target-resource-group … --storage-account ….", what)
}

func noSuchDisk(lun int, names []string) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidDiskLunList", "The recovery point has no disk with LUN %d.", lun).
		WithAdvice("The disks of this recovery point are: %s.", strings.Join(names, ", "))
}

// Mounts of recovery points.

func mountsOff() *problem.Error {
	return problem.New(problem.Unavailable, "UserErrorItemRecoveryNotAvailable", "This server serves no disks of recovery points.").
		WithAdvice("Start the server with --export-listen, or restore the disks.")
}

func tooManyMounts() *problem.Error {
	return problem.New(problem.Conflict, "UserErrorTooManyItemRecoveries", "There are %d recovery points mounted already.", maxMounts).
		WithAdvice("Unmount one and revoke it (kluis recovery-point revoke), or wait until it ends by itself after %d hours.", int(MountLife.Hours()))
}

func mountNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "UserErrorItemRecoveryNotFound", "The mount %.60q does not exist or has ended.", id).
		WithAdvice("Mount the recovery point again.")
}

func pointHasNoDisk(p Point, name string, names []string) *problem.Error {
	return problem.New(problem.Invalid, "UserErrorDiskNotInRecoveryPoint", "The recovery point of %s has no disk %.80q.", p.VM.Name(), name).
		WithTarget(name).WithAdvice("The disks of this recovery point are: %s.", strings.Join(names, ", "))
}

// notDecrypted: why is for people; the cause is for the log.
func notDecrypted(p Point, disk string, why, cause error) *problem.Error {
	return problem.New(problem.Conflict, "UserErrorRecoveryPointNotDecrypted",
		"The disk %s of %s cannot be decrypted with the keys in the recovery point: %v.", disk, p.VM.Name(), why).
		WithTarget(disk).
		WithAdvice("Choose a recovery point whose proof says proved, or mount the disk without decrypting it and open it with a key of your own.").
		WithCause(cause)
}
