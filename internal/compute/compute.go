// Package compute is the inventory of virtual machines and managed disks, as Azure documents.
//
// A VM is image files at rest, or a machine that a host runs. What hosts have is found by itself (discover.go); its
// resources come and go with it.
//
// A managed disk is an image file. It comes in by import, which adopts the file where it lies: Kluis
// reads it and never deletes it. Or it comes from a restore, or is a copy (copy.go): then the file is Kluis's own and
// goes with the disk resource. A snapshot is a copy that nobody writes to (snapshot.go). A virtual machine names its disks; a disk belongs to at most one machine, and one
// that is attached cannot be deleted.
//
// Who may read a disk can get a URL for it, with which anybody can, for a time (access.go).
//
// Documents are kept as they were sent: what a client says about a VM that means nothing here is given
// back, and is part of every recovery point. What is read from them is in VM and Disk (document.go).
//
// Methods check the caller's role. Those named Lookup…, Encryption, ImageOf, Placement, AdoptRestored and DropRestored
// do not: they serve jobs of the backup service, which was asked by somebody whose role was checked then. Nor do
// Discover, HostAway and Rebooted, which nobody calls but the watch of a host.
package compute

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"kluis/internal/armid"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
)

// The types of resources of this package.
const (
	VMType       = "Microsoft.Compute/virtualMachines"
	DiskType     = "Microsoft.Compute/disks"
	SnapshotType = "Microsoft.Compute/snapshots"
)

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Groups knows the resource groups.
type Groups interface {
	GroupExists(ctx context.Context, name string) error
}

// HostGroups are the resource groups of what hosts run.
type HostGroups interface {
	// EnsureGroup returns where a group is; one that does not exist is made.
	EnsureGroup(ctx context.Context, name string) (location string, err error)
}

// Image is what an image file is.
type Image struct {
	Path   string // resolved
	Format string // "raw", "qcow2", "vhd", "vhdx"
	Size   int64  // what a VM sees, in bytes
}

// Images are the image files of the host.
type Images interface {
	// Inspect looks at a file below the allowed folders; else, or if it is no image, a *fabric.ImageError.
	Inspect(ctx context.Context, path string) (Image, error)
	// Remove deletes an image that was written here; one that is not there is no error.
	Remove(ctx context.Context, path string) error
	// CopyPath is where Copy will write an image of that name.
	CopyPath(dir, name string) (string, error)
	// Copy copies an image while nobody writes to it. The copy appears when it is whole and durable.
	Copy(ctx context.Context, from fabric.DiskSpec, dir, name string, progress func(done, total int64)) error
	// Snapshot opens images for reading. While they are open, nobody who heeds locks writes to them.
	Snapshot(ctx context.Context, vm fabric.VM, since fabric.Checkpoint) (fabric.Snapshot, error)
}

// Sealer encrypts what is stored. The context binds a sealed value to its place: it opens only with the
// context it was sealed with.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, sealed []byte) ([]byte, error)
}

// Options are the parts of a Service.
type Options struct {
	DB         *database.DB
	Authorizer Authorizer
	Groups     Groups
	Images     Images
	Jobs       *job.Queue
	Seal       Sealer
	Rand       io.Reader
	BlobSuffix string // "blob.localhost:8443": a disk is read at https://md-….{suffix}/…
	Now        func() time.Time
	NewID      func() string

	Log          *slog.Logger // nil: nothing is logged
	HostNames    []string     // the hosts that run VMs; none: all VMs are image files at rest
	Hosts        Hosts        // needed where there are hosts, as are the two below
	Networks     Networks
	DiskKeys     DiskKeys
	HostGroups   HostGroups
	Subscription armid.ID // in which what hosts run is found
}

// Service keeps VMs and disks. It is safe for concurrent use, and is to be closed.
type Service struct {
	o        Options
	shares   shares
	presence *presence
}

// New returns the service.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{o: o, presence: newPresence()}
}

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

// PutVM creates a VM of disks that exist, or changes one.
func (s *Service) PutVM(ctx context.Context, vm VM) (_ VM, created bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/write", vm.ID); err != nil {
		return VM{}, false, err
	}
	if err := vm.check(); err != nil {
		return VM{}, false, err
	}
	if err := s.o.Groups.GroupExists(ctx, vm.ID.ResourceGroup); err != nil {
		return VM{}, false, err
	}
	vm.dropReadOnly()
	was, err := s.LookupVM(ctx, vm.ID)
	if err := s.mayName(ctx, was.named(), vm.named()); err != nil {
		return VM{}, false, err
	}
	if isNotFound(err) && vm.Properties.Host != nil {
		vm, err = s.create(ctx, vm)
		return vm, err == nil, err
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		old, err := selectVM(ctx, tx, vm.ID)
		if err != nil && !isNotFound(err) {
			return err
		}
		if created = isNotFound(err); !created {
			return s.change(ctx, tx, old, &vm)
		}
		if vm.Properties.Host != nil {
			return err // it was there a moment ago
		}
		vm.settle(s.o.NewID(), s.o.Now())
		if err := s.attach(ctx, tx, vm); err != nil {
			return err
		}
		return putVM(ctx, tx, vm)
	})
	return vm, created, err
}

// change puts a VM's document in place of the old one. Which disks a VM has is its host's to say, where it has one.
func (s *Service) change(ctx context.Context, tx *database.Tx, old VM, vm *VM) error {
	if !strings.EqualFold(old.Location, vm.Location) {
		return locationFixed(vm.ID, old.Location)
	}
	vm.settle(old.Properties.VMID, old.Properties.TimeCreated)
	_, hosted, err := selectMachine(ctx, tx, vm.ID)
	switch {
	case err != nil:
		return err
	case hosted:
		if err := keepDisks(old, *vm); err != nil {
			return err
		}
		vm.Properties.Host = old.Properties.Host
	case vm.Properties.Host != nil:
		return hostFixed(old)
	default:
		if err := s.attach(ctx, tx, *vm); err != nil {
			return err
		}
	}
	return putVM(ctx, tx, *vm)
}

