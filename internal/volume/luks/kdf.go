package luks

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/argon2"

	"kluis/internal/volume/sector"
)

// newHash returns the hash of that name, nil if there is none.
func newHash(name string) func() hash.Hash {
	switch name {
	case "sha1":
		return sha1.New
	case "sha224":
		return sha256.New224
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	}
	return nil
}

// volumeKey derives the slot's key, decrypts its area and merges the stripes. Whether the result is the
// volume key only the digest can tell.
func (s *slot) volumeKey(ctx context.Context, r io.ReaderAt, passphrase []byte) ([]byte, error) {
	where := fmt.Sprintf("key slot %d", s.ID)
	afHash := newHash(s.afHash)
	if afHash == nil {
		return nil, &UnsupportedError{where, fmt.Sprintf("hash %.32q of the split", s.afHash)}
	}
	if err := checkCipher(s.areaCipher, s.areaKeySize); err != nil {
		return nil, &UnsupportedError{where, err.Error()}
	}
	derived, err := s.derive(ctx, where, passphrase)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	c, err := newSectorCipher(s.areaCipher, derived)
	if err != nil {
		return nil, &UnsupportedError{where, err.Error()}
	}
	split := make([]byte, s.splitSize())
	defer clear(split)
	if err := sector.ReadFull(r, split, s.areaOffset); err != nil {
		return nil, fmt.Errorf("read the key-slot area at %d: %w", s.areaOffset, err)
	}
	c.decrypt(split, ivUnit, 0)
	return mergeAF(split[:s.keySize*s.stripes], s.keySize, afHash()), nil
}

// splitSize is what of the area is in use, in whole sectors.
func (s *slot) splitSize() int64 {
	n := int64(s.keySize) * int64(s.stripes)
	return (n + ivUnit - 1) / ivUnit * ivUnit
}

func (s *slot) derive(ctx context.Context, where string, passphrase []byte) ([]byte, error) {
	switch s.KDF {
	case "pbkdf2":
		h := newHash(s.Hash)
		if h == nil {
			return nil, &UnsupportedError{where, fmt.Sprintf("hash %.32q", s.Hash)}
		}
		if s.Iterations < 1 || s.Iterations > maxPBKDF2 {
			return nil, &UnsupportedError{where, fmt.Sprintf("%d PBKDF2 iterations; 1 to %d are allowed", s.Iterations, maxPBKDF2)}
		}
		return pbkdf2(ctx, h, passphrase, s.salt, s.Iterations, s.areaKeySize)
	case "argon2i", "argon2id":
		switch {
		case s.MemoryKiB < 8 || s.MemoryKiB > maxArgon2Memory:
			return nil, &UnsupportedError{where, fmt.Sprintf("Argon2 with %d KiB of memory; 8 to %d are allowed", s.MemoryKiB, maxArgon2Memory)}
		case s.Threads < 1 || s.Threads > maxArgon2Threads:
			return nil, &UnsupportedError{where, fmt.Sprintf("Argon2 with %d threads; 1 to %d are allowed", s.Threads, maxArgon2Threads)}
		case s.Iterations < 1 || int64(s.Iterations)*int64(s.MemoryKiB) > maxArgon2Work:
			return nil, &UnsupportedError{where, fmt.Sprintf("Argon2 with %d passes over %d KiB; at most %d KiB in all are allowed", s.Iterations, s.MemoryKiB, maxArgon2Work)}
		}
		return s.argon2(ctx, passphrase)
	}
	return nil, &UnsupportedError{where, fmt.Sprintf("key derivation %.32q", s.KDF)}
}

// oneArgon2 lets one computation run at a time, whoever asks: each may take a gigabyte.
var oneArgon2 = make(chan struct{}, 1)

