package recoveryservices

import (
	"context"
	"slices"
	"strings"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
)

// restore starts a restore. What cannot be restored so, and what is missing, the service says.
func (d *door) restore(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body restoreRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	p := body.Properties
	if err := p.check(r.ID.Name()); err != nil {
		return nil, err
	}
	if p.Encryption.Enabled {
		if err := d.checkEncryption(ctx, r, p.Encryption); err != nil {
			return nil, err
		}
	}
	j, err := d.s.Restore(ctx, p.request(r.ID))
	if err != nil {
		return nil, err
	}
	return started(r, r.ID.Parent(), j), nil
}

// request is what the service is asked for.
func (p restoreProperties) request(point armid.ID) backup.RestoreRequest {
	if p.StorageAccount.IsZero() {
		p.StorageAccount = p.IdentityBased.StorageAccount
	}
	return backup.RestoreRequest{Point: point, Type: p.Type, TargetGroup: p.TargetGroup, StorageAccount: p.StorageAccount, Region: p.Region, Luns: p.Luns}
}

// check refuses what would give other disks than the request asks for.
func (p restoreProperties) check(point string) error {
	if named := p.PointID[strings.LastIndexByte(p.PointID, '/')+1:]; named != "" && named != point {
		return otherPoint(point, named)
	}
	if p.DiskEncryption != "" || p.SecuredVMDetails.OSDiskEncryption != "" {
		return notSupportedHere("properties.diskEncryptionSetId", "A disk encryption set for restored disks",
			"Leave it out; the disks keep the encryption that the guest gave them.")
	}
	if p.Rehydration.Duration != "" {
		return notSupportedHere("properties.recoveryPointRehydrationInfo", "Bringing a recovery point back from an archive tier",
			"Send objectType IaasVMRestoreRequest; every recovery point can be restored at once.")
	}
	if len(p.Zones) > 0 {
		return notSupportedHere("properties.zones", "A zone for restored disks", "Leave zones out; there are none.")
	}
	if p.OriginalAccount {
		return notSupportedHere("properties.originalStorageAccountOption", "Restoring disks to the storage accounts that they were in",
			"Set it to false; disks become resources of targetResourceGroupId.")
	}
	return nil
}

// checkEncryption: older clients name the key and the secret of the restored disks. They are those of the
// recovery point, and no others.
func (d *door) checkEncryption(ctx context.Context, r *arm.Request, e encryptionDetails) error {
	p, err := d.s.Point(ctx, r.ID)
	if err != nil {
		return err
	}
	has := func(url func(backup.KeyPair) string, want string) bool {
		return want == "" || slices.ContainsFunc(p.Keys, func(k backup.KeyPair) bool { return strings.EqualFold(url(k), want) })
	}
	if has(func(k backup.KeyPair) string { return k.KeyURL }, e.KeyURL) && has(func(k backup.KeyPair) string { return k.SecretURL }, e.SecretURL) {
		return nil
	}
	return notSupportedHere("properties.encryptionDetails", "Restoring disks with another key or secret than those of the recovery point",
		"Leave encryptionDetails out, and change the disks' encryption settings after the restore.")
}
