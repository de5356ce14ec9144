package volumetest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/xts"
)

// BitLockerOptions say how a BitLocker volume is made. The zero value is AES-XTS-128 with sectors of 512
// bytes, wholly encrypted, with one external key.
type BitLockerOptions struct {
	Cipher     string // AES-XTS-128, AES-XTS-256, AES-CBC-128, AES-CBC-256, AES-CBC-128 Elephant, AES-CBC-256 Elephant
	SectorSize int
	ToGo       bool
	// Password and RecoveryPassword each add a protector, as does ClearKey. NoExternalKey leaves that one out.
	Password, RecoveryPassword string
	ClearKey, NoExternalKey    bool
	// State and Next are the numbers in the metadata: 4 and 4 when Windows is done.
	State, Next uint16
}

// BitLockerOverhead is by how much the volume is longer than what was encrypted: three copies of the metadata
// and the place of the first sectors. In the plain volume they are zeros at its end.
const BitLockerOverhead = 4 * fveCopy

const (
	fveCopy      = 64 << 10
	fveRelocated = 8 << 10
)

// BitLocker returns a volume with plain inside, whose length is a multiple of the sector size, and its .BEK
// file. Only Windows makes real ones; this follows the format's description and shares no code with the
// reader under test, which reads real ones too.
func BitLocker(plain []byte, o BitLockerOptions) (volume, bek []byte, err error) {
	if o.SectorSize == 0 {
		o.SectorSize = 512
	}
	if o.Cipher == "" {
		o.Cipher = "AES-XTS-128"
	}
	if o.State == 0 {
		o.State, o.Next = 4, 4
	}
	if len(plain) < fveRelocated || len(plain)%max(o.SectorSize, fveCopy) != 0 {
		return nil, nil, fmt.Errorf("make a BitLocker volume: %d bytes are not a multiple of %d", len(plain), fveCopy)
	}
	method := slices.Index([]string{"AES-CBC-128 Elephant", "AES-CBC-256 Elephant", "AES-CBC-128", "AES-CBC-256", "AES-XTS-128", "AES-XTS-256"}, o.Cipher)
	if method < 0 {
		return nil, nil, fmt.Errorf("make a BitLocker volume: cipher %q is not known", o.Cipher)
	}
	v := &fveWriter{o: o, method: uint16(0x8000 + method), image: append(slices.Clone(plain), make([]byte, BitLockerOverhead)...), end: uint64(len(plain))}
	bek, err = v.write()
	return v.image, bek, err
}

type fveWriter struct {
	o      BitLockerOptions
	method uint16
	image  []byte
	end    uint64 // of the plain content; BitLocker's own things follow
	vmk    []byte
	nonce  uint32
}

func (v *fveWriter) write() (bek []byte, err error) {
	v.vmk = random(32)
	fvek := random(map[uint16]int{0x8000: 64, 0x8001: 64, 0x8002: 16, 0x8003: 32, 0x8004: 32, 0x8005: 64}[v.method])
	relocated := v.end + 3*fveCopy
	copy(v.image[relocated:], v.image[:fveRelocated])
	if err := v.encrypt(fvek); err != nil {
		return nil, err
	}
	protectors, bek, err := v.protectors()
	if err != nil {
		return nil, err
	}
	where := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, relocated), fveRelocated)
	entries := slices.Concat(fveEntry(7, 2, wide("KLUIS D: 3/1/2025\x00")), protectors, v.seal(3, v.vmk, fveKey(v.method, fvek)), fveEntry(15, 15, where))
	block := v.block(entries, relocated)
	for i := range uint64(3) {
		clear(v.image[v.end+i*fveCopy : v.end+(i+1)*fveCopy])
		copy(v.image[v.end+i*fveCopy:], block)
	}
	clear(v.image[:512])
	v.boot(v.image)
	return bek, nil
}

