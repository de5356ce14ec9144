package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"kluis/internal/armid"
)

// Point is a recovery point.
type Point = Resource[PointProperties]

// PointProperties is what a recovery point tells; keys, disks and proof only when it is read by itself.
type PointProperties struct {
	Type           string          `json:"recoveryPointType"`
	Time           string          `json:"recoveryPointTime"`
	Encrypted      bool            `json:"isSourceVMEncrypted"`
	OSType         string          `json:"osType"`
	VMSize         string          `json:"virtualMachineSize"`
	KeyAndSecret   *KeyAndSecret   `json:"keyAndSecret"`
	Proof          *Proof          `json:"kluisProof"`
	Disks          []PointDisk     `json:"kluisDisks"`
	KeysAndSecrets []DiskKeyBackup `json:"kluisKeysAndSecrets"`
	Drill          *Drill          `json:"kluisDrill"`
	Reason         string          `json:"kluisConsistencyReason"` // why it is not more consistent
	FrozenMS       int64           `json:"kluisFrozenMilliseconds"`
	Retention      struct {
		ExpiryTime string `json:"expiryTime"`
	} `json:"recoveryPointProperties"`
}

// KeyAndSecret is the backup of the OS disk's key and secret, as Azure shows it.
type KeyAndSecret struct {
	KEK struct {
		KeyURL        string `json:"keyUrl"`
		KeyVaultID    string `json:"keyVaultId"`
		KeyBackupData string `json:"keyBackupData"`
	} `json:"kekDetails"`
	BEK struct {
		SecretURL     string `json:"secretUrl"`
		SecretVaultID string `json:"secretVaultId"`
		SecretData    string `json:"secretData"`
	} `json:"bekDetails"`
}

// DiskKeyBackup is the backup of one disk's key and secret. The data are the backups that the key vault
// made, in base64.
type DiskKeyBackup struct {
	Disk             string `json:"disk"`
	SecretURL        string `json:"secretUrl"`
	SecretVaultID    string `json:"secretVaultId"`
	SecretBackupData string `json:"secretBackupData"`
	KeyURL           string `json:"keyUrl"`
	KeyVaultID       string `json:"keyVaultId"`
	KeyBackupData    string `json:"keyBackupData"`
	Outside          bool   `json:"outside"` // in a key vault outside the server
}

// Proof says whether the keys in the recovery point open the disks in the recovery point.
type Proof struct {
	State  string      `json:"state"` // proved, failed, notTried or notEncrypted
	Reason string      `json:"reason"`
	Advice string      `json:"advice"`
	Disks  []DiskProof `json:"disks"`
}

// Proved is the state of a proof that succeeded.
const Proved = "proved"

// DiskProof is the proof of one disk.
type DiskProof struct {
	Name       string `json:"name"`
	State      string `json:"state"`
	Kind       string `json:"kind"` // of a failure
	Reason     string `json:"reason"`
	Advice     string `json:"advice"`
	Encryption string `json:"encryption"`
	UUID       string `json:"uuid"`
	FileSystem string `json:"fileSystem"`
	Note       string `json:"note"` // where the key came from, if not from the recovery point
	BytesRead  int64  `json:"bytesRead"`
}

// PointDisk is one disk of a recovery point and what its backup did.
type PointDisk struct {
	Name     string `json:"name"`
	LUN      int    `json:"lun"` // -1 for the OS disk
	Size     int64  `json:"size"`
	Digest   string `json:"digest"`
	Counters struct {
		Size int64 `json:"size"`
		Read int64 `json:"read"`
		// Audited is how much of Read was read only to see whether the host left something out.
		Audited int64 `json:"audited"`
		Zero    int64 `json:"zero"`
		New     int64 `json:"new"`
		Reused  int64 `json:"reused"`
		Stored  int64 `json:"stored"`
	} `json:"counters"`
	Incremental bool   `json:"incremental"` // only what changed since the point before was read
	Rescanned   string `json:"rescanned"`   // why all of it was read although there was a point before
}

// Drill is the verdict of the last restore drill of a recovery point.
type Drill struct {
	State  string `json:"state"` // passed or failed
	Time   string `json:"time"`
	Host   string `json:"host"`
	Sign   string `json:"sign"` // what was waited for
	Check  string `json:"check"`
	Reason string `json:"reason"`
	BootMS int64  `json:"bootMilliseconds"`
}

// DrillPassed is the state of a drill whose machine came up.
const DrillPassed = "passed"

