package luks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

type object = map[string]any

// small is a sound LUKS2 header with one PBKDF2 key slot, in JSON.
const small = `{"keyslots":{"0":{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},
"area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":64},
"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"LW35E7ikvz3v57lh5p2ATuZN8MtUEtk/5FW7zj6mz+Y="}}},"tokens":{},
"segments":{"0":{"type":"crypt","offset":"16777216","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":512}},
"digests":{"0":{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256","iterations":1000,
"salt":"kQYBCoe48ehgu+ujj4cXRNdrhgv986O1zQ3Cc3JYoGo=","digest":"0tM18+9BfsN7y8dKeixQENAr8UGqI0Iox6yCMgHF6RE="}},
"config":{"json_size":"12288","keyslots_size":"16744448"}}`

// header2 puts both copies of a LUKS2 header with that JSON together, sums and all.
func header2(metadata []byte, size int) []byte {
	out := make([]byte, 2*size)
	for i, magic := range []string{"LUKS\xba\xbe", "SKUL\xba\xbe"} {
		b := out[i*size : (i+1)*size]
		copy(b, magic)
		binary.BigEndian.PutUint16(b[6:], 2)
		binary.BigEndian.PutUint64(b[8:], uint64(size))
		binary.BigEndian.PutUint64(b[16:], 1)
		copy(b[72:], "sha256")
		copy(b[168:], "3d20686f-5517-48cb-8991-1ad32379821b")
		binary.BigEndian.PutUint64(b[256:], uint64(i*size))
		copy(b[4096:], metadata)
		sum := sha256.Sum256(b)
		copy(b[448:], sum[:])
	}
	return out
}

// padded is a disk that holds more zeros than memory should.
type padded struct{ *bytes.Reader }

func (p padded) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < p.Size() {
		_, _ = p.Reader.ReadAt(b, off)
	}
	return len(b), nil
}

const diskSize = 64 << 20

func openHeader(metadata []byte) error {
	_, err := luks.Open(context.Background(), padded{bytes.NewReader(header2(metadata, 16<<10))}, diskSize, secret.New([]byte("key")))
	return err
}

