package recovery

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

const (
	journalPrefix  = "collect/"
	journalMagic   = "KLUISCOL"
	journalVersion = 1
	journalSalt    = 32
	journalHeader  = 8 + 4 + journalSalt
	maxJournal     = 64 << 20
)

// journal is what one collection leaves for the next: the packs that it has condemned, and the damage that
// it has seen. It is stored sealed, as collect/number; the highest number counts.
//
// It may be lost: nothing is removed but what a mark finds unneeded, so whoever has no journal condemns
// again and waits once more.
type journal struct {
	Condemned []condemned `json:"condemned"`
	Damage    []noticed   `json:"damage"`

	number  uint64   // of the object it was read from, or 0
	former  []uint64 // objects to be removed once it is stored
	changed bool
}

// condemned is a pack that no chunk is looked for in any more.
type condemned struct {
	Pack pack.ID
	At   int64 // Unix microseconds, by the clock of the owner
	Size int64
}

// noticed is damage, and since when it is known.
type noticed struct {
	Object string `json:"object"`
	At     int64  `json:"at"` // Unix microseconds
}

type condemnedJSON struct {
	Pack string `json:"pack"`
	At   int64  `json:"at"`
	Size int64  `json:"size"`
}

// MarshalJSON writes the pack's id in hexadecimal.
func (c condemned) MarshalJSON() ([]byte, error) {
	return json.Marshal(condemnedJSON{c.Pack.String(), c.At, c.Size})
}

// UnmarshalJSON is the reverse of MarshalJSON.
func (c *condemned) UnmarshalJSON(b []byte) error {
	var j condemnedJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	id, err := hex.DecodeString(j.Pack)
	if err != nil || len(id) != len(c.Pack) || j.At < 0 || j.Size < 0 {
		return errors.New("not a condemned pack")
	}
	*c = condemned{pack.ID(id), j.At, j.Size}
	return nil
}

func (j *journal) add(at condemned) {
	j.Condemned, j.changed = append(j.Condemned, at), true
}

func (j *journal) remove(ids map[pack.ID]bool) {
	if len(ids) > 0 {
		j.Condemned = slices.DeleteFunc(j.Condemned, func(at condemned) bool { return ids[at.Pack] })
		j.changed = true
	}
}

// notice compares the damage that was found with what is known, and returns the time of the newest. What
// is not found any more is healed.
func (j *journal) notice(found []*DamageError, now time.Time) (newest time.Time) {
	known := map[string]int64{}
	for _, d := range j.Damage {
		known[d.Object] = d.At
	}
	var still []noticed
	seen := map[string]bool{}
	for _, d := range found {
		if seen[d.Object] {
			continue
		}
		seen[d.Object] = true
		at, ok := known[d.Object]
		if !ok {
			at = now.UnixMicro()
		}
		still = append(still, noticed{d.Object, at})
		if t := time.UnixMicro(at); t.After(newest) {
			newest = t
		}
	}
	j.changed = j.changed || !slices.Equal(still, j.Damage)
	j.Damage = still
	return newest
}

// readJournal reads the newest journal. One that is damaged is as good as none.
func (s *Store) readJournal(ctx context.Context) (*journal, error) {
	var numbers []uint64
	for o, err := range s.bucket.List(ctx, journalPrefix) {
		if err != nil {
			return nil, fmt.Errorf("list journals: %w", err)
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(o.Name, journalPrefix), 16, 64)
		if err == nil && journalName(n) == o.Name {
			numbers = append(numbers, n)
		}
	}
	j := new(journal)
	if len(numbers) == 0 {
		return j, nil
	}
	number := numbers[len(numbers)-1]
	stored, err := readAll(ctx, s.bucket, journalName(number), maxJournal)
	if err == nil {
		j, err = s.openJournal(stored, journalName(number))
	}
	switch {
	case errors.Is(err, objects.ErrNotExist): // the owner has just written the next
		j = new(journal)
	case isDamage(err):
		j = &journal{changed: true}
	case err != nil:
		return nil, fmt.Errorf("read journal: %w", err)
	}
	j.number, j.former = number, numbers
	j.changed = j.changed || len(numbers) > 1 // somebody died before the older ones were removed
	return j, nil
}

// save stores the journal if it has changed.
func (j *journal) save(ctx context.Context, c *collection) error {
	if !j.changed {
		return nil
	}
	name := journalName(j.number + 1)
	stored, err := c.s.sealJournal(j, name)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if err := c.s.putReserved(ctx, name, stored); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	for _, n := range j.former {
		if err := c.s.bucket.Delete(ctx, journalName(n)); err != nil {
			return fmt.Errorf("remove former journal: %w", err)
		}
	}
	j.number++
	j.former, j.changed = []uint64{j.number}, false
	return nil
}

func journalName(n uint64) string { return fmt.Sprintf("%s%016x", journalPrefix, n) }

// sealJournal encodes a journal: magic, version, salt, and the JSON sealed under a key made from the salt,
// bound to the name.
func (s *Store) sealJournal(j *journal, name string) ([]byte, error) {
	plain, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, journalSalt)
	if err := s.random.fill(salt); err != nil {
		return nil, err
	}
	stored := binary.BigEndian.AppendUint32([]byte(journalMagic), journalVersion)
	stored = append(stored, salt...)
	aead, err := s.journalBox(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(stored, make([]byte, aead.NonceSize()), plain, append(bytes.Clone(stored), name...)), nil
}

// openJournal is the reverse of sealJournal.
func (s *Store) openJournal(stored []byte, name string) (*journal, error) {
	if len(stored) < journalHeader || string(stored[:8]) != journalMagic || binary.BigEndian.Uint32(stored[8:]) != journalVersion {
		return nil, fmt.Errorf("not a journal: %w", chunk.ErrDamaged)
	}
	aead, err := s.journalBox(stored[12:journalHeader])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), stored[journalHeader:], append(bytes.Clone(stored[:journalHeader]), name...))
	if err != nil {
		return nil, fmt.Errorf("journal does not authenticate: %w", chunk.ErrDamaged)
	}
	return parseJournal(plain)
}

func parseJournal(plain []byte) (*journal, error) {
	j := new(journal)
	if err := json.Unmarshal(plain, j); err != nil {
		return nil, fmt.Errorf("journal does not parse: %w", chunk.ErrDamaged)
	}
	return j, nil
}

func (s *Store) journalBox(salt []byte) (cipher.AEAD, error) {
	key, err := expand(s.keys.journals, salt)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// condemnAll sees to it that no chunk is found in the packs that a journal condemns.
func (s *Store) condemnAll(j *journal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[pack.ID]bool{}
	for _, at := range j.Condemned {
		if !s.condemned[at.Pack] {
			gone[at.Pack], s.condemned[at.Pack] = true, true
		}
	}
	s.index.Remove(gone)
}
