package recoveryservices

import (
	"context"
	"net/http"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
)

// The configs of a vault: older ways to its properties, and what clients ask before they do anything.

func configBody[P any](id armid.ID, p P) *arm.Reply {
	return arm.OK(resource[P]{id.String(), id.Name(), id.Type(), p})
}

func (d *door) getStorageConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	id, v, err := d.named(ctx, r.ID, "vaultstorageconfig")
	if err != nil {
		return nil, err
	}
	return d.storageConfig(ctx, id, v)
}

// storageConfig tells the redundancy, which is locked by the first item.
func (d *door) storageConfig(ctx context.Context, id armid.ID, v backup.RecoveryVault) (*arm.Reply, error) {
	protected, err := d.s.Items(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	state := "Unlocked"
	if len(protected) > 0 {
		state = "Locked"
	}
	return configBody(id, storageConfig{Model: v.Redundancy, Type: v.Redundancy, Dedup: "Disabled", Xcool: "Disabled", State: state}), nil
}

// putStorageConfig serves PUT (200) and PATCH (204).
func (d *door) putStorageConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body storageConfigRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Properties.CrossRegion {
		return nil, crossRegion("properties.crossRegionRestoreFlag")
	}
	id, v, err := d.named(ctx, r.ID, "vaultstorageconfig")
	if err != nil {
		return nil, err
	}
	for _, wanted := range []string{body.Properties.Type, body.Properties.Model} { // the model counts where both are given
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
	return d.storageConfig(ctx, id, v)
}

// getVaultConfig tells the truth: deleting backup data is final here.
func (d *door) getVaultConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	id, _, err := d.named(ctx, r.ID, "vaultconfig")
	if err != nil {
		return nil, err
	}
	return configBody(id, vaultConfig{EnhancedSecurity: "Disabled", SoftDelete: "Disabled"}), nil
}

// getEncryptionConfig: every vault is encrypted with a key of its own, which the server keeps.
func (d *door) getEncryptionConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	id, _, err := d.named(ctx, r.ID, "backupResourceEncryptionConfig")
	if err != nil {
		return nil, err
	}
	return configBody(id, encryptionConfig{AtRest: "MicrosoftManaged", LastUpdate: "NotEnabled", Infrastructure: "Disabled"}), nil
}
