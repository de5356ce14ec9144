package compute

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
)

// PutDisk imports an image file as a disk, or changes the settings of a disk that exists. The image of a
// disk never changes.
func (s *Service) PutDisk(ctx context.Context, d Disk) (_ Disk, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, DiskType+"/write", d.ID); err != nil {
		return Disk{}, false, err
	}
	if err := d.check(); err != nil {
		return Disk{}, false, err
	}
	if err := s.o.Groups.GroupExists(ctx, d.ID.ResourceGroup); err != nil {
		return Disk{}, false, err
	}
	d.Properties.ProvisioningState = "" // what a client says of it does not count
	row := diskRow{Disk: d}
	// A look at the file is slow and is no part of the transaction, where what was found is looked for again.
	was, err := s.diskRow(ctx, d.ID)
	if err := s.mayName(ctx, was.named(), d.named()); err != nil {
		return Disk{}, false, err
	}
	if created = isNotFound(err); created && d.isCopy() {
		d, err = s.beginDisk(ctx, d)
		return d, true, err
	}
	if created {
		row.image, err = s.importImage(ctx, d)
	}
	if err != nil {
		return Disk{}, false, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectDisk(ctx, tx, d.ID)
		switch {
		case err == nil:
			if row, err = changed(old, d); err != nil {
				return err
			}
			created = false
		case !isNotFound(err):
			return err
		case !created:
			return err // deleted since
		default:
			if err := noSnapshotAt(ctx, tx, d, row.image.Path); err != nil {
				return err
			}
		}
		row.settle(s.o.Now(), s.o.NewID())
		return putDisk(ctx, tx, row)
	})
	if database.IsUnique(err) {
		return Disk{}, false, imageTaken(d, row.image.Path)
	}
	return row.Disk, created, err
}

// changed is an existing disk with new settings.
func changed(old diskRow, d Disk) (diskRow, error) {
	if err := sameSource(d.ID, old.Properties.CreationData, d.Properties.CreationData); err != nil {
		return diskRow{}, err
	}
	if !strings.EqualFold(old.Location, d.Location) {
		return diskRow{}, locationFixed(d.ID, old.Location)
	}
	d.Properties = d.Properties.keeping(old.Properties)
	old.Disk = d
	return old, nil
}

func (s *Service) importImage(ctx context.Context, d Disk) (Image, error) {
	if !strings.EqualFold(d.Properties.CreationData.CreateOption, "Import") {
		return Image{}, createOptionNotSupported(d.ID, d.Properties.CreationData.CreateOption)
	}
	path, err := filePath(d.Properties.CreationData.SourceURI)
	if err != nil {
		return Image{}, invalidSource(d, err)
	}
	image, err := s.o.Images.Inspect(ctx, path)
	if err != nil {
		return Image{}, imageProblem(err)
	}
	return image, nil
}

// AdoptRestored makes a disk of an image that a restore has written. It takes location, tags, operating
// system and encryption settings from the disk that was backed up. The state is what its machine was beside its disks; it
// goes with the OS disk, and is nil for others and where nobody knows.
func (s *Service) AdoptRestored(ctx context.Context, id armid.ID, path string, size int64, from Disk, state *fabric.GuestState) (Disk, error) {
	d := from.as(id)
	d.Properties.CreationData = CreationData{CreateOption: "Restore", SourceURI: fileURI(path)}
	d.Properties.UniqueID, d.Properties.TimeCreated = "", time.Time{}
	row := diskRow{Disk: d, image: Image{Path: path, Format: "raw", Size: size}, owned: true}
	row.settle(s.o.Now(), s.o.NewID())
	sealed, err := s.sealState(id, state)
	if err != nil {
		return Disk{}, fmt.Errorf("seal the guest state of disk %s: %w", id.Name(), err)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if err := insertDisk(ctx, tx, row); err != nil || sealed == nil {
			return err
		}
		return putGuestState(ctx, tx, id, sealed)
	})
	if database.IsUnique(err) {
		return Disk{}, diskExists(id)
	}
	return row.Disk, err
}

// Disk returns a disk.
func (s *Service) Disk(ctx context.Context, id armid.ID) (Disk, error) {
	if err := s.o.Authorizer.Authorize(ctx, DiskType+"/read", id); err != nil {
		return Disk{}, err
	}
	return s.LookupDisk(ctx, id)
}

// LookupDisk returns a disk, for jobs.
func (s *Service) LookupDisk(ctx context.Context, id armid.ID) (Disk, error) {
	row, err := s.diskRow(ctx, id)
	return row.shown(s.o.Now()), err
}

func (s *Service) diskRow(ctx context.Context, id armid.ID) (row diskRow, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		row, err = selectDisk(ctx, tx, id)
		return err
	})
	return row, err
}

// Disks returns the disks of a group or of the subscription, by id.
func (s *Service) Disks(ctx context.Context, scope armid.ID) (disks []Disk, err error) {
	if err := s.o.Authorizer.Authorize(ctx, DiskType+"/read", scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		rows, err := selectDisks(ctx, tx, scope)
		for _, row := range rows {
			disks = append(disks, row.shown(s.o.Now()))
		}
		return err
	})
	return disks, err
}

// DeleteDisk removes a disk that no VM has; deleting one that does not exist is no error. The image file
// goes with it if a restore has written it, and stays if it was imported.
func (s *Service) DeleteDisk(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, DiskType+"/delete", id); err != nil {
		return false, err
	}
	return s.removeDisk(ctx, id)
}

// DropRestored removes a disk that a restore has written, for a restore that failed after all. A disk that
// is not there or was imported is left alone; one that a VM has by now is an error.
func (s *Service) DropRestored(ctx context.Context, id armid.ID) error {
	row, err := s.diskRow(ctx, id)
	if isNotFound(err) || err == nil && !row.owned {
		return nil
	}
	if err == nil {
		_, err = s.removeDisk(ctx, id)
	}
	return err
}

func (s *Service) removeDisk(ctx context.Context, id armid.ID) (existed bool, err error) {
	var row diskRow
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		row, err = selectDisk(ctx, tx, id)
		if isNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if row.vm != "" {
			return diskAttached(row.Disk, row.vm)
		}
		if row.isShared(s.o.Now()) {
			return diskShared(row.ID)
		}
		existed = true
		return errors.Join(deleteDisk(ctx, tx, id), deleteAccess(ctx, tx, id))
	})
	if err != nil || !existed || !row.owned {
		return existed, err
	}
	return true, s.dropImage(ctx, id, row.image, row.Properties)
}

// dropImage deletes the image of a disk or snapshot that was deleted. Whoever is making it is stopped.
func (s *Service) dropImage(ctx context.Context, id armid.ID, i Image, p DiskProperties) error {
	if p.isCreating() {
		if err := s.o.Jobs.CancelExclusive(ctx, exclusive(id)); err != nil {
			return err
		}
	}
	if err := s.o.Images.Remove(ctx, i.Path); err != nil {
		return fmt.Errorf("remove image of %s: %w", id.Name(), err)
	}
	return nil
}

// ImageOf says where the image of a disk is and what it was when it was last looked at.
func (s *Service) ImageOf(ctx context.Context, id armid.ID) (fabric.DiskSpec, error) {
	row, err := s.diskRow(ctx, id)
	return fabric.DiskSpec{ID: row.ID.Name(), Path: row.image.Path, Format: row.image.Format, ExpectedSize: row.image.Size, Target: row.target}, err
}