// TestHostileMetadata changes one thing of a sound header at a time. Each is refused, and says why.
func TestHostileMetadata(t *testing.T) {
	if err := openHeader([]byte(small)); !errors.Is(err, luks.ErrWrongKey) {
		t.Fatalf("the sound header: %v", err)
	}
	in := func(root object, path string) object {
		for name := range strings.SplitSeq(path, ".") {
			root = root[name].(object)
		}
		return root
	}
	slot := func(m object) object { return in(m, "keyslots.0") }
	argon := func(passes, memory, cpus int) func(object) {
		return func(m object) {
			slot(m)["kdf"] = object{"type": "argon2id", "time": passes, "memory": memory, "cpus": cpus, "salt": "AAAA"}
		}
	}
	set := func(path, name string, value any) func(object) {
		return func(m object) { in(m, path)[name] = value }
	}
	second := func(offset, size string) func(object) {
		return func(m object) {
			in(m, "keyslots")["1"] = object{"type": "luks2", "key_size": 64, "area": object{"type": "raw", "offset": offset, "size": size}}
		}
	}
	for name, test := range map[string]struct {
		spoil func(object)
		want  string
	}{
		"argon2 memory":         {argon(4, 1<<20+1, 4), "can't be read: key slot 0: Argon2 with 1048577 KiB"},
		"argon2 no memory":      {argon(4, 0, 4), "key slot 0: Argon2 with 0 KiB"},
		"argon2 passes":         {argon(1<<31, 1<<20, 4), "key slot 0: Argon2 with 2147483647 passes"},
		"argon2 no passes":      {argon(0, 64, 4), "key slot 0: Argon2 with 0 passes"},
		"argon2 threads":        {argon(4, 1024, 256), "key slot 0: Argon2 with 256 threads"},
		"argon2 no threads":     {argon(4, 1024, 0), "key slot 0: Argon2 with 0 threads"},
		"iterations":            {set("keyslots.0.kdf", "iterations", uint32(1<<32-1)), "key slot 0: 2147483647 PBKDF2 iterations"},
		"no iterations":         {set("keyslots.0.kdf", "iterations", 0), "key slot 0: 0 PBKDF2 iterations"},
		"key derivation":        {set("keyslots.0.kdf", "type", "scrypt"), `key slot 0: key derivation "scrypt"`},
		"kdf control character": {set("keyslots.0.kdf", "type", "a\x1b[2J"), "key slot 0: a name in it is not printable"},
		"kdf hash":              {set("keyslots.0.kdf", "hash", "whirlpool"), `key slot 0: hash "whirlpool"`},
		"salt":                  {set("keyslots.0.kdf", "salt", base64.StdEncoding.EncodeToString(make([]byte, 2000))), "key slot 0: the salt is too long"},
		"salt not base64":       {set("keyslots.0.kdf", "salt", "%%%"), "damaged: JSON: "},
		"split hash":            {set("keyslots.0.af", "hash", "md5"), `key slot 0: hash "md5" of the split`},
		"split type":            {set("keyslots.0.af", "type", "luks9"), "key slot 0: type"},
		"stripes":               {set("keyslots.0.af", "stripes", uint32(1<<32-1)), "key slot 0: 2147483647 stripes"},
		"no stripes":            {set("keyslots.0.af", "stripes", 0), "key slot 0: 0 stripes"},
		"key size":              {set("keyslots.0", "key_size", 1<<30), `segment "0": a key of 1073741824 bytes`},
		"key size 33":           {set("keyslots.0", "key_size", 33), `segment "0": a key of 33 bytes`},
		"area key size":         {set("keyslots.0.area", "key_size", 1<<30), "key slot 0: an area key of 1073741824 bytes"},
		"area key misfit":       {set("keyslots.0.area", "key_size", 20), "key slot 0: a key of 20 bytes"},
		"area cipher":           {set("keyslots.0.area", "encryption", "cipher_null-ecb"), `key slot 0: cipher "cipher_null-ecb"`},
		"area in the header":    {set("keyslots.0.area", "offset", "16384"), "key slot 0: its area overlaps the header"},
		"area in the data":      {set("keyslots.0.area", "offset", "16600000"), "key slot 0: its area overlaps the data"},
		"area beyond all":       {set("keyslots.0.area", "offset", "9223372036854775807"), "key slot 0: its area overlaps the data"},
		"area of all":           {set("keyslots.0.area", "size", "9223372036854775807"), "key slot 0: its area overlaps the data"},
		"area too small":        {set("keyslots.0.area", "size", "4096"), "key slot 0: its key needs 256000 bytes"},
		"negative offset":       {set("keyslots.0.area", "offset", "-1"), "damaged: JSON: "},
		"number for a string":   {set("keyslots.0.area", "offset", 32768), "damaged: JSON: "},
		"overlap":               {second("250000", "258048"), "key slot 1: its area overlaps that of key slot 0"},
		"unbound in the data":   {second("16777000", "258048"), "key slot 1: its area overlaps the data"},
		"slot number":           {func(m object) { in(m, "keyslots")["32"] = slot(m) }, `a key slot is called "32"`},
		"slot name":             {func(m object) { in(m, "keyslots")["../0"] = slot(m) }, `a key slot is called "../0"`},
		"no slots":              {set("digests.0", "keyslots", []string{}), "key slots: none is in use"},
		"missing slot":          {set("digests.0", "keyslots", []string{"0", "7"}), `key slot "7" is named twice or isn't there`},
		"slot twice":            {set("digests.0", "keyslots", []string{"0", "0"}), `key slot "0" is named twice or isn't there`},
		"slot with two names": {func(m object) {
			in(m, "keyslots")["00"] = slot(m)
			in(m, "digests.0")["keyslots"] = []string{"0", "00"}
		}, `key slot "00" is named twice`},
		"no digest":          {func(m object) { m["digests"] = object{} }, "digests: none belongs to the segment"},
		"digest type":        {set("digests.0", "type", "none"), `digest "0": type "none"`},
		"digest hash":        {set("digests.0", "hash", "crc32"), `digest "0": hash "crc32"`},
		"digest iterations":  {set("digests.0", "iterations", uint32(1<<32-1)), `digest "0": 2147483647 PBKDF2 iterations`},
		"empty digest":       {set("digests.0", "digest", ""), `digest "0": 0 bytes long`},
		"no segments":        {func(m object) { m["segments"] = object{} }, "segments: there are 0"},
		"two segments":       {func(m object) { in(m, "segments")["1"] = in(m, "segments.0") }, "segments: there are 2"},
		"linear segment":     {set("segments.0", "type", "linear"), `segment "0": it is of type "linear", not encrypted`},
		"null cipher":        {set("segments.0", "encryption", "cipher_null-ecb"), `segment "0": cipher "cipher_null-ecb" is not known`},
		"integrity":          {set("segments.0", "integrity", object{"type": "hmac(sha256)"}), `segment "0": it has integrity tags`},
		"segment flag":       {set("segments.0", "flags", []string{"backup-previous"}), `segment "0": flag "backup-previous"`},
		"sector size":        {set("segments.0", "sector_size", 513), `segment "0": sectors of 513 bytes`},
		"no sector size":     {set("segments.0", "sector_size", 0), `segment "0": sectors of 0 bytes`},
		"segment beyond":     {set("segments.0", "offset", "9223372036854775296"), "segment: the data begins at 9223372036854775296, beyond"},
		"segment unaligned":  {set("segments.0", "offset", "16777217"), "inside a sector"},
		"segment detached":   {set("segments.0", "offset", "0"), "a detached header, or a damaged one"},
		"segment too long":   {set("segments.0", "size", "9223372036854775807"), "segment: 9223372036854775807 bytes of data begin at 16777216"},
		"segment size":       {set("segments.0", "size", "all"), `segment "0": size "all"`},
		"segment of nothing": {set("segments.0", "size", "0"), `segment "0": size "0"`},
		"re-encryption":      {set("config", "requirements", object{"mandatory": []string{"online-reencrypt-v2"}}), "the volume is being re-encrypted"},
		"requirement":        {set("config", "requirements", object{"mandatory": []string{"opal"}}), `requirements: "opal" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			var m object
			if err := json.Unmarshal([]byte(small), &m); err != nil {
				t.Fatal(err)
			}
			test.spoil(m)
			changed, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			err = openHeader(changed)
			var damage *luks.DamageError
			var unsupported *luks.UnsupportedError
			if !errors.As(err, &damage) && !errors.As(err, &unsupported) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, without %q", err, test.want)
			}
		})
	}
	for name, raw := range map[string]string{
		"empty": "", "not JSON": "LUKS", "a list": "[]", "cut": small[:len(small)-1], "two": small + small,
		"deep": strings.Repeat("[", 12000), "no end": strings.Repeat(" ", 12288),
	} {
		var damage *luks.DamageError
		if err := openHeader([]byte(raw)); !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := []byte(`{"keyslots":{` + strings.TrimSuffix(strings.Repeat(`"":{},`, 1<<19), ",") + `}}`)
	_, err := luks.ReadHeader(bytes.NewReader(header2(many, 4<<20)), diskSize)
	if err == nil || !strings.Contains(err.Error(), "more than 16384 members") {
		t.Errorf("half a million key slots: %v", err)
	}
}

// TestNewerCopy takes the copy with the higher sequence number.
func TestNewerCopy(t *testing.T) {
	b := header2([]byte(small), 16<<10)
	second := b[16<<10:]
	binary.BigEndian.PutUint64(second[16:], 7)
	copy(second[24:], "newer")
	clear(second[448 : 448+64])
	sum := sha256.Sum256(second)
	copy(second[448:], sum[:])
	h, err := luks.ReadHeader(padded{bytes.NewReader(b)}, diskSize)
	if err != nil || h.Label != "newer" || len(h.Damage) > 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// LUKS1 has no checksum over its header, and nothing else vouches for where the payload begins. A flip there
// opens to shifted content; it is the proof, which looks for a file system, that finds it.
const payloadOffsetLUKS1, payloadOffsetEnd = 104, 108

// TestFlippedBits flips bits of real headers: a volume that still opens has the same content.
func TestFlippedBits(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	plain, content := randomFile(t, 64<<10)
	for version, size := range map[int]int{1: 592, 2: 32 << 10} {
		image := encrypted(t, plain, volumetest.Options{Version: version})
		b := make([]byte, image.Size())
		if _, err := image.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			at, bit := rapid.IntRange(0, size-1).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "bit")
			if version == 1 && at >= payloadOffsetLUKS1 && at < payloadOffsetEnd {
				return
			}
			b[at] ^= 1 << bit
			defer func() { b[at] ^= 1 << bit }()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			v, err := luks.Open(ctx, bytes.NewReader(b), int64(len(b)), secret.New([]byte(passphrase)))
			if err != nil {
				return
			}
			got := make([]byte, len(content))
			if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("with a flipped bit it opens to something else, error %v, %+v", err, v.Info())
			}
			if version == 2 && len(v.Info().Damage) == 0 {
				t.Fatalf("a flipped bit at %d isn't noticed", at)
			}
		})
	}
}

// TestCancel cancels key derivations that would take minutes.
func TestCancel(t *testing.T) {
	for name, kdf := range map[string]string{
		"pbkdf2":   `{"type":"pbkdf2","hash":"sha256","iterations":100000000,"salt":"AAAA"}`,
		"argon2id": `{"type":"argon2id","time":20,"memory":65536,"cpus":1,"salt":"AAAA"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var m object
			if err := json.Unmarshal([]byte(small), &m); err != nil {
				t.Fatal(err)
			}
			m["keyslots"].(object)["0"].(object)["kdf"] = json.RawMessage(kdf)
			changed, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err = luks.Open(ctx, padded{bytes.NewReader(header2(changed, 16<<10))}, diskSize, secret.New([]byte("key")))
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it went on for %v", took)
			}
		})
	}
}

