package resources

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/deployment"
	"kluis/internal/problem"
)

const deploymentType = "Microsoft.Resources/deployments"

type deploymentBody struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Type       string               `json:"type"`
	Properties deploymentProperties `json:"properties"`
}

type deploymentProperties struct {
	Provisioning    string                           `json:"provisioningState"`
	Mode            string                           `json:"mode"`
	CorrelationID   string                           `json:"correlationId"`
	Timestamp       string                           `json:"timestamp"`
	Duration        string                           `json:"duration"`
	Parameters      map[string]deployment.TypedValue `json:"parameters,omitempty"`
	Outputs         map[string]deployment.TypedValue `json:"outputs,omitempty"`
	TemplateHash    string                           `json:"templateHash,omitempty"`
	Providers       []deployedProvider               `json:"providers"`
	Dependencies    []dependency                     `json:"dependencies"`
	OutputResources []resourceRef                    `json:"outputResources,omitempty"`
	Error           *deploymentError                 `json:"error,omitempty"`
}

type resourceRef struct {
	ID string `json:"id"`
}

// deployedProvider names the types that a template has of a namespace.
type deployedProvider struct {
	Namespace string         `json:"namespace"`
	Types     []deployedType `json:"resourceTypes"`
}

type deployedType struct {
	Type      string   `json:"resourceType"`
	Locations []string `json:"locations"`
}

type dependency struct {
	DependsOn []basicDependency `json:"dependsOn"`
	basicDependency
}

type basicDependency struct {
	ID   string `json:"id"`
	Type string `json:"resourceType"`
	Name string `json:"resourceName"`
}

// encodePlan tells which types a template has, and what in it needs what.
func encodePlan(plan []deployment.Planned) (providers []deployedProvider, dependencies []dependency) {
	providers, dependencies = []deployedProvider{}, []dependency{}
	for _, r := range plan {
		namespace, typ, _ := strings.Cut(r.ID.Type(), "/")
		p := find(&providers, func(p deployedProvider) bool { return p.Namespace == namespace }, deployedProvider{Namespace: namespace})
		t := find(&p.Types, func(t deployedType) bool { return t.Type == typ }, deployedType{Type: typ, Locations: []string{}})
		if r.Location != "" && !slices.Contains(t.Locations, r.Location) {
			t.Locations = append(t.Locations, r.Location)
		}
		if len(r.Needs) > 0 {
			d := dependency{basicDependency: basicDependency{r.ID.String(), r.ID.Type(), r.ID.Name()}}
			for _, id := range r.Needs {
				d.DependsOn = append(d.DependsOn, basicDependency{id.String(), id.Type(), id.Name()})
			}
			dependencies = append(dependencies, d)
		}
	}
	return providers, dependencies
}

// find returns the element of a list that is the one, which is added where there is none.
func find[T any](list *[]T, is func(T) bool, otherwise T) *T {
	i := slices.IndexFunc(*list, is)
	if i < 0 {
		i = len(*list)
		*list = append(*list, otherwise)
	}
	return &(*list)[i]
}

// deploymentError tells of the deployment, and in details of the resource that failed.
type deploymentError struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Target  string            `json:"target,omitempty"`
	Details []deploymentError `json:"details,omitempty"`
}

func encodeFailure(d deployment.Deployment) *deploymentError {
	f := d.Failure
	if f == nil {
		return nil
	}
	cause := deploymentError{Code: f.Code, Message: f.Message, Target: f.Resource.String()}
	if f.Advice != "" {
		cause.Details = []deploymentError{{Code: "RecommendedAction", Message: f.Advice}}
	}
	return &deploymentError{Code: "DeploymentFailed", Message: "At least one resource deployment operation failed. See the details for which, and why.",
		Target: d.ID.String(), Details: []deploymentError{cause}}
}

func encodeDeployment(d deployment.Deployment) deploymentBody {
	p := deploymentProperties{Provisioning: d.State, Mode: d.Mode, CorrelationID: d.Correlation, Parameters: d.Parameters, Outputs: d.Outputs,
		Error: encodeFailure(d), Timestamp: timestamp(d.Started), Duration: duration(d)}
	p.TemplateHash = d.Hash
	p.Providers, p.Dependencies = encodePlan(d.Planned)
	for _, id := range d.Resources {
		p.OutputResources = append(p.OutputResources, resourceRef{id.String()})
	}
	return deploymentBody{d.ID.String(), d.ID.Name(), deploymentType, p}
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.9999999Z") }

// duration is how long a deployment took, as ISO 8601 writes it.
func duration(d deployment.Deployment) string {
	return "PT" + strconv.FormatFloat(max(0, d.Ended.Sub(d.Started).Seconds()), 'f', -1, 64) + "S"
}

type deploymentRequest struct {
	Properties deployment.Properties `json:"properties"`
}

// putDeployment answers as Azure does: the deployment was accepted, and there is an operation to follow. It
// has ended by then, so the first look at the operation tells how.
func (h *door) putDeployment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := decodeDeployment(r)
	if err != nil {
		return nil, err
	}
	d, err := h.d.Deploy(ctx, r.ID, body.Properties)
	if err != nil {
		return nil, err
	}
	accepted := encodeDeployment(d)
	p := &accepted.Properties
	p.Provisioning, p.Outputs, p.OutputResources, p.Error = "Accepted", nil, nil, nil
	return arm.Created(accepted).With("Retry-After", "1").
		With("Azure-AsyncOperation", r.URL(d.ID.Child("operationStatuses", d.Correlation).String())), nil
}

func (h *door) deploymentStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.d.Deployment(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	return arm.OK(struct {
		Status string           `json:"status"`
		Error  *deploymentError `json:"error,omitempty"`
	}{d.State, encodeFailure(d)}), nil
}

func (h *door) getDeployment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.d.Deployment(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeDeployment(d)), nil
}

func (h *door) listDeployments(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := knows(r, "provisioningState"); err != nil {
		return nil, err
	}
	all, err := h.d.Deployments(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []deploymentBody{}
	for _, d := range all {
		if !is(r, "provisioningState", d.State) {
			continue
		}
		bodies = append(bodies, encodeDeployment(d))
	}
	return arm.List(r, bodies), nil
}

func (h *door) deleteDeployment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.d.Delete(ctx, r.ID); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

// validate says whether a template could be deployed; nothing is created.
func (h *door) validate(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := decodeDeployment(r)
	if err != nil {
		return nil, err
	}
	ids, err := h.d.Validate(ctx, r.ID, body.Properties)
	if err != nil {
		return nil, err
	}
	validated := []resourceRef{}
	for _, id := range ids {
		validated = append(validated, resourceRef{id.String()})
	}
	return arm.OK(map[string]any{"properties": map[string]any{"provisioningState": "Succeeded", "mode": body.Properties.Mode, "validatedResources": validated}}), nil
}

// cancelDeployment refuses: a deployment has ended when it is answered, unless it is at it just now.
func (h *door) cancelDeployment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.d.Deployment(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return nil, problem.New(problem.Conflict, "DeploymentCannotBeCancelled", "The deployment '%s' cannot be cancelled because it is in the provisioning state '%s'.", d.ID.Name(), d.State).
		WithTarget(d.ID.String()).WithAdvice("Wait until it has ended; what it created can be deleted.")
}
