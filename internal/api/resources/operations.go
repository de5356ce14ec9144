package resources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/deployment"
	"kluis/internal/problem"
)

// operationBody is what a deployment did with one resource.
type operationBody struct {
	ID         string              `json:"id"`
	Operation  string              `json:"operationId"`
	Properties operationProperties `json:"properties"`
}

type operationProperties struct {
	Operation    string         `json:"provisioningOperation"`
	Provisioning string         `json:"provisioningState"`
	Timestamp    string         `json:"timestamp"`
	StatusCode   string         `json:"statusCode"`
	Target       targetResource `json:"targetResource"`
	Message      *statusMessage `json:"statusMessage,omitempty"`
}

type targetResource struct {
	ID   string `json:"id"`
	Type string `json:"resourceType"`
	Name string `json:"resourceName"`
}

type statusMessage struct {
	Error deploymentError `json:"error"`
}

// encodeOperations are a deployment's operations in the order in which they happened; the last one is the
// one that failed, if one did.
func encodeOperations(d deployment.Deployment) []operationBody {
	bodies := []operationBody{}
	for _, id := range d.Resources {
		bodies = append(bodies, encodeOperation(d, id))
	}
	if d.Failure != nil && !d.Failure.Resource.Equal(d.ID) {
		o := encodeOperation(d, d.Failure.Resource)
		o.Properties.Provisioning, o.Properties.StatusCode = "Failed", "BadRequest"
		o.Properties.Message = &statusMessage{encodeFailure(d).Details[0]}
		bodies = append(bodies, o)
	}
	return bodies
}

func encodeOperation(d deployment.Deployment, resource armid.ID) operationBody {
	sum := sha256.Sum256([]byte(d.Correlation + resource.Key()))
	id := hex.EncodeToString(sum[:8])
	return operationBody{d.ID.Child("operations", id).String(), id, operationProperties{Operation: "Create", Provisioning: "Succeeded",
		Timestamp: timestamp(d.Started), StatusCode: "OK", Target: targetResource{resource.String(), resource.Type(), resource.Name()}}}
}

func (h *door) listOperations(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.d.Deployment(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.List(r, encodeOperations(d)), nil
}

func (h *door) getOperation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.d.Deployment(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	for _, o := range encodeOperations(d) {
		if o.Operation == r.ID.Name() {
			return arm.OK(o), nil
		}
	}
	return nil, problem.New(problem.NotFound, "DeploymentOperationNotFound", "The deployment operation '%.60s' could not be found.", r.ID.Name()).
		WithTarget(r.ID.String()).WithAdvice("List the deployment's operations.")
}
