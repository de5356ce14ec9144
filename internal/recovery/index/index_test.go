package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/recovery/chunk"
	"kluis/internal/recovery/pack"
)

var key = bytes.Repeat([]byte{3}, chunk.KeySize)

// id makes a chunk id that looks like one: the bytes of a hash.
func id(n int) chunk.ID {
	t := newMAC(key).tag([]byte("chunk"), binary.BigEndian.AppendUint64(nil, uint64(n)))
	return chunk.ID(t)
}

func packID(n int) pack.ID { return pack.ID{15: byte(n), 14: byte(n >> 8)} }

func entries(ids ...int) []pack.Entry {
	all := make([]pack.Entry, len(ids))
	for i, n := range ids {
		all[i].ID = id(n)
	}
	return all
}

func sequence(first, n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = first + i
	}
	return all
}

func open(t interface {
	Fatal(...any)
}, dir string, limit int) *Index {
	x, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	x.limit = limit
	return x
}

// The index against the simplest thing that could be right: the list of all packs. It may have forgotten a
// second copy of a chunk, but never names a place where the chunk isn't.
func TestIndexIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "index")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		x := open(t, dir, 20)
		defer func() { _ = x.Close() }()
		held, damaged, next := map[pack.ID][]int{}, map[Location]bool{}, 0
		lost := map[int]bool{} // chunks of which a copy is gone
		pick := func() pack.ID {
			n := rapid.IntRange(0, max(0, next-1)).Draw(t, "pack")
			return packID(n)
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				ids := rapid.SliceOfN(rapid.IntRange(0, 100), 0, 12).Draw(t, "chunks")
				x.Add(packID(next), entries(ids...))
				held[packID(next)] = ids
				next++
			},
			"remove": func(*rapid.T) {
				gone := pick()
				for _, n := range held[gone] {
					lost[n] = true
				}
				x.Remove(map[pack.ID]bool{gone: true})
				delete(held, gone)
			},
			"damage": func(t *rapid.T) {
				at := Location{pick(), uint32(rapid.SampledFrom([]int{0, 1, 2, AllSlots}).Draw(t, "slot"))}
				if held[at.Pack] != nil {
					x.Damage(at)
					damaged[at] = true
					for _, n := range held[at.Pack] {
						lost[n] = true
					}
				}
			},
			"reopen": func(t *rapid.T) {
				if err := errors.Join(x.Flush(), x.Close()); err != nil {
					t.Fatal(err)
				}
				x = open(t, dir, 20)
				for at := range damaged {
					x.Damage(at)
				}
				for _, known := range x.Packs() { // as a store does, with the packs that it lists
					if _, ok := held[known]; !ok {
						x.Remove(map[pack.ID]bool{known: true})
					}
				}
			},
			"": func(t *rapid.T) {
				want := map[int]bool{}
				for p, ids := range held {
					if !x.Has(p) {
						t.Fatalf("pack %s was forgotten", p)
					}
					for _, n := range ids {
						want[n] = !lost[n]
					}
				}
				for n := range 101 {
					at, ok := x.Find(id(n))
					if !ok && want[n] {
						t.Fatalf("chunk %d was forgotten", n)
					}
					if ok && (int(at.Slot) >= len(held[at.Pack]) || held[at.Pack][at.Slot] != n) {
						t.Fatalf("chunk %d is not at %v", n, at)
					}
					if ok && (damaged[at] || damaged[Location{at.Pack, AllSlots}]) {
						t.Fatalf("chunk %d was found where it is damaged", n)
					}
				}
			},
		})
	})
}

