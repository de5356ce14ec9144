package partition

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	mbrEntries    = 446
	mbrProtective = 0xEE
	// maxLogical ends a chain of logical partitions that goes on for too long or in a circle.
	maxLogical = 128
)

type mbrEntry struct {
	boot, kind     byte
	start, sectors uint32
}

func entries(sector []byte) (e [4]mbrEntry) {
	for i := range e {
		b := sector[mbrEntries+16*i:]
		e[i] = mbrEntry{b[0], b[4], binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])}
	}
	return e
}

// protective tells whether the MBR is there to say that the disk has a GPT. A hybrid one says so too.
func protective(sector []byte) bool {
	for _, e := range entries(sector) {
		if e.kind == mbrProtective {
			return true
		}
	}
	return false
}

func extended(kind byte) bool { return kind == 0x05 || kind == 0x0F || kind == 0x85 }

// readMBR takes the sector for a table only when every entry can be one: boot sectors of file systems
// have the same signature.
func readMBR(r io.ReaderAt, size int64, sector []byte, sectorSize int) (Table, error) {
	t := Table{Scheme: MBR, SectorSize: sectorSize}
	used := 0
	for i, e := range entries(sector) {
		if e.boot != 0 && e.boot != 0x80 {
			return Table{}, ErrNoTable
		}
		if e.kind == 0 || e.sectors == 0 {
			continue
		}
		used++
		p, ok := within(uint64(e.start), uint64(e.sectors), t.SectorSize, size)
		if !ok {
			t.Damage = append(t.Damage, fmt.Sprintf("partition %d is not on the disk", i+1))
			continue
		}
		if extended(e.kind) {
			if err := t.readLogical(r, size, p); err != nil {
				return Table{}, err
			}
			continue
		}
		p.Number, p.Type = i+1, fmt.Sprintf("%02x", e.kind)
		t.Partitions = append(t.Partitions, p)
	}
	if used == 0 {
		return Table{}, ErrNoTable
	}
	return t, nil
}

// readLogical follows the chain inside an extended partition: each link is a sector with one logical
// partition, relative to itself, and the next link, relative to the extended partition.
func (t *Table) readLogical(r io.ReaderAt, size int64, in Partition) error {
	at, number := in.Offset, 5
	for range maxLogical {
		sector, err := readAt(r, size, at, 512)
		if err != nil {
			return err
		}
		if sector == nil || sector[510] != 0x55 || sector[511] != 0xAA {
			t.Damage = append(t.Damage, fmt.Sprintf("the chain of logical partitions breaks at %d", at))
			return nil
		}
		e := entries(sector)
		if e[0].kind != 0 {
			p, ok := within(uint64(at)/uint64(t.SectorSize)+uint64(e[0].start), uint64(e[0].sectors), t.SectorSize, size)
			if ok {
				p.Number, p.Type = number, fmt.Sprintf("%02x", e[0].kind)
				t.Partitions = append(t.Partitions, p)
			} else {
				t.Damage = append(t.Damage, fmt.Sprintf("partition %d is not on the disk", number))
			}
			number++
		}
		if e[1].kind == 0 || e[1].sectors == 0 {
			return nil
		}
		at = in.Offset + int64(e[1].start)*int64(t.SectorSize)
	}
	t.Damage = append(t.Damage, fmt.Sprintf("the chain of logical partitions has more than %d links", maxLogical))
	return nil
}
