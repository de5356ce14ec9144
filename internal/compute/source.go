package compute

import (
	"context"
	"time"

	"github.com/google/uuid"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/fabric/image"
)

// source is a disk or a snapshot whose image can be read: to be shown to somebody, or to be copied.
type source struct {
	id       armid.ID
	location string
	image    Image
	uniqueID string
	created  time.Time

	osType     string
	encryption *SettingsCollection
}

func sourceOf(id armid.ID, location string, i Image, p DiskProperties) (source, error) {
	if p.isCreating() {
		return source{}, notMadeYet(id)
	}
	return source{id, location, i, p.UniqueID, p.TimeCreated, p.OSType, p.EncryptionSettings}, nil
}

func (s *Service) source(ctx context.Context, id armid.ID) (src source, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		src, err = selectSource(ctx, tx, id)
		return err
	})
	return src, err
}

func selectSource(ctx context.Context, tx *database.Tx, id armid.ID) (source, error) {
	if id.Is(SnapshotType) {
		r, err := selectSnapshot(ctx, tx, id)
		if err != nil {
			return source{}, err
		}
		return sourceOf(r.ID, r.Location, r.image, r.Properties.DiskProperties)
	}
	r, err := selectDisk(ctx, tx, id)
	if err != nil {
		return source{}, err
	}
	if r.host != "" {
		return source{}, readOnHost(r)
	}
	return sourceOf(r.ID, r.Location, r.image, r.Properties)
}

// openImage opens the image, which nobody can write to until its snapshot is closed.
func (s *Service) openImage(ctx context.Context, src source) (*openImage, error) {
	spec := fabric.DiskSpec{ID: src.id.Name(), Path: src.image.Path, Format: src.image.Format, ExpectedSize: src.image.Size}
	snapshot, err := s.o.Images.Snapshot(ctx, fabric.VM{ID: src.id.String(), Name: src.id.Name(), Disks: []fabric.DiskSpec{spec}}, "")
	if err != nil {
		return nil, err
	}
	disk := snapshot.Disks()[0]
	id, _ := uuid.Parse(src.uniqueID) // a disk that has none is a disk without an id
	i := &openImage{snapshot: snapshot, disk: disk, vhd: image.AsFixedVHD(disk, id, src.created), modified: src.created}
	if d, ok := disk.(fabric.Dated); ok {
		i.modified = d.Modified()
	}
	return i, nil
}

// openImage is an image that is being read, and the fixed VHD that it looks like.
type openImage struct {
	snapshot fabric.Snapshot
	disk     fabric.Disk
	vhd      *image.FixedVHD
	modified time.Time // when the image was last written
}
