// Package luks reads LUKS1 and LUKS2 volumes: what their headers say, whether a key opens them, and the
// bytes inside. It never writes.
//
// The words. A *header* says how a volume is encrypted and holds the *key slots*. A key slot keeps the
// volume key, encrypted under a key derived from a passphrase, and spread over a *key-slot area* so that
// losing any part of the area loses the key (*AF*, the anti-forensic split). A *digest* of the volume key
// tells a right key from a wrong one. The *segment* is where the encrypted sectors are. LUKS1 is read
// into the same words as LUKS2, so there is one way to open a volume.
//
// What holds: every number in a header comes from outside, so it is checked before it is used, and what
// it costs in memory and time is bounded (limits.go). A volume opens only when the digest agrees. Derived
// keys and the volume key are wiped as soon as they are not needed any more; the expanded AES schedules
// inside crypto/aes can't be wiped, Close only lets go of them.
package luks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"kluis/internal/secret"
	"kluis/internal/volume/sector"
)

// ErrNotLUKS says that there is no LUKS header here.
var ErrNotLUKS = errors.New("no LUKS header")

// ErrWrongKey says that a key opens none of the key slots. A damaged key-slot area can't be told from a
// wrong key: either gives a volume key whose digest disagrees.
var ErrWrongKey = errors.New("the key opens none of the key slots")

// ErrClosed is returned by reads of a volume after Close.
var ErrClosed = errors.New("the volume is closed")

// DamageError says that a header is broken: where, and what is wrong there.
type DamageError struct{ Where, What string }

func (e *DamageError) Error() string {
	return "the LUKS header is damaged: " + e.Where + ": " + e.What
}

// UnsupportedError says that a header is sound as far as can be told, and asks for something that this
// package doesn't do or doesn't allow.
type UnsupportedError struct{ Where, What string }

func (e *UnsupportedError) Error() string {
	return "the LUKS volume can't be read: " + e.Where + ": " + e.What
}

// ReencryptError is the UnsupportedError of a volume whose encryption is being changed.
type ReencryptError struct {
	UnsupportedError
	// Mode is what is done to it: encrypt, decrypt or reencrypt.
	Mode string
}

// Unwrap returns the UnsupportedError.
func (e *ReencryptError) Unwrap() error { return &e.UnsupportedError }

// Keyslot is one way to the volume key.
type Keyslot struct {
	ID         int    `json:"id"`
	KDF        string `json:"kdf"`            // pbkdf2, argon2i, argon2id
	Hash       string `json:"hash,omitempty"` // of PBKDF2
	Iterations int    `json:"iterations"`     // PBKDF2's iterations, Argon2's passes
	MemoryKiB  int    `json:"memoryKiB,omitempty"`
	Threads    int    `json:"threads,omitempty"`
}

// Header is what can be known of a volume without a key.
type Header struct {
	Version    int
	UUID       string
	Label      string
	Cipher     string // as cryptsetup writes it: aes-xts-plain64
	KeyBits    int
	SectorSize int
	Offset     int64 // where the encrypted sectors begin
	Size       int64 // of the volume inside
	Keyslots   []Keyslot
	// Damage names what is broken although the volume can still be opened: one of LUKS2's two copies.
	Damage []string

	slots  []slot // those that lead to the volume key
	areas  []area // of every key slot
	digest digest
	ivBase uint64
}

// slot, area and kdf follow the LUKS2 header; sizes are in bytes.
type slot struct {
	Keyslot
	keySize     int // of the volume key
	priority    int
	stripes     int
	afHash      string
	areaOffset  int64
	areaSize    int64
	areaCipher  string
	areaKeySize int
	salt        []byte
}

type digest struct {
	hash       string
	iterations int
	salt       []byte
	value      []byte
}

// place is what a header is held against: the size of what it is on, and that of what the data are on. They
// are the same unless the header is detached.
type place struct {
	header, data int64
	detached     bool
}

// ReadHeader reads the header at the beginning of r, which is size bytes long. The error is ErrNotLUKS, a
// *DamageError, an *UnsupportedError, or r's own.
func ReadHeader(r io.ReaderAt, size int64) (*Header, error) {
	return readHeader(r, place{header: size, data: size})
}