func TestNotLUKS(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 511, 4096, 32 << 10} {
		if _, err := luks.ReadHeader(bytes.NewReader(make([]byte, n)), int64(n)); !errors.Is(err, luks.ErrNotLUKS) {
			t.Errorf("%d zeros: %v", n, err)
		}
	}
	for n := range 600 {
		b := make([]byte, n)
		copy(b, "LUKS\xba\xbe\x00\x01aes")
		if _, err := luks.ReadHeader(bytes.NewReader(b), int64(n)); err == nil {
			t.Errorf("a header of %d bytes is read", n)
		}
	}
}

// cheap tells whether a fuzzed header may be tried: what is allowed may still take a minute.
func cheap(h *luks.Header) bool {
	for _, s := range h.Keyslots {
		if s.Iterations > 2000 || s.MemoryKiB > 1024 || s.Threads > 4 || s.Iterations*s.MemoryKiB > 8192 {
			return false
		}
	}
	return true
}

func fuzzOne(t *testing.T, b []byte) {
	r := padded{bytes.NewReader(b)}
	if h, err := luks.ReadDetachedHeader(r, diskSize, diskSize/2); err == nil && (h.Size <= 0 || h.Offset > diskSize/2-h.Size) {
		t.Fatalf("the header says %+v of data of %d bytes", h, diskSize/2)
	}
	h, err := luks.ReadHeader(r, diskSize)
	if err != nil {
		return
	}
	if h.Offset <= 0 || h.Size <= 0 || h.Offset > diskSize-h.Size || len(h.Keyslots) == 0 {
		t.Fatalf("the header says %+v of a disk of %d bytes", h, diskSize)
	}
	if !cheap(h) {
		return
	}
	// The digest's cost isn't told, so time is bounded too.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	v, err := luks.Open(ctx, r, diskSize, secret.New([]byte("key")))
	if err != nil {
		return
	}
	defer v.Close()
	if _, err := v.ReadAt(make([]byte, 10000), 1); err != nil && v.Size() > 10001 {
		t.Fatal(err)
	}
}

