package resources

import (
	"kluis/internal/armid"
	"kluis/internal/problem"
)

func subscriptionNotFound(id string) *problem.Error {
	return problem.New(problem.NotFound, "SubscriptionNotFound", "The subscription '%.60s' could not be found.", id).
		WithAdvice("Use the subscription of this server; admin.json and 'az account list' name it.")
}

func groupNotFound(name string) *problem.Error {
	return problem.New(problem.NotFound, "ResourceGroupNotFound", "Resource group '%s' could not be found.", name).
		WithTarget(name).WithAdvice("Create it: kluis group create %s --location LOCATION.", name)
}

func invalidGroupName(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidResourceGroup", "The name %.100q is not one for a resource group.", name).
		WithAdvice("Use up to 90 letters, digits, hyphens, underscores, parentheses and dots, not ending in a dot.")
}

func groupElsewhere(g Group) *problem.Error {
	return problem.New(problem.Conflict, "InvalidResourceGroupLocation",
		"The resource group '%s' exists in location '%s'; its location cannot be changed.", g.Name, g.Location).
		WithTarget(g.Name).WithAdvice("Use that location, or another name.")
}

func groupNotEmpty(name string, count int) *problem.Error {
	return problem.New(problem.Conflict, "ResourceGroupDeletionBlocked",
		"The resource group '%s' cannot be deleted: it holds %d resources.", name, count).
		WithTarget(name).WithAdvice("Somebody is creating resources in it. Delete the group again.")
}

func locationRequired(name string) *problem.Error {
	return problem.New(problem.Invalid, "LocationRequired", "The location property is required for this definition.").
		WithTarget(name).WithAdvice("Add a location, such as westeurope.")
}

func invalidLocation(location string) *problem.Error {
	return problem.New(problem.Invalid, "LocationNotAvailableForResourceGroup", "%.80q is not the name of a location.", location).
		WithTarget("location").WithAdvice("Use letters, digits and hyphens, such as westeurope; any name will do here.")
}

func tooManyTags(count int) *problem.Error {
	return problem.New(problem.Invalid, "TooManyTags", "The resource has %d tags; at most %d are taken.", count, maxTags).
		WithTarget("tags").WithAdvice("Leave some out.")
}

func invalidTag(name string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidTag", "The tag %.80q has no name, or its name or value is too long.", name).
		WithTarget("tags").WithAdvice("Use 1 to %d bytes for a name and up to %d for a value.", maxTagName, maxTagValue)
}

func groupRequired(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidResourceGroup", "%s %s is not in a resource group.", id.Type(), id.Name()).
		WithTarget(id.String()).WithAdvice("Write /subscriptions/{id}/resourceGroups/{group}/providers/… .")
}

func typeNotSupported(id armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "ResourceTypeNotSupported", "Resources of type %s do not exist here.", id.Type()).
		WithTarget(id.String()).WithAdvice("Leave the resource out; virtual machines run without it here.")
}

func notAnObject(id armid.ID) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRequestContent", "The body of %s is not a JSON object with an object as its properties.", id.Name()).
		WithTarget(id.String()).WithAdvice("Send an object with location and properties.")
}

func documentNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "ResourceNotFound", "The Resource '%s/%s' under resource group '%s' was not found.",
		id.Type(), id.Name(), id.ResourceGroup).
		WithTarget(id.String()).WithAdvice("Check resource group and name.")
}

// inUse refuses to delete what another resource names. Azure has a code for each type.
func inUse(id, by armid.ID) *problem.Error {
	code := "InUseResourceCannotBeDeleted"
	switch {
	case id.Is("Microsoft.Network/virtualNetworks"), id.Is("Microsoft.Network/virtualNetworks/subnets"):
		code = "InUseSubnetCannotBeDeleted"
	case id.Is("Microsoft.Network/networkSecurityGroups"):
		code = "InUseNetworkSecurityGroupCannotBeDeleted"
	case id.Is("Microsoft.Network/publicIPAddresses"):
		code = "PublicIPAddressCannotBeDeleted"
	}
	return problem.New(problem.Invalid, code, "%s is in use by %s and cannot be deleted.", id.Name(), by.String()).
		WithTarget(id.String()).WithAdvice("Delete or change that first.")
}

func isNotFound(err error) bool { return err != nil && problem.KindOf(err) == problem.NotFound }

func notAList(id armid.ID, property string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRequestFormat", "The property %s of %s is not a list of objects.", property, id.Name()).
		WithTarget(property).WithAdvice("Send a list of JSON objects, each with a name.")
}
