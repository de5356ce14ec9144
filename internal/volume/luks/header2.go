package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"kluis/internal/volume/sector"
)

const binary2Size = 4096

// header2Sizes are the sizes that LUKS2 defines for one copy of the header; the second copy begins where
// the first one ends, so they are also the places to look for it.
var header2Sizes = []int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, maxHeader2}

// binary2 is the binary part of a LUKS2 header as it lies on the disk, big-endian. The JSON follows it.
type binary2 struct {
	Magic     [6]byte
	Version   uint16
	Size      uint64 // of this copy with its JSON
	Sequence  uint64
	Label     [48]byte
	Algorithm [32]byte
	Salt      [64]byte
	UUID      [40]byte
	Subsystem [48]byte
	Offset    uint64
	_         [184]byte
	Checksum  [64]byte
}

// checksumOffset is where Checksum lies; it counts as zeros in its own computation.
const checksumOffset = 6 + 2 + 8 + 8 + 48 + 32 + 64 + 40 + 48 + 8 + 184

// copy2 is one copy of a header whose checksum agrees.
type copy2 struct {
	binary2
	json []byte
}

// readHeader2 takes the newer of the two copies. One copy is enough, the other's damage is kept.
func readHeader2(r io.ReaderAt, at place) (*Header, error) {
	first, errFirst := readCopy2(r, at.header, 0, magic)
	if errFirst != nil && !isDamage(errFirst) {
		return nil, errFirst
	}
	var second *copy2
	errSecond := ErrNotLUKS
	places := header2Sizes
	if first != nil {
		places = []int64{int64(first.Size)}
	}
	for _, off := range places {
		c, err := readCopy2(r, at.header, off, magicSecondary)
		if err != nil && !isDamage(err) {
			return nil, err
		}
		if second, errSecond = c, cmpDamage(errSecond, err); second != nil {
			break
		}
	}
	switch {
	case first == nil && second == nil:
		return nil, worse(errFirst, errSecond)
	case first == nil:
		h, err := second.header(at)
		return h.damaged("the first copy", errFirst), err
	case second == nil:
		h, err := first.header(at)
		return h.damaged("the second copy", errSecond), err
	case second.Sequence > first.Sequence:
		return second.header(at)
	}
	return first.header(at)
}

func isDamage(err error) bool {
	var damage *DamageError
	return errors.Is(err, ErrNotLUKS) || errors.As(err, &damage)
}

// cmpDamage keeps, of what was found at several places, what says most.
func cmpDamage(before, now error) error {
	if now == nil || errors.Is(before, ErrNotLUKS) {
		return now
	}
	return before
}

// worse picks what to say when neither copy is any good.
func worse(first, second error) error {
	if errors.Is(first, ErrNotLUKS) {
		return second
	}
	return first
}

// damaged notes that one copy of the header is lost. It is nil-safe because a header may not have been read.
func (h *Header) damaged(which string, err error) *Header {
	if h == nil {
		return nil
	}
	what := which + " of the LUKS2 header is missing"
	var damage *DamageError
	if errors.As(err, &damage) {
		what = which + " of the LUKS2 header is damaged: " + damage.Where + ": " + damage.What
	}
	h.Damage = append(h.Damage, what)
	return h
}

// readCopy2 reads the copy at off and checks it. The error is ErrNotLUKS when its magic isn't there.
func readCopy2(r io.ReaderAt, size, off int64, magic string) (*copy2, error) {
	version, err := versionAt(r, size, off, magic)
	if err != nil {
		return nil, err
	}
	if version != 2 {
		return nil, &DamageError{"version", fmt.Sprintf("it is %d", version)}
	}
	if size-off < binary2Size {
		return nil, &DamageError{"header", fmt.Sprintf("the disk ends after %d bytes", size)}
	}
	raw := make([]byte, binary2Size)
	if err := sector.ReadFull(r, raw, off); err != nil {
		return nil, fmt.Errorf("read the LUKS2 header at %d: %w", off, err)
	}
	c := &copy2{}
	if err := binary.Read(bytes.NewReader(raw), binary.BigEndian, &c.binary2); err != nil {
		return nil, fmt.Errorf("decode the LUKS2 header at %d: %w", off, err)
	}
	switch {
	case c.Size > maxHeader2 || !slices.Contains(header2Sizes, int64(c.Size)):
		return nil, &DamageError{"header", fmt.Sprintf("a size of %d bytes", c.Size)}
	case c.Offset != uint64(off):
		return nil, &DamageError{"header", fmt.Sprintf("it says that it is at %d, and is at %d", c.Offset, off)}
	case off != 0 && c.Size != uint64(off):
		return nil, &DamageError{"header", fmt.Sprintf("the second copy at %d says that the first has %d bytes", off, c.Size)}
	case int64(c.Size) > size-off:
		return nil, &DamageError{"header", fmt.Sprintf("the disk ends after %d bytes", size)}
	}
	whole := make([]byte, c.Size)
	copy(whole, raw)
	if err := sector.ReadFull(r, whole[binary2Size:], off+binary2Size); err != nil {
		return nil, fmt.Errorf("read the LUKS2 header at %d: %w", off, err)
	}
	if err := c.verify(whole); err != nil {
		return nil, err
	}
	return c, nil
}

// verify checks the checksum and keeps the JSON.
func (c *copy2) verify(whole []byte) error {
	name, _ := text(c.Algorithm[:])
	h := newHash(name)
	if h == nil {
		return &DamageError{"checksum", fmt.Sprintf("the algorithm %.32q is not known", name)}
	}
	clear(whole[checksumOffset : checksumOffset+len(c.Checksum)])
	sum := h()
	sum.Write(whole)
	want := [len(c.Checksum)]byte{} // a short one is followed by zeros
	sum.Sum(want[:0])
	if want != c.Checksum {
		return &DamageError{"checksum", "it doesn't agree with the header"}
	}
	json, _, terminated := bytes.Cut(whole[binary2Size:], []byte{0})
	if !terminated {
		return &DamageError{"JSON", "it has no end"}
	}
	c.json = json
	return nil
}

func (c *copy2) header(at place) (*Header, error) {
	uuid, okUUID := text(c.UUID[:])
	label, okLabel := text(c.Label[:])
	if !okUUID || !okLabel {
		return nil, &DamageError{"header", "UUID or label is not printable text"}
	}
	m, err := decodeMetadata(c.json)
	if err != nil {
		return nil, err
	}
	h := &Header{Version: 2, UUID: uuid, Label: label}
	if err := m.fill(h); err != nil {
		return nil, err
	}
	if err := h.check(at, int64(c.Size)*2); err != nil {
		return nil, err
	}
	return h, nil
}
