package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"kluis/internal/armid"
	"kluis/internal/keyvault"
	"kluis/internal/proof"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

// MountLife is how long a mount lasts: as long as Azure's.
const MountLife = 12 * time.Hour

// maxMounts is how many there may be at once. Each keeps a recovery store open.
const maxMounts = 32

// The actions. The first two are Azure's, and Backup Operators have them. The third is ours: whoever sees what
// is in the disks needs a role that may do everything with the vault.
const (
	provisionAction = pointActions + "/provisionInstantItemRecovery/action"
	revokeAction    = pointActions + "/revokeInstantItemRecovery/action"
	decryptAction   = vaultType + "/decryptRecoveryPoints/action"
)

// Exports serves disks over the network to holders of a client certificate.
type Exports interface {
	// Offer makes a certificate in the name of the mount, and lets whoever holds it read the disks.
	Offer(mount string, until time.Time, disks []ExportedDisk) (Access, error)
	// Withdraw ends what was offered. When it returns the disks are not read any more.
	Withdraw(mount string, disks []ExportedDisk)
}

// ExportedDisk is a disk that is offered: one of a recovery point as it was stored, or an opened volume of one.
type ExportedDisk struct {
	Export     string // the name by which a client asks for it
	Disk       string // the disk of the recovery point
	Partition  int    // of the volume; 0: the whole disk
	Encryption string // what was opened; empty where the bytes are those of the disk
	Content
}

// Content is read from many goroutines.
type Content interface {
	io.ReaderAt
	Size() int64
	NextData(ctx context.Context, off int64) (start, n int64, err error)
}

// Access is how a client gets at what is offered.
type Access struct {
	Address     string       // host:port of an NBD server that speaks TLS
	Authority   []byte       // PEM: by which a client knows the server, and what signed its own certificate
	Certificate []byte       // PEM: by which the server knows the client
	Key         secret.Bytes // PEM: that certificate's key
}

// Mount is a recovery point whose disks are being served, read-only, straight from the recovery store, so that
// somebody can take files out. It lives in memory only: nothing of it is written, and it ends when its time
// is over, when it is revoked, when the item is deleted, and with the process.
type Mount struct {
	ID        string
	Point     armid.ID
	Decrypted bool
	Created   time.Time
	Expiry    time.Time
	Disks     []ExportedDisk
	Access    Access

	item armid.ID
	end  func() // ends it, once; who comes second waits
}

// mounts are those that there are.
type mounts struct {
	mu     sync.Mutex
	closed bool
	byID   map[string]*Mount
}

// MountRequest says what is to be served.
type MountRequest struct {
	Point armid.ID
	Disks []string // names; empty: all
	// Decrypted asks for the plain bytes of what is encrypted, opened with the keys in the recovery point.
	Decrypted bool
}

// Provision serves disks of a recovery point for MountLife. What is decrypted is in the key vaults' log of uses
// before anything can be read.
func (s *Service) Provision(ctx context.Context, r MountRequest) (Mount, error) {
	if err := s.mayMount(ctx, r.Point, r.Decrypted); err != nil {
		return Mount{}, err
	}
	if s.o.Exports == nil {
		return Mount{}, mountsOff()
	}
	p, err := s.lookupPoint(ctx, r.Point)
	if err != nil {
		return Mount{}, err
	}
	if err := p.hasDisks(r.Disks); err != nil {
		return Mount{}, err
	}
	item, err := s.lookupItem(ctx, p.Item)
	if err != nil {
		return Mount{}, err
	}
	s.EndMounts() // those whose time is over count no longer
	m, err := s.mount(ctx, item, p, r)
	if err != nil {
		return Mount{}, translate(err)
	}
	if err := s.keepMount(ctx, m); err != nil {
		m.end()
		return Mount{}, err
	}
	s.o.Log.Info("a recovery point is served", "mount", m.ID, "point", m.Point.String(), "decrypted", m.Decrypted, "until", m.Expiry,
		"correlation", s.o.Correlation(ctx))
	kept, ok := s.mountOf(m.ID)
	if !ok {
		return Mount{}, mountNotFound(m.ID)
	}
	return kept, nil
}

func (s *Service) mayMount(ctx context.Context, point armid.ID, decrypted bool) error {
	err := s.o.Authorizer.Authorize(ctx, provisionAction, vaultOf(point))
	if err == nil && decrypted {
		err = s.o.Authorizer.Authorize(ctx, decryptAction, vaultOf(point))
	}
	return err
}