func FuzzHeader1(f *testing.F) {
	b := make([]byte, 592)
	copy(b, "LUKS\xba\xbe\x00\x01aes")
	copy(b[40:], "xts-plain64")
	copy(b[72:], "sha256")
	be := binary.BigEndian
	be.PutUint32(b[104:], 4096)
	be.PutUint32(b[108:], 32)
	be.PutUint32(b[164:], 1000)
	copy(b[168:], "3d20686f-5517-48cb-8991-1ad32379821b")
	for i := range 8 {
		at := 208 + 48*i
		be.PutUint32(b[at:], map[bool]uint32{true: 0x00AC71F3, false: 0x0000DEAD}[i == 0])
		be.PutUint32(b[at+4:], 1000)
		be.PutUint32(b[at+40:], uint32(8+256*i))
		be.PutUint32(b[at+44:], 4000)
	}
	f.Add(bytes.Clone(b))
	be.PutUint16(b[6:], 2)
	f.Add(b)
	f.Fuzz(fuzzOne)
}

// FuzzHeader2 fuzzes the JSON, under sums that agree.
func FuzzHeader2(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte(strings.Replace(small, `"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"LW3`, `"type":"argon2id","time":4,"memory":64,"cpus":1,"salt":"LW3`, 1)))
	f.Add([]byte(strings.Replace(small, `"dynamic"`, `"1048576"`, 1)))
	f.Add(fmt.Appendf(nil, `{"config":{"requirements":{"mandatory":["online-reencrypt"]}}}`))
	f.Fuzz(func(t *testing.T, metadata []byte) {
		if len(metadata) > 12<<10 {
			return
		}
		fuzzOne(t, header2(metadata, 16<<10))
	})
}

// FuzzBinary2 fuzzes the binary part.
func FuzzBinary2(f *testing.F) {
	f.Add(header2([]byte(small), 16<<10)[:512])
	f.Fuzz(func(t *testing.T, head []byte) {
		b := header2([]byte(small), 16<<10)
		copy(b[:4096], head)
		clear(b[448 : 448+64])
		sum := sha256.Sum256(b[:16<<10])
		copy(b[448:], sum[:])
		fuzzOne(t, b)
	})
}
