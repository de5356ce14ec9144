// Package partition reads partition tables: GPT, from its first copy or from the one at the disk's end,
// and MBR with its logical partitions. It tells where partitions are and looks into none of them.
package partition

import (
	"errors"
	"fmt"
	"io"
)

// ErrNoTable says that there is no partition table here.
var ErrNoTable = errors.New("no partition table")

// DamageError says that there is a table, and what is wrong with it.
type DamageError struct{ Where, What string }

func (e *DamageError) Error() string {
	return "the partition table is damaged: " + e.Where + ": " + e.What
}

// Schemes.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// Table is what a disk's partition table says. Partitions lie within the disk; they may overlap when
// whoever wrote the table wanted that.
type Table struct {
	Scheme     string
	SectorSize int
	Partitions []Partition
	Damage     []string // what is broken although the table could be read: one of GPT's two copies
}

// Partition is a range of a disk.
type Partition struct {
	Number int // as Linux counts them: logical partitions of an MBR begin with 5
	Offset int64
	Size   int64
	Type   string // a GUID, or two hexadecimal digits
	Name   string // GPT only
}

// sectorSizes are tried in this order.
var sectorSizes = []int{512, 4096}

// Read reads the table of the disk r of size bytes. The error is ErrNoTable, a *DamageError, or r's own. A
// GPT tells the size of sectors; an MBR is read as one with sectors of 512 bytes.
func Read(r io.ReaderAt, size int64) (Table, error) {
	first, err := firstSector(r, size)
	if err != nil {
		return Table{}, err
	}
	if protective(first) {
		return readGPT(r, size)
	}
	return readMBR(r, size, first, 512)
}

// ReadMBR reads an MBR that counts in sectors of another size: whoever knows what a partition should hold can
// tell which it is, the table can't.
func ReadMBR(r io.ReaderAt, size int64, sectorSize int) (Table, error) {
	first, err := firstSector(r, size)
	if err != nil {
		return Table{}, err
	}
	if protective(first) {
		return Table{}, ErrNoTable
	}
	return readMBR(r, size, first, sectorSize)
}

func firstSector(r io.ReaderAt, size int64) ([]byte, error) {
	first, err := readAt(r, size, 0, 512)
	if err != nil {
		return nil, err
	}
	if first == nil || first[510] != 0x55 || first[511] != 0xAA {
		return nil, ErrNoTable
	}
	return first, nil
}

// within makes a partition of numbers from outside, if it is one and lies on the disk.
func within(start, sectors uint64, sectorSize int, size int64) (Partition, bool) {
	all := uint64(size) / uint64(sectorSize)
	if sectors == 0 || start == 0 || start >= all || sectors > all-start {
		return Partition{}, false
	}
	return Partition{Offset: int64(start) * int64(sectorSize), Size: int64(sectors) * int64(sectorSize)}, true
}

// readAt returns n bytes from off, or nil when the disk ends before.
func readAt(r io.ReaderAt, size, off int64, n int) ([]byte, error) {
	if off < 0 || off > size-int64(n) {
		return nil, nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(r, off, int64(n)), b); err != nil {
		return nil, fmt.Errorf("read the partition table at %d: %w", off, err)
	}
	return b, nil
}
