// Package backup is the service that protects encrypted virtual machines. Its story, in the order in
// which a person meets it:
//
//   - vault.go: a Recovery Services vault owns policies, protected items and their recovery points.
//   - policy.go, calendar.go, zone.go, retention.go: when to back up, and how long to keep; policies.go: who may say so.
//   - protect.go: a VM becomes a protected item, after everything that would fail a backup was checked.
//   - run.go: one backup, told in order: snapshot, transfer, keys, proof, commit, retain.
//   - point.go: what a recovery point is.
//   - stores.go, reconcile.go: the recovery store of each item, and how the catalogue is made to agree with them.
//   - restore.go: the way back: checks, disks, configuration and template.
//   - mount.go: a point's disks are served, encrypted or opened, to take files out.
//   - drill.go: a machine that is made of a point boots, and is thrown away.
//   - delete.go: backup data is deleted, is kept for some days all the same, and is erased.
//   - retain.go, collect.go: points that nothing wants any longer, and the space they took.
//   - verdict.go, drift.go, alert.go: what a backup found out, and who hears of it.
//   - outside.go: keys that lie in a key vault outside this server.
//   - escrow.go: a key is tried on a disk before it is kept.
//   - problems.go: everything that can be said to a person when it goes wrong.
//
// Invariants: the recovery store is the truth for recovery points and the database is a cache of it. A
// point exists when its root is committed; a row is written only after that, and start-up adopts roots
// that have no row. Whatever fails, no earlier recovery point is touched.
//
// Keys and secrets are read as the principal Backup Management Service, through the same access check as
// anybody's; everything a caller asks for is authorized as that caller, here and not in the door.
package backup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"kluis/internal/armid"
	"kluis/internal/compute"
	"kluis/internal/database"
	"kluis/internal/fabric"
	"kluis/internal/job"
	"kluis/internal/keyvault"
	"kluis/internal/objects"
	"kluis/internal/recovery"
	"kluis/internal/secret"
)

// Azure's names for what is backed up here.
const (
	managementType = "AzureIaasVM"
	vaultType      = "Microsoft.RecoveryServices/vaults"
	vmType         = "Microsoft.Compute/virtualMachines"
	classicVMType  = "Microsoft.ClassicCompute/virtualMachines"
)

// Authorizer decides whether the principal in ctx may do an action at a scope.
type Authorizer interface {
	Authorize(ctx context.Context, action string, scope armid.ID) error
}

// Machines is the inventory of VMs and disks. The Lookup methods serve jobs, which run when no caller
// is there to be authorized; the others check the caller.
type Machines interface {
	VM(ctx context.Context, id armid.ID) (compute.VM, error)
	VMs(ctx context.Context, scope armid.ID) ([]compute.VM, error)
	LookupVM(ctx context.Context, id armid.ID) (compute.VM, error)
	LookupDisk(ctx context.Context, id armid.ID) (compute.Disk, error)
	Encryption(ctx context.Context, vm armid.ID) ([]compute.DiskEncryption, error)
	ImageOf(ctx context.Context, disk armid.ID) (fabric.DiskSpec, error)
	// Placement says which host runs a VM, under which identity and as what; all are empty for image files at rest.
	Placement(ctx context.Context, vm armid.ID) (host, uuid string, definition []byte, err error)
	AdoptRestored(ctx context.Context, id armid.ID, path string, size int64, from compute.Disk, state *fabric.GuestState) (compute.Disk, error)
	DropRestored(ctx context.Context, id armid.ID) error
}

// Fabric is what a backup and a restore need of a VM host.
type Fabric interface {
	Snapshot(ctx context.Context, vm fabric.VM, since fabric.Checkpoint) (fabric.Snapshot, error)
	// Settle ends what a backup that died has left on the host, and leaves keep the one checkpoint of ours there; none if
	// it is empty.
	Settle(ctx context.Context, vm fabric.VM, keep fabric.Checkpoint) error
	// GuestState is what a machine is beside its disks; nil for one at rest.
	GuestState(ctx context.Context, vm fabric.VM) (*fabric.GuestState, error)
	// Hosts are the names of the hosts on which machines can run.
	Hosts() []string
	// Drill boots a machine on a host and throws it away.
	Drill(ctx context.Context, host string, what fabric.Drill) (fabric.DrillResult, error)
	// NewDisk begins an image of size bytes, of which data bytes will be written.
	NewDisk(ctx context.Context, dir, name string, size, data int64) (NewDisk, error)
	Remove(ctx context.Context, path string) error
}

// NewDisk is a disk image being written by a restore. It exists under its path only after Commit.
type NewDisk interface {
	recovery.Target
	Path() string
	Commit() error
	Abort() error
}

