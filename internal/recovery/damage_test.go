package recovery

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/recovery/index"
	"kluis/internal/recovery/pack"
)

func TestMarksSurviveTheirDocument(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		marks := map[index.Location]bool{}
		for range rapid.IntRange(0, 50).Draw(t, "marks") {
			slot := rapid.OneOf(rapid.Uint32Range(0, pack.MaxSlots-1), rapid.Just(uint32(index.AllSlots))).Draw(t, "slot")
			marks[index.Location{Pack: pack.ID{byte(rapid.IntRange(0, 9).Draw(t, "pack"))}, Slot: slot}] = true
		}
		content, err := encodeDamage(slices.Collect(maps.Keys(marks)))
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parseDamage(content)
		if err != nil {
			t.Fatal(err)
		}
		x := index.New()
		for _, at := range parsed {
			x.Damage(at)
		}
		for at := range marks {
			if !x.Damaged(at) {
				t.Fatalf("%v is forgotten", at)
			}
		}
	})
}

func TestManyMarksFitIntoADocument(t *testing.T) {
	var marks []index.Location
	for p := range 500 {
		for slot := range uint32(1024) {
			marks = append(marks, index.Location{Pack: pack.ID{byte(p), byte(p >> 8)}, Slot: slot})
		}
	}
	content, err := encodeDamage(marks)
	if err != nil || len(content) > maxDocument {
		t.Fatalf("%d bytes, %v", len(content), err)
	}
	if parsed, err := parseDamage(content); err != nil || len(parsed) != 500 || parsed[0].Slot != index.AllSlots {
		t.Fatalf("%d marks, %v", len(parsed), err)
	}
}

func FuzzParseDamage(f *testing.F) {
	f.Add([]byte(`{"packs":{"00112233445566778899aabbccddeeff":[1,2],"ff112233445566778899aabbccddeeff":[]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		marks, err := parseDamage(b)
		if err == nil && len(marks) > len(b) {
			t.Fatalf("%d marks of %d bytes", len(marks), len(b))
		}
	})
}
