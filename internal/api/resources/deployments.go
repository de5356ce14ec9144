package resources

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/deployment"
)

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
	Parameters      map[string]deployment.TypedValue `json:"parameters,omitempty"`
	Outputs         map[string]deployment.TypedValue `json:"outputs,omitempty"`
	OutputResources []resourceRef                    `json:"outputResources"`
	Error           *deploymentError                 `json:"error,omitempty"`
}

type resourceRef struct {
	ID string `json:"id"`
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
		OutputResources: []resourceRef{}, Error: encodeFailure(d), Timestamp: d.Started.UTC().Format("2006-01-02T15:04:05.9999999Z")}
	for _, id := range d.Resources {
		p.OutputResources = append(p.OutputResources, resourceRef{id.String()})
	}
	return deploymentBody{d.ID.String(), d.ID.Name(), "Microsoft.Resources/deployments", p}
}

type deploymentRequest struct {
	Properties deployment.Properties `json:"properties"`
}

// putDeployment answers as Azure does, with 201 and an operation to follow; it has ended by then.
func (h *door) putDeployment(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body deploymentRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	d, err := h.d.Deploy(ctx, r.ID, body.Properties)
	if err != nil {
		return nil, err
	}
	return arm.Created(encodeDeployment(d)).With("Azure-AsyncOperation", r.URL(r.ID.Child("operationStatuses", d.Correlation).String())), nil
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
	all, err := h.d.Deployments(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []deploymentBody{}
	for _, d := range all {
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
	var body deploymentRequest
	if err := r.Decode(&body); err != nil {
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
