// Package seal turns bytes that must stay secret into bytes that may be stored.
//
// One random root key, made at the first start, is the origin of all sealing. It is never on disk in
// plain: it lies in root.age, encrypted with age to the recipients of an identity file and to those that were
// added. Who holds one of these identities and root.age can open everything; who holds one of them, or the
// database alone, nothing.
//
//	seal-identity.txt   age X25519 identities, mode 0600: unwraps the root at start; keep a copy offline
//	root.age            root keys, newest first, and recipients, encrypted to all recipients
//	outside-….age       the identities, wrapped by a key in a key service outside, instead of the file (outside.go)
//	        └── HKDF-SHA-256(root, context) ── AES-256-GCM ── sealed bytes
//
// To rotate is to put a new root before the older ones. From then on what is sealed is sealed under the new one;
// what was sealed before opens as before, for older roots are never dropped: backups of keys that lie in recovery
// points can't be sealed anew. root.age is one file that is replaced whole, so a rotation that is killed has
// either happened or not. The recipients lie within it and not beside it: who can write the folder but opens
// nothing can't add himself.
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
// root key and says nothing about it; by it a root finds what it has sealed among several.
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
	"slices"
	"sync"

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
	rand       io.Reader
	path       string // of root.age; empty for one that can only open
	outside    Outside
	fromFile   bool // the identities lie in a file here, or come from systemd
	identities []age.Identity
	own        []string // recipients of the identities, without whom the server doesn't start

	changing sync.Mutex // held while root.age is replaced
	mu       sync.RWMutex
	ring     ring // replaced whole
}

// ring is what root.age holds.
type ring struct {
	roots      []rootKey // newest first, at least one
	recipients []string  // all to whom root.age is wrapped, the server's own first
}

type rootKey struct {
	key secret.Bytes
	id  [idSize]byte
}

func newRootKey(key []byte) (rootKey, error) {
	if len(key) != rootSize {
		return rootKey{}, fmt.Errorf("root key has %d bytes, want %d", len(key), rootSize)
	}
	k := rootKey{key: secret.New(key)}
	id, err := hkdf.Key(sha256.New, key, nil, "kluis/seal/v1/id", idSize)
	if err != nil {
		return rootKey{}, fmt.Errorf("derive id of the root key: %w", err)
	}
	copy(k.id[:], id)
	return k, nil
}

func (r *Root) current() ring {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ring
}

// Mark is what everything begins with that Seal returns now. Sealed bytes that begin otherwise are under an older root.
func (r *Root) Mark() []byte {
	id := r.current().roots[0].id
	return append([]byte{version1}, id[:]...)
}

// Seal encrypts and authenticates plain under context. Two calls never give the same bytes.
func (r *Root) Seal(context string, plain []byte) ([]byte, error) {
	root := r.current().roots[0]
	aead, err := root.aead(context)
	if err != nil {
		return nil, err
	}
	out := make([]byte, headerSize+nonceSize, overhead+len(plain))
	out[0] = version1
	copy(out[1:], root.id[:])
	nonce := out[headerSize:]
	if _, err := io.ReadFull(r.rand, nonce); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	return aead.Seal(out, nonce, plain, additional(out[:headerSize], context)), nil
}

// Open returns what Seal was given under the same context, or ErrSealed.
func (r *Root) Open(context string, sealed []byte) ([]byte, error) {
	if len(sealed) < overhead || sealed[0] != version1 {
		return nil, ErrSealed
	}
	roots := r.current().roots
	at := slices.IndexFunc(roots, func(k rootKey) bool { return bytes.Equal(sealed[1:headerSize], k.id[:]) })
	if at < 0 {
		return nil, ErrSealed
	}
	aead, err := roots[at].aead(context)
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

func (k rootKey) aead(context string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.key.Reveal(), nil, "kluis/seal/v1/context/"+context, 32)
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

// Wrap encrypts plain to all recipients of age. Those outside open it too, by the identity that they unwrap.
func (r *Root) Wrap(plain []byte) ([]byte, error) {
	return wrap(plain, ageOnly(r.current().recipients))
}

// Unwrap returns what Wrap was given; ErrSealed if no identity opens it or it was changed.
func (r *Root) Unwrap(wrapped []byte) ([]byte, error) { return unwrap(wrapped, r.identities) }

func wrap(plain []byte, recipients []string) ([]byte, error) {
	to := make([]age.Recipient, len(recipients))
	for i, text := range recipients {
		var err error
		if to[i], err = parseRecipient(text); err != nil {
			return nil, err
		}
	}
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
