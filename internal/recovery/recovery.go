// Package recovery is the recovery store: it keeps the disks of virtual machines as recovery points.
//
// The words. A disk is cut into chunks of 64 KiB at fixed places; a chunk of zeros is a hole and costs
// nothing. A chunk that the store does not have yet is sealed (package chunk) and put into a pack (package
// pack). Which chunks make a disk is told by its manifest, a tree of nodes that are chunks themselves, so
// that recovery points share what did not change; the root of it all is the point (package manifest).
// Documents are small: within a point they are attachments (a VM's configuration, the backed-up key and
// secret), beside the points they belong to the store (its own wrapped key).
//
// The way in: Begin → Writer.WriteDisk (unit of 1 MiB → chunks → sealed records → pack) → Commit.
// The way back: Point → Point.Disk → Disk.ReadAt, or Store.Restore.
//
// What always holds:
//
//   - Objects are written once. A point is put last, after all it needs is durable; its appearance is the
//     commit. A process that dies at any instant leaves complete packs that no point needs, which
//     the next attempt finds and uses again, or which Collect removes.
//   - Collect takes no lock that anybody waits for. It marks what is needed, condemns what is not, and
//     removes only what was condemned before and is still not needed.
//   - Every byte is authenticated before it is returned, or there is a DamageError that names the place.
//   - Memory is bounded by constants, but for the index of known chunks (package index): with a folder for
//     it, 1.3 bytes a chunk.
//   - The store does not know what it keeps: whose disks they are and what keys they need is the
//     business of the caller.
//
// The layout on disk is described in docs/format.md. One process at a time may write to a store or
// collect: its owner (lease.go). Others may read. Within the owner everything may run at the same time.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"syscall"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/manifest"
	"kluis/internal/secret"
)

var (
	// ErrNoStore means that the bucket holds no recovery store.
	ErrNoStore = errors.New("no recovery store here")
	// ErrWrongKey means that the key is not the store's, or that the store's header is damaged: the two
	// can't be told apart.
	ErrWrongKey = errors.New("the key does not fit the recovery store")
	// ErrNoPoint means that there is no such recovery point.
	ErrNoPoint = errors.New("no such recovery point")
	// ErrNotOwner means that this process may only read the store.
	ErrNotOwner = errors.New("this process does not own the recovery store, and may only read it")
	// ErrPointExists means that the recovery point's id is taken.
	ErrPointExists = errors.New("recovery point exists already")
)

// DamageError means that stored bytes are gone or are not what was stored. Nothing of them was returned.
type DamageError struct {
	Point          string // id of the recovery point, where known
	Disk           string // empty if the damage is not in a disk
	Offset, Length int64  // range of the disk that can't be read
	Object         string // the damaged object
	Err            error
}

func (e *DamageError) Error() string {
	where := e.Object
	if e.Disk != "" {
		where = fmt.Sprintf("disk %s, %d bytes at %d: %s", e.Disk, e.Length, e.Offset, e.Object)
	}
	if e.Point != "" {
		where = fmt.Sprintf("recovery point %s: %s", e.Point, where)
	}
	return fmt.Sprintf("%s: %v", where, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// UnreportedError means that a disk has changed where its changed extents say that it has not. What they say
// can't be trusted: the disk has to be read as a whole.
type UnreportedError struct {
	Disk           string
	Offset, Length int64 // of the chunk
}

func (e *UnreportedError) Error() string {
	return fmt.Sprintf("disk %s has changed at offset %d (%d bytes), and its changed extents leave that out", e.Disk, e.Offset, e.Length)
}

// isDamage tells an object that is gone or wrong from one that can't be reached now.
func isDamage(err error) bool {
	return errors.Is(err, chunk.ErrDamaged) || errors.Is(err, objects.ErrNotExist) ||
		errors.Is(err, objects.ErrTruncated) || errors.Is(err, syscall.EIO)
}

// Options say how to open a store.
type Options struct {
	Key  secret.Bytes     // the master key, 32 bytes
	Now  func() time.Time // required
	Rand io.Reader        // nil means crypto/rand

	// Cache is a folder of this machine for what can be made anew: the index of the chunks that the store has.
	// Without one the index is in memory, and is read from the footers of all packs when it is needed first.
	Cache string
	// PackSize is the size at which a pack is full; 0 means 64 MiB.
	PackSize int64
	// Grace is how long Collect spares what is not needed: packs that a backup left unfinished, deleted
	// points, and condemned packs; 0 means 24 hours.
	Grace time.Duration
	// Reserve is how much room is kept, so that points can be deleted and collected on a full disk; 0 means a
	// sixteenth of what is stored, from 1 MiB to a pack; less than 0 none, as for a bucket that is never full.
	Reserve int64
	// Owner makes this process, by this name, the one owner of the store: another that wants to be gets an
	// OwnedError, or waits until this one has ended or has given no sign of life for the time of the lease.
	// Without a name the caller sees to it that nobody else writes; that is refused while there is an owner.
	Owner string
	Lease time.Duration // 0 means 30 seconds
	// ReadOnly opens the store to be read, however many others do, and whoever owns it.
	ReadOnly bool
}

// Extent is a range of a disk.
type Extent struct{ Offset, Length int64 }

// Source is a disk to be backed up. It must not change meanwhile. ReadAt is called from several
// goroutines.
type Source interface {
	io.ReaderAt
	Size() int64
	// Extents yields the ranges to read, ascending. What is in none of them is a hole or, with
	// DiskOptions.Changed, unchanged.
	Extents(ctx context.Context) iter.Seq2[Extent, error]
}

// Target takes a restored disk. WriteAt is called from several goroutines, and never for holes; see Used
// for a target that holds something before.
type Target interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
}

// Progress is told how many bytes of how many are done. It is called from several goroutines, but never
// by two at once, and done never shrinks.
type Progress func(done, total int64)

// DiskOptions say how to write a disk.
type DiskOptions struct {
	// Parent is the same disk in an earlier point. It saves work: chunks that are the same are found there.
	Parent *Disk
	// Changed means that the source's extents are what changed since Parent, which must then have the
	// same size.
	Changed bool
	// Audit is how many bytes to read beyond the changed extents, at random, to see whether they leave
	// something out. If so, the error is an UnreportedError, and the writer can write the disk without Changed.
	Audit int64
	// ChunkSize is a power of two from 64 KiB to 1 MiB; 0 means that of the parent, or else the store's, or
	// 256 KiB for a disk that compresses. A parent with chunks of another size saves nothing.
	ChunkSize int64
	Rate      *Rate // of what is read from the source; nil means no bound
	Progress  Progress
}

// Counters say what became of a disk's bytes when it was written.
type Counters = manifest.Counters

// DiskInfo describes a disk of a point.
type DiskInfo struct {
	Name     string   `json:"name"`
	Size     int64    `json:"size"`
	Digest   string   `json:"digest"` // the same for disks of one store with the same content and chunks of the same size
	Counters Counters `json:"counters"`
}
