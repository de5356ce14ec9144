package chunk

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
)

func newCodec(t testing.TB) *Codec {
	t.Helper()
	c, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newBox(t testing.TB) *Box {
	t.Helper()
	b, err := NewBox(bytes.Repeat([]byte{3}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndOpen(t *testing.T) {
	c, box := newCodec(t), newBox(t)
	half := append(random(t, 32<<10), make([]byte, 32<<10)...)
	for name, k := range map[string]struct {
		plain []byte
		kind  Kind
		flags uint8
	}{
		"ciphertext":         {random(t, 64<<10), Data, 0},
		"text":               {[]byte(strings.Repeat("some text ", 6000)), Data, Compressed},
		"half ciphertext":    {half, Data, Compressed},
		"short":              {[]byte("x"), Data, 0},
		"short ciphertext":   {random(t, 100), Data, 0},
		"largest":            {random(t, MaxSize), Data, 0},
		"largest compressed": {bytes.Repeat([]byte{1}, MaxSize), Data, Compressed},
		"empty document":     {nil, Document, 0},
		"node":               {make([]byte, 1000), Node, 0},
	} {
		t.Run(name, func(t *testing.T) {
			at, i := Place{[16]byte{1}, 5}, Info{ID: ID{2}, Kind: k.kind}
			sealed, i := c.Seal([]byte("before"), k.plain, box, at, i)
			sealed = sealed[len("before"):]
			if i.Flags != k.flags || int(i.Plain) != len(k.plain) || len(sealed) > len(k.plain)+Overhead {
				t.Errorf("%+v in %d bytes", i, len(sealed))
			}
			got, err := c.Open([]byte("before"), sealed, box, at, i)
			if err != nil || string(got) != "before"+string(k.plain) {
				t.Errorf("%v, or bytes differ", err)
			}
		})
	}
}

// A record opens only as what it was sealed as, and where.
func TestRecordIsBound(t *testing.T) {
	c, box := newCodec(t), newBox(t)
	plain := random(t, 1000)
	at, i := Place{[16]byte{1}, 5}, Info{ID: ID{2}, Kind: Data}
	sealed, i := c.Seal(nil, plain, box, at, i)
	for name, change := range map[string]func(at *Place, i *Info){
		"pack":   func(at *Place, _ *Info) { at.Pack[0]++ },
		"slot":   func(at *Place, _ *Info) { at.Slot++ },
		"id":     func(_ *Place, i *Info) { i.ID[15]++ },
		"kind":   func(_ *Place, i *Info) { i.Kind = Document },
		"flags":  func(_ *Place, i *Info) { i.Flags = Compressed; i.Plain++ },
		"length": func(_ *Place, i *Info) { i.Plain++ },
	} {
		at, i := at, i
		change(&at, &i)
		if _, err := c.Open(nil, sealed, box, at, i); !errors.Is(err, ErrDamaged) {
			t.Errorf("with another %s: %v", name, err)
		}
	}
}

func TestIDs(t *testing.T) {
	keys := map[Kind][]byte{Data: make([]byte, 32), Node: bytes.Repeat([]byte{1}, 32), Document: bytes.Repeat([]byte{2}, 32)}
	h, err := NewHasher(keys)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("the same")
	if first, again := h.ID(Data, plain), h.ID(Data, bytes.Clone(plain)); first != again {
		t.Error("one chunk, two ids")
	}
	if h.ID(Data, plain) == h.ID(Node, plain) || h.ID(Data, plain) == h.ID(Data, plain[1:]) {
		t.Error("two chunks, one id")
	}
}

// FuzzOpen gives Open what a holder of the key could have sealed wrongly: it must neither panic, nor return
// anything but i.Plain bytes.
func FuzzOpen(f *testing.F) {
	c, box := newCodec(f), newBox(f)
	f.Add([]byte("payload"), uint32(7), uint8(1), uint8(0))
	f.Add(c.enc.EncodeAll(make([]byte, 70000), nil), uint32(70000), uint8(1), uint8(1))
	f.Add(c.enc.EncodeAll(make([]byte, 70000), nil), uint32(60000), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, payload []byte, plain uint32, kind, flags uint8) {
		at, i := Place{Slot: 1}, Info{Kind: Kind(kind), Flags: flags, Plain: plain}
		sealed := box.seal(nil, payload, at, i)
		got, err := c.Open(nil, sealed, box, at, i)
		if err == nil && (len(got) != int(plain) || cap(got) > 2*MaxSize) {
			t.Fatalf("%d bytes (room for %d), announced were %d", len(got), cap(got), plain)
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

func BenchmarkSealCiphertext(b *testing.B) {
	c, box := newCodec(b), newBox(b)
	plain, buf := random(b, 64<<10), make([]byte, 0, 70<<10)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		_, _ = c.Seal(buf, plain, box, Place{}, Info{Kind: Data})
	}
}
