package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// metadata is the JSON of a LUKS2 header, as far as reading a volume needs it.
type metadata struct {
	Keyslots map[string]keyslot2 `json:"keyslots"`
	Segments map[string]segment2 `json:"segments"`
	Digests  map[string]digest2  `json:"digests"`
	Config   struct {
		Requirements struct {
			Mandatory []string `json:"mandatory"`
		} `json:"requirements"`
	} `json:"config"`
}

type keyslot2 struct {
	Type     string `json:"type"`
	Mode     string `json:"mode"` // of a re-encryption
	KeySize  uint32 `json:"key_size"`
	Priority *int32 `json:"priority"`
	AF       struct {
		Type    string `json:"type"`
		Stripes uint32 `json:"stripes"`
		Hash    string `json:"hash"`
	} `json:"af"`
	Area struct {
		Type       string `json:"type"`
		Offset     number `json:"offset"`
		Size       number `json:"size"`
		Encryption string `json:"encryption"`
		KeySize    uint32 `json:"key_size"`
	} `json:"area"`
	KDF struct {
		Type       string `json:"type"`
		Hash       string `json:"hash"`
		Iterations uint32 `json:"iterations"`
		Time       uint32 `json:"time"`
		Memory     uint32 `json:"memory"`
		CPUs       uint32 `json:"cpus"`
		Salt       base   `json:"salt"`
	} `json:"kdf"`
}

type segment2 struct {
	Type       string          `json:"type"`
	Offset     number          `json:"offset"`
	Size       string          `json:"size"` // a number, or "dynamic": up to the disk's end
	IVTweak    number          `json:"iv_tweak"`
	Encryption string          `json:"encryption"`
	SectorSize uint32          `json:"sector_size"`
	Integrity  json.RawMessage `json:"integrity"`
	Flags      []string        `json:"flags"`
}

type digest2 struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations uint32   `json:"iterations"`
	Salt       base     `json:"salt"`
	Digest     base     `json:"digest"`
}

// number is a size or an offset in bytes, which LUKS2 writes as a decimal string.
type number int64

func (n *number) UnmarshalText(b []byte) error {
	v, err := parseNumber(string(b))
	*n = number(v)
	return err
}

func parseNumber(s string) (int64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%.32q is not a size in bytes", s)
	}
	return int64(v), nil
}

// base is base64 text.
type base []byte

func (b *base) UnmarshalText(text []byte) error {
	v, err := base64.StdEncoding.DecodeString(string(text))
	*b = v
	return err
}

func decodeMetadata(raw []byte) (*metadata, error) {
	marks := 0
	for _, mark := range []string{",", ":", "{", "["} {
		marks += bytes.Count(raw, []byte(mark))
	}
	if marks > maxJSONMarks {
		return nil, &DamageError{"JSON", fmt.Sprintf("more than %d members", maxJSONMarks)}
	}
	m := &metadata{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, &DamageError{"JSON", err.Error()}
	}
	if len(m.Keyslots) > maxSlots {
		return nil, &DamageError{"JSON", fmt.Sprintf("%d key slots; %d are allowed", len(m.Keyslots), maxSlots)}
	}
	return m, nil
}

// fill puts the metadata into h.
func (m *metadata) fill(h *Header) error {
	for _, requirement := range m.Config.Requirements.Mandatory {
		if strings.Contains(requirement, "reencrypt") {
			return &ReencryptError{UnsupportedError{"requirements", "the volume is being re-encrypted (" + strconv.Quote(trim(requirement)) + ")"}, m.mode()}
		}
	}
	if unknown := m.Config.Requirements.Mandatory; len(unknown) > 0 {
		return &UnsupportedError{"requirements", strconv.Quote(trim(unknown[0])) + " is not known"}
	}
	name, err := m.fillSegment(h)
	if err != nil {
		return err
	}
	slots, err := m.fillDigest(h, name)
	if err != nil {
		return err
	}
	if len(slots) == 0 {
		return &DamageError{"key slots", "none is in use"}
	}
	// What the first key slot says; that the others agree is checked later.
	keySize := clampInt(uint64(m.Keyslots[slots[0]].KeySize))
	if err := checkCipher(h.Cipher, keySize); err != nil {
		return &UnsupportedError{"segment " + strconv.Quote(trim(name)), err.Error()}
	}
	h.KeyBits = keySize * 8
	for _, name := range slots {
		if err := m.fillSlot(h, name); err != nil {
			return err
		}
	}
	return m.fillAreas(h)
}

// mode is what a re-encryption does, as its own key slot says.
func (m *metadata) mode() string {
	for _, k := range m.Keyslots {
		if k.Type == "reencrypt" && (k.Mode == "encrypt" || k.Mode == "decrypt") {
			return k.Mode
		}
	}
	return "reencrypt"
}

