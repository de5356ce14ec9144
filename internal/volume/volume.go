// Package volume tells what is on a disk: its partitions and what each of them holds, encrypted or not.
// It needs no key and it never writes.
//
// A *disk* is a range of bytes that a virtual machine sees as a device. A *volume* is a range of a disk
// that holds one thing: the whole disk, or a partition. Damage is a finding and not an error: Inspect
// fails only when the disk can't be read. The rooms below do one thing each: partition tables, LUKS,
// file systems.
package volume

import (
	"errors"
	"fmt"
	"io"

	"kluis/internal/volume/filesystem"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/partition"
)

// Kinds of volumes. A volume that holds a file system has the file system's type as its kind.
const (
	LUKS1     = "luks1"
	LUKS2     = "luks2"
	LUKS      = "luks" // so damaged that the version isn't known
	BitLocker = "bitlocker"
	Unknown   = "unknown"
)

// SchemeNone is a disk without a partition table.
const SchemeNone = "none"

// Disk is what is on a disk.
type Disk struct {
	Scheme  string   `json:"scheme"` // none, mbr, gpt
	Size    int64    `json:"size"`
	Volumes []Volume `json:"volumes"`
	// Damage names what is wrong with the partition table.
	Damage []string `json:"damage,omitempty"`
}

// Volume is one thing that a disk holds.
type Volume struct {
	Partition int    `json:"partition,omitempty"` // 0: the whole disk
	Name      string `json:"name,omitempty"`      // of the partition
	Offset    int64  `json:"offset"`
	Size      int64  `json:"size"`
	Kind      string `json:"kind"`
	Encrypted bool   `json:"encrypted"`
	UUID      string `json:"uuid,omitempty"`
	Label     string `json:"label,omitempty"`
	// The rest is of encrypted volumes.
	Cipher     string         `json:"cipher,omitempty"`
	KeyBits    int            `json:"keyBits,omitempty"`
	SectorSize int            `json:"sectorSize,omitempty"`
	KeySlots   []luks.Keyslot `json:"keySlots,omitempty"`
	// Damage names what is wrong with the header or the superblock, Unsupported what can't be read.
	Damage      []string `json:"damage,omitempty"`
	Unsupported string   `json:"unsupported,omitempty"`
}

// Encrypted tells whether anything on the disk is encrypted.
func (d Disk) Encrypted() bool {
	for _, v := range d.Volumes {
		if v.Encrypted {
			return true
		}
	}
	return false
}

// Inspect looks at the disk r of size bytes. It reads kilobytes.
func Inspect(r io.ReaderAt, size int64) (Disk, error) {
	d := Disk{Scheme: SchemeNone, Size: size}
	table, err := readTable(r, size)
	var damage *partition.DamageError
	switch {
	case errors.Is(err, partition.ErrNoTable):
		v, err := look(r, Volume{Size: size})
		if err != nil {
			return Disk{}, fmt.Errorf("inspect a disk: %w", err)
		}
		d.Volumes = []Volume{v}
		return d, nil
	case errors.As(err, &damage):
		d.Scheme, d.Damage = partition.GPT, []string{damage.Error()}
		return d, nil
	case err != nil:
		return Disk{}, fmt.Errorf("inspect a disk: %w", err)
	}
	d.Scheme, d.Damage = table.Scheme, table.Damage
	for _, p := range table.Partitions {
		v, err := look(r, Volume{Partition: p.Number, Name: p.Name, Offset: p.Offset, Size: p.Size})
		if err != nil {
			return Disk{}, fmt.Errorf("inspect partition %d: %w", p.Number, err)
		}
		d.Volumes = append(d.Volumes, v)
	}
	return d, nil
}

// readTable returns ErrNoTable also when the first sector looks like a table and is something else's. A
// GPT can't be mistaken; an MBR's signature is also at the end of boot sectors, so what begins on the
// whole disk goes before it. A LUKS header leaves no room for either.
func readTable(r io.ReaderAt, size int64) (partition.Table, error) {
	table, err := partition.Read(r, size)
	if err != nil || table.Scheme == partition.GPT {
		return table, err
	}
	whole, err := look(r, Volume{Size: size})
	if err != nil {
		return partition.Table{}, err
	}
	if whole.Kind != Unknown && len(whole.Damage) == 0 {
		return partition.Table{}, partition.ErrNoTable
	}
	return table, nil
}

// look fills in what the volume holds.
func look(disk io.ReaderAt, v Volume) (Volume, error) {
	r := io.NewSectionReader(disk, v.Offset, v.Size)
	v.Kind = Unknown
	if locked, err := isBitLocker(r); err != nil {
		return v, err
	} else if locked {
		v.Kind, v.Encrypted, v.Unsupported = BitLocker, true, "BitLocker, not yet provable"
		return v, nil
	}
	found := lookLUKS(r, &v)
	if found != nil && !errors.Is(found, luks.ErrNotLUKS) {
		return v, found
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

// lookLUKS fills v from a LUKS header, sound or not; the error is ErrNotLUKS or the reader's.
func lookLUKS(r *io.SectionReader, v *Volume) error {
	h, err := luks.ReadHeader(r, v.Size)
	var damage *luks.DamageError
	var unsupported *luks.UnsupportedError
	switch {
	case errors.As(err, &damage):
		v.Kind, v.Encrypted, v.Damage = LUKS, true, []string{damage.Error()}
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

// Signatures at the third byte of a BitLocker volume's boot sector, and To Go's identifier, which is a
// GUID further on: To Go looks like FAT to a machine that doesn't know it.
const (
	bitLockerSignature = "-FVE-FS-"
	toGoSignature      = "MSWIN4.1"
	toGoIdentifier     = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"
)

func isBitLocker(r *io.SectionReader) (bool, error) {
	const toGoOffset = 424
	if r.Size() < 512 {
		return false, nil
	}
	b := make([]byte, 512)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, 512), b); err != nil {
		return false, fmt.Errorf("read the first sector: %w", err)
	}
	signature := string(b[3:11])
	return signature == bitLockerSignature || signature == toGoSignature && string(b[toGoOffset:toGoOffset+16]) == toGoIdentifier, nil
}
