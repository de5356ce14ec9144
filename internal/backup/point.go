package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/proof"
	"kluis/internal/recovery"
)

// Point is a recovery point: the disks of a VM at one moment, its configuration, and the keys that open
// the disks. This document is sealed inside the point itself (pointDocument), so the recovery store
// alone can tell it; the row in the database is a copy.
type Point struct {
	ID                string        `json:"id"` // a decimal number, as Azure's
	Item              armid.ID      `json:"item"`
	VM                armid.ID      `json:"vm"`
	Time              time.Time     `json:"time"`
	Expiry            time.Time     `json:"expiry"`
	Scheduled         time.Time     `json:"scheduled,omitzero"` // the time of its policy for which it was taken; zero if somebody asked for it
	Job               string        `json:"job"`
	Consistency       string        `json:"consistency"` // CrashConsistent, FileSystemConsistent, AppConsistent
	ConsistencyReason string        `json:"consistencyReason,omitempty"`
	Frozen            time.Duration `json:"frozen,omitempty"`     // how long the guest's file systems stood still, in ns
	Checkpoint        string        `json:"checkpoint,omitempty"` // from which the host notes what changes; its own words
	Host              string        `json:"host,omitempty"`       // the libvirt host that the VM was on
	VMSize            string        `json:"vmSize,omitempty"`
	OSType            string        `json:"osType,omitempty"`
	Disks             []PointDisk   `json:"disks"`
	Excluded          []PointDisk   `json:"excluded,omitempty"` // disks that the VM had and that were left out
	Keys              []KeyPair     `json:"keys,omitempty"`
	Verdict           proof.Verdict `json:"verdict"`

	// Drill is the verdict of the last drill. It comes after the point, whose own document does not have it.
	Drill *Drill `json:"drill,omitempty"`

	// Served says that a mount of the point is there now (mount.go). It is nothing that a point keeps.
	Served bool `json:"-"`
}

// PointDisk is one disk of a recovery point.
type PointDisk struct {
	Name     string            `json:"name"`
	Lun      int               `json:"lun"` // -1 is the OS disk
	ID       armid.ID          `json:"id"`
	Size     int64             `json:"size"`             // bytes
	Target   string            `json:"target,omitempty"` // the host's name for it: "vda"
	Digest   string            `json:"digest"`           // over the ids of its chunks: equal digests, equal content
	Counters recovery.Counters `json:"counters"`

	Incremental bool   `json:"incremental,omitempty"` // only what changed since the point before was read
	Rescanned   string `json:"rescanned,omitempty"`   // why all of it was read although there was a point before
	Unreported  bool   `json:"unreported,omitempty"`  // an audit found changes that the host had not reported
}

// KeyPair names the secret (BEK) that opens a disk and the key (KEK) that wraps it. The blobs that the
// key vault made of them are attached to the point under secretAttachment and keyAttachment.
type KeyPair struct {
	Disk        string   `json:"disk"`
	Lun         int      `json:"lun"`
	SecretURL   string   `json:"secretUrl"`
	SecretVault armid.ID `json:"secretVault"`
	KeyURL      string   `json:"keyUrl"`
	KeyVault    armid.ID `json:"keyVault"`
	FileName    string   `json:"fileName,omitempty"` // under which the guest looks for it, as the secret says

	Outside *wrappedBy `json:"outside,omitempty"` // set when the two lie in a key vault outside this server
}

// KeyBackup is a pair with what restores it.
type KeyBackup struct {
	KeyPair
	KeyBlob    []byte // the key vault's backup of the key
	SecretBlob []byte // the key vault's backup of the secret
	Wrapped    []byte // the secret's value: the BEK wrapped by the KEK
}

// Names of what is attached to a recovery point.
const (
	pointDocument = "point.json"
	vmDocument    = "vm.json"
	disksDocument = "disks.json" // the disk resources, in the order of Point.Disks
)

func keyAttachment(i int) string     { return fmt.Sprintf("keys/%d", i) }
func secretAttachment(i int) string  { return fmt.Sprintf("secrets/%d", i) }
func wrappedAttachment(i int) string { return fmt.Sprintf("wrapped/%d", i) }

// labelItem is the label by which a point in the store names its item.
const labelItem = "item"

// Encrypted reports whether any disk of the point has a key.
func (p Point) Encrypted() bool { return len(p.Keys) > 0 }

const pointActions = itemActions + "/recoveryPoints"

// Points returns the recovery points of an item, newest first.
func (s *Service) Points(ctx context.Context, item armid.ID) ([]Point, error) {
	return s.PointsAfter(ctx, item, "", all)
}

