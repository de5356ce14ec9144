package recoveryservices

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// Properties that a client may set, that change nothing here, and that are given back.
const (
	monitoringSettings = "monitoringSettings"
	restoreSettings    = "restoreSettings"
)

// systemAssigned is the one type of identity that a vault can have.
const systemAssigned = "SystemAssigned"

// restoreDefault is what we do: what is protected is restored in its own subscription.
const restoreDefault = `{"crossSubscriptionRestoreSettings":{"crossSubscriptionRestoreState":"Disabled"}}`

func encodeVault(v backup.RecoveryVault) vaultBody {
	body := vaultBody{ID: v.ID.String(), Name: v.ID.Name(), Type: vaults, Location: v.Location, Tags: v.Tags, SKU: sku{Name: v.SKU},
		Etag: `W/"datetime'` + strings.ReplaceAll(azureTime(v.Changed), ":", "%3A") + `'"`,
		Properties: vaultProperties{
			ProvisioningState: "Succeeded", EndpointForBackup: "None", EndpointForRecovery: "None", BackupStorageVersion: "V2",
			PublicNetworkAccess: "Enabled", Monitoring: v.Properties[monitoringSettings], Restore: v.Properties[restoreSettings],
			Redundancy: redundancySettings{v.Redundancy, "Disabled"},
			Security:   securitySettings{Immutability: immutability{"Disabled"}, SoftDelete: softDelete{v.SoftDelete.State, v.SoftDelete.Days, enhancedSecurity(v)}, MultiUser: "Disabled"},
		}}
	if body.SKU.Name == "" {
		body.SKU.Name = "Standard"
	}
	if body.SKU.Name == "RS0" {
		body.SKU.Tier = "Standard"
	}
	if v.Identity.Wanted {
		body.Identity = &vaultIdentity{systemAssigned, v.Identity.ObjectID, v.Identity.TenantID}
	}
	if body.Properties.Restore == nil {
		body.Properties.Restore = json.RawMessage(restoreDefault)
	}
	return body
}

// check refuses what would be a promise that nobody keeps.
func (b vaultRequest) check() error {
	p := b.Properties
	if !slices.Contains([]string{"", "Standard", "RS0"}, b.SKU.Name) {
		return invalidSKU(b.SKU.Name)
	}
	for _, x := range []struct {
		property, value string
		none            []string
		what, advice    string
	}{
		{"properties.publicNetworkAccess", p.PublicNetworkAccess, []string{"Enabled"}, "A vault that only private endpoints reach", "Leave publicNetworkAccess out, and limit who reaches the server in your network."},
		{"properties.securitySettings.immutabilitySettings.state", p.Security.Immutability.State, []string{"Disabled"}, "An immutable vault", "Leave immutabilitySettings out."},
		{"properties.securitySettings.multiUserAuthorization", p.Security.MultiUser, []string{"Disabled", "Invalid"}, "Multi-user authorization", "Leave multiUserAuthorization out."},
	} {
		if x.value != "" && !slices.ContainsFunc(x.none, func(n string) bool { return strings.EqualFold(n, x.value) }) {
			return notSupportedHere(x.property, x.what, x.advice)
		}
	}
	if i := b.Identity; i != nil && i.Type != "" && !slices.ContainsFunc([]string{"None", systemAssigned}, func(n string) bool { return strings.EqualFold(n, i.Type) }) {
		return notSupportedHere("identity.type", "A user-assigned identity", "Use SystemAssigned, or leave identity out; keys are read as Backup Management Service.")
	}
	if p.Encryption != nil {
		return notSupportedHere("properties.encryption", "Encryption of a vault with a key of your own", "Leave encryption out; each vault is encrypted with a key of its own.")
	}
	if p.Redundancy != nil && strings.EqualFold(p.Redundancy.CrossRegion, "Enabled") {
		return crossRegion("properties.redundancySettings.crossRegionRestore")
	}
	return nil
}

// apply writes onto a vault what the request says, and leaves alone what it does not mention.
func (b vaultRequest) apply(v *backup.RecoveryVault) error {
	if b.SKU.Name != "" {
		v.SKU = b.SKU.Name
	}
	if b.Properties.Redundancy != nil && b.Properties.Redundancy.Standard != "" {
		v.Redundancy = b.Properties.Redundancy.Standard
	}
	if b.Identity != nil && b.Identity.Type != "" {
		v.Identity.Wanted = strings.EqualFold(b.Identity.Type, systemAssigned)
	}
	applySoftDelete(v, b.Properties.Security.SoftDelete)
	v.Properties = maps.Clone(v.Properties)
	if v.Properties == nil {
		v.Properties = map[string]json.RawMessage{}
	}
	for name, settings := range map[string]map[string]any{monitoringSettings: b.Properties.Monitoring, restoreSettings: b.Properties.Restore} {
		if settings == nil {
			continue
		}
		text, err := json.Marshal(settings)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		v.Properties[name] = text
	}
	return nil
}

// applySoftDelete keeps what is not mentioned; so does Invalid, which newer clients send for "as it is".
func applySoftDelete(v *backup.RecoveryVault, wanted softDelete) {
	if wanted.State != "" && !strings.EqualFold(wanted.State, "Invalid") {
		v.SoftDelete.State = spelled(wanted.State, backup.SoftDeleteStates)
	}
	if wanted.Days != 0 {
		v.SoftDelete.Days = wanted.Days
	}
	if wanted.EnhancedSecurity != "" && !strings.EqualFold(wanted.EnhancedSecurity, "Invalid") {
		v.EnhancedSecurity = spelled(wanted.EnhancedSecurity, enabledOrNot)
	}
}

