package filesystem

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"golang.org/x/crypto/blake2b"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What ext's feature words say, as far as the type and the checksum depend on them.
const (
	extHasJournal     = 0x4
	extIncompatOf3    = 0x2 | 0x4 | 0x10 // filetype, recover, meta_bg: all that ext3 knows
	extIncompat64Bit  = 0x80
	extROCompatOf3    = 0x1 | 0x2 | 0x4 // sparse_super, large_file, btree_dir
	extROBigalloc     = 0x200
	extROMetadataCsum = 0x400
)

func probeExt(r *reader) (FileSystem, error) {
	b := r.at(1024, 1024)
	if b == nil || b[0x38] != 0x53 || b[0x39] != 0xEF {
		return FileSystem{}, ErrNotRecognised
	}
	le := binary.LittleEndian
	compat, incompat, ro := le.Uint32(b[0x5C:]), le.Uint32(b[0x60:]), le.Uint32(b[0x64:])
	fs := FileSystem{Type: "ext4", UUID: uuid(b[0x68:]), Label: label(b[0x78:0x88])}
	if incompat&^extIncompatOf3 == 0 && ro&^extROCompatOf3 == 0 {
		fs.Type = "ext3"
		if compat&extHasJournal == 0 {
			fs.Type = "ext2"
		}
	}
	damage := func(what string) (FileSystem, error) { return FileSystem{}, &DamageError{fs.Type, what} }
	// The kernel's crc32c has no final inversion.
	if ro&extROMetadataCsum != 0 && ^crc32.Checksum(b[:0x3FC], castagnoli) != le.Uint32(b[0x3FC:]) {
		return damage("its checksum doesn't agree")
	}
	logBlock, perGroup, inodes := le.Uint32(b[0x18:]), le.Uint32(b[0x20:]), le.Uint32(b[0x28:])
	blocks := uint64(le.Uint32(b[0x04:]))
	if incompat&extIncompat64Bit != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	switch {
	case logBlock > 6:
		return damage(fmt.Sprintf("blocks of 2^%d bytes", uint64(logBlock)+10))
	case blocks == 0 || blocks >= 1<<46:
		return damage(fmt.Sprintf("%d blocks", blocks))
	case perGroup == 0 || inodes == 0:
		return damage("it has groups without blocks or inodes")
	case uint64(perGroup) > 8<<(10+logBlock) && ro&extROBigalloc == 0: // a bitmap is one block long
		return damage(fmt.Sprintf("%d blocks in a group", perGroup))
	case uint64(le.Uint32(b[0x14:])) > blocks:
		return damage("its first block is beyond its last")
	}
	groups := (blocks - uint64(le.Uint32(b[0x14:])) + uint64(perGroup) - 1) / uint64(perGroup)
	if groups*uint64(inodes) != uint64(le.Uint32(b)) {
		return damage(fmt.Sprintf("%d inodes don't fit %d groups of %d", le.Uint32(b), groups, inodes))
	}
	fs.Size = int64(blocks << (10 + logBlock))
	return fs, nil
}

func probeXFS(r *reader) (FileSystem, error) {
	b := r.at(0, 512)
	if b == nil || string(b[:4]) != "XFSB" {
		return FileSystem{}, ErrNotRecognised
	}
	be := binary.BigEndian
	block, blocks, sector := be.Uint32(b[4:]), be.Uint64(b[8:]), be.Uint16(b[102:])
	fs := FileSystem{Type: "xfs", UUID: uuid(b[32:]), Label: label(b[108:120])}
	switch {
	case block < 512 || block > 64<<10 || block&(block-1) != 0:
		return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("blocks of %d bytes", block)}
	case blocks == 0 || blocks >= 1<<46:
		return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("%d blocks", blocks)}
	case sector < 512 || sector > 32<<10 || sector&(sector-1) != 0:
		return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("sectors of %d bytes", sector)}
	}
	const versionMask, checksum = 0xf, 224
	if be.Uint16(b[100:])&versionMask == 5 {
		whole := r.at(0, int(sector))
		if whole == nil {
			return FileSystem{}, &DamageError{fs.Type, "the volume ends inside it"}
		}
		sum := binary.LittleEndian.Uint32(whole[checksum:])
		clear(whole[checksum : checksum+4])
		if crc32.Checksum(whole, castagnoli) != sum {
			return FileSystem{}, &DamageError{fs.Type, "its checksum doesn't agree"}
		}
	}
	fs.Size = int64(blocks * uint64(block))
	return fs, nil
}

