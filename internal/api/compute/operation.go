package compute

import (
	"context"
	"strings"

	"kluis/internal/api/arm"
)

// An operation on a disk or snapshot is followed at its location: at one address how far it is, and at the same with
// monitor=true what it came to. A grant of access is over when it is answered, and its outcome is the URL.
const operationType = "Microsoft.Compute/locations/DiskOperations"

// followed answers with the two addresses of an operation.
func followed(r *arm.Request, location, id string) *arm.Reply {
	at := r.ID.Scope()
	at.ResourceGroup = ""
	path := at.String() + "/providers/Microsoft.Compute/locations/" + strings.ToLower(location) + "/DiskOperations/" + id
	return arm.Accepted(r.URL(path), r.URL(path, "monitor", "true"))
}

// operationBody is how far an operation is, as clients poll it.
type operationBody struct {
	Name       string           `json:"name"`
	Status     string           `json:"status"`
	Properties *operationOutput `json:"properties,omitempty"`
}

type operationOutput struct {
	Output any `json:"output"`
}

func (h handlers) operation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	url, err := h.s.AccessURL(ctx, r.ID.Name())
	if err != nil {
		return nil, err
	}
	if wantsOutcome(r) {
		return arm.OK(accessURI{url}), nil
	}
	return arm.OK(operationBody{r.ID.Name(), "Succeeded", &operationOutput{accessURI{url}}}), nil
}

func wantsOutcome(r *arm.Request) bool { return strings.EqualFold(r.Query.Get("monitor"), "true") }
