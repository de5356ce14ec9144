package deployment

import (
	"strings"

	"kluis/internal/armid"
	"kluis/internal/problem"
)

func invalidTemplate(id armid.ID, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidTemplate", "Deployment template validation failed: %v.", err).
		WithTarget(id.String()).WithAdvice("Correct the template or the parameters; nothing was created.")
}

func typeNotDeployable(id armid.ID, types []string) *problem.Error {
	return problem.New(problem.Invalid, "InvalidTemplateDeployment", "The template has a resource of type %s (%s), which cannot be created here.", id.Type(), id.Name()).
		WithTarget(id.String()).WithAdvice("Leave it out; these can be created: %s. Nothing was created.", strings.Join(types, ", "))
}

func modeNotSupported(mode string) *problem.Error {
	return problem.New(problem.Unsupported, "InvalidDeploymentMode", "The deployment mode %.30q is not supported here.", mode).
		WithAdvice("Use mode Incremental; nothing that the template does not name is ever deleted.")
}

func scopeNotSupported(id armid.ID) *problem.Error {
	return problem.New(problem.Unsupported, "InvalidDeploymentScope", "Deployments at a subscription are not supported here; they go into a resource group.").
		WithTarget(id.String()).WithAdvice("Deploy into a group: az deployment group create.")
}

func templateMissing() *problem.Error {
	return problem.New(problem.Invalid, "InvalidDeployment", "The deployment has neither a template nor a templateLink.").
		WithAdvice("Give one of the two.")
}

func templateTwice() *problem.Error {
	return problem.New(problem.Invalid, "InvalidDeployment", "The deployment has both a template and a templateLink.").
		WithAdvice("Give one of the two.")
}

func linkNotReadable(uri string, err error) *problem.Error {
	return problem.New(problem.Invalid, "InvalidContentLink", "The template at %.200q cannot be read.", uri).
		WithAdvice("Give the URL of a blob of this server that you may read.").WithCause(err)
}

func parametersLinkNotSupported() *problem.Error {
	return problem.New(problem.Unsupported, "InvalidDeployment", "A parametersLink is not supported here.").
		WithAdvice("Send the parameters in the request.")
}

func deploymentActive(id armid.ID) *problem.Error {
	return problem.New(problem.Conflict, "DeploymentActive", "The deployment '%s' is running; it cannot be replaced before it has ended.", id.Name()).
		WithTarget(id.String()).WithAdvice("Wait until it has ended, or use another name.")
}

func deploymentNotFound(id armid.ID) *problem.Error {
	return problem.New(problem.NotFound, "DeploymentNotFound", "Deployment '%s' could not be found.", id.Name()).
		WithTarget(id.String()).WithAdvice("Check name and resource group.")
}

// Why a deployment failed.

func failureOf(id armid.ID, err error) *Failure {
	if p := problem.Of(err); p != nil && p.Kind != problem.Internal {
		return &Failure{Resource: id, Code: p.Code, Message: p.Message, Advice: p.Advice}
	}
	return &Failure{Resource: id, Code: "InternalServerError", Message: "The resource could not be created.",
		Advice: "Try again; if it fails again, look in the server's log."}
}

// withheld is a failure without the words of the resource, which might tell a secure value.
func withheld(f *Failure) *Failure {
	return &Failure{Resource: f.Resource, Code: f.Code, Message: "The resource could not be created. The reason is not repeated here, because it might tell the value of a secure parameter.",
		Advice: "See what the code stands for, or create the resource by itself to read the reason, then deploy again."}
}

func interrupted(id armid.ID) *Failure {
	return &Failure{Resource: id, Code: "DeploymentInterrupted", Message: "The server stopped before the deployment had ended.",
		Advice: "Deploy again: what was created already is only updated."}
}
