// Package volume tells what is on a disk: its partitions and what each of them holds, encrypted or not.
// It needs no key and it never writes.
//
// A *disk* is a range of bytes that a virtual machine sees as a device. A *volume* is a range of a disk
// that holds one thing: the whole disk, or a partition. Damage is a finding and not an error: Inspect
// fails only when the disk can't be read. Open gives the plain bytes of a volume that Inspect found to be
// encrypted. The rooms below do one thing each: partition tables, LUKS, BitLocker, file systems.
package volume

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/partition"
)

// Kinds of volumes. A volume that holds a file system has the file system's type as its kind.
const (
	LUKS1     = "luks1"
	LUKS2     = "luks2"
	LUKS      = "luks" // so damaged or so new that nothing more is known
	BitLocker = "bitlocker"
	Unknown   = "unknown"
)

// What is done to a volume whose encryption is being changed.
const (
	Encrypting   = "encrypting"
	Decrypting   = "decrypting"
	Reencrypting = "reencrypting" // from one key to another
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
	Cipher     string                `json:"cipher,omitempty"`
	KeyBits    int                   `json:"keyBits,omitempty"`
	SectorSize int                   `json:"sectorSize,omitempty"`
	KeySlots   []luks.Keyslot        `json:"keySlots,omitempty"`   // of LUKS
	Protectors []bitlocker.Protector `json:"protectors,omitempty"` // of BitLocker
	// Unprotected says that the key lies in clear on the volume: BitLocker's protection is suspended.
	Unprotected bool `json:"unprotected,omitempty"`
	// Conversion says that the encryption is being changed, and Converted how many bytes are encrypted so
	// far, where that is known. Such a volume isn't opened.
	Conversion string `json:"conversion,omitempty"`
	Converted  int64  `json:"converted,omitempty"`
	// Header is where the volume's header is when it isn't at the beginning of the volume.
	Header *Header `json:"header,omitempty"`
	// Damage names what is wrong with the header or the superblock, Unsupported what can't be read.
	Damage      []string `json:"damage,omitempty"`
	Unsupported string   `json:"unsupported,omitempty"`
}

// Header is the place of a detached header.
type Header struct {
	Partition int   `json:"partition"`
	Offset    int64 `json:"offset"` // on the disk
	Size      int64 `json:"size"`   // what there is at most, up to the partition's end
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

// Inspect looks at the disk r of size bytes. It reads kilobytes, or some MiB when it looks for the header of
// a partition that holds noise.
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
	if d.Volumes, err = lookAll(r, table); err != nil {
		return Disk{}, err
	}
	if err := d.countLarge(r); err != nil {
		return Disk{}, err
	}
	if err := findDetached(r, d.Volumes); err != nil {
		return Disk{}, fmt.Errorf("look for a detached header: %w", err)
	}
	return d, nil
}

func lookAll(r io.ReaderAt, table partition.Table) (all []Volume, err error) {
	for _, p := range table.Partitions {
		v, err := look(r, Volume{Partition: p.Number, Name: p.Name, Offset: p.Offset, Size: p.Size})
		if err != nil {
			return nil, fmt.Errorf("inspect partition %d: %w", p.Number, err)
		}
		all = append(all, v)
	}
	return all, nil
}

// countLarge takes an MBR for one that counts in sectors of 4096 bytes when there is something known on the
// disk that way, and nothing otherwise.
func (d *Disk) countLarge(r io.ReaderAt) error {
	known := func(v Volume) bool { return v.Kind != Unknown }
	if d.Scheme != partition.MBR || slices.ContainsFunc(d.Volumes, known) {
		return nil
	}
	table, err := partition.ReadMBR(r, d.Size, 4096)
	if errors.Is(err, partition.ErrNoTable) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect a disk: %w", err)
	}
	volumes, err := lookAll(r, table)
	if err == nil && slices.ContainsFunc(volumes, known) {
		d.Volumes, d.Damage = volumes, table.Damage
	}
	return err
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
