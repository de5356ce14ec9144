package recovery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kluis/internal/objects"
	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

const (
	verifiedPrefix  = "verified/"
	verifiedMagic   = "KLUISVFY"
	verifiedVersion = 1
	verifiedHeader  = 8 + 4 + 4
	verifiedEntry   = 16 + 8 + 8 + 1
	maxVerified     = 512 << 20
)

// verified remembers when each pack was verified last, so that the oldest comes first and a run that was
// stopped is gone on with. It is stored as verified/number; the highest number counts. It is a note and no
// proof: it needs no key, because a scrub has none.
type verified map[pack.ID]verdict

// verdict is what is remembered of a pack.
type verdict struct {
	scrubbed, content int64 // when its checksums and its chunks were last read; Unix microseconds, or 0
	bad               bool  // something was wrong the last time
}

// at returns when the pack was last verified at a level.
func (v verdict) at(l Level) int64 {
	if l == LevelScrub {
		return v.scrubbed
	}
	return v.content
}

// readVerified reads the newest record, and returns the numbers of all there are, ascending. One that is
// damaged is as good as none.
func readVerified(ctx context.Context, b objects.Bucket) (verified, []uint64, error) {
	for {
		var numbers []uint64
		for o, err := range b.List(ctx, verifiedPrefix) {
			if err != nil {
				return nil, nil, fmt.Errorf("list verification records: %w", err)
			}
			n, err := strconv.ParseUint(strings.TrimPrefix(o.Name, verifiedPrefix), 16, 64)
			if err == nil && verifiedName(n) == o.Name {
				numbers = append(numbers, n)
			}
		}
		if len(numbers) == 0 {
			return verified{}, nil, nil
		}
		stored, err := readAll(ctx, b, verifiedName(numbers[len(numbers)-1]), maxVerified)
		var v verified
		if err == nil {
			v, err = parseVerified(stored)
		}
		switch {
		case errors.Is(err, objects.ErrNotExist): // it was replaced after it was listed
		case isDamage(err):
			return verified{}, numbers, nil
		case err != nil:
			return nil, nil, fmt.Errorf("read verification record: %w", err)
		default:
			return v, numbers, nil
		}
	}
}

// noteVerified adds to the record what a run has found; what others have found meanwhile stays. Packs that
// are not in exist are left out.
func noteVerified(ctx context.Context, b objects.Bucket, found verified, exist func(pack.ID) bool) error {
	for {
		all, numbers, err := readVerified(ctx, b)
		if err != nil {
			return err
		}
		maps.DeleteFunc(all, func(id pack.ID, _ verdict) bool { return !exist(id) })
		for id, v := range found {
			known := all[id]
			v.scrubbed, v.content = max(v.scrubbed, known.scrubbed), max(v.content, known.content)
			all[id] = v
		}
		next := uint64(1)
		if len(numbers) > 0 {
			next = numbers[len(numbers)-1] + 1
		}
		stored := all.encode()
		err = b.Put(ctx, verifiedName(next), int64(len(stored)), bytes.NewReader(stored))
		if errors.Is(err, objects.ErrExists) {
			continue
		} else if err != nil {
			return fmt.Errorf("write verification record: %w", err)
		}
		for _, n := range numbers {
			if err := b.Delete(ctx, verifiedName(n)); err != nil {
				return fmt.Errorf("remove former verification record: %w", err)
			}
		}
		return nil
	}
}

func verifiedName(n uint64) string { return fmt.Sprintf("%s%016x", verifiedPrefix, n) }

func (v verified) encode() []byte {
	b := binary.BigEndian.AppendUint32([]byte(verifiedMagic), verifiedVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	ids := slices.SortedFunc(maps.Keys(v), func(x, y pack.ID) int { return bytes.Compare(x[:], y[:]) })
	for _, id := range ids {
		e := v[id]
		b = append(b, id[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(e.scrubbed))
		b = binary.BigEndian.AppendUint64(b, uint64(e.content))
		if e.bad {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// parseVerified is the reverse of encode.
func parseVerified(b []byte) (verified, error) {
	if len(b) < verifiedHeader+4 || string(b[:8]) != verifiedMagic || binary.BigEndian.Uint32(b[8:]) != verifiedVersion {
		return nil, fmt.Errorf("not a verification record: %w", chunk.ErrDamaged)
	}
	count, entries := binary.BigEndian.Uint32(b[12:]), b[verifiedHeader:len(b)-4]
	if crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[len(b)-4:]) ||
		int64(len(entries)) != int64(count)*verifiedEntry {
		return nil, fmt.Errorf("verification record: %w", chunk.ErrDamaged)
	}
	v := make(verified, count)
	for ; len(entries) > 0; entries = entries[verifiedEntry:] {
		scrubbed, content := binary.BigEndian.Uint64(entries[16:]), binary.BigEndian.Uint64(entries[24:])
		if scrubbed > 1<<62 || content > 1<<62 || entries[32] > 1 {
			return nil, fmt.Errorf("verification record: %w", chunk.ErrDamaged)
		}
		v[pack.ID(entries[:16])] = verdict{int64(scrubbed), int64(content), entries[32] == 1}
	}
	return v, nil
}

// Verified says how well a point is known to be whole.
type Verified struct {
	Scrubbed time.Time `json:"scrubbed"` // since then, the checksums of all its packs were compared
	Content  time.Time `json:"content"`  // since then, all its chunks were opened
	Damaged  bool      `json:"damaged"`  // something was wrong in one of its packs
}

// LastVerified returns when the packs that a point needs were last verified: the time of the one for which
// it is longest ago, or the zero time if one never was.
func (s *Store) LastVerified(ctx context.Context, id string) (Verified, error) {
	p, err := s.Point(ctx, id)
	if err != nil {
		return Verified{}, err
	}
	record, _, err := readVerified(ctx, s.bucket)
	if err != nil {
		return Verified{}, err
	}
	c := newChecker(s)
	if err := c.structure(ctx, p); err != nil {
		return Verified{}, fmt.Errorf("recovery point %q: %w", id, err)
	}
	v := Verified{Damaged: len(c.badNodes)+len(c.badChunks)+len(c.report.Damage) > 0}
	scrubbed, content := int64(-1), int64(-1)
	for id, needed := range c.packs {
		at := record[id]
		v.Damaged = v.Damaged || at.bad
		scrubbed = earlier(scrubbed, at.scrubbed)
		if len(needed.slotSet) > 0 { // nodes and documents are read whenever the structure is looked at
			content = earlier(content, at.content)
		}
	}
	v.Scrubbed, v.Content = timeOrZero(scrubbed), timeOrZero(content)
	return v, nil
}

// earlier returns the lesser of two times, where a negative one is none yet.
func earlier(a, b int64) int64 {
	if a < 0 {
		return b
	}
	return min(a, b)
}

func timeOrZero(micros int64) time.Time {
	if micros <= 0 {
		return time.Time{}
	}
	return microTime(micros)
}
