package bitlocker_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/secret"
	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/volumetest"
)

const recovery = "471207-278498-422125-177177-561902-537405-468006-693451"

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func build(t testing.TB, plain []byte, o volumetest.BitLockerOptions) (image, bek []byte) {
	t.Helper()
	image, bek, err := volumetest.BitLocker(plain, o)
	if err != nil {
		t.Fatal(err)
	}
	return image, bek
}

func open(image []byte, key bitlocker.Key) (*bitlocker.Volume, error) {
	return bitlocker.Open(context.Background(), bytes.NewReader(image), int64(len(image)), key)
}

// TestMatrix opens every cipher in both sector sizes, To Go and not.
func TestMatrix(t *testing.T) {
	plain := randomBytes(320 << 10)
	want := append(bytes.Clone(plain), make([]byte, volumetest.BitLockerOverhead)...)
	for _, cipher := range []string{"AES-XTS-128", "AES-XTS-256", "AES-CBC-128", "AES-CBC-256", "AES-CBC-128 Elephant", "AES-CBC-256 Elephant"} {
		for _, o := range []volumetest.BitLockerOptions{{SectorSize: 512}, {SectorSize: 4096}, {SectorSize: 512, ToGo: true}} {
			o.Cipher = cipher
			image, bek := build(t, plain, o)
			v, err := open(image, guess(t, bek))
			if err != nil {
				t.Fatalf("%+v: %v", o, err)
			}
			got, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
			// What follows the place of the first sectors is nobody's.
			if n := len(want) - 56<<10; err != nil || len(got) != len(want) || !bytes.Equal(got[:n], want[:n]) {
				t.Errorf("%+v: the content differs, error %v", o, err)
			}
			if h := v.Info(); h.Cipher != cipher || h.SectorSize != o.SectorSize || h.ToGo != o.ToGo || h.Description != "KLUIS D: 3/1/2025" {
				t.Errorf("%+v: the header says %+v", o, h)
			}
			_, other := build(t, plain, o)
			if _, err := open(image, guess(t, other)); !errors.Is(err, bitlocker.ErrWrongKey) || !strings.Contains(err.Error(), "no protector of that name") {
				t.Errorf("%+v: another volume's .BEK: %v", o, err)
			}
		}
	}
}

