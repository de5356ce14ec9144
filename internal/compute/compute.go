// Package compute is the inventory of virtual machines and managed disks, as Azure documents.
//
// A VM is image files at rest, or a machine that a host runs. What hosts have is found by itself (discover.go); its
// resources come and go with it.
//
// A managed disk is an image file. It comes in by import, which adopts the file where it lies: Kluis
// reads it and never deletes it. Or it comes from a restore, or is a copy (copy.go): then the file is Kluis's own and
// goes with the disk resource. A snapshot is a copy that nobody writes to (snapshot.go). A virtual machine (vm.go) names its
// disks (disk.go); a disk belongs to at most one machine, and one that is attached cannot be deleted. Which keys open it
// is in its encryption settings (encryption.go).
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
	"io"
	"log/slog"
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
