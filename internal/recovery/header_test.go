package recovery

import (
	"strings"
	"testing"
)

func TestNewerVersionIsRefusedByName(t *testing.T) {
	_, err := parseHeader([]byte(`{"format":"kluis recovery store","version":2,"id":"","chunkSize":0,"check":""}`))
	if err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("%v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte(`{"format":"kluis recovery store","version":1,"id":"00112233445566778899aabbccddeeff","chunkSize":65536,"check":"00"}`))
	f.Add([]byte(`{"format":"kluis recovery store","version":1,"id":"é","chunkSize":65536}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err == nil && (len(h.ID) != 32 || h.ChunkSize < 1 || h.ChunkSize > 1<<20) {
			t.Fatalf("accepted %+v", h)
		}
	})
}

func FuzzParseTrashName(f *testing.F) {
	f.Add("trash/00112233445566778899aabbccddeeff-0006500000000000")
	f.Fuzz(func(t *testing.T, name string) {
		if label, at, ok := parseTrashName(name); ok && trashName(label, at) != name && len(name) == len(trashName(label, at)) && strings.HasPrefix(name, trashPrefix) && strings.ToLower(name) == name {
			t.Fatalf("%q is read as %q, %v", name, label, at)
		}
	})
}
