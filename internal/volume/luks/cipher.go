package luks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/crypto/xts"
)

// ivUnit is what initialization vectors count in, whatever the sector size.
const ivUnit = 512

// sectorCipher decrypts sectors the way dm-crypt does.
type sectorCipher struct {
	xts   *xts.Cipher
	cbc   cipher.Block
	essiv cipher.Block // encrypts the sector number; nil: the number itself is the vector
	short bool         // 'plain': only 32 bits of the sector number count
}

// checkCipher tells whether a cipher is known and takes keys of that size.
func checkCipher(spec string, keySize int) error {
	name, mode, iv := splitCipher(spec)
	known := name == "aes" && (mode == "xts" && (iv == "plain" || iv == "plain64") ||
		mode == "cbc" && (iv == "plain" || iv == "plain64" || iv == "essiv:sha256"))
	if !known {
		return fmt.Errorf("cipher %.64q is not known", spec)
	}
	single := keySize
	if mode == "xts" {
		if keySize%2 != 0 {
			return fmt.Errorf("a key of %d bytes doesn't fit cipher %s", keySize, spec)
		}
		single /= 2
	}
	if single != 16 && single != 24 && single != 32 {
		return fmt.Errorf("a key of %d bytes doesn't fit cipher %s", keySize, spec)
	}
	return nil
}

func splitCipher(spec string) (name, mode, iv string) {
	name, rest, _ := strings.Cut(spec, "-")
	mode, iv, _ = strings.Cut(rest, "-")
	return name, mode, iv
}

func newSectorCipher(spec string, key []byte) (*sectorCipher, error) {
	if err := checkCipher(spec, len(key)); err != nil {
		return nil, err
	}
	_, mode, iv := splitCipher(spec)
	c := &sectorCipher{short: iv == "plain"}
	var err error
	if mode == "xts" {
		c.xts, err = xts.NewCipher(aes.NewCipher, key)
		return c, err
	}
	if c.cbc, err = aes.NewCipher(key); err != nil {
		return nil, err
	}
	if iv == "essiv:sha256" {
		salt := sha256.Sum256(key)
		c.essiv, err = aes.NewCipher(salt[:])
		clear(salt[:])
	}
	return c, err
}

// decrypt decrypts whole sectors in place; iv is the number of the first in units of 512 bytes.
func (c *sectorCipher) decrypt(p []byte, sectorSize int, iv uint64) {
	for ; len(p) > 0; p, iv = p[sectorSize:], iv+uint64(sectorSize/ivUnit) {
		sector, number := p[:sectorSize], iv
		if c.short {
			number = uint64(uint32(iv))
		}
		if c.xts != nil {
			c.xts.Decrypt(sector, sector, number)
			continue
		}
		var vector [aes.BlockSize]byte
		binary.LittleEndian.PutUint64(vector[:], number)
		if c.essiv != nil {
			c.essiv.Encrypt(vector[:], vector[:])
		}
		cipher.NewCBCDecrypter(c.cbc, vector[:]).CryptBlocks(sector, sector)
	}
}