// block is a copy of the metadata with its validation.
func (v *fveWriter) block(entries []byte, relocated uint64) []byte {
	le := binary.LittleEndian
	size := (112 + len(entries) + 15) / 16 * 16
	b := make([]byte, size)
	copy(b, "-FVE-FS-")
	le.PutUint16(b[8:], uint16(size>>4))
	le.PutUint16(b[10:], 2)
	le.PutUint16(b[12:], v.o.State)
	le.PutUint16(b[14:], v.o.Next)
	le.PutUint64(b[16:], uint64(len(v.image)))
	if v.o.State != 4 {
		le.PutUint64(b[16:], uint64(len(v.image)/2))
	}
	le.PutUint32(b[28:], uint32(fveRelocated/v.o.SectorSize))
	for i := range 3 {
		le.PutUint64(b[32+8*i:], v.end+uint64(i)*fveCopy)
	}
	le.PutUint64(b[56:], relocated)
	for i, n := range []uint32{uint32(48 + len(entries)), 1, 48, uint32(48 + len(entries))} {
		le.PutUint32(b[64+4*i:], n)
	}
	copy(b[80:], random(16))
	le.PutUint32(b[96:], v.nonce+2)
	le.PutUint16(b[100:], v.method)
	copy(b[112:], entries)
	sum := sha256.Sum256(b)
	b = le.AppendUint16(b, uint16(fveCopy-size))
	b = le.AppendUint16(b, 2)
	b = le.AppendUint32(b, crc32.ChecksumIEEE(b[:size]))
	return append(b, v.seal(0, v.vmk, fveKey(0x2005, sum[:]))...)
}

