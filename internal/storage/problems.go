package storage

import (
	"kluis/internal/armid"
	"kluis/internal/problem"
)

func accountNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "StorageAccountNotFound", "The storage account '%.60s' was not found.", id.Name()).
		WithTarget(id.String()).WithAdvice("Check its name and resource group, or create it.")
}

func invalidAccountName(name string) *problem.Error {
	return problem.New(problem.Invalid, "AccountNameInvalid", "%.60q is not a name for a storage account.", name).
		WithAdvice("Use 3 to 24 lower-case letters and digits.")
}

func accountTaken(name string) *problem.Error {
	return problem.New(problem.Conflict, "StorageAccountAlreadyTaken", "The storage account name %s is taken.", name).
		WithAdvice("Choose another name: it is part of a host name and must be the only one.")
}

func locationRequired(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "LocationRequired", "The location property is required for this definition.").
		WithTarget(id.String()).WithAdvice("Add a location, such as westeurope.")
}

func invalidContainerName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidResourceName", "%.80q is not a name for a container.", name).
		WithAdvice("Use 3 to 63 lower-case letters, digits and single hyphens.")
}

func containerExists(name string) *problem.Error {
	return problem.New(problem.Conflict, "ContainerAlreadyExists", "The container %s already exists.", name).WithAdvice("Use it, or choose another name.")
}

func containerNotFound(name string) *problem.Error {
	return problem.New(problem.NotFound, "ContainerNotFound", "The container %.80s does not exist.", name).WithAdvice("Create the container first.")
}

func blobNotFound(name string) *problem.Error {
	return problem.New(problem.NotFound, "BlobNotFound", "The blob %.80s does not exist.", name).WithAdvice("List the container's blobs.")
}

func blobExists(name string) *problem.Error {
	return problem.New(problem.Conflict, "BlobAlreadyExists", "The blob %.80s already exists.", name).
		WithAdvice("Use another name, or write without If-None-Match to replace it.")
}

func conditionNotMet() *problem.Error {
	return problem.New(problem.Conflict, "ConditionNotMet", "The blob is not, or no longer, the one that If-Match names.").
		WithAdvice("Read it again and decide anew.")
}

func invalidRange(off, size int64) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRange", "The range begins at byte %d of a blob of %d.", off, size).
		WithAdvice("Ask for bytes that the blob has.")
}

func invalidBlobName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidResourceName", "%.80q is not a name for a blob.", name).
		WithAdvice("Use 1 to 1024 bytes of UTF-8 without control characters.")
}

func invalidHeader(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidHeaderValue", "The value of the blob's header %s is not one.", name).
		WithTarget(name).WithAdvice("Use up to 1000 printable ASCII characters, such as application/json.")
}

func bodyTooLarge(size, most int64) *problem.Error {
	return problem.New(problem.TooLarge, "RequestBodyTooLarge", "The body has %d bytes; from 1 to %d are taken.", size, most).
		WithAdvice("Upload the blob in blocks of fitting size.")
}

func invalidMetadata(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidMetadata", "The metadata %.60q has a name or a value that cannot be kept.", name).
		WithAdvice("Names are letters, digits and underscores, not beginning with a digit; values are printable ASCII characters.")
}

func metadataTooLarge() *problem.Error {
	return problem.New(problem.Invalid, "MetadataTooLarge", "The metadata has more than %d bytes.", maxMetadata).WithAdvice("Keep what is long in a blob of its own.")
}

func md5Mismatch() *problem.Error {
	return problem.New(problem.Invalid, "Md5Mismatch", "The MD5 value specified in the request did not match with the MD5 value calculated by the server.").
		WithAdvice("Send the bytes again: they changed on their way, or the value is of others.")
}

func crc64Mismatch() *problem.Error {
	return problem.New(problem.Invalid, "Crc64Mismatch", "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.").
		WithAdvice("Send the bytes again: they changed on their way, or the value is of others.")
}

func invalidBlockID() *problem.Error {
	return problem.New(problem.Invalid, "InvalidQueryParameterValue", "The block id is not base64 of 1 to %d bytes.", maxBlockID).
		WithTarget("blockid").WithAdvice("Encode the ids of blocks in base64.")
}

func invalidBlockList(id string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidBlockList", "The block %.100q of the list is not there.", id).
		WithAdvice("Upload the block again; blocks that are not committed are kept for a week.")
}

func tooManyBlocks() *problem.Error {
	return problem.New(problem.Conflict, "BlockCountExceedsLimit", "A blob has at most %d blocks, and %d that are not committed.", MaxBlocks, maxPending).
		WithAdvice("Use larger blocks.")
}

func isNotFound(err error) bool { return err != nil && problem.KindOf(err) == problem.NotFound }

func invalidKeyName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidValuesForRequestParameters", "%.40q is not the name of a key.", name).
		WithTarget("keyName").WithAdvice("The keys are key1 and key2.")
}

func authenticationFailed(why string) *problem.Error {
	return problem.New(problem.Denied, "AuthenticationFailed",
		"Server failed to authenticate the request. Make sure the value of the Authorization header or of the shared access signature is formed correctly: %s.", why).
		WithAdvice("List the account's keys, and sign anew with one of them.")
}

