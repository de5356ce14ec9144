package bitlocker_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/secret"
	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/filesystem"
)

// made is what Windows made, and what the people who made it say is inside.
var made = []struct {
	name     string
	cipher   string
	password string
	bek      string
	recovery []string
	fs, uuid string
	sha256   string
}{
	{"bitlk-aes-xts-128-startup-key", "AES-XTS-128", "", "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK",
		[]string{"363770-230505-096371-652674-567006-579150-291038-408111"},
		"ntfs", "27F7B5DB3754A2A9", "bbb68369d8f7badb2c2330349d9d0cf12e68f54eece25e718d2bb13feba23f7a"},
	{"bitlk-aes-xts-256", "AES-XTS-256", "anaconda", "", []string{"404558-436711-420860-678557-638220-018909-039941-695321"},
		"ntfs", "DC7E07307E0702CE", "5bb6ff5acbded10be990c6fa208ab479934a08bc2e88740a1aa2642af2f42025"},
	{"bitlk-aes-cbc-128", "AES-CBC-128", "anaconda", "", []string{"042647-302313-590458-071500-554323-116567-412181-516978"},
		"ntfs", "F2D4F156D4F11E13", "04500a8120ba355ed206284e03e26e59b7e1f1832868e1d69bb47023ebd3460f"},
	{"bitlk-aes-cbc-elephant-128", "AES-CBC-128 Elephant", "anaconda", "", []string{"529573-278784-259347-197835-171457-264044-610280-313269"},
		"ntfs", "3ECCF65ACCF60BC1", "b18e4f956295bc0f327e551322261fb9c74ac0d3ce58bf3b806e98474e1619ea"},
	{"bitlk-togo-aes-xts-128", "AES-XTS-128", "anaconda", "", []string{"243067-548680-059818-148852-287771-550088-628265-631653"},
		"vfat", "162D-C4FE", "5954795eb41764b59a10d86c26fd3b43fb6d89f433c8edc1e8fd48067d198591"},
}

// sharedFile finds what other people's tools made.
func sharedFile(t testing.TB, name string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if b, err := os.ReadFile(filepath.Join(dir, "shared/testdata/volumes", name)); err == nil {
			return b
		}
		if dir == filepath.Dir(dir) {
			t.Skipf("needs %s in shared/testdata/volumes of a folder above, which isn't there", name)
		}
	}
}

var (
	unpacked  = map[string][]byte{}
	unpacking sync.Mutex
)

// shared unpacks such a volume, once. Who changes it works on a patched view.
func shared(t testing.TB, name string) []byte {
	t.Helper()
	packed := sharedFile(t, name+".img.gz")
	unpacking.Lock()
	defer unpacking.Unlock()
	if b := unpacked[name]; b != nil {
		return b
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	unpacked[name] = b
	return b
}

// patched is a volume with some bytes changed.
type patched struct {
	io.ReaderAt
	at map[int64]byte // xor-ed
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for at, x := range p.at {
		if i := at - off; i >= 0 && i < int64(n) {
			b[i] ^= x
		}
	}
	return n, err
}

func guess(t testing.TB, b []byte) bitlocker.Key {
	t.Helper()
	k, err := bitlocker.Guess(secret.New(bytes.Clone(b)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestWindows opens what Windows made with each of its keys, and compares all of what is inside.
func TestWindows(t *testing.T) {
	for _, test := range made {
		t.Run(test.name, func(t *testing.T) {
			image := shared(t, test.name)
			keys := map[string][]byte{}
			if test.password != "" {
				keys[bitlocker.KindPassword] = []byte(test.password)
			}
			if test.bek != "" {
				keys[bitlocker.KindExternalKey] = sharedFile(t, test.bek)
			}
			for _, digits := range test.recovery {
				keys[bitlocker.KindRecoveryPassword] = []byte(digits)
			}
			first := true
			for kind, key := range keys {
				v, err := bitlocker.Open(context.Background(), bytes.NewReader(image), int64(len(image)), guess(t, key))
				if err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				h := v.Info()
				if h.Cipher != test.cipher || h.State != bitlocker.StateEncrypted || v.Protector().Kind != kind || len(h.Damage) > 0 || !h.Protected() ||
					h.SectorSize != 512 || v.Size() != int64(len(image)) || h.ToGo != strings.Contains(test.name, "togo") {
					t.Errorf("%s: the header says %+v", kind, h)
				}
				fs, err := filesystem.Recognise(v, v.Size())
				if err != nil || fs.Type != test.fs || fs.UUID != test.uuid {
					t.Errorf("%s: inside is %+v, %v", kind, fs, err)
				}
				if first {
					compareSum(t, v, test.sha256)
				}
				first = false
				if err := v.Close(); err != nil {
					t.Error(err)
				}
				if _, err := v.ReadAt(make([]byte, 1), 0); !errors.Is(err, bitlocker.ErrClosed) {
					t.Errorf("a read after Close: %v", err)
				}
			}
		})
	}
}

func compareSum(t *testing.T, v *bitlocker.Volume, want string) {
	t.Helper()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(v, 0, v.Size())); err != nil || hex.EncodeToString(sum.Sum(nil)) != want {
		t.Errorf("the content has the sum %x, error %v", sum.Sum(nil), err)
	}
}

// TestProtectors names the protectors of a volume that has two recovery passwords.
func TestProtectors(t *testing.T) {
	image := shared(t, "bitlk-aes-xts-128-two-recovery")
	h, err := bitlocker.ReadHeader(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	want := []bitlocker.Protector{
		{ID: "2A9089BC-1E0F-4DB4-AB28-323D58789D4B", Kind: bitlocker.KindPassword},
		{ID: "E7E48BAE-FF13-4F14-8222-971D469FAE0D", Kind: bitlocker.KindRecoveryPassword},
		{ID: "B7ADC334-FE6D-4AE4-B5C4-1C1D0DBC335B", Kind: bitlocker.KindRecoveryPassword},
	}
	if diff := cmp.Diff(want, h.Protectors); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(h.Description, "WIN11 New Volume") {
		t.Errorf("the description is %q", h.Description)
	}
	_, err = bitlocker.Open(context.Background(), bytes.NewReader(image), int64(len(image)), guess(t, []byte("363770-230505-096371-652674-567006-579150-291038-408111")))
	if !errors.Is(err, bitlocker.ErrWrongKey) || !strings.Contains(err.Error(), "(recoveryPassword: 2)") {
		t.Errorf("another volume's recovery password: %v", err)
	}
}