func (v *fveWriter) boot(b []byte) {
	le := binary.LittleEndian
	copy(b, "\xeb\x58\x90-FVE-FS-")
	at := 160
	if v.o.ToGo {
		copy(b[3:], "MSWIN4.1")
		at = 424
	}
	le.PutUint16(b[11:], uint16(v.o.SectorSize))
	b[13] = 8
	copy(b[at:], "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
	for i := range uint64(3) {
		le.PutUint64(b[at+16+8*int(i):], v.end+i*fveCopy)
	}
	b[510], b[511] = 0x55, 0xAA
}

// protectors returns their entries and the .BEK file.
func (v *fveWriter) protectors() (all, bek []byte, err error) {
	add := func(kind uint16, id []byte, properties ...[]byte) {
		data := slices.Concat(id, make([]byte, 10), binary.LittleEndian.AppendUint16(nil, kind), slices.Concat(properties...))
		all = append(all, fveEntry(2, 8, data)...)
	}
	vmk := fveKey(0x2003, v.vmk)
	if !v.o.NoExternalKey {
		id, key := random(16), random(32)
		add(0x200, id, fveEntry(0, 2, wide("ExternalKey\x00")), v.seal(0, key, vmk))
		external := slices.Concat(id, make([]byte, 8), fveKey(0x2002, key))
		body := fveEntry(6, 9, external)
		head := make([]byte, 48)
		for at, n := range map[int]uint32{0: uint32(48 + len(body)), 4: 1, 8: 48, 12: uint32(48 + len(body)), 32: 1} {
			binary.LittleEndian.PutUint32(head[at:], n)
		}
		copy(head[16:], id)
		bek = append(head, body...)
	}
	if v.o.ClearKey {
		key := random(32)
		add(0, random(16), fveKey(0x2002, key), v.seal(0, key, vmk))
	}
	if v.o.Password != "" {
		once := sha256.Sum256(wide(v.o.Password))
		v.stretched(add, 0x2000, 0x1001, once[:], vmk)
	}
	if v.o.RecoveryPassword != "" {
		var key []byte
		for group := range strings.SplitSeq(v.o.RecoveryPassword, "-") {
			n, err := strconv.Atoi(group)
			if err != nil {
				return nil, nil, fmt.Errorf("make a recovery password: %w", err)
			}
			key = binary.LittleEndian.AppendUint16(key, uint16(n/11))
		}
		v.stretched(add, 0x800, 0x1000, key, vmk)
	}
	return all, bek, nil
}

func (v *fveWriter) stretched(add func(uint16, []byte, ...[]byte), kind uint16, method uint32, from, vmk []byte) {
	salt, state := random(16), make([]byte, 88)
	first := sha256.Sum256(from)
	copy(state[32:], first[:])
	copy(state[64:], salt)
	for i := range uint64(1 << 20) {
		binary.LittleEndian.PutUint64(state[80:], i)
		sum := sha256.Sum256(state)
		copy(state, sum[:])
	}
	add(kind, random(16), fveEntry(0, 3, append(binary.LittleEndian.AppendUint32(nil, method), salt...)), v.seal(0, state[:32], vmk))
}

func fveEntry(kind, value uint16, data []byte) []byte {
	var b []byte
	for _, n := range []uint16{uint16(8 + len(data)), kind, value, 1} {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return append(b, data...)
}

func fveKey(method uint16, key []byte) []byte {
	return fveEntry(0, 1, append(binary.LittleEndian.AppendUint32(nil, uint32(method)), key...))
}

// seal encrypts an entry by AES-CCM with a 12-byte nonce and a 16-byte tag, and makes an entry of that.
func (v *fveWriter) seal(kind uint16, key, plain []byte) []byte {
	v.nonce++
	nonce := binary.LittleEndian.AppendUint32(make([]byte, 8), v.nonce)
	block, _ := aes.NewCipher(key) // all keys here are of 256 bits
	mac := slices.Concat([]byte{7<<3 | 2}, nonce, []byte{0, byte(len(plain) >> 8), byte(len(plain))})
	padded := append(slices.Clone(plain), make([]byte, (16-len(plain)%16)%16)...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(mac, mac)
	chain := cipher.NewCBCEncrypter(block, mac)
	chain.CryptBlocks(padded, padded)
	out := append(slices.Clone(padded[len(padded)-16:]), plain...)
	counter := slices.Concat([]byte{2}, nonce, make([]byte, 3))
	cipher.NewCTR(block, counter).XORKeyStream(out, out)
	return fveEntry(kind, 5, append(nonce, out...))
}

// encrypt encrypts every sector, also those whose ciphertext is written over later.
func (v *fveWriter) encrypt(fvek []byte) error {
	n := v.o.SectorSize
	if strings.Contains(v.o.Cipher, "XTS") {
		x, err := xts.NewCipher(aes.NewCipher, fvek)
		if err != nil {
			return err
		}
		for i := 0; i < len(v.image); i += n {
			x.Encrypt(v.image[i:i+n], v.image[i:i+n], uint64(i/n))
		}
		return nil
	}
	size := map[bool]int{true: 16, false: 32}[strings.Contains(v.o.Cipher, "128")]
	block, err := aes.NewCipher(fvek[:size])
	if err != nil {
		return err
	}
	var tweak cipher.Block
	if strings.Contains(v.o.Cipher, "Elephant") {
		if tweak, err = aes.NewCipher(fvek[32 : 32+size]); err != nil {
			return err
		}
	}
	for i := 0; i < len(v.image); i += n {
		sector, iv := v.image[i:i+n], binary.LittleEndian.AppendUint64(nil, uint64(i))
		iv = append(iv, make([]byte, 8)...)
		if tweak != nil {
			diffuse(sector, iv, tweak)
		}
		block.Encrypt(iv, iv)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(sector, sector)
	}
	return nil
}

// diffuse is Elephant: the sector key, diffuser A, diffuser B.
func diffuse(sector, place []byte, tweak cipher.Block) {
	key := make([]byte, 32)
	second := slices.Clone(place)
	second[15] = 0x80
	tweak.Encrypt(key, place)
	tweak.Encrypt(key[16:], second)
	n := len(sector) / 4
	d := make([]uint32, n)
	for i := range sector {
		sector[i] ^= key[i%32]
	}
	for i := range d {
		d[i] = binary.LittleEndian.Uint32(sector[4*i:])
	}
	for range 5 {
		for i := n - 1; i >= 0; i-- {
			d[i] -= d[(n+i-2)%n] ^ bits.RotateLeft32(d[(n+i-5)%n], []int{9, 0, 13, 0}[i%4])
		}
	}
	for range 3 {
		for i := n - 1; i >= 0; i-- {
			d[i] -= d[(i+2)%n] ^ bits.RotateLeft32(d[(i+5)%n], []int{0, 10, 0, 25}[i%4])
		}
	}
	for i := range d {
		binary.LittleEndian.PutUint32(sector[4*i:], d[i])
	}
}

func wide(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
