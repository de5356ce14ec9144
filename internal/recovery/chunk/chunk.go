// Package chunk turns plain bytes into sealed records and back, one at a time.
//
// A chunk is a piece of at most MaxSize bytes: a part of a disk, a node of a manifest, or a document. Its
// ID is a keyed hash of its content and its kind, so equal chunks have equal ids within one store, while
// nobody without the store's key can tell what an id stands for.
//
// A record is the chunk as it is stored: compressed if that helps, then sealed with AES-256-GCM under
// the key of the pack it goes to. The nonce is its slot in the pack: a pack is written once and
// every slot is sealed once, so no nonce is ever used twice under one key. The additional data hold the
// pack, the slot, the id, the kind, the flags and the plain length: a record that was moved, swapped or
// relabelled does not open.
package chunk

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/zeebo/blake3"
)

const (
	// MaxSize bounds what one chunk can hold; nothing allocates more for a record.
	MaxSize = 1 << 20
	// Overhead is how much longer a sealed record is than what was sealed.
	Overhead = 16
	// KeySize is the length of every key of the store.
	KeySize = 32
)

// ErrDamaged means that stored bytes are not what was stored.
var ErrDamaged = errors.New("damaged")

// ID names a chunk by its content.
type ID [16]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Kind says what a chunk holds. Kinds never share ids or records.
type Kind uint8

// The kinds of chunks.
const (
	Data     Kind = 1 // a part of a disk
	Node     Kind = 2 // a node of a manifest
	Document Kind = 3 // a document within a recovery point
)

// Valid tells whether k is a kind that this package knows.
func (k Kind) Valid() bool { return Data <= k && k <= Document }

// Compressed is the flag of a record that holds a zstd frame.
const Compressed = 1

// Hasher computes ids. It may be used by several goroutines.
type Hasher struct{ pools [Document + 1]sync.Pool }

// NewHasher makes a hasher with one key a kind.
func NewHasher(keys map[Kind][]byte) (*Hasher, error) {
	h := new(Hasher)
	for kind, key := range keys {
		keyed, err := blake3.NewKeyed(key)
		if err != nil {
			return nil, fmt.Errorf("make hasher: %w", err)
		}
		h.pools[kind].New = func() any { return keyed.Clone() }
	}
	return h, nil
}

// ID returns the id of a chunk: the first 16 bytes of the keyed BLAKE3 of its content.
func (h *Hasher) ID(kind Kind, plain []byte) ID {
	b := h.pools[kind].Get().(*blake3.Hasher)
	defer h.pools[kind].Put(b)
	b.Reset()
	_, _ = b.Write(plain)
	var sum [32]byte
	b.Sum(sum[:0])
	return ID(sum[:16])
}

// Place is where a record stands; no two records have the same.
type Place struct {
	Pack [16]byte
	Slot uint32
}

// Info is what must be known of a record to open it.
type Info struct {
	ID    ID
	Kind  Kind
	Flags uint8
	Plain uint32 // length of the chunk
}

// Check returns an error unless i describes a record of length bytes that Open may be asked to open.
func (i Info) Check(length int64) error {
	switch {
	case !i.Kind.Valid():
		return fmt.Errorf("record of unknown kind %d: %w", i.Kind, ErrDamaged)
	case i.Flags&^Compressed != 0:
		return fmt.Errorf("record with unknown flags %#x: %w", i.Flags, ErrDamaged)
	case i.Plain == 0 && i.Kind != Document, i.Plain > MaxSize:
		return fmt.Errorf("record of a chunk of %d bytes: %w", i.Plain, ErrDamaged)
	case i.Flags == 0 && length != int64(i.Plain)+Overhead,
		i.Flags == Compressed && (length <= Overhead || length >= int64(i.Plain)+Overhead):
		return fmt.Errorf("record of %d bytes for a chunk of %d: %w", length, i.Plain, ErrDamaged)
	}
	return nil
}

// Box seals and opens the records of one pack.
type Box struct{ aead cipher.AEAD }

// NewBox makes the box for a pack's key.
func NewBox(key []byte) (*Box, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &Box{aead}, nil
}

// seal appends the sealed payload to dst.
func (b *Box) seal(dst, payload []byte, at Place, i Info) []byte {
	nonce, aad := bind(at, i)
	return b.aead.Seal(dst, nonce[:], payload, aad[:])
}

// open appends the opened payload to dst.
func (b *Box) open(dst, sealed []byte, at Place, i Info) ([]byte, error) {
	nonce, aad := bind(at, i)
	payload, err := b.aead.Open(dst, nonce[:], sealed, aad[:])
	if err != nil {
		return nil, fmt.Errorf("record in slot %d does not authenticate: %w", at.Slot, ErrDamaged)
	}
	return payload, nil
}

func bind(at Place, i Info) (nonce [12]byte, aad [42]byte) {
	binary.BigEndian.PutUint32(nonce[8:], at.Slot)
	copy(aad[0:], at.Pack[:])
	binary.BigEndian.PutUint32(aad[16:], at.Slot)
	copy(aad[20:], i.ID[:])
	binary.BigEndian.PutUint32(aad[36:], i.Plain)
	aad[40], aad[41] = byte(i.Kind), i.Flags
	return nonce, aad
}
