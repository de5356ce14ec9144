package recoveryservices

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

func encodePolicy(p backup.Policy) resource[backup.PolicyProperties] {
	return resource[backup.PolicyProperties]{p.ID.String(), p.ID.Name(), policies, p.Body}
}

// check refuses what a policy may ask for in Azure and nobody does here.
func (b policyRequest) check() error {
	if t := b.Properties.BackupManagementType; t != "" && !strings.EqualFold(t, management) {
		return otherWorkload("properties.backupManagementType", t)
	}
	if s := b.Properties.SnapshotConsistency; s != "" {
		return notSupportedHere("properties.snapshotConsistencyType", "A policy that forgoes consistent snapshots", "Leave snapshotConsistencyType out; a snapshot is as consistent as the guest's agent can make it.")
	}
	if b.Properties.TieringPolicy == nil {
		return nil
	}
	var tiers map[string]tiering
	if err := json.Unmarshal(b.Properties.TieringPolicy, &tiers); err != nil {
		return problem.New(problem.Invalid, "InvalidRequestContent", "tieringPolicy is not an object of tiers.").
			WithTarget("properties.tieringPolicy").WithAdvice("Leave tieringPolicy out.").WithCause(err)
	}
	for _, t := range tiers {
		if !slices.Contains([]string{"", "DoNotTier", "Invalid"}, t.Mode) {
			return notSupportedHere("properties.tieringPolicy", "An archive tier", "Leave tieringPolicy out, or set tieringMode to DoNotTier.")
		}
	}
	return nil
}

func (d *door) getPolicy(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := d.s.Policy(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodePolicy(p)), nil
}

func (d *door) putPolicy(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body policyRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	body.Properties.ProtectedItemsCount = 0 // counted, not told
	p, err := d.s.PutPolicy(ctx, backup.Policy{ID: r.ID, Body: body.Properties.PolicyProperties})
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
	return gone(existed), nil
}

func (d *door) listPolicies(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "backupManagementType", "workloadType", "fabricName")
	if err != nil {
		return nil, err
	}
	all, err := d.s.Policies(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := []resource[backup.PolicyProperties]{}
	for _, p := range all {
		if f.is("backupManagementType", p.Body.BackupManagementType) && f.is("workloadType", workload) && f.is("fabricName", fabricName) {
			bodies = append(bodies, encodePolicy(p))
		}
	}
	return arm.List(r, bodies), nil
}

// A change of a policy is over when it is answered. Nothing is kept of it, so that any operation of a policy is answered
// alike: it has succeeded.

func (d *door) policyOperation(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.VaultOf(ctx, r.ID, "read")
	if err != nil {
		return nil, err
	}
	at, id := azureTime(v.Changed), r.ID.Name()
	return arm.OK(operationBody{ID: id, Name: id, Status: "Succeeded", StartTime: at, EndTime: at}), nil
}

// policyOperationResult is the policy, or nothing where it was deleted.
func (d *door) policyOperationResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.VaultOf(ctx, r.ID, "read"); err != nil {
		return nil, err
	}
	p, err := d.s.Policy(ctx, r.ID.Parent())
	if problem.KindOf(err) == problem.NotFound {
		return arm.NoContent(), nil
	}
	if err != nil {
		return nil, err
	}
	return arm.OK(encodePolicy(p)), nil
}
