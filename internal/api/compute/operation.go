package compute

import (
	"context"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/compute"
	"kluis/internal/identity"
)

// An operation on a disk or snapshot is followed at its location: at one address how far it is, and at the same with
// monitor=true what it came to. A grant of access is over when it is answered, and its outcome is the URL; the outcome
// of a copy is the disk or snapshot.
const operationType = "Microsoft.Compute/locations/DiskOperations"

// followed answers with the two addresses of an operation.
func followed(r *arm.Request, location, id string) *arm.Reply {
	at := r.ID.Scope()
	at.ResourceGroup = ""
	path := at.String() + "/providers/Microsoft.Compute/locations/" + strings.ToLower(location) + "/DiskOperations/" + id
	return arm.Accepted(r.URL(path), r.URL(path, "monitor", "true"))
}

// putFollowed answers a PUT with the document, and with the operation that makes the resource if there is one. It is
// 200 also when it is new: clients know no 201 of a disk.
func putFollowed(r *arm.Request, document any, location, operation string) *arm.Reply {
	if operation == "" {
		return arm.OK(document)
	}
	reply := followed(r, location, operation)
	reply.Body = document
	return reply
}

// operationBody is how far an operation is, as clients poll it.
type operationBody struct {
	Name       string           `json:"name"`
	Status     string           `json:"status"`
	Start      string           `json:"startTime,omitempty"`
	End        string           `json:"endTime,omitempty"`
	Percent    int              `json:"percentComplete"`
	Properties *operationOutput `json:"properties,omitempty"`
	Error      *arm.ErrorBody   `json:"error,omitempty"`
}

type operationOutput struct {
	Output any `json:"output"`
}

func (h handlers) operation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	o, err := h.s.Operation(ctx, r.ID.Name())
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(r.Query.Get("monitor"), "true") {
		return h.outcome(ctx, r, o)
	}
	body := operationBody{Name: o.ID, Status: o.Status, Start: moment(o.Start), End: moment(o.End), Percent: o.Percent}
	if o.AccessURL != "" {
		body.Properties = &operationOutput{accessURI{o.AccessURL}}
	}
	if o.Error != nil {
		e := arm.Error(o.Error, identity.Correlation(ctx))
		body.Error = &e
	}
	reply := arm.OK(body)
	if o.Status == "InProgress" {
		reply = reply.With("Retry-After", "1")
	}
	return reply, nil
}

func (h handlers) outcome(ctx context.Context, r *arm.Request, o compute.Operation) (*arm.Reply, error) {
	switch {
	case o.AccessURL != "":
		return arm.OK(accessURI{o.AccessURL}), nil
	case o.Status == "InProgress":
		return arm.Accepted("", r.URL(r.ID.String(), "monitor", "true")), nil
	case o.Error != nil:
		return nil, o.Error
	case o.Status != "Succeeded":
		return arm.NoContent(), nil
	}
	if o.Resource.Is(compute.SnapshotType) {
		s, err := h.s.Snapshot(ctx, o.Resource)
		if err != nil {
			return nil, err
		}
		return arm.OK(s), nil
	}
	d, err := h.s.Disk(ctx, o.Resource)
	if err != nil {
		return nil, err
	}
	return arm.OK(d), nil
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
