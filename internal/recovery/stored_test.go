package recovery

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"maps"
	"testing"
	"time"

	"kluis/internal/recovery/pack"
)

func FuzzJournal(f *testing.F) {
	id := pack.ID(bytes.Repeat([]byte{5}, 16))
	for _, j := range []journal{{}, {Condemned: []condemned{{id, 7, 9}}, Damage: []noticed{{"points/x", 3}}}} {
		b, err := json.Marshal(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"condemned":[{"pack":"zz","at":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := parseJournal(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := parseJournal(again); err != nil || len(k.Condemned) != len(j.Condemned) || len(k.Damage) != len(j.Damage) {
			t.Fatalf("%s became %s: %v", b, again, err)
		}
		j.notice(nil, time.UnixMicro(1))
	})
}

func FuzzClaim(f *testing.F) {
	f.Add("owner/0000000000000001-000000000000000a", []byte(`{"owner":"a","lease":30000000,"released":false}`))
	f.Add("owner/1-2", []byte(`{}`))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if epoch, beat, ok := parseClaimName(name); ok && claimName(epoch, beat) != name {
			t.Fatalf("%q was taken for %d, %d", name, epoch, beat)
		}
		if c, err := parseClaim(content); err == nil && (c.Lease <= 0 || time.Duration(c.Lease)*time.Microsecond > 24*time.Hour) {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzVerified(f *testing.F) {
	f.Add(verified{}.encode())
	f.Add(verified{pack.ID{1}: {7, 8, true}, pack.ID{2}: {}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum is right, so that the rest is looked at.
		if len(b) > 4 {
			b = binary.BigEndian.AppendUint32(b[:len(b)-4:len(b)-4], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		v, err := parseVerified(b)
		if err != nil {
			return
		}
		if again, err := parseVerified(v.encode()); err != nil || !maps.Equal(v, again) {
			t.Fatalf("%v became %v, %v", v, again, err)
		}
	})
}