// argon2 can't be interrupted, so it runs beside: a cancelled caller goes on at once, and the computation,
// which is bounded, ends by itself, wipes what it made, and only then lets the next one begin.
func (s *slot) argon2(ctx context.Context, passphrase []byte) ([]byte, error) {
	select {
	case oneArgon2 <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	derive := argon2.IDKey
	if s.KDF == "argon2i" {
		derive = argon2.Key
	}
	own := append([]byte(nil), passphrase...) // the caller may wipe its own after a cancellation
	done := make(chan []byte)
	go func() {
		defer func() { <-oneArgon2 }()
		key := derive(own, s.salt, uint32(s.Iterations), uint32(s.MemoryKiB), uint8(s.Threads), uint32(s.areaKeySize))
		clear(own)
		select {
		case done <- key:
		case <-ctx.Done():
			clear(key)
		}
	}()
	select {
	case key := <-done:
		return key, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// cancelEvery is how many iterations of PBKDF2 pass between two looks at the context: some milliseconds.
const cancelEvery = 1 << 14

// pbkdf2 is RFC 8018's PBKDF2, which the standard library has too, but not so that it can be cancelled.
func pbkdf2(ctx context.Context, h func() hash.Hash, password, salt []byte, iterations, size int) ([]byte, error) {
	mac := hmac.New(h, password)
	key := make([]byte, 0, size+mac.Size())
	u := make([]byte, 0, mac.Size())
	defer func() { clear(u[:cap(u)]) }()
	for block := uint32(1); len(key) < size; block++ {
		mac.Reset()
		mac.Write(salt)
		mac.Write(binary.BigEndian.AppendUint32(nil, block))
		u = mac.Sum(u[:0])
		key = append(key, u...)
		t := key[len(key)-len(u):]
		for i := 1; i < iterations; i++ {
			if i%cancelEvery == 0 && ctx.Err() != nil {
				clear(key[:cap(key)])
				return nil, context.Cause(ctx)
			}
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(u[:0])
			subtle.XORBytes(t, t, u)
		}
	}
	clear(key[size:])
	return key[:size], nil
}

// mergeAF undoes the anti-forensic split: each stripe but the last is mixed in and diffused by the hash.
func mergeAF(split []byte, keySize int, h hash.Hash) []byte {
	key := make([]byte, keySize)
	last := len(split) - keySize
	for at := 0; at < last; at += keySize {
		subtle.XORBytes(key, key, split[at:at+keySize])
		diffuse(key, h)
	}
	subtle.XORBytes(key, key, split[last:])
	return key
}

func diffuse(key []byte, h hash.Hash) {
	var sum [sha512.Size]byte
	var number [4]byte
	for i, at := 0, 0; at < len(key); i, at = i+1, at+h.Size() {
		part := key[at:min(at+h.Size(), len(key))]
		binary.BigEndian.PutUint32(number[:], uint32(i))
		h.Reset()
		h.Write(number[:])
		h.Write(part)
		copy(part, h.Sum(sum[:0]))
	}
	clear(sum[:])
}

// agrees tells whether key is the volume key.
func (d *digest) agrees(ctx context.Context, key []byte) (bool, error) {
	sum, err := pbkdf2(ctx, newHash(d.hash), key, d.salt, d.iterations, len(d.value))
	if err != nil {
		return false, err
	}
	defer clear(sum)
	return subtle.ConstantTimeCompare(sum, d.value) == 1, nil
}

// check finds what would make the digest useless or too dear.
func (d *digest) check(where string) error {
	switch {
	case newHash(d.hash) == nil:
		return &UnsupportedError{where, fmt.Sprintf("hash %.32q", d.hash)}
	case d.iterations < 1 || d.iterations > maxPBKDF2:
		return &UnsupportedError{where, fmt.Sprintf("%d PBKDF2 iterations; 1 to %d are allowed", d.iterations, maxPBKDF2)}
	case len(d.value) < 16 || len(d.value) > sha512.Size:
		return &DamageError{where, fmt.Sprintf("%d bytes long", len(d.value))}
	case len(d.salt) > maxSaltSize:
		return &DamageError{where, "the salt is too long"}
	}
	return nil
}
