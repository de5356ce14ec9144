package recoveryservices

import (
	"context"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// A restore can be asked about before it is asked for. The answer is what a restore would say now: nothing, or what is
// missing. Azure has two ways to ask; the second one is followed like an operation.

func (d *door) validateOperation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := d.validate(ctx, r)
	if err != nil {
		return nil, err
	}
	return arm.OK(body), nil
}

func (d *door) triggerValidateOperation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	body, err := d.validate(ctx, r)
	if err != nil {
		return nil, err
	}
	id := d.o.NewID()
	d.validations.keep(r.ID, id, d.o.Now(), body)
	return arm.Accepted(r.URL(r.ID.Child("backupValidateOperationsStatuses", id).String()), r.URL(r.ID.Child("backupValidateOperationResults", id).String())), nil
}

// validate asks the service as a restore would. Who may not ask gets no answer.
func (d *door) validate(ctx context.Context, r *arm.Request) (body validationBody, err error) {
	var request validateRequest
	if err := r.Decode(&request); err != nil {
		return body, err
	}
	restore, err := request.restore(r.ID)
	if err != nil {
		return body, err
	}
	body.Response.Results = []validationResult{}
	err = d.s.ValidateRestore(ctx, actionOf(r), restore)
	p := problem.Of(err)
	if err == nil {
		return body, nil
	}
	if p == nil || p.Kind == problem.Internal || p.Kind == problem.Unauthenticated || p.Code == "AuthorizationFailed" || p.Code == "ScopeLocked" {
		return body, err
	}
	body.Response.Results = append(body.Response.Results, validationResult{p.Code, p.Message, recommendations(p.Advice)})
	return body, nil
}

// restore is the restore that is asked about. It names its recovery point without the item, which is that of the VM.
func (v validateRequest) restore(vault armid.ID) (backup.RestoreRequest, error) {
	what, asked := v.ObjectType, v.Restore
	if v.Properties != nil { // as the descriptions' examples have it
		what, asked = v.Properties.ObjectType, v.Properties.Restore
	}
	if !strings.EqualFold(what, "ValidateIaasVMRestoreOperationRequest") && !strings.EqualFold(what, "ValidateRestoreOperationRequest") {
		return backup.RestoreRequest{}, notSupportedHere("objectType", "Validating anything but a restore of a virtual machine",
			"Send objectType ValidateIaasVMRestoreOperationRequest with a restoreRequest.")
	}
	if asked.Source.IsZero() || asked.PointID == "" {
		return backup.RestoreRequest{}, missing("restoreRequest.sourceResourceId", "the virtual machine, and in recoveryPointId its recovery point")
	}
	name := asked.PointID[strings.LastIndexByte(asked.PointID, '/')+1:]
	point := backup.ItemID(vault, asked.Source).Child("recoveryPoints", name)
	if err := asked.check(name); err != nil {
		return backup.RestoreRequest{}, err
	}
	return asked.request(point), nil
}

func (d *door) validateStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.validated(ctx, r)
	if err != nil {
		return nil, err
	}
	at := azureTime(v.at)
	return arm.OK(operationBody{r.ID.Name(), r.ID.Name(), "Succeeded", at, at,
		validationStatus{"OperationStatusValidateOperationExtendedInfo", v.body}}), nil
}

func (d *door) validateResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.validated(ctx, r)
	if err != nil {
		return nil, err
	}
	return arm.OK(v.body), nil
}

func (d *door) validated(ctx context.Context, r *arm.Request) (answerTo[validationBody], error) {
	if _, err := d.s.VaultOf(ctx, r.ID, "read"); err != nil {
		return answerTo[validationBody]{}, err
	}
	return d.validations.find(vaultOf(r.ID), r.ID.Name())
}
