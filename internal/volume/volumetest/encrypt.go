package volumetest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/xts"
)

// sectorEncrypter returns what encrypts one sector in place, given its number in units of 512 bytes. It
// may be used by several goroutines.
func sectorEncrypter(spec string, key []byte) (func(sector []byte, number uint64), error) {
	switch spec {
	case "aes-xts-plain64", "aes-xts-plain":
		x, err := xts.NewCipher(aes.NewCipher, key)
		if err != nil {
			return nil, err
		}
		return func(sector []byte, number uint64) {
			if spec == "aes-xts-plain" {
				number &= 0xffffffff
			}
			x.Encrypt(sector, sector, number)
		}, nil
	case "aes-cbc-plain64", "aes-cbc-essiv:sha256":
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		salt := sha256.Sum256(key)
		essiv, err := aes.NewCipher(salt[:])
		if err != nil {
			return nil, err
		}
		return func(sector []byte, number uint64) {
			iv := make([]byte, aes.BlockSize)
			binary.LittleEndian.PutUint64(iv, number)
			if spec == "aes-cbc-essiv:sha256" {
				essiv.Encrypt(iv, iv)
			}
			cipher.NewCBCEncrypter(block, iv).CryptBlocks(sector, sector)
		}, nil
	}
	return nil, fmt.Errorf("cipher %q can't be made here", spec)
}
