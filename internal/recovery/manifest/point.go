package manifest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/bits"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

const (
	// MaxPoint bounds a stored point.
	MaxPoint = 1 << 20
	// MaxItems bounds the disks of a point, and its attachments.
	MaxItems = 256
	// MaxDisk bounds the size of a disk.
	MaxDisk = 1 << 50
	// MinChunk and chunk.MaxSize bound the chunk size of a disk, which is a power of two.
	MinChunk = 64 << 10
	// SaltSize is the length of the random bytes from which a point's key is made.
	SaltSize = 32

	pointMagic   = "KLUISPNT"
	pointVersion = 1
	pointHeader  = 8 + 4 + SaltSize
)

// Point is one recovery point.
type Point struct {
	ID          string            `json:"id"`
	Created     int64             `json:"created"` // Unix microseconds
	Labels      map[string]string `json:"labels"`
	Epoch       uint64            `json:"epoch,omitempty"` // of the owner that has written it
	Disks       []Disk            `json:"disks"`
	Attachments []Attachment      `json:"attachments"`
}

// Disk is one disk of a point.
type Disk struct {
	Name      string   `json:"name"`
	Size      int64    `json:"size"`
	ChunkSize int64    `json:"chunkSize"`
	Data      int64    `json:"data"` // bytes that are not in holes
	Root      *Address `json:"root"` // nil if the whole disk is a hole
	Digest    string   `json:"digest"`
	Counters  Counters `json:"counters"`
}

// Attachment is one document of a point.
type Attachment struct {
	Name string  `json:"name"`
	Size int64   `json:"size"`
	Ref  Address `json:"ref"`
}

// Counters say what became of a disk's bytes when it was written. Size = Zero + New + Reused.
type Counters struct {
	Size int64 `json:"size"` // of the disk
	Read int64 `json:"read"` // read from the source
	// Audited is how much of Read was read only to see whether the changed extents leave something out.
	Audited int64 `json:"audited,omitempty"`

	Zero   int64 `json:"zero"`   // in holes, read or not
	New    int64 `json:"new"`    // in chunks that the store did not have
	Reused int64 `json:"reused"` // in chunks that the store had, read or not
	Stored int64 `json:"stored"` // by which the store grew: records of chunks and of the manifest
}

// Address is a Ref in JSON.
type Address struct {
	ID   string `json:"id"`
	Pack string `json:"pack"`
	Slot uint32 `json:"slot"`
}

// AddressOf returns r for JSON.
func AddressOf(r Ref) Address {
	return Address{hex.EncodeToString(r.ID[:]), hex.EncodeToString(r.Pack[:]), r.Slot}
}

// Ref is the reverse of AddressOf.
func (a Address) Ref() (Ref, error) {
	r := Ref{Slot: a.Slot}
	if err := fromHex(r.ID[:], a.ID); err != nil {
		return Ref{}, err
	}
	if err := fromHex(r.Pack[:], a.Pack); err != nil {
		return Ref{}, err
	}
	if a.Slot >= pack.MaxSlots || r.IsHole() {
		return Ref{}, fmt.Errorf("address of slot %d: %w", a.Slot, chunk.ErrDamaged)
	}
	return r, nil
}

func fromHex(dst []byte, s string) error {
	if len(s) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("hexadecimal of %d characters: %w", len(s), chunk.ErrDamaged)
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("not hexadecimal: %w", chunk.ErrDamaged)
	}
	return nil
}

// Levels returns the height of the tree of a disk: the least n for which Fanout^n chunks cover it.
func Levels(size, chunkSize int64) int {
	levels := 1
	for chunks := (size + chunkSize - 1) / chunkSize; chunks > Fanout; levels++ {
		chunks = (chunks + Fanout - 1) / Fanout
	}
	return levels
}

// DiskDigest returns the digest of a whole disk: BLAKE3 of size, chunk size and the root's digest (zeros
// if the disk is a hole). Disks of one store with the same content have the same.
func DiskDigest(size, chunkSize int64, root Digest) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(size))
	b = binary.BigEndian.AppendUint64(b, uint64(chunkSize))
	sum := blake3.Sum256(append(b, root[:]...))
	return hex.EncodeToString(sum[:])
}

