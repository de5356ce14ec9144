package recoveryservices

import (
	"strings"

	"kluis/internal/armid"
	"kluis/internal/problem"
)

// What the door itself says to a person; everything else is said by the service.

// notSupportedHere refuses a property that would change what is done. To ignore it would be to promise it.
func notSupportedHere(property, what, advice string) *problem.Error {
	return problem.New(problem.Unsupported, "OperationNotSupported", "%s is not supported here.", what).
		WithTarget(property).WithAdvice("%s", advice)
}

// otherWorkload: what else Azure Backup backs up.
func otherWorkload(property, what string) *problem.Error {
	return notSupportedHere(property, "Backup of "+clip(what), "Virtual machines are backed up here, as a whole: backupManagementType "+management+".")
}

// clip bounds what is repeated of a request.
func clip(s string) string { return s[:min(len(s), 60)] }

func crossRegion(property string) *problem.Error {
	return notSupportedHere(property, "Restore in another region", "Leave the property out, or set it to false or Disabled.")
}

func missing(property, what string) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRequest", "The request has no %s.", property).
		WithTarget(property).WithAdvice("Give %s: %s.", property, what)
}

func neitherProtectNorStop() *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRequest", "The request neither names a policy nor stops protection.").
		WithTarget("properties").
		WithAdvice("Send policyId to protect the virtual machine, protectionState ProtectionStopped to stop, or isRehydrate to undelete.")
}

func notAnID(property string, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidParameter", "%s is not a resource id.", property).
		WithTarget(property).WithAdvice("Give a whole id: /subscriptions/…/resourceGroups/…/providers/….").WithCause(err)
}

func invalidSKU(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidSku", "The SKU %.40q does not exist for a Recovery Services vault.", name).
		WithTarget("sku.name").WithAdvice("Use Standard or RS0.")
}

func noSuchConfig(id armid.ID, name string) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound", "The Resource '%s/%.60s' was not found.", id.Type(), id.Name()).
		WithTarget(id.String()).WithAdvice("A vault has one of them, named %s.", name)
}

func noResourceGuard(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound", "The vault %s has no resource guard.", vaultOf(id).Name()).
		WithTarget(id.String()).WithAdvice("%s", resourceGuard.advice)
}

func noSuchOperation(id string) *problem.Error {
	return problem.New(problem.NotFound, "OperationNotFound", "There is no operation %.60q.", id).
		WithAdvice("Start it again; what an operation without a job has answered is kept for a while only.")
}

func otherPoint(asked, named string) *problem.Error {
	return problem.New(problem.Invalid, "BMSUserErrorInvalidRestoreRequest",
		"The request is for recovery point %.60q, and its body names %.60q.", asked, named).
		WithTarget("properties.recoveryPointId").WithAdvice("Name the same recovery point in both, or leave recoveryPointId out.")
}

func unknownCondition(name string, known []string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidFilter", "This list has no condition '%.60s'.", name).
		WithTarget("$filter").WithAdvice("Filter by %s.", strings.Join(known, ", "))
}

func notATime(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidFilter", "The value of '%s' is not a time.", name).
		WithTarget("$filter").WithAdvice("Write it in UTC, as '2026-11-23 09:30:00 PM'.")
}
