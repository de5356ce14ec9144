// Package pack knows how records lie in a pack.
//
// A pack is one object: a header, records one after the other, and a footer that says what is in which
// slot. It is written once, from front to back, without knowing its size before, and it describes itself:
// from the packs alone everything else about them can be rebuilt. The footer is sealed. The
// checksums after it are not, so that whoever keeps the packs can find decayed bytes without any key;
// what the bytes mean is proved by the seals only.
//
//	header   magic "KLUISPCK" · version · 0 · pack id
//	records  (any order, any gaps)
//	footer   sealed: creation time, entries of 32 bytes, one a slot
//	sums     CRC-32C of each MiB of everything above
//	trailer  offset and length of the footer · number of sums · CRC-32C · magic "KLUISEND"
//
// All integers are big-endian.
package pack

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"

	"kluis/internal/recovery/chunk"
)

const (
	// HeaderSize is the length of the header.
	HeaderSize = 32
	// TrailerSize is the length of the trailer.
	TrailerSize = 40
	// MaxSlots bounds the records of a pack.
	MaxSlots = 1 << 14
	// MaxSize bounds a pack.
	MaxSize = 1 << 30

	version     = 1
	headMagic   = "KLUISPCK"
	tailMagic   = "KLUISEND"
	entrySize   = 32
	footerFixed = 8
	sumBlock    = 1 << 20
	prefix      = "packs/"
)

// Prefix is what the names of all packs begin with.
const Prefix = prefix

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID names a pack. It is random.
type ID [16]byte

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Name returns the name of the pack's object.
func (id ID) Name() string {
	s := id.String()
	return prefix + s[:2] + "/" + s
}

// ParseName is the reverse of Name.
func ParseName(name string) (ID, bool) {
	var id ID
	if len(name) != len(prefix)+3+32 {
		return id, false
	}
	if _, err := hex.Decode(id[:], []byte(name[len(prefix)+3:])); err != nil {
		return id, false
	}
	return id, id.Name() == name
}

// Entry is one slot of a pack.
type Entry struct {
	chunk.Info
	Offset uint32
	Length uint32 // of the record
}

// Footer is what a pack says about itself.
type Footer struct {
	Created int64 // Unix microseconds
	Entries []Entry
}

// AppendHeader appends the header of a pack.
func AppendHeader(dst []byte, id ID) []byte {
	dst = append(dst, headMagic...)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	return append(dst, id[:]...)
}

// Sums collects the checksums of a pack while its bytes go by.
type Sums struct {
	done    []uint32
	current uint32
	fill    int
}

// Add takes the next bytes of the pack.
func (s *Sums) Add(p []byte) {
	for len(p) > 0 {
		n := min(len(p), sumBlock-s.fill)
		s.current = crc32.Update(s.current, castagnoli, p[:n])
		p = p[n:]
		if s.fill += n; s.fill == sumBlock {
			s.done, s.current, s.fill = append(s.done, s.current), 0, 0
		}
	}
}

// AppendEnd appends everything that follows the records: footer, sums and trailer. off is the length
// of the pack so far, sums have seen all of it. key must be this pack's footer key: it seals
// one message only.
func AppendEnd(dst []byte, key []byte, id ID, f Footer, off int64, sums *Sums) ([]byte, error) {
	aead, err := footerAEAD(key)
	if err != nil {
		return nil, err
	}
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, footerFixed+len(f.Entries)*entrySize), uint64(f.Created))
	for _, e := range f.Entries {
		plain = append(plain, e.ID[:]...)
		plain = binary.BigEndian.AppendUint32(plain, e.Offset)
		plain = binary.BigEndian.AppendUint32(plain, e.Length)
		plain = binary.BigEndian.AppendUint32(plain, e.Plain)
		plain = append(plain, byte(e.Kind), e.Flags, 0, 0)
	}
	start := len(dst)
	dst = aead.Seal(dst, make([]byte, aead.NonceSize()), plain, footerAAD(id, off))
	footerLen := len(dst) - start
	sums.Add(dst[start:])
	if sums.fill > 0 {
		sums.done = append(sums.done, sums.current)
	}

	tail := len(dst)
	for _, sum := range sums.done {
		dst = binary.BigEndian.AppendUint32(dst, sum)
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(off))
	dst = binary.BigEndian.AppendUint32(dst, uint32(footerLen))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(sums.done)))
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[tail:], castagnoli))
	return append(dst, tailMagic...), nil
}

