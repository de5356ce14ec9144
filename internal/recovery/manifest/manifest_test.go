package manifest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

func TestNodeRoundTrip(t *testing.T) {
	id := rapid.Custom(func(t *rapid.T) [16]byte { return [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")) })
	rapid.Check(t, func(t *rapid.T) {
		n := NewNode(rapid.IntRange(0, 2).Draw(t, "level"))
		packs := rapid.SliceOfN(id, 1, 4).Draw(t, "packs")
		for _, i := range rapid.SliceOf(rapid.IntRange(0, Fanout-1)).Draw(t, "places") {
			n.Refs[i] = Ref{
				ID:   chunk.ID(id.Draw(t, "id")),
				Pack: pack.ID(rapid.SampledFrom(packs).Draw(t, "pack")),
				Slot: uint32(rapid.IntRange(1, pack.MaxSlots-1).Draw(t, "slot")),
			}
			if n.Level > 0 {
				n.Sums[i] = Sum{Digest{byte(i)}, rapid.Int64Range(0, 1<<50).Draw(t, "data")}
			}
		}
		encoded := n.Append(nil)
		got, err := ParseNode(encoded, n.Level)
		if err != nil || !reflect.DeepEqual(got, n) || len(encoded) > MaxNode {
			t.Fatalf("%d bytes, %v, or the node differs", len(encoded), err)
		}
	})
}

// The largest nodes fit into what a chunk may hold.
func TestLargestNode(t *testing.T) {
	for level := range 2 {
		n := NewNode(level)
		for i := range n.Refs {
			n.Refs[i] = Ref{chunk.ID{1, byte(i), byte(i >> 8)}, pack.ID{1, byte(i), byte(i >> 8)}, pack.MaxSlots - 1}
			if level > 0 {
				n.Sums[i].Data = MaxDisk
			}
		}
		b := n.Append(nil)
		if got, err := ParseNode(b, level); err != nil || !got.Equal(n) || len(b) > MaxNode {
			t.Errorf("level %d: %d bytes, %v", level, len(b), err)
		}
	}
}

func TestLevels(t *testing.T) {
	const leaf = Fanout << 16
	for size, want := range map[int64]int{0: 1, 1: 1, leaf: 1, leaf + 1: 2, leaf * Fanout: 2, leaf*Fanout + 1: 3, MaxDisk: 4} {
		if got := Levels(size, 1<<16); got != want || got > MaxLevels {
			t.Errorf("Levels(%d) = %d, want %d", size, got, want)
		}
	}
}

func testPoint() *Point {
	digest := strings.Repeat("ab", 32)
	root := AddressOf(Ref{chunk.ID{1}, pack.ID{2}, 3})
	return &Point{
		ID: "1", Created: 5, Labels: map[string]string{"a": "b"},
		Disks:       []Disk{{Name: "os", Size: 100, ChunkSize: 1 << 16, Data: 100, Root: &root, Digest: digest}, {Name: "empty", ChunkSize: 1 << 16, Digest: digest}},
		Attachments: []Attachment{{Name: "vm.json", Size: 4, Ref: root}},
	}
}

func TestPointRoundTrip(t *testing.T) {
	key, salt := make([]byte, 32), bytes.Repeat([]byte{9}, SaltSize)
	stored, err := testPoint().Seal(key, salt, "label")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Salt(stored); err != nil || !bytes.Equal(got, salt) {
		t.Errorf("salt %x, %v", got, err)
	}
	if got, err := OpenPoint(stored, key, "label"); err != nil || !reflect.DeepEqual(got, testPoint()) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := OpenPoint(stored, key, "other"); !errors.Is(err, chunk.ErrDamaged) {
		t.Errorf("under another name: %v", err)
	}
}

func TestPointCheck(t *testing.T) {
	for name, spoil := range map[string]func(p *Point){
		"two disks of one name":  func(p *Point) { p.Disks[1].Name = "os" },
		"no name":                func(p *Point) { p.Disks[0].Name = "" },
		"control character":      func(p *Point) { p.Attachments[0].Name = "a\nb" },
		"negative size":          func(p *Point) { p.Disks[0].Size = -1 },
		"too large":              func(p *Point) { p.Disks[0].Size = MaxDisk + 1 },
		"odd chunks":             func(p *Point) { p.Disks[0].ChunkSize = 1<<16 + 1 },
		"small chunks":           func(p *Point) { p.Disks[0].ChunkSize = 1 << 10 },
		"more data than size":    func(p *Point) { p.Disks[0].Data = 101 },
		"data without root":      func(p *Point) { p.Disks[0].Root = nil },
		"slot out of range":      func(p *Point) { p.Disks[0].Root.Slot = pack.MaxSlots },
		"id of the wrong length": func(p *Point) { p.Disks[0].Root.ID = "00" },
		"digest not hex":         func(p *Point) { p.Disks[0].Digest = strings.Repeat("x", 64) },
		"large attachment":       func(p *Point) { p.Attachments[0].Size = chunk.MaxSize + 1 },
		"too many disks":         func(p *Point) { p.Disks = make([]Disk, MaxItems+1) },
	} {
		p := testPoint()
		spoil(p)
		if err := p.Check(); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

func FuzzParseNode(f *testing.F) {
	n := NewNode(0)
	for range 20 {
		n.Refs[rand.IntN(Fanout)] = Ref{chunk.ID{1}, pack.ID{byte(rand.IntN(3))}, 7}
	}
	f.Add(n.Append(nil), uint8(0))
	n.Level, n.Sums = 1, make([]Sum, Fanout)
	f.Add(n.Append(nil), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, level uint8) {
		var n *Node
		var err error
		if grown := allocated(func() { n, err = ParseNode(b, int(level%MaxLevels)) }); grown > 1<<20 {
			t.Fatalf("%d bytes allocated for %d", grown, len(b))
		}
		if err != nil {
			return
		}
		again, err := ParseNode(n.Append(nil), n.Level)
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("parsed node does not survive encoding: %v", err)
		}
	})
}

func FuzzParsePoint(f *testing.F) {
	f.Add([]byte(`{"id":"1","disks":[{"name":"os","size":100,"chunkSize":65536,"data":0,"digest":"` + strings.Repeat("00", 32) + `"}]}`))
	f.Add([]byte(`{"attachments":[{"name":"a","size":1,"ref":{"id":"` + hex.EncodeToString(make([]byte, 16)) + `"}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p *Point
		var err error
		if grown := allocated(func() { p, err = parsePoint(b) }); grown > 200*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d", grown, len(b))
		}
		if err == nil && p.Check() != nil {
			t.Fatal("a senseless point was accepted")
		}
	})
}

func FuzzOpenPoint(f *testing.F) {
	key := make([]byte, 32)
	stored, err := testPoint().Seal(key, make([]byte, SaltSize), "label")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add(stored[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenPoint(b, key, "label"); err == nil && !bytes.Equal(b, stored) {
			t.Fatal("a forged point was accepted")
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
