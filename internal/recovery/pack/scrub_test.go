package pack

import (
	"bytes"
	"testing"
)

func scrub(content []byte) ([]Range, error) {
	t, err := ParseTrailer(content[max(0, len(content)-TrailerSize):], int64(len(content)))
	if err != nil {
		return nil, err
	}
	end := int64(len(content)) - t.SumsSize()
	return Scrub(bytes.NewReader(content[:end]), t, content[end:])
}

func TestScrub(t *testing.T) {
	content, _, _, _ := testPack(t, 3000) // 4.8 MiB
	if bad, err := scrub(content); err != nil || len(bad) != 0 {
		t.Fatalf("%v, %v", bad, err)
	}
	for off, want := range map[int]Range{
		0: {0, sumBlock}, sumBlock - 1: {0, sumBlock}, 2 * sumBlock: {2 * sumBlock, sumBlock},
	} {
		flipped := bytes.Clone(content)
		flipped[off] ^= 1
		if bad, err := scrub(flipped); err != nil || len(bad) != 1 || bad[0] != want {
			t.Errorf("byte %d: %v, %v; want %v", off, bad, err, want)
		}
	}
	both := bytes.Clone(content)
	both[10] ^= 1
	both[sumBlock] ^= 1
	if bad, err := scrub(both); err != nil || len(bad) != 1 || bad[0] != (Range{0, 2 * sumBlock}) {
		t.Errorf("neighbours: %v, %v", bad, err)
	}
}

func FuzzScrub(f *testing.F) {
	content, _, _, _ := testPack(f, 3)
	f.Add(content)
	f.Add(content[:len(content)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		bad, err := scrub(b)
		if err != nil {
			return
		}
		for _, r := range bad {
			if r.Length <= 0 || r.Offset < 0 || r.Offset+r.Length > int64(len(b)) {
				t.Fatalf("range %v of %d bytes", r, len(b))
			}
		}
	})
}
