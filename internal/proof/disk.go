package proof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"kluis/internal/volume"
	"kluis/internal/volume/filesystem"
)

// What to do about a verdict, for the person who reads it.
const (
	adviceBackUpAgain = "Run the backup again. If the proof fails again, look at the disk on the VM's host."
	adviceWrongKey    = "Check that the VM's encryption settings name the secret of this VM and the version that its disks were encrypted with, then run the backup again."
	adviceNoBEK       = "Check that the VM's encryption settings name the secret and the key that belong together, in versions that the key vault still holds ('kluis vm encryption set' makes a secret anew), then run the backup again. Keep the recovery points before this one."
	adviceNoKey       = "Set the VM's encryption settings to the secret and the key that open this disk, then run the backup again."
	adviceNoEncrypt   = "Check that encryption of the disk was finished in the guest. If the disk is meant to be plain, remove it from the VM's encryption settings."
	adviceHeader      = "Look at the header in the guest with 'cryptsetup luksDump', mend it with 'cryptsetup repair' or from a header backup, and run the backup again. Keep the recovery points before this one."
	adviceMetadata    = "Look at the volume in the guest with 'manage-bde -status' and, if the disk is broken, save its files with 'repair-bde'; then run the backup again. Keep the recovery points before this one."
	adviceConversion  = "Wait until the guest has finished, then run the backup again. The keys of a volume that is being converted can't be proved, and its recovery point may not open."
	adviceUnprotected = "Resume BitLocker's protection in the guest with 'manage-bde -protectors -enable', and set the VM's encryption settings to the secret and the key that open this disk; then run the backup again."
	adviceUnsupported = "This volume can't be proved. Test a restore of it by hand."
	adviceUntried     = "Allow this server's credentials unwrapKey in that key vault, or see to it that it answers, then run the backup again; or test a restore by hand."
	adviceContent     = "Check the file system in the guest, then run the backup again. Keep the recovery points before this one."
)

// finding is why a disk failed.
type finding struct{ reason, advice string }

func proveDisk(ctx context.Context, d Disk) DiskVerdict {
	in := &counter{r: d.ReaderAt}
	v := DiskVerdict{Name: d.Name, State: Failed}
	if f := v.prove(ctx, in, d); f != nil {
		v.State, v.Kind, v.Reason, v.Advice = Failed, kinds[f.advice], f.reason, f.advice
	}
	switch {
	case v.Kind == Untried:
		v.State = NotTried
	case v.State == Proved:
		v.Note = d.From
	}
	v.BytesRead = in.n
	return v
}

// prove fills the verdict and returns nil, or what failed.
func (v *DiskVerdict) prove(ctx context.Context, r io.ReaderAt, d Disk) *finding {
	disk, err := volume.Inspect(r, d.Size)
	if err != nil {
		return &finding{"the disk can't be read: " + err.Error(), adviceBackUpAgain}
	}
	if !disk.Encrypted() {
		return v.plain(disk, d.ExpectEncrypted)
	}
	if len(disk.Damage) > 0 {
		return &finding{strings.Join(disk.Damage, "; "), adviceBackUpAgain}
	}
	var systems []string
	state := NotEncrypted
	for _, one := range disk.Volumes {
		if !one.Encrypted {
			continue
		}
		if !opensByItself(one, d) {
			state = Proved
		}
		v.Encryption, v.UUID = encryption(one), one.UUID
		system, f := proveVolume(ctx, r, one, d)
		if f != nil {
			if one.Partition > 0 {
				f.reason = fmt.Sprintf("partition %d: %s", one.Partition, f.reason)
			}
			return f
		}
		systems = append(systems, system)
	}
	v.State, v.FileSystem = state, strings.Join(systems, ", ")
	return nil
}

// opensByItself tells whether a volume is one that nobody meant to protect: Windows encrypts new disks and
// leaves the key in clear until somebody turns protection on.
func opensByItself(v volume.Volume, d Disk) bool {
	return v.Unprotected && !d.ExpectEncrypted && d.BEK.Len() == 0 && d.NoBEK == nil
}

// plain judges a disk on which nothing is encrypted.
func (v *DiskVerdict) plain(disk volume.Disk, expectEncrypted bool) *finding {
	var systems []string
	for _, one := range disk.Volumes {
		if one.Kind != volume.Unknown {
			systems = append(systems, one.Kind)
		}
	}
	v.FileSystem = strings.Join(slices.Compact(systems), ", ")
	if !expectEncrypted {
		v.State = NotEncrypted
		return nil
	}
	what := "nothing known"
	if len(systems) > 0 {
		what = v.FileSystem + " in plain"
	}
	if len(disk.Damage) > 0 {
		what = strings.Join(disk.Damage, "; ")
	}
	return &finding{"the VM's settings say that the disk is encrypted, and no encryption is found on it: it holds " + what, adviceNoEncrypt}
}

