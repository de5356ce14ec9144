package bitlocker

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/xts"
)

// method is a way to encrypt sectors, by its number in the metadata.
type method struct {
	name    string
	keyBits int // of AES; XTS and the diffuser have two such keys
	mode    mode
}

type mode int

const (
	modeCBC mode = iota
	modeElephant
	modeXTS
)

var methods = map[uint16]method{
	0x8000: {"AES-CBC-128 Elephant", 128, modeElephant},
	0x8001: {"AES-CBC-256 Elephant", 256, modeElephant},
	0x8002: {"AES-CBC-128", 128, modeCBC},
	0x8003: {"AES-CBC-256", 256, modeCBC},
	0x8004: {"AES-XTS-128", 128, modeXTS},
	0x8005: {"AES-XTS-256", 256, modeXTS},
}

// tweakOffset is where the diffuser's key begins behind the FVEK, whatever the size of either.
const tweakOffset = 32

// keySize is how many bytes the FVEK's entry holds.
func (m method) keySize() int {
	switch m.mode {
	case modeElephant:
		return 2 * tweakOffset
	case modeXTS:
		return 2 * m.keyBits / 8
	}
	return m.keyBits / 8
}

// sectorCipher decrypts sectors as BitLocker does.
type sectorCipher struct {
	xts   *xts.Cipher
	cbc   cipher.Block
	tweak cipher.Block // of the Elephant diffuser; nil: there is none
}

func newSectorCipher(m method, key []byte) (*sectorCipher, error) {
	c := &sectorCipher{}
	var err error
	if m.mode == modeXTS {
		c.xts, err = xts.NewCipher(aes.NewCipher, key)
		return c, err
	}
	if c.cbc, err = aes.NewCipher(key[:m.keyBits/8]); err != nil {
		return nil, err
	}
	if m.mode == modeElephant {
		c.tweak, err = aes.NewCipher(key[tweakOffset : tweakOffset+m.keyBits/8])
	}
	return c, err
}

// decrypt decrypts whole sectors in place; off is where the first lies on the volume. XTS counts sectors,
// CBC counts bytes.
func (c *sectorCipher) decrypt(p []byte, sectorSize int, off int64) {
	for ; len(p) > 0; p, off = p[sectorSize:], off+int64(sectorSize) {
		sector := p[:sectorSize]
		if c.xts != nil {
			c.xts.Decrypt(sector, sector, uint64(off)/uint64(sectorSize))
			continue
		}
		var vector [aes.BlockSize]byte
		binary.LittleEndian.PutUint64(vector[:], uint64(off))
		c.cbc.Encrypt(vector[:], vector[:])
		cipher.NewCBCDecrypter(c.cbc, vector[:]).CryptBlocks(sector, sector)
		if c.tweak != nil {
			undiffuse(sector)
			c.xorSectorKey(sector, off)
		}
	}
}

const maxSector = 4096

// undiffuse undoes Elephant (N. Ferguson, AES-CBC + Elephant diffuser, 2006, section 4.4): diffuser B in
// three rounds, then diffuser A in five, over the sector as a ring of little-endian words.
func undiffuse(sector []byte) {
	var ring [maxSector / 4]uint32
	n := len(sector) / 4
	words := ring[:n]
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(sector[4*i:])
	}
	for range 3 {
		for i := range words {
			words[i] += words[(i+2)%n] ^ bits.RotateLeft32(words[(i+5)%n], [4]int{0, 10, 0, 25}[i%4])
		}
	}
	for range 5 {
		for i := range words {
			words[i] += words[(i+n-2)%n] ^ bits.RotateLeft32(words[(i+n-5)%n], [4]int{9, 0, 13, 0}[i%4])
		}
	}
	for i, w := range words {
		binary.LittleEndian.PutUint32(sector[4*i:], w)
	}
}

// xorSectorKey takes off the sector key: two blocks, of the offset and of the offset with the top bit set.
func (c *sectorCipher) xorSectorKey(sector []byte, off int64) {
	var key [2 * aes.BlockSize]byte
	binary.LittleEndian.PutUint64(key[:], uint64(off))
	copy(key[aes.BlockSize:], key[:aes.BlockSize])
	key[len(key)-1] = 0x80
	c.tweak.Encrypt(key[:aes.BlockSize], key[:aes.BlockSize])
	c.tweak.Encrypt(key[aes.BlockSize:], key[aes.BlockSize:])
	for ; len(sector) > 0; sector = sector[len(key):] {
		subtle.XORBytes(sector, sector[:len(key)], key[:])
	}
}
