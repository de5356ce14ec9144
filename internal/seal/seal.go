// Package seal turns bytes that must stay secret into bytes that may be stored.
//
// One random root key, made at the first start, is the origin of all sealing. It is never on disk in
// plain: it lies in root.age, encrypted with age to the recipients of an identity file. Who holds the
// identity file and root.age can open everything; who holds one of them, or the database alone, nothing.
//
//	seal-identity.txt   age X25519 identities, mode 0600: unwraps the root at start; keep a copy offline
//	root.age            the root key, encrypted to the recipients of those identities
//	        └── HKDF-SHA-256(root, context) ── AES-256-GCM ── sealed bytes
//
// To seal is to encrypt and authenticate under a context: a string that says what the bytes are and
// where they belong ("keyvault/v/secret/n/version"). Sealed bytes open only under the very same context,
// so a row copied over another, or a value moved between vaults, doesn't open.
//
// To wrap is to encrypt to the age recipients themselves: the wrapped bytes can be opened with the
// identity alone, when neither root.age nor a database is left.
//
// Sealed bytes, version 1:
//
//	1 byte version (0x01) | 4 bytes id of the root key | 12 bytes nonce | ciphertext and 16 bytes tag
//
// The first five bytes and the context are authenticated with the ciphertext. The id is derived from the
// root key and says nothing about it; it is there so that a later root can live beside an older one.
// Nonces are random: each context has a key of its own, and no context is sealed often enough
// (2^32 times) for a random 96-bit nonce to repeat.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"kluis/internal/secret"
)

// ErrSealed means that bytes don't open: they were changed, they belong to another context, or
// they were sealed under another root key. Which of these is not told, because it can't be known.
var ErrSealed = errors.New("sealed bytes don't open: changed, from another place, or sealed under another root key")

// Sizes and versions of the formats.
const (
	version1   = 0x01
	rootSize   = 32
	idSize     = 4
	nonceSize  = 12
	tagSize    = 16
	headerSize = 1 + idSize
	overhead   = headerSize + nonceSize + tagSize

	maxWrapped = 1 << 20 // what Unwrap and the root file may hold
)

// Root seals and opens. It is safe for concurrent use.
type Root struct {
	key        secret.Bytes
	id         [idSize]byte
	identities []age.Identity
	recipients []age.Recipient
	rand       io.Reader
}

func newRoot(key []byte, ids []*age.X25519Identity, rand io.Reader) (*Root, error) {
	if len(key) != rootSize {
		return nil, fmt.Errorf("root key has %d bytes, want %d", len(key), rootSize)
	}
	r := &Root{key: secret.New(key), rand: rand}
	id, err := hkdf.Key(sha256.New, key, nil, "kluis/seal/v1/id", idSize)
	if err != nil {
		return nil, fmt.Errorf("derive id of the root key: %w", err)
	}
	copy(r.id[:], id)
	for _, i := range ids {
		r.identities = append(r.identities, i)
		r.recipients = append(r.recipients, i.Recipient())
	}
	return r, nil
}

// Seal encrypts and authenticates plain under context. Two calls never give the same bytes.
func (r *Root) Seal(context string, plain []byte) ([]byte, error) {
	aead, err := r.aead(context)
	if err != nil {
		return nil, err
	}
	out := make([]byte, headerSize+nonceSize, overhead+len(plain))
	out[0] = version1
	copy(out[1:], r.id[:])
	nonce := out[headerSize:]
	if _, err := io.ReadFull(r.rand, nonce); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return aead.Seal(out, nonce, plain, additional(out[:headerSize], context)), nil
}

// Open returns what Seal was given under the same context, or ErrSealed.
func (r *Root) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) < overhead || sealed[0] != version1 || !bytes.Equal(sealed[1:headerSize], r.id[:]) {
		return nil, ErrSealed
	}
	aead, err := r.aead(context)
	if err != nil {
		return nil, err
	}
	nonce, body := sealed[headerSize:headerSize+nonceSize], sealed[headerSize+nonceSize:]
	plain, err := aead.Open(nil, nonce, body, additional(sealed[:headerSize], context))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func (r *Root) aead(context string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, r.key.Reveal(), nil, "kluis/seal/v1/context/"+context, 32)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// additional is what is authenticated beside the ciphertext. The length makes header and context unambiguous.
func additional(header []byte, context string) []byte {
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(header)+len(context)), uint32(len(header)))
	return append(append(out, header...), context...)
}

// Wrap encrypts plain to the recipients of the identity file.
func (r *Root) Wrap(plain []byte) ([]byte, error) { return wrap(plain, r.recipients) }

// Unwrap returns what Wrap was given; ErrSealed if no identity opens it or it was changed.
func (r *Root) Unwrap(wrapped []byte) ([]byte, error) { return unwrap(wrapped, r.identities) }

func wrap(plain []byte, to []age.Recipient) ([]byte, error) {
	if len(plain) > maxWrapped/2 {
		return nil, fmt.Errorf("wrap %d bytes: more than %d", len(plain), maxWrapped/2)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("wrap: %w", err)
	}
	return out.Bytes(), nil
}

func unwrap(wrapped []byte, with []age.Identity) ([]byte, error) {
	if len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("unwrap %d bytes: more than %d", len(wrapped), maxWrapped)
	}
	plain, err := age.Decrypt(bytes.NewReader(wrapped), with...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	out, err := io.ReadAll(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return out, nil
}
