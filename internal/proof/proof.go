// Package proof tells whether the disks of a recovery point can be opened with the keys of the same
// recovery point.
//
// A disk is *proved* when everything encrypted on it has a sound header, the key opens it, the digest of
// the volume key agrees (BitLocker's keys carry tags of their own), and the decrypted sectors hold a file
// system, LVM or swap. Nothing less is called proved. A verdict is data: a disk that fails is a finding, and
// so is a disk that can't be read. One whose key could not be had, for a reason that says nothing of the key, is neither proved
// nor failed: it is not tried, and the verdict says why. The only error is a cancellation.
//
// A proof reads kilobytes to a few MiB of a disk, whatever its size, and counts them. It wipes what it
// derives; the BEKs belong to the caller, who wipes them.
package proof

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"kluis/internal/secret"
)

// State is how a proof came out.
type State string

const (
	// Proved says that what is encrypted opens with the key at hand.
	Proved State = "proved"
	// NotEncrypted says that there is nothing to open, and that nothing else was expected.
	NotEncrypted State = "notEncrypted"
	// Failed says that it doesn't open, or that what was expected isn't there.
	Failed State = "failed"
	// NotTried says that the key could not be had to try it: nothing is known for or against it.
	NotTried State = "notTried"
)

// Disk is a disk of the recovery point.
type Disk struct {
	Name string
	io.ReaderAt
	Size int64
	// ExpectEncrypted is what the VM's encryption settings say of the disk.
	ExpectEncrypted bool
	// BEK is the unwrapped secret: the exact bytes of the passphrase, or of the .BEK file. Empty: the recovery
	// point has none.
	BEK secret.Bytes
	// NoBEK is why the recovery point's secret and key don't give a BEK, if they should have.
	NoBEK error
	// Untried is why the BEK is not here to be tried, if that says nothing of it.
	Untried error
	// From says where the BEK comes from, if it is not from the recovery point itself.
	From string
}

// Verdict is what a recovery point is worth. It is proved when a disk is proved, none failed and each was tried.
type Verdict struct {
	State  State         `json:"state"`
	Reason string        `json:"reason,omitempty"`
	Advice string        `json:"advice,omitempty"`
	Disks  []DiskVerdict `json:"disks"`
	Time   time.Time     `json:"time"`
}

// DiskVerdict is what one disk is worth.
type DiskVerdict struct {
	Name       string `json:"name"`
	State      State  `json:"state"`
	Kind       Kind   `json:"kind,omitempty"` // of the failure
	Reason     string `json:"reason,omitempty"`
	Advice     string `json:"advice,omitempty"`
	Encryption string `json:"encryption,omitempty"` // LUKS2 aes-xts-plain64
	UUID       string `json:"uuid,omitempty"`       // of the encrypted volume
	FileSystem string `json:"fileSystem,omitempty"` // inside, or of the plain disk
	Note       string `json:"note,omitempty"`       // what the state doesn't say: where a key came from that is not in the point
	BytesRead  int64  `json:"bytesRead"`
}

// Prove tries each disk's key on it. now gives the verdict its time.
func Prove(ctx context.Context, disks []Disk, now func() time.Time) (Verdict, error) {
	v := Verdict{Disks: make([]DiskVerdict, 0, len(disks)), Time: now().UTC()}
	for _, d := range disks {
		one := proveDisk(ctx, d)
		if err := context.Cause(ctx); err != nil {
			return Verdict{}, fmt.Errorf("prove disk %s: %w", d.Name, err)
		}
		v.Disks = append(v.Disks, one)
	}
	v.conclude()
	return v, nil
}

func (v *Verdict) conclude() {
	var failed, untried []string
	var failedAdvice, untriedAdvice string
	v.State = NotEncrypted
	for _, d := range v.Disks {
		switch d.State {
		case Failed:
			failed = append(failed, "disk "+d.Name+": "+d.Reason)
			failedAdvice = cmp.Or(failedAdvice, d.Advice)
		case NotTried:
			untried = append(untried, "disk "+d.Name+": "+d.Reason)
			untriedAdvice = cmp.Or(untriedAdvice, d.Advice)
		case Proved:
			v.State = Proved
		}
	}
	switch {
	case len(v.Disks) == 0:
		v.State, v.Reason, v.Advice = Failed, "the recovery point has no disk", adviceBackUpAgain
	case len(failed) > 0:
		v.State, v.Reason, v.Advice = Failed, strings.Join(failed, "; "), failedAdvice
	case len(untried) > 0:
		v.State, v.Reason, v.Advice = NotTried, strings.Join(untried, "; "), untriedAdvice
	}
}

// counter counts what a proof reads of a disk.
type counter struct {
	r io.ReaderAt
	n int64
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}