// DrillRequest asks for a drill; what is empty is the server's choice.
type DrillRequest struct {
	Host     string   `json:"host,omitempty"`           // a libvirt host
	Console  string   `json:"consoleText,omitempty"`    // text to wait for, instead of the guest's agent
	Port     int      `json:"port,omitempty"`           // TCP port to wait for, likewise
	PortText string   `json:"portText,omitempty"`       // that it is to say
	Check    []string `json:"check,omitempty"`          // a program in the guest, with its arguments
	Seconds  int      `json:"limitInSeconds,omitempty"` // for all of it
}

// StartDrill starts a restore drill of a recovery point and returns the id of its job.
func (c *Client) StartDrill(ctx context.Context, item armid.ID, point string, r DrillRequest) (string, error) {
	return c.startJob(ctx, item.Child("recoveryPoints", point).String()+"/drill", map[string]any{"properties": r})
}

// RecoveryPoints lists the recovery points of an item.
func (c *Client) RecoveryPoints(ctx context.Context, item armid.ID) ([]Point, error) {
	return listResources[PointProperties](ctx, c, item.String()+"/recoveryPoints", versionBackup, "")
}

// RecoveryPoint reads a recovery point with its keys, disks and proof.
func (c *Client) RecoveryPoint(ctx context.Context, item armid.ID, point string) (Point, error) {
	return getResource[PointProperties](ctx, c, item.Child("recoveryPoints", point), versionBackup)
}

// Restored is one key or secret that was brought back, or was there all the time.
type Restored struct {
	Kind    Kind   `json:"kind"`
	URL     string `json:"url"`
	Existed bool   `json:"existed"`
}

// RestoreKeys gives the backups of keys and secrets in a recovery point to a key vault's restore calls.
// Each is restored once, however many disks share it; one that still exists is left alone. What came from a key vault
// outside the server is for RestoreKeysOutside.
func (c *Client) RestoreKeys(ctx context.Context, vaultURI string, p Point) ([]Restored, error) {
	backups := p.Properties.KeysAndSecrets
	if len(backups) == 0 {
		backups = fromKeyAndSecret(p.Properties.KeyAndSecret)
	}
	if len(backups) == 0 {
		return nil, &Error{Code: "NoKeysInRecoveryPoint", Target: p.ID,
			Message: "The recovery point holds no keys and secrets.",
			Advice:  "Nothing is to be done if the VM was not encrypted when it was backed up; otherwise choose another recovery point."}
	}
	var done []Restored
	seen := map[string]bool{}
	restore := func(kind Kind, address, data string) error {
		if data == "" || seen[data] {
			return nil
		}
		seen[data] = true
		blob, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return fmt.Errorf("read the backup of %s: %w", address, err)
		}
		restored, err := c.RestoreContent(ctx, vaultURI, kind, string(blob))
		if alreadyThere(err) {
			done = append(done, Restored{kind, address, true})
			return nil
		}
		if err != nil {
			return err
		}
		done = append(done, Restored{kind, restored, false})
		return nil
	}
	for _, b := range backups {
		if b.Outside {
			continue
		}
		if err := restore(KindKey, b.KeyURL, b.KeyBackupData); err != nil {
			return done, err
		}
		if err := restore(KindSecret, b.SecretURL, b.SecretBackupData); err != nil {
			return done, err
		}
	}
	return done, nil
}

// RestoreKeysOutside makes the server give keys and secrets of a recovery point back to the key vaults outside it from
// which they came.
func (c *Client) RestoreKeysOutside(ctx context.Context, p Point) ([]Restored, error) {
	var answer struct {
		Value []Restored `json:"value"`
	}
	err := c.do(ctx, http.MethodPost, p.ID+"/restoreKeys", versionBackup, nil, &answer)
	return answer.Value, err
}

// KeysOutside reports whether keys of the recovery point came from key vaults outside the server, and whether all did.
func (p PointProperties) KeysOutside() (some, all bool) {
	all = len(p.KeysAndSecrets) > 0
	for _, k := range p.KeysAndSecrets {
		some, all = some || k.Outside, all && k.Outside
	}
	return some, all
}

// alreadyThere reports whether a restore was refused because the name lives. A name in soft delete is
// taken too, but what it stands for can't be used.
func alreadyThere(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != http.StatusConflict {
		return false
	}
	for _, d := range e.Details {
		if d.Code == "ObjectIsDeletedButRecoverable" || d.Code == "ObjectIsBeingDeleted" {
			return false
		}
	}
	return true
}

func fromKeyAndSecret(k *KeyAndSecret) []DiskKeyBackup {
	if k == nil {
		return nil
	}
	return []DiskKeyBackup{{
		SecretURL: k.BEK.SecretURL, SecretVaultID: k.BEK.SecretVaultID, SecretBackupData: k.BEK.SecretData,
		KeyURL: k.KEK.KeyURL, KeyVaultID: k.KEK.KeyVaultID, KeyBackupData: k.KEK.KeyBackupData,
	}}
}
