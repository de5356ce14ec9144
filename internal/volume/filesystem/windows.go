package filesystem

import (
	"encoding/binary"
	"fmt"
)

func probeNTFS(r *reader) (FileSystem, error) {
	b := r.at(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return FileSystem{}, ErrNotRecognised
	}
	le := binary.LittleEndian
	sector, sectors := le.Uint16(b[11:]), le.Uint64(b[40:])
	switch {
	case b[510] != 0x55 || b[511] != 0xAA:
		return FileSystem{}, &DamageError{"ntfs", "the boot sector has no signature"}
	case !validSector(sector) || b[13] == 0:
		return FileSystem{}, &DamageError{"ntfs", fmt.Sprintf("sectors of %d bytes, clusters of %d", sector, b[13])}
	case sectors == 0 || sectors >= 1<<50:
		return FileSystem{}, &DamageError{"ntfs", fmt.Sprintf("%d sectors", sectors)}
	}
	return FileSystem{Type: "ntfs", UUID: fmt.Sprintf("%016X", le.Uint64(b[72:])), Size: int64(sectors * uint64(sector))}, nil
}

// probeFAT takes a boot sector for one of FAT only when everything in it fits: it has no magic number of
// its own, so there is no such thing as a damaged one.
func probeFAT(r *reader) (FileSystem, error) {
	b := r.at(0, 512)
	if b == nil || b[510] != 0x55 || b[511] != 0xAA || (b[0] != 0xEB && b[0] != 0xE9) {
		return FileSystem{}, ErrNotRecognised
	}
	le := binary.LittleEndian
	sector, cluster, reserved, fats, media := le.Uint16(b[11:]), b[13], le.Uint16(b[14:]), b[16], b[21]
	if !validSector(sector) || cluster == 0 || cluster&(cluster-1) != 0 || reserved == 0 || fats < 1 || fats > 2 || (media != 0xF0 && media < 0xF8) {
		return FileSystem{}, ErrNotRecognised
	}
	fs := FileSystem{Type: "vfat"}
	var serial, name []byte
	switch {
	case string(b[82:87]) == "FAT32":
		serial, name = b[67:71], b[71:82]
	case string(b[54:57]) == "FAT":
		serial, name = b[39:43], b[43:54]
	default:
		return FileSystem{}, ErrNotRecognised
	}
	id := le.Uint32(serial)
	fs.UUID = fmt.Sprintf("%04X-%04X", id>>16, id&0xffff)
	if fs.Label = label(name); fs.Label == "NO NAME" {
		fs.Label = ""
	}
	sectors := uint32(le.Uint16(b[19:]))
	if sectors == 0 {
		sectors = le.Uint32(b[32:])
	}
	if sectors == 0 {
		return FileSystem{}, ErrNotRecognised
	}
	fs.Size = int64(sectors) * int64(sector)
	return fs, nil
}

func validSector(n uint16) bool { return n >= 512 && n <= 4096 && n&(n-1) == 0 }
