package pack

import (
	"bytes"
	"errors"
	"hash/crc32"
	"reflect"
	"runtime/metrics"
	"testing"

	"kluis/internal/recovery/chunk"
)

func testPack(t testing.TB, records int) (content []byte, f Footer, id ID, key []byte) {
	t.Helper()
	id, key = ID{1, 2, 3}, bytes.Repeat([]byte{4}, 32)
	f = Footer{Created: 1234}
	content = AppendHeader(nil, id)
	for i := range records {
		plain := uint32(100 + i)
		f.Entries = append(f.Entries, Entry{
			Info:   chunk.Info{ID: chunk.ID{byte(i)}, Kind: chunk.Data, Plain: plain},
			Offset: uint32(len(content)), Length: plain + chunk.Overhead,
		})
		content = append(content, make([]byte, plain+chunk.Overhead)...)
	}
	var sums Sums
	sums.Add(content)
	content, err := AppendEnd(content, key, id, f, int64(len(content)), &sums)
	if err != nil {
		t.Fatal(err)
	}
	return content, f, id, key
}

func readFooter(content, key []byte, id ID) (Footer, error) {
	t, err := ParseTrailer(content[max(0, len(content)-TrailerSize):], int64(len(content)))
	if err != nil {
		return Footer{}, err
	}
	return OpenFooter(content[t.FooterOff:t.FooterOff+t.FooterLen], key, id, t)
}

func TestRoundTrip(t *testing.T) {
	for _, records := range []int{0, 1, 3, MaxSlots} {
		content, want, id, key := testPack(t, min(records, 3000)) // the sizes of records grow
		got, err := readFooter(content, key, id)
		if err != nil || got.Created != want.Created || len(got.Entries) != len(want.Entries) || len(want.Entries) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%d records: %v, or the footer differs", records, err)
		}
		if _, err := readFooter(content, key, ID{9}); !errors.Is(err, chunk.ErrDamaged) {
			t.Errorf("under another id: %v", err)
		}
	}
}

// The checksums can be verified by somebody without keys.
func TestSums(t *testing.T) {
	content, _, _, _ := testPack(t, 2000)
	trailer, err := ParseTrailer(content[len(content)-TrailerSize:], int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	end := trailer.FooterOff + trailer.FooterLen
	sums := content[end:]
	n := 0
	for off := int64(0); off < end; off += 1 << 20 {
		sum := crc32.Checksum(content[off:min(off+1<<20, end)], crc32.MakeTable(crc32.Castagnoli))
		if got := sums[4*n : 4*n+4]; !bytes.Equal(got, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}) {
			t.Errorf("sum of the MiB at %d is %x, want %x", off, got, sum)
		}
		n++
	}
	if n < 2 || len(sums) != 4*n+TrailerSize {
		t.Errorf("%d sums in %d bytes", n, len(sums))
	}
}

func TestName(t *testing.T) {
	id := ID{0xab, 1}
	if got, ok := ParseName(id.Name()); !ok || got != id || id.Name() != "packs/ab/ab010000000000000000000000000000" {
		t.Errorf("%v, %v of %s", got, ok, id.Name())
	}
	for _, name := range []string{"", "packs/", "packs/ab/xy", "packs/00/ab010000000000000000000000000000", "packs/AB/AB010000000000000000000000000000", "packs/ab/ab01000000000000000000000000000g"} {
		if _, ok := ParseName(name); ok {
			t.Errorf("took %q", name)
		}
	}
}

func FuzzReadFooter(f *testing.F) {
	content, _, id, key := testPack(f, 3)
	f.Add(content)
	f.Add(content[len(content)-200:])
	f.Fuzz(func(t *testing.T, b []byte) {
		var err error
		if grown := allocated(func() { _, err = readFooter(b, key, id) }); grown > 4*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d", grown, len(b))
		}
		if err != nil && !errors.Is(err, chunk.ErrDamaged) {
			t.Fatal(err)
		}
	})
}

func FuzzParseFooter(f *testing.F) {
	f.Add(make([]byte, 8+32), int64(1000))
	f.Fuzz(func(t *testing.T, b []byte, end int64) {
		var footer Footer
		var err error
		if grown := allocated(func() { footer, err = parseFooter(b, end) }); grown > 4*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d", grown, len(b))
		}
		for _, e := range footer.Entries {
			if err == nil && (int64(e.Offset)+int64(e.Length) > end || e.Plain > chunk.MaxSize) {
				t.Fatalf("accepted %+v", e)
			}
		}
	})
}

// allocated returns about how many bytes f allocates.
func allocated(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	f()
	metrics.Read(sample)
	return sample[0].Value.Uint64() - before
}
