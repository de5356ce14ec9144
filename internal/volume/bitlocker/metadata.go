package bitlocker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"kluis/internal/volume/sector"
)

// The boot sector: a signature, and behind an identifier the places of the three copies of the metadata.
const (
	signature     = "-FVE-FS-"
	signatureToGo = "MSWIN4.1"
	placesOffset  = 176
	placesToGo    = 440
	identifier    = "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01" // 4967d63b-2e29-4ad8-8399-f6a339e3d001
	// identifierEOW stands there while Windows 8 and later encrypt what is written before the rest.
	identifierEOW = "\x3b\x4d\xa8\x92\x80\xdd\x0e\x4d\x9e\x4e\xb1\xe3\x28\x4e\xae\xd8" // 92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8
)

// A copy of the metadata: block header, metadata header, entries, and behind them the validation.
const (
	blockHeaderSize = 64
	headerSize      = blockHeaderSize + 48
	// copySize is what each copy takes on the volume, and what reads as zeros.
	copySize = 64 << 10
	version2 = 2 // since Windows 7
)

// The states in a block header.
const (
	stateDecrypted = 1
	stateSwitching = 2
	stateEOW       = 3
	stateEncrypted = 4
	statePaused    = 5
)

// boot is what the boot sector says.
type boot struct {
	toGo       bool
	eow        bool
	sectorSize int
	places     [3]int64
}

// Signed tells whether the first sector is that of a BitLocker volume, sound or not.
func Signed(first []byte) bool {
	if len(first) < 512 {
		return false
	}
	name := string(first[3:11])
	return name == signature || name == signatureToGo && knownIdentifier(first[placesToGo-16:placesToGo])
}

func knownIdentifier(b []byte) bool { return string(b) == identifier || string(b) == identifierEOW }

func readBoot(r io.ReaderAt, size int64) (boot, error) {
	if size < 512 {
		return boot{}, ErrNotBitLocker
	}
	b := make([]byte, 512)
	if err := sector.ReadFull(r, b, 0); err != nil {
		return boot{}, fmt.Errorf("read the first sector: %w", err)
	}
	if !Signed(b) {
		return boot{}, ErrNotBitLocker
	}
	le := binary.LittleEndian
	out := boot{toGo: string(b[3:11]) == signatureToGo, sectorSize: int(le.Uint16(b[11:]))}
	places := b[placesOffset:]
	if out.toGo {
		places = b[placesToGo:]
	}
	id := b[placesOffset-16 : placesOffset]
	out.eow = string(id) == identifierEOW
	switch {
	case out.toGo || knownIdentifier(id):
	case string(b[:3]) == "\xeb\x52\x90":
		return boot{}, &UnsupportedError{"boot sector", "it is of Windows Vista"}
	default:
		return boot{}, &DamageError{"boot sector", "it has BitLocker's signature, and not its identifier"}
	}
	if out.sectorSize == 0 { // some volumes that were exFAT leave it out
		out.sectorSize = 512
	}
	if out.sectorSize < 512 || out.sectorSize > maxSector || out.sectorSize&(out.sectorSize-1) != 0 {
		return boot{}, &DamageError{"boot sector", fmt.Sprintf("sectors of %d bytes", out.sectorSize)}
	}
	for i := range out.places {
		out.places[i] = int64(min(le.Uint64(places[8*i:]), 1<<62))
	}
	return out, nil
}

// ReadHeader reads the boot sector and the metadata of the volume r of size bytes. The error is
// ErrNotBitLocker, a *DamageError, an *UnsupportedError, or r's own.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	b, err := readBoot(r, size)
	if err != nil {
		return nil, err
	}
	best, damage, err := b.readCopies(r, size)
	if err != nil {
		return nil, err
	}
	h, err := best.header(b, size)
	if err != nil {
		return nil, err
	}
	h.Damage = damage
	return h, nil
}