func probeBtrfs(r *reader) (FileSystem, error) {
	b := r.at(64<<10, 4096)
	if b == nil || string(b[0x40:0x48]) != "_BHRfS_M" {
		return FileSystem{}, ErrNotRecognised
	}
	le := binary.LittleEndian
	fs := FileSystem{Type: "btrfs", UUID: uuid(b[0x20:]), Label: label(b[0x12B:0x22B])}
	var sum []byte
	switch body := b[0x20:]; le.Uint16(b[0xC4:]) {
	case 0:
		sum = le.AppendUint32(nil, crc32.Checksum(body, castagnoli))
	case 1: // xxhash64, of which there is none here: the other checks must do
	case 2:
		s := sha256.Sum256(body)
		sum = s[:]
	case 3:
		s := blake2b.Sum256(body)
		sum = s[:]
	default:
		return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("checksum type %d", le.Uint16(b[0xC4:]))}
	}
	// A file system over several devices is larger than this one, so its size isn't compared with ours;
	// the size of this device is in the first device item.
	const deviceSize = 0xC9 + 8
	size := le.Uint64(b[deviceSize:])
	switch {
	case !bytes.Equal(sum, b[:len(sum)]):
		return FileSystem{}, &DamageError{fs.Type, "its checksum doesn't agree"}
	case le.Uint64(b[0x30:]) != 64<<10:
		return FileSystem{}, &DamageError{fs.Type, "it belongs to another place"}
	case size == 0 || size >= 1<<62:
		return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("a device of %d bytes", size)}
	}
	fs.Size = int64(size)
	return fs, nil
}

func probeSwap(r *reader) (FileSystem, error) {
	for _, page := range []int{4096, 8192, 16384, 65536} {
		b := r.at(int64(page)-10, 10)
		if string(b) != "SWAPSPACE2" {
			continue
		}
		header := r.at(1024, 1024)
		if header == nil {
			break
		}
		le := binary.LittleEndian
		fs := FileSystem{Type: "swap", UUID: uuid(header[12:]), Label: label(header[28:44])}
		if version, last := le.Uint32(header), le.Uint32(header[4:]); version != 1 || last == 0 {
			return FileSystem{}, &DamageError{fs.Type, fmt.Sprintf("version %d with %d pages", version, last)}
		}
		fs.Size = (int64(le.Uint32(header[4:])) + 1) * int64(page)
		return fs, nil
	}
	return FileSystem{}, ErrNotRecognised
}

// lvmSeed begins the checksum of LVM's label.
const lvmSeed = 0xf597a6cf

// probeLVM looks for a physical volume's label in the first four sectors.
func probeLVM(r *reader) (FileSystem, error) {
	for sector := range int64(4) {
		b := r.at(sector*512, 512)
		if b == nil || string(b[:8]) != "LABELONE" || string(b[24:32]) != "LVM2 001" {
			continue
		}
		le := binary.LittleEndian
		// LVM's CRC is the usual polynomial with its own beginning and no inversions.
		if ^crc32.Update(^uint32(lvmSeed), crc32.IEEETable, b[20:]) != le.Uint32(b[16:]) {
			return FileSystem{}, &DamageError{"lvm", "its checksum doesn't agree"}
		}
		at := le.Uint32(b[20:])
		if le.Uint64(b[8:]) != uint64(sector) || at < 32 || at > 512-40 {
			return FileSystem{}, &DamageError{"lvm", "it belongs to another place"}
		}
		size := le.Uint64(b[at+32:])
		if size >= 1<<62 {
			return FileSystem{}, &DamageError{"lvm", fmt.Sprintf("%d bytes", size)}
		}
		return FileSystem{Type: "lvm", UUID: lvmUUID(label(b[at : at+32])), Size: int64(size)}, nil
	}
	return FileSystem{}, ErrNotRecognised
}

// lvmUUID puts dashes where LVM's tools do.
func lvmUUID(s string) string {
	if len(s) != 32 {
		return s
	}
	return strings.Join([]string{s[:6], s[6:10], s[10:14], s[14:18], s[18:22], s[22:26], s[26:]}, "-")
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// label reads a name padded with NULs or blanks; what isn't printable becomes '?'.
func label(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(bytes.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return '?'
		}
		return c
	}, bytes.TrimRight(b, " ")))
}
