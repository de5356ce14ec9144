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

func invalidContentType() *problem.Error {
	return problem.New(problem.Invalid, "InvalidHeaderValue", "The blob's content type is not one.").
		WithTarget("Content-Type").WithAdvice("Use up to 256 ASCII characters, such as application/json.")
}

func blobTooLarge(size int64) *problem.Error {
	return problem.New(problem.TooLarge, "RequestBodyTooLarge", "The blob has %d bytes; at most %d are taken.", size, int64(MaxBlobSize)).
		WithAdvice("Keep large files elsewhere; disks are restored as managed disks.")
}
