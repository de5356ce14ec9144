package recoveryservices

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// An operation is what a client follows after a 202. Its id is that of the job it started, and "Succeeded"
// means that the job exists: whether the job succeeds is asked of the job. Clients look under several
// addresses (SDKs under the one in the header, az under backupOperations with the last segment of it), so
// all of them read the job's row.

// started answers a request that has started a job on an item.
func (d *door) started(r *arm.Request, item armid.ID, j backup.Job) *arm.Reply {
	return arm.Accepted(r.URL(item.Child("operationsStatus", j.ID).String()), r.URL(item.Child("operationResults", j.ID).String()))
}

type operationBody struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Status     string               `json:"status"`
	StartTime  string               `json:"startTime"`
	EndTime    string               `json:"endTime"`
	Properties operationJobExtended `json:"properties"`
}

type operationJobExtended struct {
	ObjectType string `json:"objectType"`
	JobID      string `json:"jobId"`
}

func (d *door) operationStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if err != nil {
		return nil, err
	}
	at := azureTime(j.Created)
	return arm.OK(operationBody{j.ID, j.ID, "Succeeded", at, at, operationJobExtended{"OperationStatusJobExtendedInfo", j.ID}}), nil
}

// operationResult is the end of an operation: the item that was put, or nothing.
func (d *door) operationResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if err != nil {
		return nil, err
	}
	if j.Kind != "ConfigureBackup" {
		return arm.NoContent(), nil
	}
	id, err := armid.Parse(j.Entity)
	if err != nil {
		return nil, err
	}
	i, err := d.s.Item(ctx, id)
	if problem.KindOf(err) == problem.NotFound {
		return arm.NoContent(), nil // deleted since
	}
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeItem(i)), nil
}
