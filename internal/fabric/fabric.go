// Package fabric says what a VM host offers to a backup, in plain types.
//
// A host takes a Snapshot of a VM: one moment of all its disks, read-only, that stays the same until it
// is closed. Each Disk says which extents hold something, and reads them. There are two kinds of host: disk
// files at rest (package image), and libvirt's, whose VMs run (package libvirt).
//
// Words. A disk's virtual size is what the guest sees; its image is the file on the host. Extents are
// the ranges to read; what lies between them reads as zeros, or, when Changed, is as it was at the
// checkpoint. A checkpoint is where the host began to note changes.
//
// Invariants. A Disk never returns made-up bytes: what cannot be read is an *ImageError. A backup calls
// Verify when it has read a disk, and throws its work away if the image changed meanwhile.
package fabric

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"
)

// Extent is a range of a disk.
type Extent struct{ Offset, Length int64 }

// DiskSpec is a disk of a VM, as it is configured.
type DiskSpec struct {
	ID           string // the caller's name for it
	Path         string // its image
	Format       string // "raw", "qcow2", "vhd", "vhdx"
	ExpectedSize int64  // last known virtual size; 0 if unknown
	Target       string // the host's name for the disk: "vda"
}

// VM is a virtual machine, as it is configured.
type VM struct {
	ID, Name string
	Host     string // name of the libvirt host; empty: image files at rest
	UUID     string // the host's identity for it
	Disks    []DiskSpec
	Peek     bool // it is looked at once: the host's checkpoints stay as they are
}

// Checkpoint names the moment from which a host knows what changed. Empty: it does not know.
type Checkpoint string

// The levels of Consistency, in Azure's words.
const (
	CrashConsistent       = "CrashConsistent"
	FileSystemConsistent  = "FileSystemConsistent"
	ApplicationConsistent = "AppConsistent"
)

// Consistency is what a snapshot is worth to the guest that finds itself restored from it.
type Consistency struct {
	Level  string
	Reason string // why not better; empty at the best level
	// Frozen is how long the guest's file systems stood still; 0 if they did not.
	Frozen time.Duration
}

// Snapshot is a frozen moment of a VM. It must be closed and then settled, also after errors, with a context
// of its own.
type Snapshot interface {
	Consistency() Consistency
	Disks() []Disk
	// Notes are what a person should know of how it came about, a sentence each.
	Notes() []string
	// Checkpoint is what to pass as since the next time; empty if the host cannot promise continuity.
	Checkpoint() Checkpoint
	// Close ends the reading on the host. Closing twice is allowed. Disks cannot be read afterwards.
	Close(ctx context.Context) error
	// Settle makes keep the one checkpoint that the host keeps of ours: the new one when its recovery point is
	// safe, or else the one that was passed as since. What else the snapshot needed on the host ends here.
	Settle(ctx context.Context, keep Checkpoint) error
}

// Disk is one disk of a Snapshot. It may be read from many goroutines.
type Disk interface {
	ID() string
	Size() int64
	// Extents yields what must be read, ascending and without overlap. An error is the last thing it yields.
	Extents(ctx context.Context) iter.Seq2[Extent, error]
	io.ReaderAt
	// Changed reports whether the extents are only what changed since the checkpoint that was given.
	Changed() bool
	// Whole is the same disk with all that it holds as extents. Why is the reason for reading it all although
	// a checkpoint was given; it is empty where none was.
	Whole() (d Disk, why string)
	// Verify is called at the end: it fails if the image changed, shrank or went away while it was read.
	Verify(ctx context.Context) error
}

// Dated is a Disk that knows when its image was last written to.
type Dated interface{ Modified() time.Time }

// Kind says what is wrong with an image.
type Kind int

// The kinds of ImageError.
const (
	Missing        Kind = iota + 1 // there is no such file
	NotAllowed                     // the path leads out of the folders that are allowed
	NotRegular                     // a folder, device, socket or the like
	Unreadable                     // it cannot be opened or read, or its headers make no sense
	Truncated                      // it is shorter than it was or than its headers say
	InUse                          // somebody is writing to it
	Changed                        // it changed while it was read, or is another file than before
	UnknownFormat                  // a format that cannot be backed up
	HasBackingFile                 // it holds only differences to another image
	NoSpace                        // there is no room to write it
	Exists                         // it is to be written but there is one already
)

var kindNames = map[Kind]string{
	Missing: "does not exist", NotAllowed: "is outside the allowed folders", NotRegular: "is not a regular file",
	Unreadable: "cannot be read", Truncated: "is truncated", InUse: "is in use", Changed: "changed while it was read",
	UnknownFormat: "has an unknown format", HasBackingFile: "depends on another image", NoSpace: "does not fit on its file system",
	Exists: "exists already",
}

// String says the kind as the end of a sentence about an image.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %d", int(k))
}

// ImageError is a failure of one disk image.
type ImageError struct {
	Path string
	Kind Kind
	Err  error // the cause; may be nil
}

func (e *ImageError) Error() string {
	s := "image " + e.Path + " " + e.Kind.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *ImageError) Unwrap() error { return e.Err }
