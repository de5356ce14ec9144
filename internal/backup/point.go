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
	Job               string        `json:"job"`
	Consistency       string        `json:"consistency"` // CrashConsistent, FileSystemConsistent
	ConsistencyReason string        `json:"consistencyReason,omitempty"`
	VMSize            string        `json:"vmSize,omitempty"`
	OSType            string        `json:"osType,omitempty"`
	Disks             []PointDisk   `json:"disks"`
	Keys              []KeyPair     `json:"keys,omitempty"`
	Verdict           proof.Verdict `json:"verdict"`
}

// PointDisk is one disk of a recovery point.
type PointDisk struct {
	Name     string            `json:"name"`
	Lun      int               `json:"lun"` // -1 is the OS disk
	ID       armid.ID          `json:"id"`
	Size     int64             `json:"size"`   // bytes
	Digest   string            `json:"digest"` // over the ids of its chunks: equal digests, equal content
	Counters recovery.Counters `json:"counters"`
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
func (s *Service) Points(ctx context.Context, item armid.ID) (points []Point, err error) {
	if err := s.o.Authorizer.Authorize(ctx, pointActions+"/read", vaultOf(item)); err != nil {
		return nil, err
	}
	if item, err = canonicalItem(item); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		if _, err := selectItem(ctx, tx, item); err != nil {
			return err
		}
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
	return s.lookupPoint(ctx, id)
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
	if err != nil {
		return nil, err
	}
	stored, err := s.storedPoint(ctx, p)
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
func (s *Service) storedPoint(ctx context.Context, p Point) (*recovery.Point, error) {
	v, err := s.lookupVault(ctx, vaultOf(p.Item))
	if err != nil {
		return nil, err
	}
	store, err := s.store(ctx, v.store)
	if err != nil {
		return nil, err
	}
	stored, err := store.Point(ctx, p.ID)
	if errors.Is(err, recovery.ErrNoPoint) {
		return nil, pointNotFound(p.Item.Child("recoveryPoints", p.ID))
	}
	if err != nil {
		return nil, pointDamaged(err)
	}
	return stored, nil
}

// reconcile makes the rows agree with the roots in the stores: a root without a row is a point whose
// process died between the commit and the transaction, and is adopted; a row without a root would be a
// point that can't be restored, and is taken off the list, loudly.
func (s *Service) reconcile(ctx context.Context) error {
	vaults, err := s.lookupVaults(ctx, armid.ID{})
	if err != nil {
		return err
	}
	for _, v := range vaults {
		log := s.o.Log.With("vault", v.ID.String())
		store, err := s.store(ctx, v.store)
		if err != nil {
			log.Error("recovery store cannot be opened; its recovery points are listed but cannot be restored", "error", err)
			continue
		}
		if err := s.reconcileVault(ctx, v, store); err != nil {
			log.Error("recovery points cannot be reconciled with the recovery store", "error", err)
		}
	}
	return ctx.Err()
}

func (s *Service) reconcileVault(ctx context.Context, v RecoveryVault, store *recovery.Store) error {
	// The store lists what it can read and names the rest; a point that is damaged is not one that is gone.
	stored, damage := store.Points(ctx)
	if damage != nil {
		s.o.Log.Error("some recovery points cannot be read", "vault", v.ID.String(), "error", damage)
	}
	roots := map[string]*recovery.Point{}
	for _, p := range stored {
		roots[p.ID] = p
	}
	return s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		items, err := selectItems(ctx, tx, v.ID)
		if err != nil {
			return err
		}
		for _, item := range items {
			points, err := selectPoints(ctx, tx, item.ID)
			if err != nil {
				return err
			}
			known := map[string]bool{}
			for _, p := range points {
				known[p.ID] = true
				if roots[p.ID] == nil && damage == nil {
					s.o.Log.Error("recovery point is not in the recovery store and is taken off the list", "point", p.ID, "item", item.ID.String())
					if err := deletePoint(ctx, tx, item.ID, p.ID); err != nil {
						return err
					}
				}
			}
			for id, root := range roots {
				if root.Labels[labelItem] != item.ID.Key() || known[id] {
					continue
				}
				if err := adopt(ctx, tx, &item, root); err != nil {
					return err
				}
				s.o.Log.Info("recovery point adopted from the recovery store", "point", id, "item", item.ID.String())
			}
		}
		return nil
	})
}

// adopt lists a point that the store has, and notes it on its item.
func adopt(ctx context.Context, tx *database.Tx, item *Item, root *recovery.Point) error {
	p, err := decodePoint(root)
	if err != nil {
		return err
	}
	if err := putPoint(ctx, tx, p); err != nil {
		return err
	}
	if item.State == IRPending || item.State == ProtectionError {
		item.State = Protected
	}
	if p.Time.After(item.LastTime) {
		item.LastPoint, item.LastTime = p.ID, p.Time
	}
	return putItem(ctx, tx, *item)
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
