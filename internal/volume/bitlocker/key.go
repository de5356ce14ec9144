package bitlocker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"kluis/internal/secret"
)

// Key opens the protectors of one kind.
type Key struct {
	kind string
	id   [16]byte // of the external key
	// secret is the external key itself, or the hash that a password is stretched from.
	secret secret.Bytes
}

// Kind is the kind of protectors that the key is for.
func (k Key) Kind() string { return k.kind }

// Wipe forgets the key.
func (k Key) Wipe() { k.secret.Wipe() }

// Guess makes a Key of what a person or a key vault has: the bytes of a .BEK file, a recovery password, or
// else a password. A password that looks like a recovery password is taken for one.
func Guess(b secret.Bytes) (Key, error) {
	if marked(b.Reveal()) {
		return ExternalKey(b)
	}
	if k, err := RecoveryPassword(b); err == nil {
		return k, nil
	}
	return Password(b)
}

// ClearKey uses the key that lies on a volume that isn't protected.
func ClearKey() Key { return Key{kind: KindClearKey} }

// A .BEK file: a header like that of the metadata, and the external key with its identifier.
const (
	bekHeader = 48
	maxBEK    = 4096
)

// marked tells whether b begins as a .BEK file does, whole or not.
func marked(b []byte) bool {
	le := binary.LittleEndian
	return len(b) >= 12 && le.Uint32(b[4:]) == 1 && le.Uint32(b[8:]) == bekHeader
}

// ExternalKey reads a .BEK file.
func ExternalKey(bek secret.Bytes) (Key, error) {
	b := bek.Reveal()
	if !marked(b) {
		return Key{}, errors.New("it is not a .BEK file")
	}
	if len(b) <= bekHeader || len(b) > maxBEK || binary.LittleEndian.Uint32(b) != uint32(len(b)) {
		return Key{}, fmt.Errorf("the .BEK file is damaged: it says that it has %d bytes, and has %d", binary.LittleEndian.Uint32(b), len(b))
	}
	entries, err := decodeEntries(b[bekHeader:])
	if err != nil {
		return Key{}, errors.New("the .BEK file is damaged: its entries don't fit its length")
	}
	for _, e := range entries {
		if e.kind != entryStartupKey || e.value != valueExternalKey {
			continue
		}
		const idSize, propertiesOffset = 16, 24
		properties, err := e.inside(propertiesOffset)
		if err != nil {
			break
		}
		for _, p := range properties {
			if key, err := keyOf(p); err == nil {
				return Key{kind: KindExternalKey, id: [16]byte(e.data[:idSize]), secret: secret.Copy(key)}, nil
			}
		}
	}
	return Key{}, errors.New("the .BEK file is damaged: there is no external key in it")
}

// maxPassword is how many UTF-16 units Windows lets a password have.
const maxPassword = 256

// Password makes a key of a password in UTF-8.
func Password(password secret.Bytes) (Key, error) {
	b := password.Reveal()
	if len(b) == 0 || !utf8.Valid(b) {
		return Key{}, errors.New("a password is text of at least one letter")
	}
	// Room for all units, so that no copy of the password is left behind by a growing slice.
	wide := make([]byte, 0, 2*len(b))
	defer func() { clear(wide[:cap(wide)]) }()
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		rest = rest[n:]
		if first, second := utf16.EncodeRune(r); first != utf8.RuneError {
			wide = binary.LittleEndian.AppendUint16(wide, uint16(first))
			wide = binary.LittleEndian.AppendUint16(wide, uint16(second))
			continue
		}
		wide = binary.LittleEndian.AppendUint16(wide, uint16(r))
	}
	if len(wide) > 2*maxPassword {
		return Key{}, fmt.Errorf("a password has at most %d letters", maxPassword)
	}
	once := sha256.Sum256(wide)
	defer clear(once[:])
	twice := sha256.Sum256(once[:])
	defer clear(twice[:])
	return Key{kind: KindPassword, secret: secret.Copy(twice[:])}, nil
}

// RecoveryPassword reads the 48 digits: eight groups of six, each a multiple of eleven below 720896, so that
// a digit that was mistyped shows.
func RecoveryPassword(digits secret.Bytes) (Key, error) {
	groups := strings.Split(strings.TrimSpace(string(digits.Reveal())), "-")
	if len(groups) != 8 {
		return Key{}, errors.New("a recovery password has eight groups of six digits, with '-' between them")
	}
	var key [16]byte
	defer clear(key[:])
	for i, group := range groups {
		n, err := strconv.ParseUint(group, 10, 32)
		if err != nil || len(group) != 6 || n%11 != 0 || n/11 > 0xffff {
			return Key{}, fmt.Errorf("group %d of the recovery password is mistyped", i+1)
		}
		binary.LittleEndian.PutUint16(key[2*i:], uint16(n/11))
	}
	sum := sha256.Sum256(key[:])
	defer clear(sum[:])
	return Key{kind: KindRecoveryPassword, secret: secret.Copy(sum[:])}, nil
}

const (
	// stretchRounds is what the format says; no volume can ask for more.
	stretchRounds = 1 << 20
	// cancelEvery is how many rounds pass between two looks at the context: some milliseconds.
	cancelEvery = 1 << 14
)

// stretch makes the key of a protector from the hash of a password and the protector's salt.
func stretch(ctx context.Context, hash, salt []byte) ([]byte, error) {
	// What is hashed: the last hash, the first one, the salt, and how often.
	const first, saltAt, countAt = 32, 64, 80
	var state [88]byte
	defer clear(state[:])
	copy(state[first:], hash)
	copy(state[saltAt:countAt], salt)
	for i := range uint64(stretchRounds) {
		if i%cancelEvery == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		binary.LittleEndian.PutUint64(state[countAt:], i)
		sum := sha256.Sum256(state[:])
		copy(state[:first], sum[:])
	}
	return append([]byte(nil), state[:first]...), nil
}
