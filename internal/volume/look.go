package volume

import (
	"errors"
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