// Keys is the key vault, used as the principal Backup Management Service.
type Keys interface {
	Missing(ctx context.Context, vault armid.ID, objectID string, want keyvault.Permissions) (keyvault.Permissions, error)
	Key(ctx context.Context, id keyvault.KeyID) (keyvault.Key, error)
	Secret(ctx context.Context, id keyvault.SecretID) (keyvault.Secret, error)
	BackUpKey(ctx context.Context, id keyvault.KeyID) ([]byte, error)
	BackUpSecret(ctx context.Context, id keyvault.SecretID) ([]byte, error)
	Unwrapped(ctx context.Context, keyBlob, secretBlob []byte, secretVersion string) (secret.Bytes, error)
	// Disclose is Unwrapped for the caller in ctx, as whose use it is recorded.
	Disclose(ctx context.Context, id keyvault.SecretID, keyBlob, secretBlob []byte) (secret.Bytes, error)
	// Disclosed is the same for a secret that lies elsewhere and that unwrap gets.
	Disclosed(ctx context.Context, id keyvault.SecretID, unwrap func(context.Context) (secret.Bytes, error)) (secret.Bytes, error)
}

// Artifacts is where a restore leaves the configuration and the template, and where an export is fetched.
type Artifacts interface {
	// AccountExists is nil when the caller may read the account and it is there.
	AccountExists(ctx context.Context, account armid.ID) error
	WriteArtifact(ctx context.Context, account armid.ID, container, name string, data []byte) (url string, err error)
	// Publish keeps a document for a quarter of an hour. It is read at the URL with the query.
	Publish(ctx context.Context, name, contentType string, data []byte) (url, query string, err error)
}

// Groups knows the resource groups.
type Groups interface {
	GroupExists(ctx context.Context, name string) error
}

// Wrapper wraps a store's key to those who may open it: the server and the recovery kit.
type Wrapper interface {
	Wrap(plain []byte) ([]byte, error)
	Unwrap(wrapped []byte) ([]byte, error)
	// Recipients names those who can open what is wrapped now.
	Recipients() []string
}

// Options are the parts a Service is made of.
type Options struct {
	DB         *database.DB
	Jobs       *job.Queue
	Bucket     objects.Bucket // holds one recovery store for each protected item
	Node       string         // name of this process among those that share the bucket
	Cache      string         // folder for what can be made anew; empty means that nothing is cached
	Wrapper    Wrapper
	Authorizer Authorizer
	Machines   Machines
	Fabric     Fabric
	Keys       Keys
	Outside    Outside // nil: there are no key vaults but Keys
	Artifacts  Artifacts
	Groups     Groups
	Principals Principals
	Exports    Exports // nil: no recovery point is served
	Rate       int64   // bytes a second that all backups together may read from disks; 0 is no bound
	// AsService returns ctx with the principal Backup Management Service, and that principal's object id.
	AsService     func(ctx context.Context) context.Context
	ServiceObject string
	Correlation   func(ctx context.Context) string
	Now           func() time.Time
	NewID         func() string
	Rand          io.Reader
	Log           *slog.Logger
	Limits        Limits
}

// Limits are how much a vault may hold: Azure's numbers where nothing is said.
type Limits struct{ Policies, Items int }

func (l Limits) orAzures() Limits { return Limits{cmp.Or(l.Policies, 200), cmp.Or(l.Items, 1000)} }

// Service protects virtual machines.
type Service struct {
	o      Options
	stores *stores
	mounts mounts
	rate   *recovery.Rate
}

// Open makes the service and brings the catalogue into agreement with the recovery stores.
func Open(ctx context.Context, o Options) (*Service, error) {
	o.Limits = o.Limits.orAzures()
	s := &Service{o: o, rate: recovery.NewRate(o.Rate), stores: &stores{bucket: o.Bucket, wrapper: o.Wrapper, now: o.Now, rand: o.Rand, owner: o.Node, cache: o.Cache, log: o.Log,
		open: map[string]*sharedStore{}}, mounts: mounts{byID: map[string]*Mount{}}}
	if err := s.reconcile(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("reconcile recovery points: %w", err)
	}
	return s, nil
}

// Works returns what a job.Runner needs to do this service's jobs.
func (s *Service) Works() []job.Work {
	return []job.Work{backupWork{s}, restoreWork{s}, drillWork{s}, deleteWork{s}}
}

// Chores returns the works that nobody waits for. They get a job.Runner of their own, so that they keep no
// backup from its turn.
func (s *Service) Chores() []job.Work { return []job.Work{collectWork{s}} }

// Close ends what is served and closes the recovery stores. No job may be running.
func (s *Service) Close() error {
	s.closeMounts()
	if err := s.stores.close(); err != nil {
		return fmt.Errorf("close recovery stores: %w", err)
	}
	return nil
}