// TestKeys opens a volume that has a protector of each kind, and one that needs no key.
func TestKeys(t *testing.T) {
	plain := randomBytes(128 << 10)
	image, bek := build(t, plain, volumetest.BitLockerOptions{Password: "pässwörd 🔑", RecoveryPassword: recovery, ClearKey: true})
	for kind, key := range map[string]bitlocker.Key{
		bitlocker.KindExternalKey: guess(t, bek), bitlocker.KindPassword: guess(t, []byte("pässwörd 🔑")),
		bitlocker.KindRecoveryPassword: guess(t, []byte(recovery+"\n")), bitlocker.KindClearKey: bitlocker.ClearKey(),
	} {
		v, err := open(image, key)
		if err != nil || v.Protector().Kind != kind || key.Kind() != kind {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if h := v.Info(); h.Protected() || len(h.Protectors) != 4 {
			t.Errorf("with a clear key the header says %+v", h.Protectors)
		}
	}
	flipped := bytes.Clone(bek)
	flipped[len(flipped)-1] ^= 1
	locked, _ := build(t, plain, volumetest.BitLockerOptions{NoExternalKey: true, Password: "x"})
	for name, test := range map[string]struct {
		image []byte
		key   bitlocker.Key
		want  string
	}{
		"flipped bit in the key":     {image, guess(t, flipped), "opens none of the protectors of its kind (externalKey: 1)"},
		"another password":           {image, guess(t, []byte("password")), "(password: 1)"},
		"another recovery password":  {image, guess(t, []byte("000011-278498-422125-177177-561902-537405-468006-693451")), "(recoveryPassword: 1)"},
		"no protector for .BEK":      {locked, guess(t, bek), "no protector of that name"},
		"no clear key":               {locked, bitlocker.ClearKey(), "there is none of its kind (clearKey)"},
		"no recovery password there": {locked, guess(t, []byte(recovery)), "there is none of its kind (recoveryPassword)"},
	} {
		if _, err := open(test.image, test.key); !errors.Is(err, bitlocker.ErrWrongKey) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReadKeys refuses what can't be a key, and says nothing of what is in it.
func TestReadKeys(t *testing.T) {
	_, bek := build(t, randomBytes(64<<10), volumetest.BitLockerOptions{})
	for n := range bek {
		if _, err := bitlocker.ExternalKey(secret.Copy(bek[:n])); err == nil {
			t.Errorf("a .BEK file of %d bytes is read", n)
		}
	}
	if _, err := bitlocker.ExternalKey(secret.Copy(append(bytes.Clone(bek), 0))); err == nil {
		t.Error("a .BEK file with a byte too many is read")
	}
	for _, digits := range []string{"", "471207", recovery + "-000000", "471208" + recovery[6:], "720896" + recovery[6:], "000000000011"[:7] + recovery[7:], strings.ReplaceAll(recovery, "-", " "), "+71207" + recovery[6:]} {
		if _, err := bitlocker.RecoveryPassword(secret.New([]byte(digits))); err == nil {
			t.Errorf("%q is a recovery password", digits)
		} else if len(digits) > 6 && strings.Contains(err.Error(), digits[:6]) {
			t.Errorf("the error quotes it: %v", err)
		}
	}
	for _, password := range []string{"", "\xff", strings.Repeat("x", 257)} {
		if _, err := bitlocker.Password(secret.New([]byte(password))); err == nil {
			t.Errorf("%q is a password", password)
		}
	}
}

// resum mends the CRC of a copy of the metadata that was changed at will.
func resum(copy []byte) {
	size := int(binary.LittleEndian.Uint16(copy[8:])) << 4
	binary.LittleEndian.PutUint32(copy[size+4:], crc32.ChecksumIEEE(copy[:size]))
}

// TestDamage spoils a volume in one way at a time.
func TestDamage(t *testing.T) {
	const first, size = 128 << 10, 64 << 10 // where the copies are
	plain := randomBytes(first)
	image, bek := build(t, plain, volumetest.BitLockerOptions{})
	le := binary.LittleEndian
	all := func(change func(copy []byte)) func([]byte) {
		return func(b []byte) {
			for i := range 3 {
				c := b[first+i*size : first+(i+1)*size]
				change(c)
				resum(c)
			}
		}
	}
	for name, test := range map[string]struct {
		spoil func(b []byte)
		opens bool
		want  string
	}{
		"no boot sector":          {func(b []byte) { clear(b[:512]) }, false, bitlocker.ErrNotBitLocker.Error()},
		"signature":               {func(b []byte) { b[3] ^= 1 }, false, bitlocker.ErrNotBitLocker.Error()},
		"identifier":              {func(b []byte) { b[170] ^= 1 }, false, "boot sector: it has BitLocker's signature, and not its identifier"},
		"Vista":                   {func(b []byte) { b[1] = 0x52; b[170] ^= 1 }, false, "it is of Windows Vista"},
		"sector size":             {func(b []byte) { b[11] = 3 }, false, "boot sector: sectors of 515 bytes"},
		"one place":               {func(b []byte) { b[177] ^= 2 }, true, "copy 1 of the BitLocker metadata is damaged: signature"},
		"a place beyond":          {func(b []byte) { b[183] = 0x7f }, true, "copy 1 of the BitLocker metadata is damaged: boot sector: it says"},
		"first copy":              {func(b []byte) { b[first+200] ^= 1 }, true, "copy 1 of the BitLocker metadata is damaged: CRC"},
		"first copy zeroed":       {func(b []byte) { clear(b[first : first+size]) }, true, "copy 1 of the BitLocker metadata is damaged: signature"},
		"two copies":              {func(b []byte) { b[first+200] ^= 1; b[first+2*size+200] ^= 1 }, true, "copy 3 of the BitLocker metadata is damaged: CRC"},
		"all copies":              {func(b []byte) { b[first+200] ^= 1; b[first+size+200] ^= 1; b[first+2*size+200] ^= 1 }, false, "damaged: all three copies of the metadata, the first: CRC"},
		"all copies zeroed":       {func(b []byte) { clear(b[first : first+3*size]) }, false, "damaged: all three copies of the metadata, the first: signature"},
		"version":                 {all(func(c []byte) { c[10] = 3 }), false, "version: it is 3"},
		"own place":               {all(func(c []byte) { c[34] ^= 1; c[42] ^= 1; c[50] ^= 1 }), false, "places: it says that it is at 196608, and is at 131072"},
		"a place":                 {all(func(c []byte) { c[49] ^= 1 }), false, "places: copy 3 at"},
		"cipher":                  {all(func(c []byte) { c[101] = 0x90 }), false, "cipher: number 0x9004 is not known"},
		"another cipher":          {all(func(c []byte) { c[100] = 5 }), false, "validation: the hash of the metadata disagrees"},
		"state":                   {all(func(c []byte) { c[12] = 9 }), false, "state: number 9 is not known"},
		"size of all":             {all(func(c []byte) { le.PutUint32(c[64:], 1<<31) }), false, "header: 2147483648 bytes"},
		"entry's size":            {all(func(c []byte) { c[112] = 7 }), false, "entries: entry 1 has 7 bytes"},
		"encrypted beyond":        {all(func(c []byte) { c[22] = 1 }), false, "bytes are encrypted, and the disk has"},
		"first sectors elsewhere": {all(func(c []byte) { c[57] ^= 2 }), false, "first sectors: 8192 bytes at"},
		"many first sectors":      {all(func(c []byte) { c[31] = 0xff }), false, "first sectors: 8192 bytes at"},
		"hash": {func(b []byte) {
			for i := range 3 {
				c := b[first+i*size:]
				c[int(le.Uint16(c[8:]))<<4+60] ^= 1
			}
		}, false, "validation: the tag doesn't agree"},
		"no hash": {func(b []byte) {
			for i := range 3 {
				c := b[first+i*size : first+(i+1)*size]
				clear(c[int(le.Uint16(c[8:]))<<4+8:])
			}
		}, false, "validation: the hash of the metadata is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(image)
			test.spoil(b)
			v, err := open(b, guess(t, bek))
			if test.opens {
				if err != nil || !strings.Contains(strings.Join(v.Info().Damage, "; "), test.want) {
					t.Fatalf("error %v, without %q", err, test.want)
				}
				got := make([]byte, len(plain))
				if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("the content differs, error %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, without %q", err, test.want)
			}
		})
	}
	for _, n := range []int{0, 511, 512, 4096, first, first + size} {
		if _, err := open(image[:n], guess(t, bek)); err == nil {
			t.Errorf("a volume cut to %d bytes opens", n)
		}
	}
}

// TestNewerCopy takes the copy with the highest nonce, as is left when Windows was stopped between two.
func TestNewerCopy(t *testing.T) {
	const first, size = 64 << 10, 64 << 10
	plain := randomBytes(first)
	image, _ := build(t, plain, volumetest.BitLockerOptions{})
	second := image[first+size : first+2*size]
	second[96]++
	second[80] ^= 0xff
	resum(second)
	h, err := bitlocker.ReadHeader(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.ToUpper([]byte{hexDigit(second[83] >> 4), hexDigit(second[83] & 15)}); h.ID[:2] != string(want) || h.ID[6:8] == "00" {
		t.Errorf("the volume is %s", h.ID)
	}
}

func hexDigit(n byte) byte { return "0123456789abcdef"[n] }

// TestConverting recognises a volume that Windows is encrypting or decrypting, and doesn't open it.
func TestConverting(t *testing.T) {
	for _, test := range []struct {
		state, next uint16
		want        string
	}{
		{2, 4, bitlocker.StateEncrypting}, {5, 4, bitlocker.StateEncrypting}, {1, 4, bitlocker.StateEncrypting}, {3, 4, bitlocker.StateEncrypting},
		{2, 1, bitlocker.StateDecrypting}, {5, 1, bitlocker.StateDecrypting},
	} {
		image, bek := build(t, randomBytes(256<<10), volumetest.BitLockerOptions{State: test.state, Next: test.next})
		h, err := bitlocker.ReadHeader(bytes.NewReader(image), int64(len(image)))
		if err != nil || h.State != test.want || h.Encrypted != int64(len(image)/2) || h.Size != int64(len(image)) {
			t.Fatalf("%+v: %+v, %v", test, h, err)
		}
		var unsupported *bitlocker.UnsupportedError
		if _, err := open(image, guess(t, bek)); !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "Windows is "+test.want+" it: 262144 of 524288 bytes") {
			t.Errorf("%+v: %v", test, err)
		}
	}
	image, _ := build(t, randomBytes(64<<10), volumetest.BitLockerOptions{})
	copy(image[160:], "\x3b\x4d\xa8\x92\x80\xdd\x0e\x4d\x9e\x4e\xb1\xe3\x28\x4e\xae\xd8")
	if h, err := bitlocker.ReadHeader(bytes.NewReader(image), int64(len(image))); err != nil || h.State != bitlocker.StateEncrypting {
		t.Errorf("encrypt-on-write: %+v, %v", h, err)
	}
}

// TestReadAt reads every which way over what is hidden, relocated and neither.
func TestReadAt(t *testing.T) {
	plain := randomBytes(128 << 10)
	image, bek := build(t, plain, volumetest.BitLockerOptions{SectorSize: 4096, Cipher: "AES-CBC-128 Elephant"})
	v, err := open(image, guess(t, bek))
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, v.Size())
	if _, err := v.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(content)+5000).Draw(t, "off")
		p := make([]byte, rapid.IntRange(0, 200<<10).Draw(t, "n"))
		n, err := v.ReadAt(p, int64(off))
		want := content[min(off, len(content)):min(off+len(p), len(content))]
		if !bytes.Equal(p[:n], want) || (n < len(p)) != (errors.Is(err, io.EOF) && len(p) > 0) && off < len(content) {
			t.Fatalf("%d bytes and %v, where there are %d", n, err, len(want))
		}
	})
	if _, err := v.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is read")
	}
}