// PointsAfter returns so many recovery points of an item that come after a place (PlaceOfPoint).
func (s *Service) PointsAfter(ctx context.Context, item armid.ID, after string, most int) ([]Point, error) {
	if err := s.o.Authorizer.Authorize(ctx, pointActions+"/read", vaultOf(item)); err != nil {
		return nil, err
	}
	item, err := canonicalItem(item)
	if err != nil {
		return nil, err
	}
	if _, err := s.lookupItem(ctx, item); err != nil {
		return nil, err
	}
	from, err := parsePlace(after)
	if err != nil {
		return nil, err
	}
	var points []Point
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		points, err = selectPointsAfter(ctx, tx, item, from, most)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range points {
		points[i].Served = s.served(points[i])
	}
	return points, nil
}

func (s *Service) lookupPoints(ctx context.Context, item armid.ID) (points []Point, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		points, err = selectPoints(ctx, tx, item)
		return err
	})
	return points, err
}

// Point returns one recovery point. The id is that of the item with recoveryPoints/{id} behind it.
func (s *Service) Point(ctx context.Context, id armid.ID) (Point, error) {
	if err := s.o.Authorizer.Authorize(ctx, pointActions+"/read", vaultOf(id)); err != nil {
		return Point{}, err
	}
	p, err := s.lookupPoint(ctx, id)
	if err != nil {
		return Point{}, err
	}
	p.Served = s.served(p)
	return p, nil
}

func (s *Service) lookupPoint(ctx context.Context, id armid.ID) (p Point, err error) {
	item, err := canonicalItem(id)
	if err != nil {
		return Point{}, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		p, err = selectPoint(ctx, tx, item, id.Name())
		return err
	})
	return p, err
}

// PointKeys returns the keys and secrets of a recovery point as the key vault backed them up: sealed
// blobs, which only a key vault can open.
func (s *Service) PointKeys(ctx context.Context, id armid.ID) ([]KeyBackup, error) {
	p, err := s.Point(ctx, id)
	if err != nil || !p.Encrypted() {
		return nil, err
	}
	item, err := s.lookupItem(ctx, p.Item)
	if err != nil {
		return nil, err
	}
	store, err := s.stores.read(ctx, item.store)
	if err != nil {
		return nil, storeUnreadable(item, err)
	}
	defer func() { _ = store.Close() }() // nothing was written
	stored, err := storedPoint(ctx, store, p)
	if err != nil {
		return nil, err
	}
	return keysOf(p, stored)
}

func keysOf(p Point, stored *recovery.Point) ([]KeyBackup, error) {
	keys := make([]KeyBackup, len(p.Keys))
	for i, pair := range p.Keys {
		keys[i].KeyPair = pair
		for name, to := range map[string]*[]byte{keyAttachment(i): &keys[i].KeyBlob, secretAttachment(i): &keys[i].SecretBlob, wrappedAttachment(i): &keys[i].Wrapped} {
			blob, err := stored.Attachment(name)
			if err != nil {
				return nil, pointDamaged(err)
			}
			*to = blob
		}
	}
	return keys, nil
}

// storedPoint opens the point in its recovery store.
func storedPoint(ctx context.Context, store *recovery.Store, p Point) (*recovery.Point, error) {
	stored, err := store.Point(ctx, p.ID)
	if errors.Is(err, recovery.ErrNoPoint) {
		return nil, pointNotFound(p.Item.Child("recoveryPoints", p.ID))
	}
	if err != nil {
		return nil, pointDamaged(err)
	}
	return stored, nil
}

func decodePoint(root *recovery.Point) (p Point, err error) {
	doc, err := root.Attachment(pointDocument)
	if err != nil {
		return Point{}, fmt.Errorf("read recovery point %s: %w", root.ID, err)
	}
	if err := json.Unmarshal(doc, &p); err != nil {
		return Point{}, fmt.Errorf("decode recovery point %s: %w", root.ID, err)
	}
	return p, nil
}

// savedMachine reads back the VM and its disks as they were.
func savedMachine(root *recovery.Point) (vm compute.VM, disks []compute.Disk, err error) {
	for name, to := range map[string]any{vmDocument: &vm, disksDocument: &disks} {
		doc, err := root.Attachment(name)
		if err != nil {
			return vm, nil, err
		}
		if err := json.Unmarshal(doc, to); err != nil {
			return vm, nil, fmt.Errorf("decode %s of recovery point %s: %w", name, root.ID, err)
		}
	}
	return vm, disks, nil
}
