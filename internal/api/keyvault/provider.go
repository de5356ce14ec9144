// Package keyvault is the two doors of the Key Vault: Provider speaks Resource Manager (Microsoft.KeyVault, key vaults and
// their access policies), DataPlane speaks the protocol of keys and secrets on https://<name>.vault.<domain>.
//
// Both are thin: they decode, call the service of the same name, which authorizes, and encode. The JSON forms are
// in wire.go (management) and bundles.go (data). A value or private key passes through here in plain between the
// connection and the service, and nowhere else; nothing of a body is ever logged.
package keyvault

import (
	"context"
	"net/http"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/keyvault"
	"kluis/internal/problem"
)

// Provider returns the table of Microsoft.KeyVault.
func Provider(s *keyvault.Service) arm.Provider {
	h := management{s}
	return arm.Provider{Namespace: "Microsoft.KeyVault", Versions: managementVersions, Resources: []arm.Resource{
		{Type: "Microsoft.KeyVault", Actions: map[string]arm.Handler{"checkNameAvailability": h.checkName, "verifyAudit": h.verifyAudit,
			"sealStatus": h.sealStatus, "rotateSeal": h.rotateRoot, "addSealRecipient": h.addRecipient, "removeSealRecipient": h.removeRecipient}},
		{Type: "Microsoft.KeyVault/auditEvents", List: h.listAudit},
		{Type: "Microsoft.KeyVault/vaults", Get: h.getVault, Put: h.putVault, Patch: h.patchVault, Delete: h.deleteVault, List: h.listVaults},
		{Type: "Microsoft.KeyVault/vaults/accessPolicies", Put: h.putPolicies},
		{Type: "Microsoft.KeyVault/deletedVaults", List: h.listDeleted},
		{Type: "Microsoft.KeyVault/managedHSMs", List: h.listHSMs},
		{Type: "Microsoft.KeyVault/deletedManagedHSMs", List: h.listHSMs},
		{Type: "Microsoft.KeyVault/locations/deletedVaults", Get: h.getDeleted, Actions: map[string]arm.Handler{"purge": h.purge}},
		{Type: "Microsoft.KeyVault/locations/operationResults", Get: h.purged},
	}}
}

type management struct{ s *keyvault.Service }

// serviceVersion is shown in a header, as Azure does; clients print it in traces.
const serviceVersion = "1.9.0.0"

func answer(reply *arm.Reply) *arm.Reply {
	return reply.With("X-Ms-Keyvault-Service-Version", serviceVersion)
}

func (h management) getVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := h.s.Vault(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return answer(arm.OK(h.vault(v))), nil
}

func (h management) listVaults(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	vaults, err := h.s.Vaults(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	items := make([]vaultBody, len(vaults))
	for i, v := range vaults {
		items[i] = h.vault(v)
	}
	return answer(arm.List(r, items)), nil
}

func (h management) putVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if strings.EqualFold(body.Properties.CreateMode, "recover") {
		v, err := h.s.RecoverVault(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		return answer(arm.OK(h.vault(v))), nil
	}
	v := keyvault.Vault{ID: r.ID, Location: body.Location}
	if err := body.apply(&v.Settings, h.s.TenantID()); err != nil {
		return nil, err
	}
	// Terraform and az read a 200 for both; Azure answers so, too.
	v, _, err := h.s.PutVault(ctx, v)
	if err != nil {
		return nil, err
	}
	return answer(arm.OK(h.vault(v))), nil
}

func (h management) patchVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	v, err := h.s.UpdateVault(ctx, r.ID, func(s *keyvault.Settings) error { return body.apply(s, h.s.TenantID()) })
	if err != nil {
		return nil, err
	}
	return answer(arm.OK(h.vault(v))), nil
}

func (h management) deleteVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	err := h.s.DeleteVault(ctx, r.ID)
	switch {
	case problem.KindOf(err) == problem.NotFound:
		return answer(arm.NoContent()), nil
	case err != nil:
		return nil, err
	}
	return answer(arm.OK(nil)), nil
}

// putPolicies is PUT …/vaults/{v}/accessPolicies/{add|replace|remove}.
func (h management) putPolicies(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body policiesRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	change := keyvault.PolicyChange(strings.ToLower(r.ID.Name()))
	v, err := h.s.UpdateAccessPolicies(ctx, r.ID.Parent(), change, body.Properties.AccessPolicies)
	if err != nil {
		return nil, err
	}
	return answer(arm.OK(policiesBody{ID: r.ID.Parent().String() + "/accessPolicies/", Type: "Microsoft.KeyVault/vaults/accessPolicies",
		Location: v.Location, Properties: policiesProperties{v.AccessPolicies}})), nil
}

func (h management) listDeleted(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	deleted, err := h.s.DeletedVaults(ctx, r.ID.Scope())
	if err != nil {
		return nil, err
	}
	items := make([]deletedBody, len(deleted))
	for i, d := range deleted {
		items[i] = deletedVault(d)
	}
	return answer(arm.List(r, items)), nil
}

// listHSMs lists the managed HSMs, deleted ones too: there are none. az asks for them whenever it lists key vaults that
// were deleted, so whoever may list those may ask.
func (h management) listHSMs(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.s.DeletedVaults(ctx, r.ID.Scope()); err != nil {
		return nil, err
	}
	return answer(arm.List(r, []deletedBody{})), nil
}

func (h management) getDeleted(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	d, err := h.s.DeletedVault(ctx, r.ID.Scope(), r.ID.NameOf("locations"), r.ID.Name())
	if err != nil {
		return nil, err
	}
	return answer(arm.OK(deletedVault(d))), nil
}

// purge is done when it answers. Clients follow it all the same: without an operation they would ask for what is gone.
func (h management) purge(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if err := h.s.PurgeVault(ctx, r.ID.Scope(), r.ID.NameOf("locations"), r.ID.Name()); err != nil {
		return nil, err
	}
	return answer(arm.Accepted("", r.URL(r.ID.Parent().Child("operationResults", r.ID.Name()).String()))), nil
}

// purged is the end of a purge, for whoever may see what is deleted.
func (h management) purged(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := h.s.DeletedVaults(ctx, r.ID.Scope()); err != nil {
		return nil, err
	}
	return answer(arm.OK(nil)), nil
}

func (h management) checkName(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct{ Name, Type string }
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	err := h.s.NameAvailable(ctx, body.Name)
	p := problem.Of(err)
	if err != nil && p == nil {
		return nil, err
	}
	out := nameBody{NameAvailable: err == nil}
	if p != nil {
		out.Reason, out.Message = "AlreadyExists", p.Message+" "+p.Advice
		if p.Kind == problem.Invalid {
			out.Reason = "AccountNameInvalid"
		}
	}
	return &arm.Reply{Status: http.StatusOK, Body: out}, nil
}

func deletedVault(d keyvault.DeletedVault) deletedBody {
	b := deletedBody{ID: d.DeletedID().String(), Name: d.Name(), Type: "Microsoft.KeyVault/deletedVaults"}
	b.Properties = deletedProperties{VaultID: d.ID.String(), Location: d.Location, Tags: tagsOf(d.Tags),
		DeletionDate: stamp(d.Deleted), ScheduledPurgeDate: stamp(d.Purge)}
	if d.PurgeProtection {
		b.Properties.PurgeProtectionEnabled = new(true)
	}
	return b
}
