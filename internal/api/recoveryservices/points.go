package recoveryservices

import (
	"context"

	"kluis/internal/api/arm"
	"kluis/internal/backup"
)

func encodePoint(r *arm.Request, p backup.Point) resource[pointProperties] {
	config := diskConfiguration{Included: len(p.Disks), Attached: len(p.Disks) + len(p.Excluded), IncludedList: []attachedLun{}, ExcludedList: []attachedLun{}}
	for _, d := range p.Disks {
		config.IncludedList = append(config.IncludedList, attachedLun{d.Lun, d.Name})
	}
	for _, d := range p.Excluded {
		config.ExcludedList = append(config.ExcludedList, attachedLun{d.Lun, d.Name})
	}
	body := pointProperties{
		ObjectType: "IaasVMRecoveryPoint", Type: p.Consistency, Time: azureTime(p.Time), StorageType: "NormalStorage", Encrypted: p.Encrypted(),
		InstantSessionActive: p.Served,
		Tiers:                []tier{{word(r, "HardenedRP"), word(r, "Valid")}}, Managed: true, VMSize: p.VMSize, OSType: p.OSType, Disks: config, SecurityType: "None",
		Retention: retention{azureTime(p.Expiry)},
	}
	body.MoveReadiness.Archived.Info = "There is no archive tier here."
	body.Proof, body.ConsistencyReason, body.FrozenMS = p.Verdict, p.ConsistencyReason, p.Frozen.Milliseconds()
	body.Drill = encodeDrill(p.Drill)
	id := p.Item.Child("recoveryPoints", p.ID)
	return resource[pointProperties]{id.String(), p.ID, points, body}
}

// getPoint tells of one point also its disks and its keys.
func (d *door) getPoint(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := d.s.Point(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	keys, err := d.s.PointKeys(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	body := encodePoint(r, p)
	ours := &body.Properties
	ours.BackedUp = p.Disks
	for i, k := range keys {
		pair := encodeKeys(k)
		ours.KeysAndSecrets = append(ours.KeysAndSecrets, pair)
		if i == 0 || k.Lun < 0 {
			ours.KeyAndSecret = osPair(pair)
		}
	}
	return arm.OK(body), nil
}

func encodeKeys(k backup.KeyBackup) diskKeys {
	return diskKeys{
		Disk:      k.Disk,
		SecretURL: k.SecretURL, SecretVaultID: k.SecretVault.String(), SecretBackupData: backup.EncodeBackup(k.SecretBlob),
		KeyURL: k.KeyURL, KeyVaultID: k.KeyVault.String(), KeyBackupData: backup.EncodeBackup(k.KeyBlob),
		Outside: k.Outside != nil,
	}
}

// restoreKeys is ours: Azure leaves this to who has the permission to restore in the key vault, and for key vaults outside
// this server that is the server.
func (d *door) restoreKeys(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	done, err := d.s.RestoreKeys(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	all := []restoredKey{}
	for _, k := range done {
		all = append(all, restoredKey{string(k.Kind), k.URL, k.Existed})
	}
	return arm.OK(restoredKeys{all}), nil
}

// osPair is the pair that Azure shows, which knows one: the OS disk's, or the first where the OS disk has
// none. SinglePass says that the settings lie on the disks, as they do after every restore from here.
func osPair(k diskKeys) *keyAndSecret {
	return &keyAndSecret{
		KEK:       kekDetails{k.KeyURL, k.KeyVaultID, k.KeyBackupData},
		BEK:       bekDetails{k.SecretURL, k.SecretVaultID, k.SecretBackupData},
		Mechanism: "SinglePass",
	}
}

// listPoints: every point is a full one, and none can be moved to another tier.
func (d *door) listPoints(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	f, err := filterOf(r, "startDate", "endDate", "restorePointQueryType", "extendedInfo", "moveReadyRPOnly", "includeSoftDeletedRP")
	if err != nil {
		return nil, err
	}
	from, to, err := f.period("startDate", "endDate")
	if err != nil {
		return nil, err
	}
	read := func(after string, most int) ([]backup.Point, error) { return d.s.PointsAfter(ctx, r.ID, after, most) }
	return arm.Walk(r, read, backup.PlaceOfPoint, func(p backup.Point) (resource[pointProperties], bool) {
		return encodePoint(r, p), !p.Time.Before(from) && !p.Time.After(to) && f.is("moveReadyRPOnly", "false") &&
			f.is("restorePointQueryType", "All", "Full", "FullAndDifferential", "Invalid")
	})
}

// recommendedForMove: none are, since there is nowhere to move them to.
func (d *door) recommendedForMove(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	if _, err := d.s.Item(ctx, r.ID); err != nil {
		return nil, err
	}
	return arm.List(r, []struct{}{}), nil
}
