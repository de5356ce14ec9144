package recoveryservices

import (
	"context"
	"net/http"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

type policyBody struct {
	ID         string                  `json:"id"`
	Name       string                  `json:"name"`
	Type       string                  `json:"type"`
	Properties backup.PolicyProperties `json:"properties"`
}

func encodePolicy(p backup.Policy) policyBody {
	return policyBody{p.ID.String(), p.ID.Name(), vaults + "/backupPolicies", p.Body}
}

func (d *door) getPolicy(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := d.s.Policy(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodePolicy(p)), nil
}

func (d *door) putPolicy(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body policyBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	body.Properties.ProtectedItemsCount = 0 // counted, not told
	p, err := d.s.PutPolicy(ctx, backup.Policy{ID: r.ID, Body: body.Properties})
	if err != nil {
		return nil, err
	}
	return arm.OK(encodePolicy(p)), nil
}

func (d *door) deletePolicy(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := d.s.DeletePolicy(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if !existed {
		return arm.NoContent(), nil
	}
	return &arm.Reply{Status: http.StatusOK}, nil
}

func (d *door) listPolicies(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := d.s.Policies(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	bodies := []policyBody{}
	for _, p := range all {
		if matches(r.Filter, "backupManagementType", p.Body.BackupManagementType) {
			bodies = append(bodies, encodePolicy(p))
		}
	}
	return arm.List(r, bodies), nil
}
