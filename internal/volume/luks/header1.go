package luks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"kluis/internal/volume/sector"
)

const (
	magic          = "LUKS\xba\xbe"
	magicSecondary = "SKUL\xba\xbe" // LUKS2's second copy

	header1Size   = 592
	slotEnabled1  = 0x00AC71F3
	slotDisabled1 = 0x0000DEAD
)

// binary1 is the LUKS1 header as it lies on the disk, big-endian.
type binary1 struct {
	Magic            [6]byte
	Version          uint16
	CipherName       [32]byte
	CipherMode       [32]byte
	HashSpec         [32]byte
	PayloadOffset    uint32 // sectors
	KeyBytes         uint32
	Digest           [20]byte
	DigestSalt       [32]byte
	DigestIterations uint32
	UUID             [40]byte
	Slots            [8]binarySlot1
}

type binarySlot1 struct {
	Active     uint32
	Iterations uint32
	Salt       [32]byte
	Offset     uint32 // sectors
	Stripes    uint32
}

// versionAt returns the version behind the magic at off, or ErrNotLUKS when the magic isn't there.
func versionAt(r io.ReaderAt, size, off int64, magic string) (int, error) {
	var b [8]byte
	if size-off < int64(len(b)) {
		return 0, ErrNotLUKS
	}
	if err := sector.ReadFull(r, b[:], off); err != nil {
		return 0, fmt.Errorf("read the header at %d: %w", off, err)
	}
	if string(b[:6]) != magic {
		return 0, ErrNotLUKS
	}
	return int(binary.BigEndian.Uint16(b[6:])), nil
}

func readHeader1(r io.ReaderAt, at place) (*Header, error) {
	if at.header < header1Size {
		return nil, &DamageError{"header", fmt.Sprintf("the disk ends after %d bytes", at.header)}
	}
	raw := make([]byte, header1Size)
	if err := sector.ReadFull(r, raw, 0); err != nil {
		return nil, fmt.Errorf("read the LUKS1 header: %w", err)
	}
	var b binary1
	if err := binary.Read(bytes.NewReader(raw), binary.BigEndian, &b); err != nil {
		return nil, fmt.Errorf("decode the LUKS1 header: %w", err)
	}
	return b.header(at)
}

func (b *binary1) header(at place) (*Header, error) {
	name, okName := text(b.CipherName[:])
	mode, okMode := text(b.CipherMode[:])
	hash, okHash := text(b.HashSpec[:])
	uuid, okUUID := text(b.UUID[:])
	if !okName || !okMode || !okHash || !okUUID {
		return nil, &DamageError{"header", "a name in it is not printable text"}
	}
	h := &Header{
		Version: 1, UUID: uuid, Cipher: name + "-" + mode, KeyBits: int(min(b.KeyBytes, maxKeySize+1)) * 8, SectorSize: ivUnit,
		Offset: int64(b.PayloadOffset) * ivUnit,
		digest: digest{hash: hash, iterations: clampInt(uint64(b.DigestIterations)), salt: b.DigestSalt[:], value: b.Digest[:]},
	}
	if newHash(hash) == nil {
		return nil, &UnsupportedError{"header", fmt.Sprintf("hash %.32q", hash)}
	}
	if err := h.digest.check("digest of the volume key"); err != nil {
		return nil, err
	}
	if err := checkCipher(h.Cipher, h.KeyBits/8); err != nil {
		return nil, &UnsupportedError{"segment", err.Error()}
	}
	for i := range b.Slots {
		raw := &b.Slots[i]
		s := slot{
			Keyslot: Keyslot{ID: i, KDF: "pbkdf2", Hash: hash, Iterations: clampInt(uint64(raw.Iterations))},
			keySize: h.KeyBits / 8, priority: 1, stripes: clampInt(uint64(raw.Stripes)), afHash: hash,
			areaOffset: int64(raw.Offset) * ivUnit, areaCipher: h.Cipher, areaKeySize: h.KeyBits / 8, salt: raw.Salt[:],
		}
		s.areaSize = s.splitSize()
		h.areas = append(h.areas, area{i, s.areaOffset, s.areaSize})
		switch raw.Active {
		case slotDisabled1:
		case slotEnabled1:
			h.slots = append(h.slots, s)
		default:
			return nil, &DamageError{fmt.Sprintf("key slot %d", i), fmt.Sprintf("its state is %#x, neither in use nor free", raw.Active)}
		}
	}
	if err := h.check(at, header1Size); err != nil {
		return nil, err
	}
	return h, nil
}

// text reads a NUL-padded field; ok is false when it holds more than printable ASCII.
func text(b []byte) (string, bool) {
	b, _, _ = bytes.Cut(b, []byte{0})
	for _, c := range b {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return string(b), true
}

// clampInt keeps numbers that are too large too large, without overflow.
func clampInt(n uint64) int { return int(min(n, 1<<31-1)) }
