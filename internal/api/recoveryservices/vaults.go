package recoveryservices

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// vaultBody is a vault on the wire.
type vaultBody struct {
	ID         string                     `json:"id"`
	Name       string                     `json:"name"`
	Type       string                     `json:"type"`
	Location   string                     `json:"location"`
	Tags       map[string]string          `json:"tags,omitempty"`
	Etag       string                     `json:"etag"`
	SKU        sku                        `json:"sku"`
	Properties map[string]json.RawMessage `json:"properties"`
}

type sku struct {
	Name string `json:"name"`
	Tier string `json:"tier,omitempty"`
}

// vaultRequest is what a client may say of a vault.
type vaultRequest struct {
	Location   string                     `json:"location"`
	Tags       map[string]string          `json:"tags"`
	SKU        sku                        `json:"sku"`
	Properties map[string]json.RawMessage `json:"properties"`
}

const redundancySettings = "redundancySettings"

type redundancy struct {
	Standard    string `json:"standardTierStorageRedundancy"`
	CrossRegion string `json:"crossRegionRestore,omitempty"`
}

// kept are the properties that a client may set and that mean nothing here: they are given back.
var kept = []string{"publicNetworkAccess", "monitoringSettings", "restoreSettings"}

func (b vaultRequest) vault(id armid.ID) (backup.RecoveryVault, error) {
	v := backup.RecoveryVault{ID: id, Location: b.Location, Tags: b.Tags, SKU: b.SKU.Name, Properties: map[string]json.RawMessage{}}
	for _, name := range kept {
		if p, ok := b.Properties[name]; ok {
			v.Properties[name] = p
		}
	}
	if raw, ok := b.Properties[redundancySettings]; ok {
		var r redundancy
		if err := json.Unmarshal(raw, &r); err != nil {
			return v, problem.New(problem.Invalid, "InvalidRequestContent", "properties.%s is not an object of strings.", redundancySettings).WithCause(err)
		}
		v.Redundancy = r.Standard
	}
	return v, nil
}

