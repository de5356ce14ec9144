package recoveryservices

import (
	"context"
	"strings"
	"time"

	"kluis/internal/api/arm"
	"kluis/internal/armid"
	"kluis/internal/backup"
	"kluis/internal/problem"
)

// pointProperties is Azure's IaasVMRecoveryPoint, with what we add.
type pointProperties struct {
	ObjectType     string            `json:"objectType"`
	Type           string            `json:"recoveryPointType"`
	Time           string            `json:"recoveryPointTime"`
	AdditionalInfo string            `json:"recoveryPointAdditionalInfo"`
	StorageType    string            `json:"sourceVMStorageType"`
	Encrypted      bool              `json:"isSourceVMEncrypted"`
	KeyAndSecret   *keyAndSecret     `json:"keyAndSecret,omitempty"`
	IlrActive      bool              `json:"isInstantIlrSessionActive"`
	Tiers          []tier            `json:"recoveryPointTierDetails"`
	Managed        bool              `json:"isManagedVirtualMachine"`
	VMSize         string            `json:"virtualMachineSize,omitempty"`
	OriginalOption bool              `json:"originalStorageAccountOption"`
	OSType         string            `json:"osType,omitempty"`
	Disks          diskConfiguration `json:"recoveryPointDiskConfiguration"`
	MoveReadiness  map[string]any    `json:"recoveryPointMoveReadinessInfo"`
	Properties     rpProperties      `json:"recoveryPointProperties"`

	Proof any                `json:"kluisProof,omitempty"` // the verdict as the service has it
	Ours  []backup.PointDisk `json:"kluisDisks,omitempty"`
	Keys  []diskKeys         `json:"kluisKeysAndSecrets,omitempty"`
}

type tier struct {
	Type   string `json:"type"`
	Status string `json:"status"`
}

type rpProperties struct {
	Expiry string `json:"expiryTime"`
}

type diskConfiguration struct {
	Included int        `json:"numberOfDisksIncludedInBackup"`
	Attached int        `json:"numberOfDisksAttachedToVm"`
	List     []lunName  `json:"includedDiskList"`
	Excluded []struct{} `json:"excludedDiskList"`
}

type lunName struct {
	Lun  int    `json:"lun"`
	Name string `json:"name"`
}

type keyAndSecret struct {
	KEK struct {
		URL   string `json:"keyUrl"`
		Vault string `json:"keyVaultId"`
		Data  string `json:"keyBackupData"`
	} `json:"kekDetails"`
	BEK struct {
		URL   string `json:"secretUrl"`
		Vault string `json:"secretVaultId"`
		Data  string `json:"secretData"`
	} `json:"bekDetails"`
	Mechanism string `json:"encryptionMechanism"`
}

type diskKeys struct {
	Disk        string `json:"disk"`
	SecretURL   string `json:"secretUrl"`
	SecretVault string `json:"secretVaultId"`
	SecretData  string `json:"secretBackupData"`
	KeyURL      string `json:"keyUrl"`
	KeyVault    string `json:"keyVaultId"`
	KeyData     string `json:"keyBackupData"`
}

func encodePoint(p backup.Point) resourceBody {
	config := diskConfiguration{Included: len(p.Disks), Attached: len(p.Disks), List: []lunName{}, Excluded: []struct{}{}}
	for _, d := range p.Disks {
		config.List = append(config.List, lunName{d.Lun, d.Name})
	}
	id := p.Item.Child("recoveryPoints", p.ID)
	return resourceBody{id.String(), p.ID, points, pointProperties{
		ObjectType: "IaasVMRecoveryPoint", Type: p.Consistency, Time: azureTime(p.Time), StorageType: "NormalStorage", Encrypted: p.Encrypted(),
		Tiers: []tier{{"HardenedRP", "Valid"}}, Managed: true, VMSize: p.VMSize, OSType: p.OSType, Disks: config,
		MoveReadiness: map[string]any{"ArchivedRP": map[string]any{"isReadyForMove": false, "additionalInfo": "There is no archive tier here."}},
		Properties:    rpProperties{azureTime(p.Expiry)},
	}}
}