func TestSegmentsAreFewAndSmallInMemory(t *testing.T) {
	const packs, each = 400, 1000
	before := heap()
	x := open(t, t.TempDir(), 1<<12)
	for p := range packs {
		x.Add(packID(p), entries(sequence(p*each, each)...))
	}
	if err := x.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(x.segments) > 12 {
		t.Errorf("%d segments", len(x.segments))
	}
	x.table = map[chunk.ID]entry{} // a map keeps the memory that it had once
	if perChunk := float64(heap()-before) / (packs * each); perChunk > 2 {
		t.Errorf("%.1f bytes of memory a chunk", perChunk)
	}
	missed := 0
	for n := 0; n < packs*each; n += 13 {
		if at, ok := x.Find(id(n)); !ok || at != (Location{packID(n / each), uint32(n % each)}) {
			missed++
		}
	}
	if missed > 0 {
		t.Errorf("%d chunks are not where they were added", missed)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Whichever bit of a segment flips, no chunk is found where it isn't, and what is lost is known to be lost.
func TestDecayedSegments(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, 1<<12)
	x.Add(packID(1), entries(sequence(0, 300)...))
	x.Add(packID(2), entries(sequence(300, 50)...))
	if err := errors.Join(x.Flush(), x.Close()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(good); at += 41 {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		x := open(t, dir, 1<<12)
		for n := 0; n < 350; n += 7 {
			where, ok := x.Find(id(n))
			p, slot := packID(1+n/300), uint32(n%300)
			if ok && where != (Location{p, slot}) || !ok && x.Has(p) {
				t.Fatalf("bit of byte %d flipped: chunk %d at %v, %v; pack known: %v", at, n, where, ok, x.Has(p))
			}
		}
		if x.Has(packID(1)) || x.Has(packID(2)) {
			t.Fatalf("nobody noticed byte %d", at)
		}
		// What is added anew replaces the file.
		x.Add(packID(1), entries(sequence(0, 300)...))
		if err := errors.Join(x.Flush(), x.Close()); err != nil {
			t.Fatal(err)
		}
		x = open(t, dir, 1<<12)
		if _, ok := x.Find(id(77)); !ok {
			t.Fatalf("byte %d: the new segment is not read", at)
		}
		_ = x.Close()
		all, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("byte %d: left behind: %v", at, all)
		}
		if err := os.Remove(all[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// A folder that can't be written to makes the index small, and neither wrong nor large.
func TestFolderThatIsFull(t *testing.T) {
	x := open(t, t.TempDir(), 10)
	if err := x.folder.Close(); err != nil {
		t.Fatal(err)
	}
	for p := range 30 {
		x.Add(packID(p), entries(sequence(p*7, 7)...))
		if at, ok := x.Find(id(p * 7)); ok != x.Has(packID(p)) || ok && at != (Location{packID(p), 0}) {
			t.Fatalf("chunk %d at %v, %v", p*7, at, ok)
		}
		if len(x.table) >= 4*x.limit {
			t.Fatalf("%d chunks in the table", len(x.table))
		}
	}
}

func TestOtherKeyKnowsNothing(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, 10)
	x.Add(packID(1), entries(sequence(0, 30)...))
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := Open(dir, make([]byte, chunk.KeySize))
	if err != nil || other.Has(packID(1)) {
		t.Errorf("has it: %v, %v", other.Has(packID(1)), err)
	}
	_ = other.Close()
}

func TestClear(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dir, 10)
	x.Add(packID(1), entries(sequence(0, 30)...))
	x.Add(packID(2), entries(5))
	x.Clear()
	if _, ok := x.Find(id(5)); ok || x.Has(packID(1)) || x.Has(packID(2)) {
		t.Error("something is left")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 0 {
		t.Errorf("files are left: %v, %v", files, err)
	}
	_ = x.Close()
}

var update = flag.Bool("update", false, "write the golden segment anew")

// A segment of version 1 is read for ever, and made the same today.
func TestGoldenSegment(t *testing.T) {
	x := empty(nil, key)
	x.Add(packID(1), entries(sequence(0, 200)...))
	x.Add(packID(2), entries(7, 200, 201))
	var b bytes.Buffer
	if err := x.build(&b, []source{x.tableSource()}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "v1.segment")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, b.Bytes()) {
		t.Error("what is written today differs from version 1")
	}
	s, err := openSegment(bytes.NewReader(golden), int64(len(golden)), x.mac)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]Location{0: {packID(1), 0}, 199: {packID(1), 199}, 201: {packID(2), 2}} {
		var got []Location
		for at, err := range s.find(x.mac, id(n)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, at)
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("chunk %d at %v", n, got)
		}
	}
}

func FuzzOpenSegment(f *testing.F) {
	x := New()
	x.Add(packID(1), entries(1, 2, 3))
	var b bytes.Buffer
	if err := x.build(&b, []source{x.tableSource()}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := openSegment(bytes.NewReader(b), int64(len(b)), x.mac)
		if err != nil {
			return
		}
		for i := range s.blocks() {
			if block, err := s.block(x.mac, i); err == nil {
				if _, err := s.location(block); err != nil && !errors.Is(err, errSegment) {
					t.Fatal(err)
				}
			}
		}
	})
}
