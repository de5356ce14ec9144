package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const (
	gptMagic      = "EFI PART"
	gptHeaderSize = 92
	// maxEntries bounds the entries of a table; 128 is usual. With maxEntrySize it is what is read at most.
	maxEntries   = 1024
	maxEntrySize = 1024
)

// readGPT tries both sector sizes and both copies.
func readGPT(r io.ReaderAt, size int64) (Table, error) {
	var broken error
	for _, sector := range sectorSizes {
		t, errFirst := readCopy(r, size, sector, 1)
		if errFirst == nil {
			_, err := readCopy(r, size, sector, t.other)
			if err != nil && !isDamage(err) {
				return Table{}, err
			}
			if err != nil {
				t.Damage = append(t.Damage, "the second copy: "+err.Error())
			}
			return t.Table, nil
		}
		if !isDamage(errFirst) {
			return Table{}, errFirst
		}
		t, errSecond := readCopy(r, size, sector, size/int64(sector)-1)
		if errSecond == nil {
			t.Damage = append(t.Damage, "the first copy: "+errFirst.Error())
			return t.Table, nil
		}
		if !isDamage(errSecond) {
			return Table{}, errSecond
		}
		if broken == nil || errors.Is(broken, errNoCopy) {
			broken = errFirst
		}
	}
	return Table{}, broken
}

// errNoCopy is a copy whose magic isn't there.
var errNoCopy error = &DamageError{"GPT", "the disk announces one, and there is no header"}

func isDamage(err error) bool {
	var damage *DamageError
	return errors.As(err, &damage)
}

// gptCopy is one copy of a table, and where it says that the other is: not at the disk's end when the
// disk has grown since.
type gptCopy struct {
	Table
	other int64
}

// readCopy reads the copy whose header is in the sector lba.
func readCopy(r io.ReaderAt, size int64, sector int, lba int64) (gptCopy, error) {
	if lba < 1 || lba >= size/int64(sector) {
		return gptCopy{}, errNoCopy
	}
	h, err := readAt(r, size, lba*int64(sector), sector)
	if err != nil {
		return gptCopy{}, err
	}
	if h == nil || string(h[:8]) != gptMagic {
		return gptCopy{}, errNoCopy
	}
	le := binary.LittleEndian
	length := le.Uint32(h[12:])
	if length < gptHeaderSize || length > uint32(sector) {
		return gptCopy{}, &DamageError{"GPT header", fmt.Sprintf("a length of %d bytes", length)}
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return gptCopy{}, &DamageError{"GPT header", "its checksum doesn't agree"}
	}
	if le.Uint64(h[24:]) != uint64(lba) {
		return gptCopy{}, &DamageError{"GPT header", "it belongs to another place"}
	}
	at, count, entry := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if count == 0 || count > maxEntries || entry < 128 || entry > maxEntrySize || entry%128 != 0 || at >= uint64(size)/uint64(sector) {
		return gptCopy{}, &DamageError{"GPT header", fmt.Sprintf("%d entries of %d bytes in sector %d", count, entry, at)}
	}
	raw, err := readAt(r, size, int64(at)*int64(sector), int(count*entry))
	if err != nil {
		return gptCopy{}, err
	}
	if raw == nil || crc32.ChecksumIEEE(raw) != le.Uint32(h[88:]) {
		return gptCopy{}, &DamageError{"GPT entries", "their checksum doesn't agree"}
	}
	return gptCopy{decode(raw, int(entry), sector, size), int64(min(le.Uint64(h[32:]), 1<<62))}, nil
}

func decode(raw []byte, entry, sector int, size int64) Table {
	t := Table{Scheme: GPT, SectorSize: sector}
	le := binary.LittleEndian
	for i := 0; i*entry < len(raw); i++ {
		b := raw[i*entry : (i+1)*entry]
		kind := guid(b[:16])
		if kind == "00000000-0000-0000-0000-000000000000" {
			continue
		}
		first, last := le.Uint64(b[32:]), le.Uint64(b[40:])
		p, ok := Partition{}, false
		if first <= last && last < 1<<62 {
			p, ok = within(first, last-first+1, sector, size)
		}
		if !ok {
			t.Damage = append(t.Damage, fmt.Sprintf("partition %d is not on the disk", i+1))
			continue
		}
		p.Number, p.Type, p.Name = i+1, kind, name(b[56:128])
		t.Partitions = append(t.Partitions, p)
	}
	return t
}

// guid prints a GUID, whose first three fields are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// name decodes UTF-16; what isn't printable becomes '?'.
func name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		if u < ' ' || u == 0x7f {
			u = '?'
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