// Trailer says where the footer is.
type Trailer struct {
	FooterOff int64
	FooterLen int64
}

// ParseTrailer reads the last TrailerSize bytes of a pack of the given size.
func ParseTrailer(b []byte, size int64) (Trailer, error) {
	if len(b) != TrailerSize || string(b[32:]) != tailMagic {
		return Trailer{}, fmt.Errorf("pack without a trailer: %w", chunk.ErrDamaged)
	}
	if v := binary.BigEndian.Uint32(b[16:]); v != version {
		return Trailer{}, fmt.Errorf("pack of unknown version %d: %w", v, chunk.ErrDamaged)
	}
	off, length := binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint32(b[8:]))
	sums := int64(binary.BigEndian.Uint32(b[12:]))
	t := Trailer{int64(off), length}
	end := t.FooterOff + length
	if size > MaxSize+MaxSize/8 || off < HeaderSize || off > uint64(size) ||
		length < footerFixed+chunk.Overhead || (length-footerFixed-chunk.Overhead)%entrySize != 0 ||
		length > footerFixed+chunk.Overhead+MaxSlots*entrySize ||
		sums != (end+sumBlock-1)/sumBlock || end+4*sums+TrailerSize != size {
		return Trailer{}, fmt.Errorf("pack with a senseless trailer: %w", chunk.ErrDamaged)
	}
	return t, nil
}

// OpenFooter opens the sealed footer that t has told of.
func OpenFooter(sealed []byte, key []byte, id ID, t Trailer) (Footer, error) {
	aead, err := footerAEAD(key)
	if err != nil {
		return Footer{}, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, footerAAD(id, t.FooterOff))
	if err != nil {
		return Footer{}, fmt.Errorf("footer of pack %s does not authenticate: %w", id, chunk.ErrDamaged)
	}
	return parseFooter(plain, t.FooterOff)
}

func parseFooter(plain []byte, end int64) (Footer, error) {
	if len(plain) < footerFixed || (len(plain)-footerFixed)%entrySize != 0 || len(plain) > footerFixed+MaxSlots*entrySize {
		return Footer{}, fmt.Errorf("footer of %d bytes: %w", len(plain), chunk.ErrDamaged)
	}
	f := Footer{
		Created: int64(binary.BigEndian.Uint64(plain)),
		Entries: make([]Entry, 0, (len(plain)-footerFixed)/entrySize),
	}
	for b := plain[footerFixed:]; len(b) > 0; b = b[entrySize:] {
		e := Entry{
			Info:   chunk.Info{ID: chunk.ID(b[:16]), Plain: binary.BigEndian.Uint32(b[24:]), Kind: chunk.Kind(b[28]), Flags: b[29]},
			Offset: binary.BigEndian.Uint32(b[16:]),
			Length: binary.BigEndian.Uint32(b[20:]),
		}
		if err := e.Check(int64(e.Length)); err != nil {
			return Footer{}, fmt.Errorf("footer: %w", err)
		}
		if e.Offset < HeaderSize || int64(e.Offset)+int64(e.Length) > end || b[30] != 0 || b[31] != 0 {
			return Footer{}, fmt.Errorf("footer with a record outside of the pack: %w", chunk.ErrDamaged)
		}
		f.Entries = append(f.Entries, e)
	}
	return f, nil
}

func footerAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

func footerAAD(id ID, off int64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), id[:]...), uint64(off))
}
