package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
)

// Point is a committed recovery point.
type Point struct {
	ID     string
	Time   time.Time // of the commit
	Labels map[string]string
	Epoch  uint64 // of the owner that has written it; 0 if there was none

	store    *Store
	label    string // its object is points/label
	manifest *manifest.Point
}

// Point returns the point with the given id, or ErrNoPoint.
func (s *Store) Point(ctx context.Context, id string) (*Point, error) {
	if !validPointID(id) {
		return nil, fmt.Errorf("recovery point %q: %w", id, ErrNoPoint)
	}
	label := s.keys.label(id)
	p, err := s.readPoint(ctx, pointPrefix+label, label)
	if errors.Is(err, objects.ErrNotExist) {
		return nil, fmt.Errorf("recovery point %q: %w", id, ErrNoPoint)
	}
	var damage *DamageError
	if errors.As(err, &damage) {
		damage.Point = id
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Points returns all points, in no order that means anything. If some are damaged it returns the others,
// and an error that joins a DamageError for each damaged one.
func (s *Store) Points(ctx context.Context) ([]*Point, error) {
	var points []*Point
	var damages []error
	for o, err := range s.bucket.List(ctx, pointPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list recovery points: %w", err)
		}
		p, err := s.readPoint(ctx, o.Name, strings.TrimPrefix(o.Name, pointPrefix))
		switch {
		case err == nil:
			points = append(points, p)
		case errors.Is(err, objects.ErrNotExist): // deleted meanwhile
		case isDamage(err):
			damages = append(damages, err)
		default:
			return nil, err
		}
	}
	return points, errors.Join(damages...)
}

// readPoint reads the object of a point.
func (s *Store) readPoint(ctx context.Context, name, label string) (*Point, error) {
	m, err := s.openPoint(ctx, name, label)
	if err != nil {
		if errors.Is(err, chunk.ErrDamaged) {
			err = &DamageError{Object: name, Err: err}
		}
		return nil, fmt.Errorf("read recovery point: %w", err)
	}
	return &Point{
		ID: m.ID, Time: time.UnixMicro(m.Created).UTC(), Labels: maps.Clone(m.Labels), Epoch: m.Epoch,
		store: s, label: label, manifest: m,
	}, nil
}

func (s *Store) openPoint(ctx context.Context, name, label string) (*manifest.Point, error) {
	stored, err := readAll(ctx, s.bucket, name, manifest.MaxPoint)
	if err != nil {
		return nil, err
	}
	salt, err := manifest.Salt(stored)
	if err != nil {
		return nil, err
	}
	key, err := expand(s.keys.points, salt)
	if err != nil {
		return nil, err
	}
	m, err := manifest.OpenPoint(stored, key, label)
	if err != nil {
		return nil, err
	}
	if !validPointID(m.ID) || s.keys.label(m.ID) != label {
		return nil, fmt.Errorf("recovery point %q under the name of another: %w", m.ID, chunk.ErrDamaged)
	}
	return m, nil
}

// putPoint stores a point. It is the commit. Whoever has lost the store to another owner is refused, even
// if that comes about while the point is put.
func (s *Store) putPoint(ctx context.Context, m *manifest.Point) error {
	if err := s.owns(ctx); err != nil {
		return err
	}
	m.Epoch = s.Epoch()
	salt := make([]byte, manifest.SaltSize)
	if err := s.random.fill(salt); err != nil {
		return err
	}
	key, err := expand(s.keys.points, salt)
	if err != nil {
		return err
	}
	label := s.keys.label(m.ID)
	stored, err := m.Seal(key, salt, label)
	if err != nil {
		return err
	}
	err = s.bucket.Put(ctx, pointPrefix+label, int64(len(stored)), bytes.NewReader(stored))
	if errors.Is(err, objects.ErrExists) {
		return ErrPointExists
	} else if err != nil {
		return err
	}
	if err := s.owns(ctx); err != nil {
		return errors.Join(err, s.bucket.Delete(context.WithoutCancel(ctx), pointPrefix+label))
	}
	return nil
}

// Disks describes the point's disks, in the order in which they were written.
func (p *Point) Disks() []DiskInfo {
	infos := make([]DiskInfo, len(p.manifest.Disks))
	for i, d := range p.manifest.Disks {
		infos[i] = DiskInfo{d.Name, d.Size, d.Digest, d.Counters}
	}
	return infos
}

// Disk returns the disk with the given name.
func (p *Point) Disk(name string) (*Disk, error) {
	for _, d := range p.manifest.Disks {
		if d.Name == name {
			return newDisk(p.store, p.ID, p.label, d)
		}
	}
	return nil, fmt.Errorf("recovery point %q has no disk %q", p.ID, name)
}

// Attachments returns the names of the point's documents.
func (p *Point) Attachments() []string {
	names := make([]string, len(p.manifest.Attachments))
	for i, a := range p.manifest.Attachments {
		names[i] = a.Name
	}
	return names
}

// Attachment returns the document with the given name.
func (p *Point) Attachment(name string) ([]byte, error) {
	for _, a := range p.manifest.Attachments {
		if a.Name == name {
			return p.store.readAttachment(context.Background(), p.ID, a)
		}
	}
	return nil, fmt.Errorf("recovery point %q has no attachment %q", p.ID, name)
}

func (s *Store) readAttachment(ctx context.Context, point string, a manifest.Attachment) ([]byte, error) {
	ref, err := a.Ref.Ref()
	if err != nil {
		return nil, err
	}
	content, err := s.read(ctx, ref, chunk.Document)
	if err == nil && int64(len(content)) != a.Size {
		err = fmt.Errorf("attachment of %d bytes, not %d: %w", len(content), a.Size, chunk.ErrDamaged)
	}
	if err != nil && isDamage(err) {
		err = &DamageError{Point: point, Object: ref.Pack.Name(), Err: err}
	}
	if err != nil {
		return nil, fmt.Errorf("read attachment %q: %w", a.Name, err)
	}
	return content, nil
}

const pointIDBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

// validPointID tells whether id can be the id of a point: 1 to 64 of A-Z a-z 0-9 . _ -
func validPointID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		if !strings.ContainsRune(pointIDBytes, rune(id[i])) {
			return false
		}
	}
	return true
}