// TestFlippedBits flips bits of the first copy of a real volume's metadata: it opens all the same, and says so.
func TestFlippedBits(t *testing.T) {
	image := shared(t, "bitlk-aes-xts-128-startup-key")
	key := guess(t, sharedFile(t, "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK"))
	const at, size = 0x2100000, 1152
	rapid.Check(t, func(t *rapid.T) {
		p := patched{bytes.NewReader(image), map[int64]byte{at + rapid.Int64Range(0, size+7).Draw(t, "at"): 1 << rapid.IntRange(0, 7).Draw(t, "bit")}}
		v, err := bitlocker.Open(context.Background(), p, int64(len(image)), key)
		if err != nil {
			t.Fatal(err)
		}
		// The length of the validation is in no sum; its CRC and all before it is.
		for i := range p.at {
			if len(v.Info().Damage) != 1 && (i < at+size || i >= at+size+4) {
				t.Fatalf("the damage is %q", v.Info().Damage)
			}
		}
	})
}

func TestCancel(t *testing.T) {
	image, _ := build(t, randomBytes(64<<10), volumetest.BitLockerOptions{NoExternalKey: true, Password: "x"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := bitlocker.Open(ctx, bytes.NewReader(image), int64(len(image)), guess(t, []byte("x")))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

type broken struct{ io.ReaderAt }

var errBroken = errors.New("bad sector")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off >= 64<<10 {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

func TestUnreadable(t *testing.T) {
	image, bek := build(t, randomBytes(64<<10), volumetest.BitLockerOptions{})
	if _, err := bitlocker.Open(context.Background(), broken{bytes.NewReader(image)}, int64(len(image)), guess(t, bek)); !errors.Is(err, errBroken) {
		t.Errorf("the error is %v", err)
	}
}

// FuzzMetadata changes bytes of a copy whose CRC is mended, and of the boot sector.
func FuzzMetadata(f *testing.F) {
	image, bek := build(f, make([]byte, 64<<10), volumetest.BitLockerOptions{ClearKey: true})
	boot, block := bytes.Clone(image[:512]), bytes.Clone(image[64<<10:128<<10])
	block = block[:int(binary.LittleEndian.Uint16(block[8:]))<<4+8+80]
	f.Add(boot, block)
	f.Add(boot, block[:200])
	key := guess(f, bek)
	f.Fuzz(func(t *testing.T, boot, block []byte) {
		b := bytes.Clone(image)
		copy(b[:512], boot)
		for i := range 3 {
			c := b[(i+1)*64<<10 : (i+2)*64<<10]
			copy(c, block)
			if size := int(binary.LittleEndian.Uint16(c[8:])) << 4; size < len(c)-8 {
				resum(c)
			}
		}
		h, err := bitlocker.ReadHeader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if h.Size <= 0 || h.Size > int64(len(b)) || len(h.Protectors) == 0 || h.Cipher == "" {
			t.Fatalf("the header says %+v", h)
		}
		for _, k := range []bitlocker.Key{key, bitlocker.ClearKey()} {
			if v, err := open(b, k); err == nil {
				if _, err := v.ReadAt(make([]byte, 10000), 1); err != nil && v.Size() > 10001 {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzExternalKey reads .BEK files.
func FuzzExternalKey(f *testing.F) {
	_, bek := build(f, make([]byte, 64<<10), volumetest.BitLockerOptions{})
	f.Add(bek)
	f.Add(bek[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := bitlocker.ExternalKey(secret.Copy(b)); err == nil && k.Kind() != bitlocker.KindExternalKey {
			t.Errorf("it is a key for %q", k.Kind())
		}
	})
}
