package bitlocker

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

var errCCM = errors.New("the tag doesn't agree")

// openCCM decrypts and authenticates by AES-CCM (RFC 3610, NIST SP 800-38C) without associated data. The
// nonce has 7 to 13 bytes and the tag 4 to 16, an even number; the standard library has no CCM. On a tag
// that disagrees there is no plaintext.
func openCCM(key, nonce, ciphertext, tag []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if len(nonce) < 7 || len(nonce) > 13 || len(tag) < 4 || len(tag) > 16 || len(tag)%2 != 0 {
		return nil, errors.New("nonce or tag of another length than CCM's")
	}
	counterSize := 15 - len(nonce)
	if counterSize < 4 && len(ciphertext) >= 1<<(8*counterSize) {
		return nil, errors.New("too long for its nonce")
	}
	var counter, first [aes.BlockSize]byte
	counter[0] = byte(counterSize - 1)
	copy(counter[1:], nonce)
	// The first block of the key stream hides the tag, those that follow the plaintext.
	stream := cipher.NewCTR(block, counter[:])
	stream.XORKeyStream(first[:], first[:])
	plain := make([]byte, len(ciphertext))
	stream.XORKeyStream(plain, ciphertext)
	sum := ccmTag(block, nonce, plain, len(tag))
	subtle.XORBytes(sum[:], sum[:], first[:])
	if subtle.ConstantTimeCompare(sum[:len(tag)], tag) != 1 {
		clear(plain)
		return nil, errCCM
	}
	return plain, nil
}

// ccmTag is CCM's CBC-MAC over the length and the plaintext, which is padded with zeros.
func ccmTag(block cipher.Block, nonce, plain []byte, tagSize int) (mac [aes.BlockSize]byte) {
	binary.BigEndian.PutUint64(mac[8:], uint64(len(plain)))
	mac[0] = byte((tagSize-2)/2<<3 | (14 - len(nonce)))
	copy(mac[1:], nonce)
	block.Encrypt(mac[:], mac[:])
	for len(plain) > 0 {
		n := subtle.XORBytes(mac[:], mac[:], plain[:min(aes.BlockSize, len(plain))])
		block.Encrypt(mac[:], mac[:])
		plain = plain[n:]
	}
	return mac
}