func encodeVault(v backup.RecoveryVault) vaultBody {
	properties := map[string]json.RawMessage{
		"provisioningState":                   json.RawMessage(`"Succeeded"`),
		"privateEndpointStateForBackup":       json.RawMessage(`"None"`),
		"privateEndpointStateForSiteRecovery": json.RawMessage(`"None"`),
		"backupStorageVersion":                json.RawMessage(`"V2"`),
		"publicNetworkAccess":                 json.RawMessage(`"Enabled"`),
		"securitySettings":                    json.RawMessage(`{"softDeleteSettings":{"softDeleteState":"Disabled","softDeleteRetentionPeriodInDays":0},"multiUserAuthorization":"Disabled"}`),
		redundancySettings:                    json.RawMessage(`{"standardTierStorageRedundancy":"` + v.Redundancy + `","crossRegionRestore":"Disabled"}`),
	}
	maps.Copy(properties, v.Properties)
	name := v.SKU
	if name == "" {
		name = "Standard"
	}
	return vaultBody{ID: v.ID.String(), Name: v.ID.Name(), Type: vaults, Location: v.Location, Tags: v.Tags,
		Etag: `W/"datetime'` + azureTime(v.Changed) + `'"`, SKU: sku{Name: name}, Properties: properties}
}

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
func (d *door) putVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	v, err := body.vault(r.ID)
	if err != nil {
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

// patchVault changes tags, and nothing else that would mean something here.
func (d *door) patchVault(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	v, err := d.s.Vault(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	changes, err := body.vault(v.ID)
	if err != nil {
		return nil, err
	}
	if body.Tags != nil {
		v.Tags = body.Tags
	}
	if changes.Redundancy != "" {
		v.Redundancy = changes.Redundancy
	}
	properties := maps.Clone(v.Properties)
	if properties == nil {
		properties = map[string]json.RawMessage{}
	}
	maps.Copy(properties, changes.Properties)
	v.Properties = properties
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
	if !existed {
		return arm.NoContent(), nil
	}
	return &arm.Reply{Status: http.StatusOK}, nil
}

func (d *door) vaultOperationStatus(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.Vault(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	at := azureTime(v.Changed)
	return arm.OK(map[string]string{"id": r.ID.String(), "name": r.ID.Name(), "status": "Succeeded", "startTime": at, "endTime": at}), nil
}

// storageConfig is the older way to a vault's redundancy.
type storageConfig struct {
	Model string `json:"storageModelType,omitempty"`
	Type  string `json:"storageType,omitempty"`
	State string `json:"storageTypeState,omitempty"`
	Cross *bool  `json:"crossRegionRestoreFlag,omitempty"`
}

func configBody(id armid.ID, typ string, properties any) map[string]any {
	return map[string]any{"id": id.String(), "name": id.Name(), "type": typ, "properties": properties}
}

func (d *door) getStorageConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.Vault(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	return d.storageConfig(ctx, r, v)
}

func (d *door) storageConfig(ctx context.Context, r *arm.Request, v backup.RecoveryVault) (*arm.Reply, error) {
	protected, err := d.s.Items(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	state := "Unlocked"
	if len(protected) > 0 {
		state = "Locked"
	}
	no := false
	return arm.OK(configBody(r.ID, r.ID.Type(), storageConfig{v.Redundancy, v.Redundancy, state, &no})), nil
}

func (d *door) putStorageConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body struct{ Properties storageConfig }
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	v, err := d.s.Vault(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	if body.Properties.Cross != nil && *body.Properties.Cross {
		return nil, problem.New(problem.Unsupported, "CrossRegionRestoreNotSupported", "Restore in another region does not exist here.").
			WithAdvice("Leave crossRegionRestoreFlag out.")
	}
	for _, wanted := range []string{body.Properties.Model, body.Properties.Type} {
		if wanted != "" {
			v.Redundancy = wanted
		}
	}
	if v, _, err = d.s.PutVault(ctx, v); err != nil {
		return nil, err
	}
	if r.HTTP.Method == http.MethodPatch {
		return arm.NoContent(), nil
	}
	return d.storageConfig(ctx, r, v)
}

// getVaultConfig tells the truth: deleting backup data is final here.
func (d *door) getVaultConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	v, err := d.s.Vault(ctx, r.ID.Parent())
	if err != nil {
		return nil, err
	}
	return arm.OK(configBody(r.ID, r.ID.Type(), map[string]any{
		"enhancedSecurityState": "Disabled", "softDeleteFeatureState": "Disabled", "softDeleteRetentionPeriodInDays": 0,
		"isSoftDeleteFeatureStateEditable": false, "storageModelType": v.Redundancy, "storageType": v.Redundancy, "storageTypeState": "Unlocked",
	})), nil
}

// getEncryptionConfig: every vault is encrypted with a key of its own, which the server manages.
func (d *door) getEncryptionConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Vault(ctx, r.ID.Parent()); err != nil {
		return nil, err
	}
	return arm.OK(configBody(r.ID, r.ID.Type(), map[string]any{
		"encryptionAtRestType": "MicrosoftManaged", "keyUri": nil, "subscriptionId": nil, "lastUpdateStatus": "NotEnabled",
		"infrastructureEncryptionState": "Disabled", "useSystemAssignedIdentity": false,
	})), nil
}

func (d *door) listUsage(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	protected, err := d.s.Items(ctx, vaultOf(r.ID))
	if err != nil {
		return nil, err
	}
	type name struct {
		Value     string `json:"value"`
		Localized string `json:"localizedValue"`
	}
	type usage struct {
		Unit    string `json:"unit"`
		Current int    `json:"currentValue"`
		Limit   int    `json:"limit"`
		Name    name   `json:"name"`
	}
	return arm.List(r, []usage{{"Count", len(protected), -1, name{management, "Azure Virtual Machine"}}}), nil
}