func (p Point) hasDisks(names []string) error {
	var have []string
	for _, d := range p.Disks {
		have = append(have, d.Name)
	}
	for _, name := range names {
		if !slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, name) }) {
			return pointHasNoDisk(p, name, have)
		}
	}
	return nil
}

// mount opens the disks and offers them. What it took is given back by the mount's end, or at once if it fails.
func (s *Service) mount(ctx context.Context, item Item, p Point, r MountRequest) (_ *Mount, err error) {
	now := s.o.Now()
	m := &Mount{ID: s.o.NewID(), Point: item.ID.Child("recoveryPoints", p.ID), Decrypted: r.Decrypted, Created: now, Expiry: now.Add(MountLife), item: item.ID}
	var undo []func()
	m.end = sync.OnceFunc(func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	})
	defer func() {
		if err != nil {
			m.end()
		}
	}()
	// As its owner: a collection must know what is being read.
	store, done, err := s.stores.write(ctx, item.store)
	if err != nil {
		return nil, storeUnreadable(item, err)
	}
	undo = append(undo, done)
	stored, err := storedPoint(ctx, store, p)
	if err != nil {
		return nil, err
	}
	for _, d := range p.Disks {
		if len(r.Disks) > 0 && !slices.ContainsFunc(r.Disks, func(name string) bool { return strings.EqualFold(name, d.Name) }) {
			continue
		}
		disk, err := stored.Disk(d.Name)
		if err != nil {
			return nil, pointDamaged(err)
		}
		undo = append(undo, disk.Hold())
		served := []ExportedDisk{{Disk: d.Name, Content: disk}}
		if r.Decrypted {
			volumes, closeAll, err := s.decrypt(ctx, p, stored, disk)
			if err != nil {
				return nil, err
			}
			undo = append(undo, closeAll)
			if len(volumes) > 0 {
				served = volumes
			}
		}
		m.Disks = append(m.Disks, served...)
	}
	for i, d := range m.Disks {
		m.Disks[i].Export = m.ID + "/" + d.Disk
		if d.Partition > 0 {
			m.Disks[i].Export += fmt.Sprintf(".%d", d.Partition)
		}
	}
	if m.Access, err = s.o.Exports.Offer(m.ID, m.Expiry, m.Disks); err != nil {
		return nil, fmt.Errorf("serve recovery point %s: %w", p.ID, err)
	}
	undo = append(undo, m.Access.Key.Wipe, func() { s.o.Exports.Withdraw(m.ID, m.Disks) })
	return m, nil
}

// decrypt opens what is encrypted on a disk. A disk on which nothing is has no volumes.
func (s *Service) decrypt(ctx context.Context, p Point, stored *recovery.Point, disk *recovery.Disk) (_ []ExportedDisk, closeAll func(), err error) {
	bek, err := s.disclose(ctx, p, stored, disk.Name())
	if err != nil {
		return nil, nil, notDecrypted(p, disk.Name(), whyNoBEK(err), err)
	}
	defer bek.Wipe() // what is opened holds the volume's key
	opened, err := proof.Open(ctx, proof.Disk{Name: disk.Name(), ReaderAt: disk, Size: disk.Size(), ExpectEncrypted: p.hasKeys(disk.Name()), BEK: bek})
	if err != nil {
		if damage, ok := errors.AsType[*recovery.DamageError](err); ok {
			return nil, nil, pointDamaged(damage)
		}
		return nil, nil, notDecrypted(p, disk.Name(), err, err)
	}
	var volumes []ExportedDisk
	for _, v := range opened {
		volumes = append(volumes, ExportedDisk{Disk: disk.Name(), Partition: v.Partition, Encryption: v.Encryption, Content: plainContent{v}})
	}
	return volumes, func() {
		for _, v := range opened {
			_ = v.Close() // wipes the key; there is nothing to write back
		}
	}, nil
}

// disclose unwraps the BEK of a disk for the caller, which the key vault records; it is empty for a disk that
// has none.
func (s *Service) disclose(ctx context.Context, p Point, stored *recovery.Point, disk string) (secret.Bytes, error) {
	keys, err := keysOf(p, stored)
	if err != nil {
		return secret.Bytes{}, err
	}
	for _, k := range keys {
		if k.Disk != disk {
			continue
		}
		if k.Outside != nil {
			return s.discloseOutside(ctx, k)
		}
		id, err := keyvault.ParseSecretID(k.SecretURL)
		if err != nil {
			return secret.Bytes{}, err
		}
		return s.o.Keys.Disclose(ctx, id, k.KeyBlob, k.SecretBlob)
	}
	return secret.Bytes{}, nil
}

