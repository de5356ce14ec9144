package proof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"kluis/internal/secret"
	"kluis/internal/volume"
	"kluis/internal/volume/filesystem"
	"kluis/internal/volume/luks"
)

// What to do about a verdict, for the person who reads it.
const (
	adviceBackUpAgain = "Run the backup again. If the proof fails again, look at the disk on the VM's host."
	adviceWrongKey    = "Check that the VM's encryption settings name the secret of this VM and the version that its disks were encrypted with, then run the backup again."
	adviceNoKey       = "Set the VM's encryption settings to the secret and the key that open this disk, then run the backup again."
	adviceNoEncrypt   = "Check that encryption of the disk was finished in the guest. If the disk is meant to be plain, remove it from the VM's encryption settings."
	adviceHeader      = "Look at the header in the guest with 'cryptsetup luksDump', mend it with 'cryptsetup repair' or from a header backup, and run the backup again. Keep the recovery points before this one."
	adviceUnsupported = "This volume can't be proved. Test a restore of it by hand."
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
	for _, one := range disk.Volumes {
		if !one.Encrypted {
			continue
		}
		v.Encryption, v.UUID = encryption(one), one.UUID
		system, f := proveVolume(ctx, r, one, d.BEK)
		if f != nil {
			if one.Partition > 0 {
				f.reason = fmt.Sprintf("partition %d: %s", one.Partition, f.reason)
			}
			return f
		}
		systems = append(systems, system)
	}
	v.State, v.FileSystem = Proved, strings.Join(systems, ", ")
	return nil
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
	return strings.TrimSpace(strings.NewReplacer("luks", "LUKS", volume.BitLocker, "BitLocker").Replace(v.Kind) + " " + v.Cipher)
}

// proveVolume opens an encrypted volume and returns the file system inside.
func proveVolume(ctx context.Context, r io.ReaderAt, v volume.Volume, bek secret.Bytes) (string, *finding) {
	switch {
	case v.Unsupported != "":
		return "", &finding{v.Unsupported, adviceUnsupported}
	case bek.Len() == 0 && len(v.Damage) == 0:
		return "", &finding{"the disk is encrypted, and the recovery point has no key for it", adviceNoKey}
	case bek.Len() == 0:
		return "", &finding{strings.Join(v.Damage, "; "), adviceHeader}
	}
	opened, err := luks.Open(ctx, io.NewSectionReader(r, v.Offset, v.Size), v.Size, bek)
	if err != nil {
		return "", openFinding(err, v)
	}
	defer func() { _ = opened.Close() }() // wipes the key; there is nothing to write back
	if len(v.Damage) > 0 {
		return "", &finding{strings.Join(v.Damage, "; ") + "; the key opens the volume by the other copy", adviceHeader}
	}
	return content(opened)
}

func openFinding(err error, v volume.Volume) *finding {
	var damage *luks.DamageError
	var unsupported *luks.UnsupportedError
	switch {
	case errors.Is(err, luks.ErrWrongKey):
		reason := fmt.Sprintf("the key in the recovery point opens none of the %d key slots", len(v.KeySlots))
		if len(v.KeySlots) == 1 {
			reason = "the key in the recovery point opens none of the key slots (one is in use)"
		}
		return &finding{strings.Join(append(slices.Clone(v.Damage), reason), "; "), adviceWrongKey}
	case errors.As(err, &damage):
		return &finding{damage.Error(), adviceHeader}
	case errors.As(err, &unsupported):
		return &finding{unsupported.Error(), adviceUnsupported}
	}
	return &finding{"the disk can't be read: " + err.Error(), adviceBackUpAgain}
}

// content recognises what is inside an opened volume: a file system, or partitions that hold one.
func content(opened *luks.Volume) (string, *finding) {
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
