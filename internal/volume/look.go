package volume

import (
	"errors"
	"fmt"
	"io"

	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/filesystem"
	"kluis/internal/volume/luks"
)

// look fills in what the volume holds.
func look(disk io.ReaderAt, v Volume) (Volume, error) {
	r := io.NewSectionReader(disk, v.Offset, v.Size)
	v.Kind = Unknown
	if err := lookBitLocker(r, &v); err != nil || v.Encrypted {
		return v, err
	}
	h, err := luks.ReadHeader(r, v.Size)
	if err := v.fillLUKS(h, err); err != nil && !errors.Is(err, luks.ErrNotLUKS) {
		return v, err
	}
	if v.Encrypted && len(v.Damage) == 0 {
		return v, nil
	}
	fs, err := filesystem.Recognise(r, v.Size)
	var damage *filesystem.DamageError
	switch {
	case err == nil:
		// A sound file system says more than the remains of a LUKS header that it was made over.
		return Volume{Partition: v.Partition, Name: v.Name, Offset: v.Offset, Size: v.Size, Kind: fs.Type, UUID: fs.UUID, Label: fs.Label}, nil
	case v.Encrypted || errors.Is(err, filesystem.ErrNotRecognised):
		return v, nil
	case errors.As(err, &damage):
		v.Kind, v.Damage = damage.Type, []string{damage.Error()}
		return v, nil
	}
	return v, err
}

// lookBitLocker fills v from BitLocker's metadata, sound or not; the error is the reader's. v stays as it is
// when there are none.
func lookBitLocker(r *io.SectionReader, v *Volume) error {
	h, err := bitlocker.ReadHeader(r, v.Size)
	var damage *bitlocker.DamageError
	var unsupported *bitlocker.UnsupportedError
	switch {
	case errors.Is(err, bitlocker.ErrNotBitLocker):
		return nil
	case errors.As(err, &damage):
		v.Kind, v.Encrypted, v.Damage = BitLocker, true, []string{damage.Error()}
		return nil
	case errors.As(err, &unsupported):
		v.Kind, v.Encrypted, v.Unsupported = BitLocker, true, unsupported.Error()
		return nil
	case err != nil:
		return err
	}
	v.Kind, v.Encrypted, v.UUID, v.Label, v.Damage = BitLocker, true, h.ID, h.Description, h.Damage
	v.Cipher, v.KeyBits, v.SectorSize, v.Protectors, v.Unprotected = h.Cipher, h.KeyBits, h.SectorSize, h.Protectors, !h.Protected()
	if conversion := map[string]string{bitlocker.StateEncrypting: Encrypting, bitlocker.StateDecrypting: Decrypting}[h.State]; conversion != "" {
		v.Conversion, v.Converted = conversion, h.Encrypted
	}
	return nil
}

// fillLUKS fills v from what reading a LUKS header gave, sound or not; the error is ErrNotLUKS or the reader's.
func (v *Volume) fillLUKS(h *luks.Header, err error) error {
	var damage *luks.DamageError
	var unsupported *luks.UnsupportedError
	var reencrypt *luks.ReencryptError
	switch {
	case errors.As(err, &damage):
		v.Kind, v.Encrypted, v.Damage = LUKS, true, []string{damage.Error()}
		return nil
	case errors.As(err, &reencrypt):
		v.Kind, v.Encrypted = LUKS2, true
		v.Conversion = map[string]string{"encrypt": Encrypting, "decrypt": Decrypting, "reencrypt": Reencrypting}[reencrypt.Mode]
		return nil
	case errors.As(err, &unsupported):
		v.Kind, v.Encrypted, v.Unsupported = LUKS, true, unsupported.Error()
		return nil
	case err != nil:
		return err
	}
	v.Kind = map[int]string{1: LUKS1, 2: LUKS2}[h.Version]
	v.Encrypted, v.UUID, v.Label, v.Damage = true, h.UUID, h.Label, h.Damage
	v.Cipher, v.KeyBits, v.SectorSize, v.KeySlots = h.Cipher, h.KeyBits, h.SectorSize, h.Keyslots
	return nil
}

// maxScanned bounds the file systems that are scanned for a detached header: Azure Disk Encryption keeps the
// header of a Linux OS disk as a file on the boot partition.
const maxScanned = 2 << 30

// fileUnit is where files begin: mke2fs gives file systems below 512 MiB blocks of 1 KiB.
func fileUnit(size int64) int64 {
	if size < 512<<20 {
		return 1 << 10
	}
	return 4 << 10
}

// findDetached looks for the header of a partition that holds nothing known but noise, on the partitions
// that hold a file system. A header in a file of several pieces isn't read whole: then no key opens it.
func findDetached(disk io.ReaderAt, volumes []Volume) error {
	for i := range volumes {
		v := &volumes[i]
		if v.Kind != Unknown || v.Partition == 0 {
			continue
		}
		if random, err := noise(disk, *v); err != nil || !random {
			if err != nil {
				return err
			}
			continue
		}
		for _, boot := range volumes {
			if boot.Kind == Unknown || boot.Encrypted || boot.Size > maxScanned {
				continue
			}
			if err := v.scan(disk, boot); err != nil || v.Encrypted {
				return err
			}
		}
	}
	return nil
}

// scan looks for v's header on another partition.
func (v *Volume) scan(disk io.ReaderAt, boot Volume) error {
	const magicSize = 6
	magic := make([]byte, magicSize)
	unit := fileUnit(boot.Size)
	for off := boot.Offset; off < boot.Offset+boot.Size-unit; off += unit {
		if _, err := disk.ReadAt(magic, off); err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		if string(magic) != "LUKS\xba\xbe" {
			continue
		}
		place := Header{Partition: boot.Partition, Offset: off, Size: boot.Offset + boot.Size - off}
		h, err := luks.ReadDetachedHeader(io.NewSectionReader(disk, place.Offset, place.Size), place.Size, v.Size)
		if err != nil {
			continue // remains of a header, or one of another volume
		}
		if err := v.fillLUKS(h, nil); err != nil {
			return err
		}
		v.Header = &place
		return nil
	}
	return nil
}

// noise tells whether a volume begins with what only encryption leaves: all bytes are there, none often.
func noise(disk io.ReaderAt, v Volume) (bool, error) {
	const sample, distinct, often = 4096, 250, 64
	if v.Size < sample {
		return false, nil
	}
	b := make([]byte, sample)
	if _, err := io.ReadFull(io.NewSectionReader(disk, v.Offset, sample), b); err != nil {
		return false, fmt.Errorf("read partition %d: %w", v.Partition, err)
	}
	var counts [256]int
	different, most := 0, 0
	for _, c := range b {
		if counts[c]++; counts[c] == 1 {
			different++
		}
		most = max(most, counts[c])
	}
	return different >= distinct && most <= often, nil
}