var enabledOrNot = []string{"Enabled", "Disabled"}

// spelled returns a word as Azure spells it; one that is not known stays as it came, to be refused.
func spelled(word string, known []string) string {
	if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, word) }); i >= 0 {
		return known[i]
	}
	return word
}

func enhancedSecurity(v backup.RecoveryVault) string { return cmp.Or(v.EnhancedSecurity, "Enabled") }

func (d *door) getVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.Vault(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeVault(v)), nil
}

func (d *door) listVaults(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := d.s.Vaults(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	bodies := make([]vaultBody, len(all))
	for i, v := range all {
		bodies[i] = encodeVault(v)
	}
	return arm.List(r, bodies), nil
}

// putVault answers a creation with 201 and an operation, as Azure does; the operation is over at once.
// Redundancy, soft delete and identity stay as they are when they are not mentioned.
func (d *door) putVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	v := backup.RecoveryVault{ID: r.ID, Location: body.Location, Tags: body.Tags}
	old, err := d.s.Vault(ctx, r.ID)
	switch {
	case err == nil:
		v.Redundancy, v.SoftDelete, v.EnhancedSecurity, v.Identity = old.Redundancy, old.SoftDelete, old.EnhancedSecurity, old.Identity
	case problem.KindOf(err) != problem.NotFound:
		return nil, err
	}
	if err := body.apply(&v); err != nil {
		return nil, err
	}
	v, created, err := d.s.PutVault(ctx, v)
	if err != nil {
		return nil, err
	}
	if !created {
		return arm.OK(encodeVault(v)), nil
	}
	return arm.Created(encodeVault(v)).With("Azure-AsyncOperation", r.URL(v.ID.Child("operationStatus", d.o.NewID()).String())), nil
}

// patchVault changes what the request mentions. Tags are replaced as a whole, as Azure does.
func (d *door) patchVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	v, err := d.s.Vault(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if body.Tags != nil {
		v.Tags = body.Tags
	}
	if err := body.apply(&v); err != nil {
		return nil, err
	}
	if v, _, err = d.s.PutVault(ctx, v); err != nil {
		return nil, err
	}
	return arm.OK(encodeVault(v)), nil
}

func (d *door) deleteVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	existed, err := d.s.DeleteVault(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	if r.APIVersion >= "2024" { // published since then as 202 or 204, and its clients take no 200
		return arm.NoContent(), nil
	}
	return gone(existed), nil
}

// gone answers a DELETE that is done when it answers.
func gone(existed bool) *arm.Reply {
	if !existed {
		return arm.NoContent()
	}
	return &arm.Reply{Status: http.StatusOK}
}

// vaultOperationStatus: a vault that can be read has been made.
func (d *door) vaultOperationStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.VaultOf(ctx, r.ID, "read")
	if err != nil {
		return nil, err
	}
	at := azureTime(v.Changed)
	return arm.OK(vaultOperation{r.ID.String(), r.ID.Name(), "Succeeded", at, at}), nil
}

// vaultOperationResult is what has become of the vault.
func (d *door) vaultOperationResult(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.VaultOf(ctx, r.ID, "read")
	if err != nil {
		return nil, err
	}
	return arm.OK(encodeVault(v)), nil
}

// checkVaultName says whether a vault of that name could be created in a resource group.
func (d *door) checkVaultName(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct {
		Name string `json:"name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	group := r.ID.Scope()
	all, err := d.s.Vaults(ctx, group)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(v backup.RecoveryVault) bool { return strings.EqualFold(v.ID.Name(), body.Name) }) {
		return arm.OK(nameBody{false, "AlreadyExists", "Resource already exists with the same name."}), nil
	}
	return arm.OK(nameBody{Available: true}), nil
}

func (d *door) listUsage(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "type")
	if err != nil {
		return nil, err
	}
	protected, err := d.s.Items(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	all := []usage{}
	// A VM is one item in one container, so both summaries count the same.
	if f.is("type", "BackupProtectedItemCountSummary", "BackupProtectionContainerCountSummary") {
		all = append(all, usage{"Count", len(protected), -1, usageName{management, "Azure Virtual Machine"}})
	}
	return arm.List(r, all), nil
}

// checkName refuses any other than the one config of its type that a vault has.
func checkName(id armid.ID, name string) error {
	if !strings.EqualFold(id.Name(), name) {
		return noSuchConfig(id, name)
	}
	return nil
}

// partOf is the canonical id of the part of a vault that was asked for.
func partOf(v backup.RecoveryVault, asked armid.ID, name string) armid.ID {
	return v.ID.Child(asked.Segments[len(asked.Segments)-1].Type, name)
}

// config returns a vault whose config is read, and the config's id.
func (d *door) config(ctx context.Context, r *arm.Request, name string) (armid.ID, backup.RecoveryVault, error) {
	if err := checkName(r.ID, name); err != nil {
		return armid.ID{}, backup.RecoveryVault{}, err
	}
	v, err := d.s.VaultOf(ctx, r.ID, "read")
	if err != nil {
		return armid.ID{}, backup.RecoveryVault{}, err
	}
	return partOf(v, r.ID, name), v, nil
}
