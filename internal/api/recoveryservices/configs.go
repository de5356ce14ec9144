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
	id, v, err := d.config(ctx, r, "vaultstorageconfig")
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
	if err := checkName(r.ID, "vaultstorageconfig"); err != nil {
		return nil, err
	}
	v, err := d.s.ConfigureVault(ctx, r.ID, func(v *backup.RecoveryVault) {
		for _, wanted := range []string{body.Properties.Type, body.Properties.Model} { // the model counts where both are given
			if wanted != "" {
				v.Redundancy = wanted
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if r.HTTP.Method == http.MethodPatch {
		return arm.NoContent(), nil
	}
	return d.storageConfig(ctx, partOf(v, r.ID, "vaultstorageconfig"), v)
}

func (d *door) getVaultConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	id, v, err := d.config(ctx, r, "vaultconfig")
	if err != nil {
		return nil, err
	}
	return encodeVaultConfig(id, v), nil
}

func encodeVaultConfig(id armid.ID, v backup.RecoveryVault) *arm.Reply {
	return configBody(id, vaultConfig{EnhancedSecurity: enhancedSecurity(v), SoftDelete: v.SoftDelete.State, SoftDeleteDays: v.SoftDelete.Days,
		Editable: v.SoftDelete.State != backup.SoftDeleteAlwaysOn})
}

// putVaultConfig serves PUT and PATCH alike: clients send what they want to change.
func (d *door) putVaultConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body vaultConfigRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if err := checkName(r.ID, "vaultconfig"); err != nil {
		return nil, err
	}
	p := body.Properties
	v, err := d.s.ConfigureVault(ctx, r.ID, func(v *backup.RecoveryVault) {
		applySoftDelete(v, softDelete{p.SoftDelete, p.SoftDeleteDays, p.EnhancedSecurity})
	})
	if err != nil {
		return nil, err
	}
	return encodeVaultConfig(partOf(v, r.ID, "vaultconfig"), v), nil
}

// getEncryptionConfig: every vault is encrypted with a key of its own, which the server keeps.
func (d *door) getEncryptionConfig(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	id, _, err := d.config(ctx, r, "backupResourceEncryptionConfig")
	if err != nil {
		return nil, err
	}
	return configBody(id, encryptionConfig{AtRest: "MicrosoftManaged", LastUpdate: "NotEnabled", Infrastructure: "Disabled"}), nil
}