// readCopies returns the newest of the copies that are sound, and what is wrong with the others. Windows
// writes one after the other, each time under higher nonces.
func (b boot) readCopies(r io.ReaderAt, size int64) (*block, []string, error) {
	var best *block
	var damage []string
	var first error
	for i := range b.places {
		c, err := readCopy(r, size, b, i)
		var broken *DamageError
		if errors.As(err, &broken) {
			damage = append(damage, fmt.Sprintf("copy %d of the BitLocker metadata is damaged: %s: %s", i+1, broken.Where, broken.What))
			if first == nil {
				first = &DamageError{"all three copies of the metadata, the first: " + broken.Where, broken.What}
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if best == nil || c.nextNonce > best.nextNonce {
			best = c
		}
	}
	if best == nil {
		return nil, nil, first
	}
	return best, damage, nil
}

// block is a copy of the metadata whose CRC agrees.
type block struct {
	state, next  uint16
	encrypted    uint64
	headerSector uint32 // how many first sectors lie elsewhere
	headerOffset uint64 // and where
	places       [3]int64
	id           []byte
	nextNonce    uint32
	method       uint16
	entries      []entry
	validation   []entry
	sum          [32]byte
}

// readCopy reads the copy of that number.
func readCopy(r io.ReaderAt, size int64, b boot, number int) (*block, error) {
	at := b.places[number]
	if at <= 0 || at%int64(b.sectorSize) != 0 || at > size-copySize {
		return nil, &DamageError{"boot sector", fmt.Sprintf("it says that the copy is at %d", at)}
	}
	raw := make([]byte, copySize)
	if err := sector.ReadFull(r, raw, at); err != nil {
		return nil, fmt.Errorf("read the BitLocker metadata at %d: %w", at, err)
	}
	le := binary.LittleEndian
	version := le.Uint16(raw[10:])
	length := int(le.Uint16(raw[8:])) << 4
	switch {
	case string(raw[:8]) != signature:
		return nil, &DamageError{"signature", fmt.Sprintf("there is none at %d", at)}
	case version != version2:
		return nil, &DamageError{"version", fmt.Sprintf("it is %d", version)}
	case length < headerSize || length > copySize-8:
		return nil, &DamageError{"size", fmt.Sprintf("%d bytes", length)}
	case crc32.ChecksumIEEE(raw[:length]) != le.Uint32(raw[length+4:]):
		return nil, &DamageError{"CRC", "it doesn't agree with the metadata"}
	}
	c, err := decodeBlock(raw, length)
	if err == nil && c.places[number] != at {
		err = &DamageError{"places", fmt.Sprintf("it says that it is at %d, and is at %d", c.places[number], at)}
	}
	return c, err
}

// decodeBlock decodes what the CRC vouches for, and the validation behind it, which vouches for itself.
func decodeBlock(raw []byte, length int) (*block, error) {
	le := binary.LittleEndian
	c := &block{
		state: le.Uint16(raw[12:]), next: le.Uint16(raw[14:]), encrypted: le.Uint64(raw[16:]),
		headerSector: le.Uint32(raw[28:]), headerOffset: le.Uint64(raw[56:]),
		id: raw[80:96], nextNonce: le.Uint32(raw[96:]), method: le.Uint16(raw[100:]), sum: sha256.Sum256(raw[:length]),
	}
	for i := range c.places {
		c.places[i] = int64(min(le.Uint64(raw[32+8*i:]), 1<<62))
	}
	all := le.Uint32(raw[blockHeaderSize:])
	if start := le.Uint32(raw[blockHeaderSize+8:]); start != headerSize-blockHeaderSize || all < start || all > uint32(length-blockHeaderSize) {
		return nil, &DamageError{"header", fmt.Sprintf("%d bytes, of which the header takes %d", all, start)}
	}
	var err error
	if c.entries, err = decodeEntries(raw[headerSize : blockHeaderSize+all]); err != nil {
		return nil, err
	}
	// The validation's own size counts to the end of the copy; its entry is all that is in it.
	if v := raw[length+8:]; len(v) >= entryHeader && le.Uint16(v) >= entryHeader && int(le.Uint16(v)) <= len(v) {
		c.validation, err = decodeEntries(v[:le.Uint16(v)])
	}
	return c, err
}

// header checks the copy's numbers against the volume.
func (c *block) header(b boot, size int64) (*Header, error) {
	m, ok := methods[c.method]
	if !ok {
		return nil, &UnsupportedError{"cipher", fmt.Sprintf("number %#x is not known", c.method)}
	}
	h := &Header{ID: guid(c.id), ToGo: b.toGo, Cipher: m.name, KeyBits: m.keyBits, SectorSize: b.sectorSize, Size: size - size%int64(b.sectorSize), method: m, sum: c.sum}
	if err := c.fillState(h, b); err != nil {
		return nil, err
	}
	if err := c.fillRegions(h, b); err != nil {
		return nil, err
	}
	return h, c.fillEntries(h)
}

func (c *block) fillState(h *Header, b boot) error {
	h.Encrypted = int64(min(c.encrypted, 1<<62))
	if h.Encrypted > h.Size || h.Encrypted%512 != 0 {
		return &DamageError{"size", fmt.Sprintf("%d bytes are encrypted, and the disk has %d", h.Encrypted, h.Size)}
	}
	switch {
	case c.state == stateEncrypted && !b.eow:
		// What a partition has beyond its volume is none of BitLocker's.
		h.State = StateEncrypted
		if h.Encrypted -= h.Encrypted % int64(h.SectorSize); h.Encrypted > 0 {
			h.Size = h.Encrypted
		}
		h.Encrypted = h.Size
	case c.next == stateDecrypted:
		h.State = StateDecrypting
	case c.state == stateDecrypted || c.state == stateSwitching || c.state == stateEOW || c.state == statePaused || b.eow:
		h.State = StateEncrypting
	default:
		return &UnsupportedError{"state", fmt.Sprintf("number %d is not known", c.state)}
	}
	return nil
}

func (c *block) fillRegions(h *Header, b boot) error {
	for i, at := range c.places {
		if at <= 0 || at%int64(b.sectorSize) != 0 || at > h.Size-copySize {
			return &DamageError{"places", fmt.Sprintf("copy %d at %d", i+1, at)}
		}
		h.hidden = append(h.hidden, region{at, copySize})
	}
	for _, e := range c.entries {
		if e.kind != entryRelocated || e.value != valueRegion || len(e.data) < 16 {
			continue
		}
		off, n := binary.LittleEndian.Uint64(e.data), binary.LittleEndian.Uint64(e.data[8:])
		sectorSize := uint64(b.sectorSize)
		if off != c.headerOffset || n != uint64(c.headerSector)*sectorSize || n == 0 ||
			off%sectorSize != 0 || n > uint64(h.Size) || off < n || off > uint64(h.Size)-n {
			return &DamageError{"first sectors", fmt.Sprintf("%d bytes at %d", n, off)}
		}
		h.relocated = region{int64(off), int64(n)}
		h.hidden = append(h.hidden, h.relocated)
		return nil
	}
	return &DamageError{"first sectors", "no entry tells where they are"}
}

func (c *block) fillEntries(h *Header) error {
	for _, e := range c.entries {
		switch {
		case e.kind == entryVMK && e.value == valueVMK:
			p, err := decodeProtector(e)
			if err != nil {
				return err
			}
			h.protectors = append(h.protectors, p)
			h.Protectors = append(h.Protectors, p.Protector)
		case e.kind == entryFVEK && e.value == valueCCM:
			h.fvek = e
		case e.kind == entryDescription && e.value == valueText:
			h.Description = text(e.data)
		}
	}
	for _, e := range c.validation {
		if e.value == valueCCM {
			h.hash = e
		}
	}
	switch {
	case len(h.protectors) == 0:
		return &DamageError{"protectors", "there is none"}
	case h.fvek.data == nil:
		return &DamageError{"FVEK", "there is none"}
	}
	return nil
}

// guid prints a GUID, whose first three fields are little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08X-%04X-%04X-%X-%X", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// text decodes UTF-16 up to a NUL; what isn't printable becomes '?'.
func text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 || len(units) == maxText {
			break
		}
		units = append(units, u)
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(utf16.Decode(units)))
}

const maxText = 256

// zeros tells whether there is nothing in b.
func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