// ReadDetachedHeader reads a header that is kept apart from its data, which are dataSize bytes long.
func ReadDetachedHeader(r io.ReaderAt, size, dataSize int64) (*Header, error) {
	return readHeader(r, place{header: size, data: dataSize, detached: true})
}

func readHeader(r io.ReaderAt, at place) (*Header, error) {
	version, err := versionAt(r, at.header, 0, magic)
	if err != nil && !errors.Is(err, ErrNotLUKS) {
		return nil, err
	}
	if version == 1 {
		return readHeader1(r, at)
	}
	return readHeader2(r, at) // also when there is no magic: LUKS2 has a second copy
}

// Volume is an opened volume: its plain bytes. It may be read by several goroutines; Close must not run
// beside a read.
type Volume struct {
	r      io.ReaderAt
	header *Header
	slot   int
	key    secret.Bytes
	cipher *sectorCipher
}

// Open tries key, the exact bytes of a passphrase or key file, on every key slot. r is size bytes long
// and must stay readable until Close. The error is ErrNotLUKS, ErrWrongKey, a *DamageError, an
// *UnsupportedError, the context's, or r's own.
func Open(ctx context.Context, r io.ReaderAt, size int64, key secret.Bytes) (*Volume, error) {
	h, err := ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	return h.open(ctx, r, r, key)
}

// OpenDetached is Open for a volume whose header is kept apart from its data.
func OpenDetached(ctx context.Context, header io.ReaderAt, headerSize int64, data io.ReaderAt, dataSize int64, key secret.Bytes) (*Volume, error) {
	h, err := ReadDetachedHeader(header, headerSize, dataSize)
	if err != nil {
		return nil, err
	}
	return h.open(ctx, header, data, key)
}

func (h *Header) open(ctx context.Context, header, data io.ReaderAt, key secret.Bytes) (*Volume, error) {
	volumeKey, id, err := h.unlock(ctx, header, key.Reveal())
	if err != nil {
		return nil, err
	}
	c, err := newSectorCipher(h.Cipher, volumeKey)
	if err != nil {
		clear(volumeKey)
		return nil, &UnsupportedError{"segment", err.Error()}
	}
	return &Volume{r: data, header: h, slot: id, key: secret.New(volumeKey), cipher: c}, nil
}

// unlock returns the volume key and the key slot that gave it.
func (h *Header) unlock(ctx context.Context, r io.ReaderAt, passphrase []byte) ([]byte, int, error) {
	slots := slices.Clone(h.slots)
	slices.SortStableFunc(slots, func(a, b slot) int { return b.priority - a.priority })
	var unusable *UnsupportedError
	for _, s := range slots {
		volumeKey, err := s.volumeKey(ctx, r, passphrase)
		if err == nil {
			var right bool
			if right, err = h.digest.agrees(ctx, volumeKey); right {
				return volumeKey, s.ID, nil
			}
			clear(volumeKey)
		}
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) {
			unusable = unsupported
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("try key slot %d: %w", s.ID, err)
		}
	}
	if unusable != nil {
		return nil, 0, unusable // the key may belong to the slot that wasn't tried: don't call it wrong
	}
	return nil, 0, ErrWrongKey
}

// Info returns what the header says.
func (v *Volume) Info() Header { return *v.header }

// Slot is the number of the key slot that the key opened.
func (v *Volume) Slot() int { return v.slot }

// Size is the number of plain bytes.
func (v *Volume) Size() int64 { return v.header.Size }

// Close wipes the volume key. Reads fail afterwards.
func (v *Volume) Close() error {
	v.key.Wipe()
	v.cipher = nil
	return nil
}

// ReadAt reads plain bytes.
func (v *Volume) ReadAt(p []byte, off int64) (int, error) {
	if v.cipher == nil {
		return 0, ErrClosed
	}
	return sector.ReadAt(p, off, v.header.Size, v.header.SectorSize, v.readSectors)
}

// readSectors fills p with whole sectors from off, which is a multiple of the sector size.
func (v *Volume) readSectors(p []byte, off int64) error {
	if err := sector.ReadFull(v.r, p, v.header.Offset+off); err != nil {
		return fmt.Errorf("read encrypted sectors at %d: %w", v.header.Offset+off, err)
	}
	v.cipher.decrypt(p, v.header.SectorSize, v.header.ivBase+uint64(off)/ivUnit)
	return nil
}