func sharedKeysOff(id armid.ID) *problem.Error {
	return problem.New(problem.Denied, "KeyBasedAuthenticationNotPermitted", "Key based authentication is not permitted on this storage account.").
		WithTarget(id.String()).WithAdvice("Use a token of a principal that has a role on the account, or set allowSharedKeyAccess.")
}

func sasNotSupported(what string) *problem.Error {
	return problem.New(problem.Denied, "AuthenticationFailed", "This server does not take %s.", what).
		WithAdvice("Use an account SAS, a SAS for a container or a blob that one of the account's keys has signed, or a token.")
}

func authorizationFailure(why string) *problem.Error {
	return problem.New(problem.Denied, "AuthorizationFailure", "This request is not authorized to perform this operation: %s.", why).
		WithAdvice("Sign for what the request is about, or use the account's key or a role.")
}

func permissionMismatch(letters string) *problem.Error {
	return problem.New(problem.Denied, "AuthorizationPermissionMismatch", "This request is not authorized to perform this operation using this permission: it needs one of %q.", letters).
		WithAdvice("Sign with the permission (sp), or use the account's key or a role.")
}

func resourceTypeMismatch() *problem.Error {
	return problem.New(problem.Denied, "AuthorizationResourceTypeMismatch", "This request is not authorized to perform this operation using this resource type.").
		WithAdvice("Sign for the resource type (srt): s for the service, c for containers, o for blobs.")
}

func serviceMismatch() *problem.Error {
	return problem.New(problem.Denied, "AuthorizationServiceMismatch", "This request is not authorized to perform this operation using this service.").
		WithAdvice("Sign for the Blob service: ss=b.")
}

func authorizationProtocolMismatch() *problem.Error {
	return problem.New(problem.Denied, "AuthorizationProtocolMismatch", "This request is not authorized to perform this operation using this protocol.").
		WithAdvice("Use https.")
}

func authorizationSourceIPMismatch() *problem.Error {
	return problem.New(problem.Denied, "AuthorizationSourceIPMismatch", "This request is not authorized to perform this operation using this source IP address.").
		WithAdvice("Use an address for which the signature was made (sip).")
}

func overwriteNotPermitted() *problem.Error {
	return problem.New(problem.Denied, "UnauthorizedBlobOverwrite", "This request is not authorized to perform blob overwrites.").
		WithAdvice("Use another name, or sign with the permission to write (sp=w).")
}

func invalidSASRequest(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidValuesForRequestParameters", "The signature cannot be made: %s.", why).WithAdvice("Correct the request.")
}

func invalidDelegation(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidXmlNodeValue", "A user delegation key cannot be given for these times: %s.", why).
		WithTarget("KeyInfo").WithAdvice("Ask for a key that ends within seven days.")
}

func invalidPolicies(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidXmlDocument", "The stored access policies cannot be kept: %s.", why).
		WithAdvice("Give up to five policies, each with an id of its own of up to 64 bytes.")
}

func invalidLease(header, why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidHeaderValue", "The header %s is invalid: %s.", header, why).WithTarget(header).WithAdvice("Correct the header.")
}

func leasePresent() *problem.Error {
	return problem.New(problem.Conflict, "LeaseAlreadyPresent", "There is already a lease present.").
		WithAdvice("Wait until it ends, break it, or name its id as the proposed one.")
}

func leaseMismatch() *problem.Error {
	return problem.New(problem.Conflict, "LeaseIdMismatchWithLeaseOperation", "The lease ID specified did not match the lease ID.").WithAdvice("Name the id with which the lease was acquired.")
}

func leaseIsBroken(what string) *problem.Error {
	return problem.New(problem.Conflict, "LeaseIsBrokenAndCannotBeRenewed", "The lease was broken and cannot be %s.", what).WithAdvice("Acquire a new lease.")
}

func leaseIsBreaking(what string) *problem.Error {
	code := map[string]string{"acquired": "LeaseIsBreakingAndCannotBeAcquired", "changed": "LeaseIsBreakingAndCannotBeChanged"}[what]
	return problem.New(problem.Conflict, code, "The lease is being broken and cannot be %s until it is.", what).WithAdvice("Wait until it is broken, then acquire a new one.")
}

// leaseMissing, leaseMismatchOn and leaseLost answer who names a lease that they don't have.
func leaseMissing(what string) *problem.Error {
	return problem.New(problem.Conflict, "LeaseNotPresent"+what, "There is currently no lease of that ID.").WithAdvice("Acquire a lease, or leave the header x-ms-lease-id out.")
}

func leaseMismatchOn(what string) *problem.Error {
	return problem.New(problem.Conflict, "LeaseIdMismatch"+what, "The lease ID specified did not match the lease ID.").WithAdvice("Name the id of the lease that is there, or wait until it ends.")
}

func leaseLost() *problem.Error {
	return problem.New(problem.Conflict, "LeaseLost", "A lease ID was specified, but the lease has expired or was broken.").WithAdvice("Renew the lease, or acquire a new one.")
}

func leaseIDMissing(thing string) *problem.Error {
	return problem.New(problem.Conflict, "LeaseIdMissing", "There is currently a lease on the %s and no lease ID was specified in the request.", thing).
		WithAdvice("Name its id (x-ms-lease-id), wait until it ends, or break it.")
}