// plainContent is an opened volume. Where the disk under it has a hole, the volume has noise.
type plainContent struct{ proof.Plain }

// NextData implements Content.
func (c plainContent) NextData(_ context.Context, off int64) (start, n int64, err error) {
	return off, max(0, c.Size()-off), nil
}

// keepMount puts a mount on the list, unless its item is being deleted. That is looked up when the mount can
// be found already: whoever deletes says so first, and ends the mounts that there are afterwards.
func (s *Service) keepMount(ctx context.Context, m *Mount) error {
	s.mounts.mu.Lock()
	full := len(s.mounts.byID) >= maxMounts
	if !full && !s.mounts.closed {
		s.mounts.byID[m.ID] = m
	}
	closed := s.mounts.closed
	s.mounts.mu.Unlock()
	switch {
	case closed:
		return mountsOff()
	case full:
		return tooManyMounts()
	}
	item, err := s.lookupItem(ctx, m.item)
	if err == nil {
		err = item.readable()
	}
	if err != nil {
		s.endMounts(func(other *Mount) bool { return other == m })
	}
	return err
}

// Mount returns a mount in a vault, to whom may make one like it: it holds the key by which the disks are read.
func (s *Service) Mount(ctx context.Context, vault armid.ID, id string) (Mount, error) {
	m, ok := s.mountOf(id)
	if err := s.mayMount(ctx, vault, m.Decrypted); err != nil {
		return Mount{}, err
	}
	if !ok || vaultOf(m.item).Key() != vault.Key() || !s.o.Now().Before(m.Expiry) {
		return Mount{}, mountNotFound(id)
	}
	return m, nil
}

// mountOf returns a mount with a key of its own: that of the mount is wiped when it ends.
func (s *Service) mountOf(id string) (Mount, bool) {
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	kept, ok := s.mounts.byID[id]
	if !ok {
		return Mount{}, false
	}
	m := *kept
	m.Access.Key = secret.Copy(kept.Access.Key.Reveal())
	return m, true
}

// served reports whether a mount of a recovery point is there.
func (s *Service) served(p Point) bool {
	now, id := s.o.Now(), p.Item.Child("recoveryPoints", p.ID).Key()
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	for _, m := range s.mounts.byID {
		if m.Point.Key() == id && now.Before(m.Expiry) {
			return true
		}
	}
	return false
}

// Revoke ends a mount of a recovery point, or all of them if id is empty. When it returns nothing of them can be
// read any more. Nothing there is no error: a mount may just have ended by itself.
func (s *Service) Revoke(ctx context.Context, point armid.ID, id string) error {
	if err := s.o.Authorizer.Authorize(ctx, revokeAction, vaultOf(point)); err != nil {
		return err
	}
	item, err := canonicalItem(point)
	if err != nil {
		return err
	}
	s.endMounts(func(m *Mount) bool {
		return m.item.Key() == item.Key() && m.Point.Name() == point.Name() && (id == "" || m.ID == id)
	})
	return nil
}

// EndMounts ends the mounts whose time is over. Their certificates are over by then, too.
func (s *Service) EndMounts() {
	now := s.o.Now()
	s.endMounts(func(m *Mount) bool { return !now.Before(m.Expiry) })
}

// endMounts ends the mounts that are meant, and returns when they have ended.
func (s *Service) endMounts(meant func(*Mount) bool) {
	var ending []*Mount
	s.mounts.mu.Lock()
	for id, m := range s.mounts.byID {
		if meant(m) {
			delete(s.mounts.byID, id)
			ending = append(ending, m)
		}
	}
	s.mounts.mu.Unlock()
	for _, m := range ending {
		m.end()
		s.o.Log.Info("a recovery point is not served any more", "mount", m.ID, "point", m.Point.String())
	}
}

// closeMounts ends all of them, and lets none begin.
func (s *Service) closeMounts() {
	s.mounts.mu.Lock()
	s.mounts.closed = true
	s.mounts.mu.Unlock()
	s.endMounts(func(*Mount) bool { return true })
}
