package arm

import (
	"net/http"
	"strings"

	"kluis/internal/problem"
)

// Everything the router itself says to a person. The codes are Resource Manager's.

func missingAPIVersion() *problem.Error {
	return problem.New(problem.Invalid, "MissingApiVersionParameter",
		"The api-version query parameter (?api-version=) is required for all requests.").
		WithTarget("api-version").
		WithAdvice("Add ?api-version= with a date, for example 2024-04-01.")
}

func invalidAPIVersion(v string, known Versions) *problem.Error {
	p := problem.New(problem.Invalid, "InvalidApiVersionParameter", "The api-version '%s' is invalid.", clip(v)).
		WithTarget("api-version").
		WithAdvice("Write the api-version as yyyy-mm-dd or yyyy-mm-dd-preview, for example 2024-04-01.")
	if len(known) > 0 {
		p.Message += " The supported versions are '" + strings.Join(known, ",") + "'."
	}
	return p
}

// versionNotRegistered is said of a type that is to be created with an api-version that it does not have.
func versionNotRegistered(typ, version string, known Versions) *problem.Error {
	return problem.New(problem.Invalid, "NoRegisteredProviderFound",
		"No registered resource provider found for API version '%s' for type '%s'. The supported api-versions are '%s'.",
		version, last(typ), strings.Join(known, ", ")).
		WithTarget("api-version").WithAdvice("Send one of these.")
}

func versionNotFound(typ, version string, known Versions) *problem.Error {
	p := unknownType(typ, version)
	p.Message += " The supported api-versions are '" + strings.Join(known, ",") + "'."
	return p.WithTarget("api-version").WithAdvice("Send one of these.")
}

// last is a type without its namespace.
func last(typ string) string {
	_, kind, _ := strings.Cut(typ, "/")
	return kind
}

func invalidPath(err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRequestUri", "The request's path is not a resource id: %v.", err).
		WithAdvice("Write /subscriptions/{id}/resourceGroups/{name}/providers/{namespace}/{type}/{name}.").
		WithCause(err)
}

func invalidQuery(name, why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidQueryParameterValue",
		"The query parameter '%s' is invalid: %s.", name, why).
		WithTarget(name).WithAdvice("Correct the parameter, or leave it out.")
}

func invalidFilter(sent, why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidFilterInQueryString", "Invalid $filter '%s' specified in the query string: %s.", clip(sent), why).
		WithTarget("$filter").
		WithAdvice("Write name eq 'value' terms joined by and, for example backupManagementType eq 'AzureIaasVM' and status eq 'Failed'.")
}

func unknownNamespace(name string) *problem.Error {
	return problem.New(problem.NotFound, "InvalidResourceNamespace", "The resource namespace '%s' is invalid.", clip(name)).
		WithAdvice("Check the spelling of the provider; providers that Kluis does not serve have no resources here.")
}

func unknownType(typ, version string) *problem.Error {
	namespace, kind, found := strings.Cut(typ, "/")
	if !found {
		return problem.New(problem.NotFound, "InvalidResourceType",
			"The resource type '%s' could not be found for api version '%s'.", clip(typ), version).
			WithAdvice("Check the path; not everything that Azure has exists here.")
	}
	return problem.New(problem.NotFound, "InvalidResourceType",
		"The resource type '%s' could not be found in the namespace '%s' for api version '%s'.", clip(kind), clip(namespace), version).
		WithAdvice("Check the path; not every type of the namespace exists here.")
}

func methodNotAllowed(method, target string, allow []string) error {
	p := problem.New(problem.Unsupported, "MethodNotAllowed",
		"The HTTP method '%s' is not supported here.", clip(method)).
		WithTarget(target).WithAdvice("Use one of: %s.", strings.Join(allow, ", "))
	return &statusError{p, http.StatusMethodNotAllowed, http.Header{"Allow": {strings.Join(allow, ", ")}}}
}

func invalidContent(why string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidRequestContent",
		"The request content was invalid and could not be deserialized: %s.", why).
		WithAdvice("Send the JSON document that the operation describes.")
}

func bodyTooLarge() *problem.Error {
	return problem.New(problem.TooLarge, "RequestContentTooLarge",
		"The request content size exceeds the maximum size of %d bytes.", MaxBody).
		WithAdvice("Send less in one request.")
}

func mediaTypeNotSupported(sent string) error {
	p := problem.New(problem.Unsupported, "UnsupportedMediaType",
		"The content media type '%s' is not supported. Only 'application/json' is supported.", clip(sent)).
		WithTarget("Content-Type").WithAdvice("Send the body as JSON, with Content-Type: application/json.")
	return &statusError{p, http.StatusUnsupportedMediaType, nil}
}

func internalError(correlation string) *problem.Error {
	return problem.New(problem.Internal, "InternalServerError",
		"An internal error occurred. The correlation id is '%s'.", correlation).
		WithAdvice("Try again; if it happens again, look for the correlation id in the server's log.")
}

// statusError is a problem whose status is not that of its kind, or that needs headers.
type statusError struct {
	problem *problem.Error
	status  int
	header  http.Header
}

func (e *statusError) Error() string { return e.problem.Error() }
func (e *statusError) Unwrap() error { return e.problem }

func clip(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