// CheckName returns an error unless name can name a disk or an attachment.
func CheckName(name string) error {
	if name == "" || len(name) > 255 || !utf8.ValidString(name) {
		return fmt.Errorf("name of %d bytes: want UTF-8 of 1 to 255", len(name))
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("name %q holds a control character", name)
		}
	}
	return nil
}

// Check returns an error unless everything in p makes sense, so that readers need not ask.
func (p *Point) Check() error {
	seen := map[string]bool{}
	name := func(kind, name string) error {
		if err := CheckName(name); err != nil {
			return err
		}
		if seen[kind+name] {
			return fmt.Errorf("two %ss named %q", kind, name)
		}
		seen[kind+name] = true
		return nil
	}
	if len(p.Disks) > MaxItems || len(p.Attachments) > MaxItems {
		return fmt.Errorf("%d disks and %d attachments: at most %d each are allowed", len(p.Disks), len(p.Attachments), MaxItems)
	}
	for _, d := range p.Disks {
		if err := name("disk", d.Name); err != nil {
			return err
		}
		if d.Size < 0 || d.Size > MaxDisk || d.Data < 0 || d.Data > d.Size {
			return fmt.Errorf("disk %q of %d bytes, %d of them data", d.Name, d.Size, d.Data)
		}
		if d.ChunkSize < MinChunk || d.ChunkSize > chunk.MaxSize || bits.OnesCount64(uint64(d.ChunkSize)) != 1 {
			return fmt.Errorf("disk %q with chunks of %d bytes", d.Name, d.ChunkSize)
		}
		if (d.Root == nil) != (d.Data == 0) {
			return fmt.Errorf("disk %q without root or without data", d.Name)
		}
		if d.Root != nil {
			if _, err := d.Root.Ref(); err != nil {
				return err
			}
		}
		if err := fromHex(make([]byte, 32), d.Digest); err != nil {
			return err
		}
	}
	for _, a := range p.Attachments {
		if err := name("attachment", a.Name); err != nil {
			return err
		}
		if a.Size < 0 || a.Size > chunk.MaxSize {
			return fmt.Errorf("attachment %q of %d bytes", a.Name, a.Size)
		}
		if _, err := a.Ref.Ref(); err != nil {
			return err
		}
	}
	return nil
}

// Salt returns the salt of a stored point, from which its key is derived.
func Salt(stored []byte) ([]byte, error) {
	if len(stored) < pointHeader+chunk.Overhead || len(stored) > MaxPoint || string(stored[:8]) != pointMagic {
		return nil, fmt.Errorf("not a recovery point: %w", chunk.ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(stored[8:]); v != pointVersion {
		return nil, fmt.Errorf("recovery point of unknown version %d: %w", v, chunk.ErrDamaged)
	}
	return stored[12:pointHeader], nil
}

// Seal encodes p. The key must be made from salt, which must be new: it seals one message only. label is
// the point's object name without its folder.
func (p *Point) Seal(key, salt []byte, label string) ([]byte, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode recovery point: %w", err)
	}
	if len(plain) > MaxPoint-pointHeader-chunk.Overhead {
		return nil, fmt.Errorf("recovery point takes %d bytes: at most %d are allowed", len(plain), MaxPoint)
	}
	aead, err := pointAEAD(key)
	if err != nil {
		return nil, err
	}
	stored := append([]byte(nil), pointMagic...)
	stored = binary.BigEndian.AppendUint32(stored, pointVersion)
	stored = append(stored, salt...)
	return aead.Seal(stored, make([]byte, aead.NonceSize()), plain, append(bytes.Clone(stored), label...)), nil
}

// OpenPoint opens what Seal has made.
func OpenPoint(stored, key []byte, label string) (*Point, error) {
	if _, err := Salt(stored); err != nil {
		return nil, err
	}
	aead, err := pointAEAD(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), stored[pointHeader:], append(bytes.Clone(stored[:pointHeader]), label...))
	if err != nil {
		return nil, fmt.Errorf("recovery point does not authenticate: %w", chunk.ErrDamaged)
	}
	return parsePoint(plain)
}

func parsePoint(plain []byte) (*Point, error) {
	p := new(Point)
	if err := json.Unmarshal(plain, p); err != nil {
		return nil, fmt.Errorf("recovery point does not parse: %w", chunk.ErrDamaged)
	}
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("recovery point: %w: %w", err, chunk.ErrDamaged)
	}
	return p, nil
}

func pointAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return cipher.NewGCM(block)
}