// attach gives a VM its disks, and lets go of those that it no longer names.
func (s *Service) attach(ctx context.Context, tx *database.Tx, vm VM) error {
	had, err := detachAll(ctx, tx, vm.ID)
	if err != nil {
		return err
	}
	for _, id := range vm.DiskIDs() {
		row, err := selectDisk(ctx, tx, id)
		if isNotFound(err) {
			return diskMissing(vm.ID, id)
		}
		if err != nil {
			return err
		}
		if row.vm != "" {
			return diskAttached(row.Disk, row.vm)
		}
		if !had[id.Key()] && row.isShared(s.o.Now()) {
			return diskShared(row.ID)
		}
		if row.Properties.isCreating() {
			return notMadeYet(row.ID)
		}
		row.vm = vm.ID.String()
		row.Properties.DiskState = attached
		if err := putDisk(ctx, tx, row); err != nil {
			return err
		}
	}
	return nil
}

// VM returns a VM.
func (s *Service) VM(ctx context.Context, id armid.ID) (VM, error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/read", id); err != nil {
		return VM{}, err
	}
	return s.LookupVM(ctx, id)
}

// LookupVM returns a VM, for jobs.
func (s *Service) LookupVM(ctx context.Context, id armid.ID) (vm VM, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		vm, err = selectVM(ctx, tx, id)
		return err
	})
	return vm, err
}

// VMs returns the VMs of a group or of the subscription, by id.
func (s *Service) VMs(ctx context.Context, scope armid.ID) (vms []VM, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/read", scope); err != nil {
		return nil, err
	}
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		vms, err = selectVMs(ctx, tx, scope)
		return err
	})
	return vms, err
}

// DeleteVM removes a VM; its disks stay, detached. Deleting one that does not exist is no error. One that was created on a
// host goes there too; one that was found there is not removed.
func (s *Service) DeleteVM(ctx context.Context, id armid.ID) (existed bool, err error) {
	if err := s.o.Authorizer.Authorize(ctx, VMType+"/delete", id); err != nil {
		return false, err
	}
	m, hosted, err := s.machine(ctx, id)
	switch {
	case isNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case hosted && !m.made:
		return false, foundOnHost(m)
	case hosted && !s.configured(m.host):
		return false, hostGone(m, "delete")
	case hosted:
		return true, s.unmake(ctx, m)
	}
	err = s.o.DB.InTx(ctx, func(tx *database.Tx) error {
		if _, err := detachAll(ctx, tx, id); err != nil {
			return err
		}
		existed, err = deleteVM(ctx, tx, id)
		return err
	})
	return existed, err
}

// detachAll lets go of a VM's disks, and says by their keys which they were.
func detachAll(ctx context.Context, tx *database.Tx, vm armid.ID) (had map[string]bool, err error) {
	rows, err := selectDisksOf(ctx, tx, vm)
	if err != nil {
		return nil, err
	}
	had = map[string]bool{}
	for _, row := range rows {
		row.vm, row.target, row.Properties.DiskState = "", "", unattached
		if err := putDisk(ctx, tx, row); err != nil {
			return nil, err
		}
		had[row.ID.Key()] = true
	}
	return had, nil
}

// CountIn says how many VMs, disks and snapshots a resource group holds.
func (s *Service) CountIn(ctx context.Context, group armid.ID) (n int, err error) {
	err = s.o.DB.Read(ctx, func(tx *database.Tx) error {
		vms, err := selectVMs(ctx, tx, group)
		if err != nil {
			return err
		}
		disks, err := selectDisks(ctx, tx, group)
		if err != nil {
			return err
		}
		snapshots, err := selectSnapshots(ctx, tx, group)
		n = len(vms) + len(disks) + len(snapshots)
		return err
	})
	return n, err
}

// DiskEncryption names the secret that opens a disk and the key that wraps it. KeyURL is empty when the
// disk is encrypted with a BEK alone.
type DiskEncryption struct {
	DiskID      armid.ID
	Lun         int // -1 is the OS disk
	Name        string
	SecretURL   string
	SecretVault armid.ID
	KeyURL      string
	KeyVault    armid.ID
}

// Encryption returns the encrypted disks of a VM with their keys, the OS disk first. The settings are
// those of the disk (encrypted in a single pass); for the OS disk without any, those of the VM.
func (s *Service) Encryption(ctx context.Context, id armid.ID) (all []DiskEncryption, err error) {
	vm, err := s.LookupVM(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.encryptionOf(ctx, vm)
}

func (s *Service) encryptionOf(ctx context.Context, vm VM) (all []DiskEncryption, err error) {
	for _, diskID := range vm.DiskIDs() {
		disk, err := s.LookupDisk(ctx, diskID)
		if err != nil {
			return nil, err
		}
		settings := vm.settingsOf(disk)
		if settings == nil {
			continue
		}
		e := DiskEncryption{DiskID: disk.ID, Lun: vm.LunOf(diskID), Name: disk.ID.Name(),
			SecretURL: settings.DiskEncryptionKey.SecretURL, SecretVault: settings.DiskEncryptionKey.SourceVault.ID}
		if k := settings.KeyEncryptionKey; k != nil {
			e.KeyURL, e.KeyVault = k.KeyURL, k.SourceVault.ID
		}
		all = append(all, e)
	}
	slices.SortStableFunc(all, func(a, b DiskEncryption) int { return a.Lun - b.Lun })
	return all, nil
}
