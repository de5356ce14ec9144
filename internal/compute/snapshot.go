package compute

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
)

// Snapshot is a disk as it was at one moment: a copy of its image that is Kluis's own and that nobody writes to. It
// has the disk's encryption settings, for without them its bytes are of no use.
type Snapshot struct {
	ID         armid.ID
	Location   string
	Tags       map[string]string
	Properties SnapshotProperties

	sent      map[string]any
	operation string
}

// SnapshotProperties is the part of a snapshot's properties that is read here.
type SnapshotProperties struct {
	DiskProperties
	Incremental bool `json:"incremental"`
}

// MarshalJSON writes the document: what a client sent, with what is known here over it.
func (s Snapshot) MarshalJSON() ([]byte, error) {
	return overlay(s.sent, resource[SnapshotProperties]{s.ID, s.ID.Name(), SnapshotType, s.Location, s.Tags, s.Properties})
}

// UnmarshalJSON reads a document.
func (s *Snapshot) UnmarshalJSON(b []byte) error {
	var r resource[SnapshotProperties]
	sent, err := readDocument(b, &r)
	*s = Snapshot{ID: r.ID, Location: r.Location, Tags: r.Tags, Properties: r.Properties, sent: sent}
	return err
}

// Operation is the id of the operation that makes the snapshot, to whoever has just asked for it.
func (s Snapshot) Operation() string { return s.operation }

// check says what is wrong with a snapshot's document.
func (s Snapshot) check() error {
	if s.Location == "" {
		return locationRequired(s.ID)
	}
	if s.Properties.Incremental {
		return incrementalNotSupported(s.ID)
	}
	return s.Properties.EncryptionSettings.check(s.ID)
}

// snapshotRow is a snapshot with what only the server knows of it.
type snapshotRow struct {
	Snapshot
	image       Image
	accessUntil time.Time
}

func (r snapshotRow) isShared(now time.Time) bool { return now.Before(r.accessUntil) }

// shown is the snapshot as it is told of now.
func (r snapshotRow) shown(now time.Time) Snapshot {
	r.Properties.DiskState = unattached
	if r.isShared(now) {
		r.Properties.DiskState = activeSAS
	}
	return r.Snapshot
}

// PutSnapshot begins a snapshot of a disk, or of another snapshot, or changes the settings of one that exists. It is
// there when its operation has ended.
func (s *Service) PutSnapshot(ctx context.Context, d Snapshot) (_ Snapshot, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, SnapshotType+"/write", d.ID); err != nil {
		return Snapshot{}, false, err
	}
	if err := d.check(); err != nil {
		return Snapshot{}, false, err
	}
	if err := s.o.Groups.GroupExists(ctx, d.ID.ResourceGroup); err != nil {
		return Snapshot{}, false, err
	}
	row, err := s.snapshotRow(ctx, d.ID)
	switch {
	case isNotFound(err):
		d, err = s.beginSnapshot(ctx, d)
		return d, true, err
	case err != nil:
		return Snapshot{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if row, err = selectSnapshot(ctx, tx, d.ID); err != nil {
			return err
		}
		if row, err = row.changed(d); err != nil {
			return err
		}
		return updateSnapshot(ctx, tx, row)
	})
	return row.shown(s.o.Now()), false, err
}

func (s *Service) beginSnapshot(ctx context.Context, d Snapshot) (Snapshot, error) {
	c, err := s.planCopy(ctx, d.ID, d.Properties.DiskProperties)
	if err != nil {
		return Snapshot{}, err
	}
	d.Properties.DiskProperties = c.properties
	row := snapshotRow{Snapshot: d, image: c.image}
	j, err := s.beginCopy(ctx, c, func(tx *database.Tx) error { return insertSnapshot(ctx, tx, row) })
	if database.IsUnique(err) {
		return Snapshot{}, diskExists(d.ID)
	}
	row.operation = j
	return row.shown(s.o.Now()), err
}

// changed is an existing snapshot with new settings.
func (r snapshotRow) changed(d Snapshot) (snapshotRow, error) {
	if err := sameSource(d.ID, r.Properties.CreationData, d.Properties.CreationData); err != nil {
		return snapshotRow{}, err
	}
	if !strings.EqualFold(r.Location, d.Location) {
		return snapshotRow{}, locationFixed(d.ID, r.Location)
	}
	d.ID = r.ID
	d.Properties.DiskProperties = d.Properties.keeping(r.Properties.DiskProperties)
	r.Snapshot = d
	return r, nil
}

// ChangeSnapshot changes what a document names of a snapshot, and leaves the rest as it is.
func (s *Service) ChangeSnapshot(ctx context.Context, id armid.ID, body json.RawMessage) (Snapshot, error) {
	if err := s.o.Authorizer.Authorize(ctx, SnapshotType+"/write", id); err != nil {
		return Snapshot{}, err
	}
	var row snapshotRow
	err := s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectSnapshot(ctx, tx, id)
		if err != nil {
			return err
		}
		d, err := patched(old.Snapshot, id, body)
		if err != nil {
			return err
		}
		d.ID = old.ID
		if err := d.check(); err != nil {
			return err
		}
		if row, err = old.changed(d); err != nil {
			return err
		}
		return updateSnapshot(ctx, tx, row)
	})
	return row.shown(s.o.Now()), err
}

// Snapshot returns a snapshot.
func (s *Service) Snapshot(ctx context.Context, id armid.ID) (Snapshot, error) {
	if err := s.o.Authorizer.Authorize(ctx, SnapshotType+"/read", id); err != nil {
		return Snapshot{}, err
	}
	row, err := s.snapshotRow(ctx, id)
	return row.shown(s.o.Now()), err
}

func (s *Service) snapshotRow(ctx context.Context, id armid.ID) (row snapshotRow, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		row, err = selectSnapshot(ctx, tx, id)
		return err
	})
	return row, err
}

// Snapshots returns the snapshots of a group or of the subscription, by id.
func (s *Service) Snapshots(ctx context.Context, scope armid.ID) (all []Snapshot, err error) {
	if err := s.o.Authorizer.Authorize(ctx, SnapshotType+"/read", scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectSnapshots(ctx, tx, scope)
		for _, row := range rows {
			all = append(all, row.shown(s.o.Now()))
		}
		return err
	})
	return all, err
}

// DeleteSnapshot removes a snapshot with its file; deleting one that does not exist is no error. One that is still
// being made is not made any further.
func (s *Service) DeleteSnapshot(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, SnapshotType+"/delete", id); err != nil {
		return false, err
	}
	var row snapshotRow
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		row, err = selectSnapshot(ctx, tx, id)
		if existed = err == nil; !existed {
			if isNotFound(err) {
				return nil
			}
			return err
		}
		if row.isShared(s.o.Now()) {
			return diskShared(id)
		}
		return errors.Join(deleteSnapshot(ctx, tx, id), deleteAccess(ctx, tx, id))
	})
	if err != nil || !existed {
		return existed, err
	}
	return true, s.dropImage(ctx, id, row.image, row.Properties.DiskProperties)
}
