package bitlocker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCCM opens vectors of NIST's CAVP without associated data. That the lengths of nonce and tag that volumes
// use are right too is what TestWindows shows.
func TestCCM(t *testing.T) {
	for _, v := range []struct{ key, nonce, ciphertext, tag, plain string }{
		// DVPT256, [Alen = 0, Plen = 0, Nlen = 7, Tlen = 4], count 0
		{"eda32f751456e33195f1f499cf2dc7c97ea127b6d488f211ccc5126fbb24afa6", "a544218dadd3c1", "", "469c90bb", ""},
		// DVPT256, [Alen = 0, Plen = 0, Nlen = 7, Tlen = 16], count 0
		{"e1b8a927a95efe94656677b692662000278b441c79e879dd5c0ddc758bdc9ee8", "a544218dadd3c1", "", "8207eb14d33855a52acceed17dbcbf6e", ""},
		// DVPT256, [Alen = 0, Plen = 24, Nlen = 7, Tlen = 4], count 0
		{"af063639e66c284083c5cf72b70d8bc277f5978e80d9322d99f2fdc718cda569", "a544218dadd3c1", "64a1341679972dc5869fcf69b19d5c5ea50aa0b5e985f5b7", "22aa8d59",
			"d3d5424e20fbec43ae495353ed830271515ab104f8860c98"},
	} {
		key, nonce, ciphertext, tag := unhex(t, v.key), unhex(t, v.nonce), unhex(t, v.ciphertext), unhex(t, v.tag)
		got, err := openCCM(key, nonce, ciphertext, tag)
		if err != nil || !bytes.Equal(got, unhex(t, v.plain)) {
			t.Errorf("%s: %x, %v", v.tag, got, err)
		}
		for _, spoil := range [][]byte{tag, ciphertext, nonce, key} {
			for i := range spoil {
				spoil[i] ^= 0x40
				if got, err := openCCM(key, nonce, ciphertext, tag); !errors.Is(err, errCCM) || got != nil {
					t.Errorf("%s with a flipped bit: %x, %v", v.tag, got, err)
				}
				spoil[i] ^= 0x40
			}
		}
	}
	key := make([]byte, 32)
	for _, test := range []struct{ nonce, tag int }{{6, 16}, {14, 16}, {12, 2}, {12, 18}, {12, 5}} {
		if _, err := openCCM(key, make([]byte, test.nonce), nil, make([]byte, test.tag)); err == nil || errors.Is(err, errCCM) {
			t.Errorf("nonce of %d, tag of %d: %v", test.nonce, test.tag, err)
		}
	}
	if _, err := openCCM(key[:31], make([]byte, 12), nil, make([]byte, 16)); err == nil {
		t.Error("a key of 31 bytes is taken")
	}
	if _, err := openCCM(key, make([]byte, 13), make([]byte, 1<<16), make([]byte, 16)); err == nil {
		t.Error("a text of 64 KiB is taken for a nonce of 13 bytes")
	}
}