// getPoint tells of one point also its proof, its disks and its keys.
func (d *door) getPoint(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	p, err := d.s.Point(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	keys, err := d.s.PointKeys(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	body := encodePoint(p)
	properties := body.Properties.(pointProperties)
	properties.Proof, properties.Ours = p.Verdict, p.Disks
	for i, k := range keys {
		properties.Keys = append(properties.Keys, diskKeys{k.Disk, k.SecretURL, k.SecretVault.String(), backup.EncodeBackup(k.SecretBlob),
			k.KeyURL, k.KeyVault.String(), backup.EncodeBackup(k.KeyBlob)})
		if i == 0 || k.Lun < 0 {
			properties.KeyAndSecret = osKeys(k)
		}
	}
	body.Properties = properties
	return arm.OK(body), nil
}

// osKeys is the pair of the OS disk as Azure shows it.
func osKeys(k backup.KeyBackup) *keyAndSecret {
	pair := &keyAndSecret{Mechanism: "BEK with KEK"}
	pair.KEK.URL, pair.KEK.Vault, pair.KEK.Data = k.KeyURL, k.KeyVault.String(), backup.EncodeBackup(k.KeyBlob)
	pair.BEK.URL, pair.BEK.Vault, pair.BEK.Data = k.SecretURL, k.SecretVault.String(), backup.EncodeBackup(k.SecretBlob)
	return pair
}

func (d *door) listPoints(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	all, err := d.s.Points(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	from, err := filterTime(r.Filter, "startDate")
	if err != nil {
		return nil, err
	}
	to, err := filterTime(r.Filter, "endDate")
	if err != nil {
		return nil, err
	}
	bodies := []resourceBody{}
	for _, p := range all {
		if !p.Time.Before(from) && (to.IsZero() || !p.Time.After(to)) {
			bodies = append(bodies, encodePoint(p))
		}
	}
	return arm.List(r, bodies), nil
}

// filterTimes are the ways in which clients write a time in a $filter. The first is Azure's own; it
// writes midnight as "00:00:00 AM", which no library reads, so that is read as 24 hours with a decoration.
var filterTimes = []string{"2006-01-02 03:04:05 PM", "2006-01-02 15:04:05", time.RFC3339}

// filterTime reads a condition of a $filter as a time; the zero time if it is not there.
func filterTime(filter map[string]string, key string) (time.Time, error) {
	text, ok := filter[strings.ToLower(key)]
	if !ok {
		return time.Time{}, nil
	}
	for _, t := range []string{text, strings.TrimSuffix(text, " AM")} {
		for _, layout := range filterTimes {
			if at, err := time.Parse(layout, t); err == nil {
				return at, nil
			}
		}
	}
	return time.Time{}, problem.New(problem.Invalid, "InvalidFilter", "%s in $filter is not a time.", key).WithTarget("$filter").
		WithAdvice("Write it as '2026-11-23 09:30:00 PM'.")
}

// restoreRequest is the part of Azure's IaasVMRestoreRequest that means something here.
type restoreRequest struct {
	Properties struct {
		ObjectType     string   `json:"objectType"`
		Type           string   `json:"recoveryType"`
		TargetGroup    armid.ID `json:"targetResourceGroupId"`
		StorageAccount armid.ID `json:"storageAccountId"`
		Luns           []int    `json:"restoreDiskLunList"`
		EncryptionSet  string   `json:"diskEncryptionSetId"`
	} `json:"properties"`
}

func (d *door) restore(ctx context.Context, r *arm.Request) (*arm.Reply, error) {
	var body restoreRequest
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	p := body.Properties
	if p.EncryptionSet != "" {
		return nil, problem.New(problem.Unsupported, "UserErrorDiskEncryptionSetNotSupported", "A disk encryption set cannot be given to restored disks here.").
			WithAdvice("Leave diskEncryptionSetId out; the disks keep the encryption that the guest gave them.")
	}
	j, err := d.s.Restore(ctx, backup.RestoreRequest{Point: r.ID, Type: p.Type, TargetGroup: p.TargetGroup, StorageAccount: p.StorageAccount, Luns: p.Luns})
	if err != nil {
		return nil, err
	}
	return d.started(r, r.ID.Parent(), j), nil
}
