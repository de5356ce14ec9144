package bitlocker

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
)

// maxTries bounds how many protectors a password is tried on, each of which takes a good part of a second.
const maxTries = 16

// unlock returns the FVEK and the protector that led to it.
func (h *Header) unlock(ctx context.Context, key Key) ([]byte, Protector, error) {
	vmk, by, err := h.unlockVMK(ctx, key)
	if err != nil {
		return nil, Protector{}, err
	}
	defer clear(vmk)
	if err := h.checkHash(vmk); err != nil {
		return nil, Protector{}, err
	}
	fvek, err := openKey(vmk, h.fvek)
	if err != nil {
		return nil, Protector{}, &DamageError{"FVEK", err.Error()}
	}
	if len(fvek) != h.method.keySize() {
		clear(fvek)
		return nil, Protector{}, &DamageError{"FVEK", fmt.Sprintf("%d bytes, and %s needs %d", len(fvek), h.Cipher, h.method.keySize())}
	}
	return fvek, by, nil
}

// unlockVMK tries the key on the protectors of its kind.
func (h *Header) unlockVMK(ctx context.Context, key Key) ([]byte, Protector, error) {
	tried := 0
	for _, p := range h.protectors {
		if p.Kind != key.kind || p.vmk.data == nil || key.kind == KindExternalKey && p.id != key.id {
			continue
		}
		if tried++; tried > maxTries {
			return nil, Protector{}, &UnsupportedError{"protectors", fmt.Sprintf("there are more than %d of the kind %s", maxTries, key.kind)}
		}
		vmk, err := p.open(ctx, key)
		if err == nil {
			return vmk, p.Protector, nil
		}
		if !errors.Is(err, errCCM) {
			return nil, Protector{}, fmt.Errorf("try protector %s: %w", p.ID, err)
		}
	}
	if tried > 0 {
		return nil, Protector{}, fmt.Errorf("%w of its kind (%s: %d)", ErrWrongKey, key.kind, tried)
	}
	if key.kind == KindExternalKey {
		return nil, Protector{}, fmt.Errorf("%w: it is the external key %s, and the volume has no protector of that name", ErrWrongKey, guid(key.id[:]))
	}
	return nil, Protector{}, fmt.Errorf("%w: there is none of its kind (%s)", ErrWrongKey, key.kind)
}

// open returns the VMK; errCCM says that the key is another.
func (p protector) open(ctx context.Context, key Key) ([]byte, error) {
	switch key.kind {
	case KindClearKey:
		if p.key == nil {
			return nil, &DamageError{"protector " + p.ID, "the clear key is not there"}
		}
		return openKey(p.key, p.vmk)
	case KindExternalKey:
		return openKey(key.secret.Reveal(), p.vmk)
	}
	if p.salt == nil {
		return nil, &DamageError{"protector " + p.ID, "it has no salt"}
	}
	stretched, err := stretch(ctx, key.secret.Reveal(), p.salt)
	if err != nil {
		return nil, err
	}
	defer clear(stretched)
	return openKey(stretched, p.vmk)
}

// checkHash compares the metadata with their hash under the VMK: a CRC anybody can mend.
func (h *Header) checkHash(vmk []byte) error {
	if h.hash.data == nil {
		return &DamageError{"validation", "the hash of the metadata is not there"}
	}
	sum, err := openKey(vmk, h.hash)
	if err != nil {
		return &DamageError{"validation", err.Error()}
	}
	defer clear(sum)
	if subtle.ConstantTimeCompare(sum, h.sum[:]) != 1 {
		return &DamageError{"validation", "the hash of the metadata disagrees: they were changed without BitLocker"}
	}
	return nil
}

// openKey decrypts a key under another. What is encrypted is an entry again, with a word for the method
// before the key.
func openKey(key []byte, e entry) ([]byte, error) {
	const nonceSize, tagSize, methodSize = 12, 16, 4
	if len(e.data) < nonceSize+tagSize+entryHeader+methodSize {
		return nil, &DamageError{"encrypted key", fmt.Sprintf("%d bytes", len(e.data))}
	}
	nonce, tag, ciphertext := e.data[:nonceSize], e.data[nonceSize:nonceSize+tagSize], e.data[nonceSize+tagSize:]
	plain, err := openCCM(key, nonce, ciphertext, tag)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return append([]byte(nil), plain[entryHeader+methodSize:]...), nil
}