func encryption(v volume.Volume) string {
	name := strings.NewReplacer("luks", "LUKS", volume.BitLocker, "BitLocker").Replace(v.Kind) + " " + v.Cipher
	if v.Unprotected {
		name += ", not protected"
	}
	return strings.TrimSpace(name)
}

// proveVolume opens an encrypted volume and returns the file system inside.
func proveVolume(ctx context.Context, r io.ReaderAt, v volume.Volume, d Disk) (string, *finding) {
	if f := closed(v, d); f != nil {
		return "", f
	}
	opened, _, err := volume.Open(ctx, r, v, d.BEK)
	if err != nil {
		return "", openFinding(err, v)
	}
	defer func() { _ = opened.Close() }() // wipes the key; there is nothing to write back
	if len(v.Damage) > 0 {
		return "", &finding{strings.Join(v.Damage, "; ") + "; the key opens the volume by the other copy", adviceDamage(v)}
	}
	return content(opened)
}

// noKey is what there is to say when a key is needed and the recovery point has none.
func noKey(v volume.Volume, d Disk) *finding {
	switch {
	case d.BEK.Len() > 0 || opensByItself(v, d):
		return nil
	case d.Untried != nil && len(v.Damage) == 0:
		return &finding{"not tried: " + d.Untried.Error(), adviceUntried}
	case d.NoBEK != nil && d.Untried == nil:
		return &finding{"the BEK can't be had from the recovery point: " + d.NoBEK.Error(), adviceNoBEK}
	case len(v.Damage) > 0:
		return &finding{strings.Join(v.Damage, "; "), adviceDamage(v)}
	case v.Unprotected:
		return &finding{"the disk is encrypted and not protected: BitLocker keeps its key in clear on the disk, and the recovery point has none", adviceUnprotected}
	}
	return &finding{"the disk is encrypted, and the recovery point has no key for it", adviceNoKey}
}

// conversion says how far the guest has come.
func conversion(v volume.Volume) string {
	what := map[string]string{volume.Encrypting: "encrypting", volume.Decrypting: "decrypting", volume.Reencrypting: "re-encrypting"}[v.Conversion]
	reason := "the guest is " + what + " the volume"
	if v.Converted > 0 {
		reason += fmt.Sprintf(": %d of %d bytes are encrypted", v.Converted, v.Size)
	}
	return reason
}

func adviceDamage(v volume.Volume) string {
	if v.Kind == volume.BitLocker {
		return adviceMetadata
	}
	return adviceHeader
}

func openFinding(err error, v volume.Volume) *finding {
	switch {
	case errors.Is(err, volume.ErrWrongKey):
		return &finding{strings.Join(append(slices.Clone(v.Damage), wrongKey(err, v)), "; "), adviceWrongKey}
	case errors.Is(err, volume.ErrDamaged):
		return &finding{err.Error(), adviceDamage(v)}
	case errors.Is(err, volume.ErrUnsupported):
		return &finding{err.Error(), adviceUnsupported}
	}
	return &finding{"the disk can't be read: " + err.Error(), adviceBackUpAgain}
}

func wrongKey(err error, v volume.Volume) string {
	switch {
	case v.Kind == volume.BitLocker:
		return "the key in the recovery point doesn't open the volume: " + err.Error()
	case len(v.KeySlots) == 1:
		return "the key in the recovery point opens none of the key slots (one is in use)"
	}
	return fmt.Sprintf("the key in the recovery point opens none of the %d key slots", len(v.KeySlots))
}

// content recognises what is inside an opened volume: a file system, or partitions that hold one.
func content(opened volume.Opened) (string, *finding) {
	fs, err := filesystem.Recognise(opened, opened.Size())
	if err == nil {
		return fs.Type, nil
	}
	var damage *filesystem.DamageError
	if errors.As(err, &damage) {
		return "", &finding{"the key opens the volume, and " + damage.Error(), adviceContent}
	}
	if !errors.Is(err, filesystem.ErrNotRecognised) {
		return "", &finding{"the disk can't be read: " + err.Error(), adviceBackUpAgain}
	}
	inside, err := volume.Inspect(opened, opened.Size())
	if err != nil {
		return "", &finding{"the disk can't be read: " + err.Error(), adviceBackUpAgain}
	}
	var systems []string
	for _, one := range inside.Volumes {
		if one.Kind != volume.Unknown && !one.Encrypted && len(one.Damage) == 0 {
			systems = append(systems, one.Kind)
		}
	}
	if len(systems) == 0 || len(inside.Damage) > 0 {
		return "", &finding{"the key opens the volume, and no file system, LVM or swap is found inside", adviceContent}
	}
	return strings.Join(slices.Compact(systems), ", "), nil
}
