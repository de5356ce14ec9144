package recoveryservices

import (
	"context"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// An operation is what a client follows after a 202. Its id is that of the job it started, and "Succeeded"
// means that the job exists: whether the job succeeds is asked of the job. Clients look under several
// addresses (SDKs under the one in the header, az under backupOperations with the last segment of it), so
// all of them read the job. The one operation that is no job is a mount (mounts.go): it is over when the recovery
// point is mounted.

// started answers a request that has started a job on an item.
func started(r *arm.Request, item armid.ID, j backup.Job) *arm.Reply {
	return arm.Accepted(r.URL(item.Child("operationsStatus", j.ID).String()), r.URL(item.Child("operationResults", j.ID).String()))
}

func (d *door) operationStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if problem.KindOf(err) == problem.NotFound {
		if o, kept := d.over.find(vaultOf(r.ID), r.ID.Name()); kept == nil {
			return overStatus(r, o.at), nil
		}
		return d.mountStatus(ctx, r, err)
	}
	if err != nil {
		return nil, err
	}
	at := azureTime(j.Created)
	return arm.OK(operationBody{j.ID, j.ID, "Succeeded", at, at, &operationJob{"OperationStatusJobExtendedInfo", j.ID}}), nil
}

// operationResult is the end of an operation: the item that was put, or nothing. What is being deleted is
// waited for, because clients take this answer for the end of the resource.
func (d *door) operationResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	j, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name())
	if problem.KindOf(err) == problem.NotFound {
		if _, kept := d.over.find(vaultOf(r.ID), r.ID.Name()); kept == nil {
			return arm.NoContent(), nil
		}
		return d.mountResult(ctx, r, err)
	}
	if err != nil {
		return nil, err
	}
	switch j.Kind {
	case "DeleteBackupData":
		if j.Ended.IsZero() {
			return arm.Accepted("", r.URL(r.ID.String())), nil
		}
	case "ConfigureBackup", "DisableBackup", "Undelete":
		return d.itemPut(ctx, r, j)
	}
	return arm.NoContent(), nil
}

func (d *door) itemPut(ctx context.Context, r *arm.Request, j backup.Job) (*arm.Reply, error) {
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
	return arm.OK(d.encodeItem(r, i)), nil
}

// cancelResult is the end of a request to cancel: the job has heard it.
func (d *door) cancelResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Job(ctx, vaultOf(r.ID), r.ID.Name()); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}

// isOver answers a request that is done when it is answered, and that clients follow all the same: a refresh, the end
// of a mount. It is followed below the fabric; az looks under backupOperations, as ever.
func (d *door) isOver(r *arm.Request) *arm.Reply {
	vault, id := vaultOf(r.ID), d.o.NewID()
	d.over.keep(vault, id, d.o.Now(), struct{}{})
	fabric := vault.Child("backupFabrics", fabricName)
	return arm.Accepted(r.URL(fabric.Child("operationsStatus", id).String()), r.URL(fabric.Child("operationResults", id).String()))
}

func overStatus(r *arm.Request, at time.Time) *arm.Reply {
	id, moment := r.ID.Name(), azureTime(at)
	return arm.OK(operationBody{ID: id, Name: id, Status: "Succeeded", StartTime: moment, EndTime: moment})
}

// An operation of the fabric that is neither a job's nor kept any more was over, so an id that nobody was given is
// answered alike.

func (d *door) fabricOperationStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	reply, err := d.operationStatus(ctx, r)
	if problem.KindOf(err) != problem.NotFound {
		return reply, err
	}
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return overStatus(r, d.o.Now()), nil
}

func (d *door) fabricOperationResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	reply, err := d.operationResult(ctx, r)
	if problem.KindOf(err) != problem.NotFound {
		return reply, err
	}
	if _, err := d.s.Vault(ctx, vaultOf(r.ID)); err != nil {
		return nil, err
	}
	return arm.NoContent(), nil
}