// fillSegment takes the one segment that a volume has unless its encryption is being changed.
func (m *metadata) fillSegment(h *Header) (string, error) {
	if len(m.Segments) != 1 {
		return "", &UnsupportedError{"segments", fmt.Sprintf("there are %d; a volume that is not being re-encrypted has one", len(m.Segments))}
	}
	for name, s := range m.Segments {
		where := "segment " + strconv.Quote(trim(name))
		switch {
		case s.Type != "crypt":
			return "", &UnsupportedError{where, fmt.Sprintf("it is of type %.32q, not encrypted", s.Type)}
		case len(s.Integrity) > 0:
			return "", &UnsupportedError{where, "it has integrity tags"}
		case len(s.Flags) > 0:
			return "", &UnsupportedError{where, fmt.Sprintf("flag %.32q", s.Flags[0])}
		case s.SectorSize < 512 || s.SectorSize > 4096 || s.SectorSize&(s.SectorSize-1) != 0:
			return "", &DamageError{where, fmt.Sprintf("sectors of %d bytes", s.SectorSize)}
		case int64(s.Offset)%512 != 0:
			return "", &DamageError{where, fmt.Sprintf("it begins at %d, inside a sector", s.Offset)}
		}
		h.Offset, h.Cipher, h.SectorSize, h.ivBase = int64(s.Offset), s.Encryption, int(s.SectorSize), uint64(s.IVTweak)
		if s.Size != "dynamic" {
			n, err := parseNumber(s.Size)
			if err != nil || n == 0 {
				return "", &DamageError{where, fmt.Sprintf("size %.32q", s.Size)}
			}
			h.Size = n
		}
		return name, nil
	}
	return "", nil // not reached: there is one segment
}

// fillDigest takes the digest of the segment's key and returns the key slots that lead to that key.
func (m *metadata) fillDigest(h *Header, segment string) ([]string, error) {
	for _, name := range slices.Sorted(maps.Keys(m.Digests)) {
		d := m.Digests[name]
		if !slices.Contains(d.Segments, segment) {
			continue
		}
		where := "digest " + strconv.Quote(trim(name))
		if d.Type != "pbkdf2" {
			return nil, &UnsupportedError{where, fmt.Sprintf("type %.32q", d.Type)}
		}
		h.digest = digest{hash: d.Hash, iterations: clampInt(uint64(d.Iterations)), salt: d.Salt, value: d.Digest}
		return d.Keyslots, h.digest.check(where)
	}
	return nil, &DamageError{"digests", "none belongs to the segment"}
}

func (m *metadata) fillSlot(h *Header, name string) error {
	k, ok := m.Keyslots[name]
	id, err := strconv.ParseUint(name, 10, 31)
	if !ok || err != nil || slices.ContainsFunc(h.slots, func(s slot) bool { return s.ID == int(id) }) {
		return &DamageError{"digests", fmt.Sprintf("key slot %.32q is named twice or isn't there", name)}
	}
	where := fmt.Sprintf("key slot %d", id)
	switch {
	case k.Type != "luks2" || k.Area.Type != "raw" || k.AF.Type != "luks1":
		return &UnsupportedError{where, fmt.Sprintf("type %.16q with area %.16q and split %.16q", k.Type, k.Area.Type, k.AF.Type)}
	case len(k.KDF.Salt) > maxSaltSize:
		return &DamageError{where, "the salt is too long"}
	case k.Area.KeySize < 1 || k.Area.KeySize > maxKeySize:
		return &DamageError{where, fmt.Sprintf("an area key of %d bytes", k.Area.KeySize)}
	case !printable(k.KDF.Type) || !printable(k.KDF.Hash):
		return &DamageError{where, "a name in it is not printable text"}
	}
	s := slot{
		Keyslot: Keyslot{ID: int(id), KDF: k.KDF.Type, Hash: k.KDF.Hash, Iterations: clampInt(uint64(max(k.KDF.Iterations, k.KDF.Time)))},
		keySize: clampInt(uint64(k.KeySize)), priority: 1, stripes: clampInt(uint64(k.AF.Stripes)), afHash: k.AF.Hash,
		areaOffset: int64(k.Area.Offset), areaSize: int64(k.Area.Size), areaCipher: k.Area.Encryption, areaKeySize: int(k.Area.KeySize), salt: k.KDF.Salt,
	}
	if k.KDF.Type != "pbkdf2" {
		s.Hash, s.MemoryKiB, s.Threads = "", clampInt(uint64(k.KDF.Memory)), clampInt(uint64(k.KDF.CPUs))
	}
	if k.Priority != nil {
		s.priority = int(*k.Priority)
	}
	h.slots = append(h.slots, s)
	return nil
}

func (m *metadata) fillAreas(h *Header) error {
	for name, k := range m.Keyslots {
		id, err := strconv.ParseUint(name, 10, 31)
		if err != nil || id >= maxSlots {
			return &DamageError{"JSON", "a key slot is called " + strconv.Quote(trim(name))}
		}
		h.areas = append(h.areas, area{int(id), int64(k.Area.Offset), int64(k.Area.Size)})
	}
	return nil
}

// trim shortens a name from outside before it goes into an error.
func trim(s string) string { return s[:min(len(s), 32)] }

func printable(s string) bool {
	_, ok := text([]byte(s))
	return ok && len(s) <= 32
}
