package proof_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kluis/internal/proof"
	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

const passphrase = "the right passphrase"

func now() time.Time { return time.Date(2025, 3, 1, 3, 0, 0, 0, time.UTC) }

func prove(t testing.TB, disks ...proof.Disk) proof.Verdict {
	t.Helper()
	v, err := proof.Prove(context.Background(), disks, now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func disk(name string, image []byte, key string) proof.Disk {
	return proof.Disk{Name: name, ReaderAt: bytes.NewReader(image), Size: int64(len(image)), ExpectEncrypted: true, BEK: secret.New([]byte(key))}
}

// fileSystem makes an ext4 image with a file in it.
func fileSystem(t testing.TB) string {
	t.Helper()
	root, image := t.TempDir(), filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(filepath.Join(root, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.MakeFileSystem(context.Background(), image, 4<<20, root); err != nil {
		t.Fatal(err)
	}
	return image
}

func encrypted(t testing.TB, plain, key string, o volumetest.Options) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "volume")
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte(key), o); err != nil {
		t.Fatal(err)
	}
	return read(t, out)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProved(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	plain := fileSystem(t)
	for _, test := range []struct {
		want string
		o    volumetest.Options
	}{
		{"LUKS1 aes-xts-plain64", volumetest.Options{Version: 1}},
		{"LUKS1 aes-cbc-essiv:sha256", volumetest.Options{Version: 1, Cipher: "aes-cbc-essiv:sha256"}},
		{"LUKS2 aes-xts-plain64", volumetest.Options{Version: 2, PBKDF: "pbkdf2"}},
		{"LUKS2 aes-xts-plain64", volumetest.Options{Version: 2, PBKDF: "argon2id", SectorSize: 4096}},
	} {
		t.Run(test.want, func(t *testing.T) {
			v := prove(t, disk("os", encrypted(t, plain, passphrase, test.o), passphrase))
			d := v.Disks[0]
			if v.State != proof.Proved || d.State != proof.Proved || d.Encryption != test.want || d.FileSystem != "ext4" || len(d.UUID) != 36 || d.Reason != "" {
				t.Errorf("the verdict is %+v", v)
			}
			if d.BytesRead == 0 || d.BytesRead > 1<<20 {
				t.Errorf("it read %d bytes", d.BytesRead)
			}
		})
	}
}

// TestSabotage spoils a recovery point in every way we can think of. None may be called proved.
func TestSabotage(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	plain := fileSystem(t)
	images := map[string][]byte{
		"luks1": encrypted(t, plain, passphrase, volumetest.Options{Version: 1}),
		"luks2": encrypted(t, plain, passphrase, volumetest.Options{Version: 2}),
	}
	other := encrypted(t, plain, "another passphrase", volumetest.Options{Version: 2})
	start := map[string]int{"luks1": 2 << 20, "luks2": 16 << 20}
	area := map[string]int{"luks1": 4096, "luks2": 32 << 10}
	flip := func(at int) func(string, *proof.Disk, []byte) {
		return func(_ string, _ *proof.Disk, image []byte) { image[at] ^= 0x10 }
	}
	wipe := func(from, n int) func(string, *proof.Disk, []byte) {
		return func(_ string, _ *proof.Disk, image []byte) { clear(image[from : from+n]) }
	}
	for _, test := range []struct {
		name  string
		only  string // a version
		spoil func(version string, d *proof.Disk, image []byte)
		want  string // in the reason
	}{
		{"another VM's key", "", func(_ string, d *proof.Disk, _ []byte) { d.BEK = secret.New([]byte("another passphrase")) }, "opens none of the key slots"},
		{"truncated key", "", func(_ string, d *proof.Disk, _ []byte) { d.BEK = secret.New([]byte(passphrase[:10])) }, "opens none of the key slots"},
		{"key with a newline", "", func(_ string, d *proof.Disk, _ []byte) { d.BEK = secret.New([]byte(passphrase + "\n")) }, "opens none of the key slots"},
		{"no key", "", func(_ string, d *proof.Disk, _ []byte) { d.BEK = secret.Bytes{} }, "no key for it"},
		{"no key, and none expected", "", func(_ string, d *proof.Disk, _ []byte) { d.BEK, d.ExpectEncrypted = secret.Bytes{}, false }, "no key for it"},
		{"no key, since its version is gone", "", func(_ string, d *proof.Disk, _ []byte) {
			d.BEK, d.NoBEK = secret.Bytes{}, errors.New("the backup of the key doesn't hold the version that wraps the secret")
		}, "the BEK can't be had from the recovery point: the backup of the key doesn't hold"},
		{"a .BEK file", "", func(_ string, d *proof.Disk, _ []byte) {
			_, bek := bitLocker(t, make([]byte, 64<<10), volumetest.BitLockerOptions{})
			d.BEK = secret.New(bek)
		}, "opens none of the key slots"},
		{"swapped disk", "", func(_ string, d *proof.Disk, _ []byte) {
			d.ReaderAt, d.Size = bytes.NewReader(other), int64(len(other))
		}, "opens none of the key slots"},
		{"flipped bit in the magic", "luks1", flip(1), "no encryption is found"},
		{"flipped bit in the magic", "luks2", flip(1), "the first copy of the LUKS2 header is missing; the key opens the volume by the other copy"},
		{"flipped bit in the version", "", flip(7), "damaged: version: it is"},
		{"flipped bit in the cipher", "luks1", flip(9), "cipher"},
		{"flipped bit in the hash", "luks1", flip(75), "hash"},
		{"flipped bit in the payload's offset", "luks1", flip(106), "segment"},
		{"flipped bit in the digest", "luks1", flip(115), "opens none of the key slots"},
		{"flipped bit in the salt", "luks1", flip(220), "opens none of the key slots"},
		{"flipped bit in a key slot's state", "luks1", flip(210), "key slot 0: its state is"},
		{"flipped bit in the size", "luks2", flip(13), "the first copy of the LUKS2 header is damaged: header: a size"},
		{"flipped bit in the checksum", "luks2", flip(0x1C0), "the first copy of the LUKS2 header is damaged: checksum"},
		{"flipped bit in the JSON", "luks2", flip(4096 + 100), "the first copy of the LUKS2 header is damaged: checksum"},
		{"flipped bit in the second copy", "luks2", flip(16<<10 + 4096 + 100), "the second copy of the LUKS2 header is damaged: checksum"},
		{"first copy zeroed", "luks2", wipe(0, 16<<10), "the first copy of the LUKS2 header is missing"},
		{"second copy zeroed", "luks2", wipe(16<<10, 16<<10), "the second copy of the LUKS2 header is missing"},
		{"both copies spoilt", "luks2", func(_ string, _ *proof.Disk, image []byte) { image[4200] ^= 1; image[16<<10+4200] ^= 1 }, "LUKS header is damaged: checksum"},
		{"both copies zeroed", "luks2", wipe(0, 32<<10), "no encryption is found"},
		{"header zeroed", "luks1", wipe(0, 592), "no encryption is found"},
		{"flipped bit in the key-slot area", "", func(v string, _ *proof.Disk, image []byte) { image[area[v]+100_000] ^= 1 }, "opens none of the key slots"},
		{"key-slot area zeroed", "", func(v string, _ *proof.Disk, image []byte) { clear(image[area[v] : area[v]+256_000]) }, "opens none of the key slots"},
		{"flipped bit in the superblock", "", func(v string, _ *proof.Disk, image []byte) { image[start[v]+1024+4] ^= 1 }, "the key opens the volume, and"},
		{"superblock zeroed", "", func(v string, _ *proof.Disk, image []byte) { clear(image[start[v]+1024 : start[v]+2048]) }, "the key opens the volume, and no file system"},
		{"data moved by a sector", "", func(v string, _ *proof.Disk, image []byte) { copy(image[start[v]:], image[start[v]+512:]) }, "the key opens the volume, and no file system"},
		{"disk cut short", "", func(_ string, d *proof.Disk, _ []byte) { d.Size -= 1 << 20 }, "it says"},
		{"disk cut to its header", "", func(v string, d *proof.Disk, _ []byte) { d.Size = int64(start[v]) }, "no data behind the header"},
		{"disk cut inside its header", "", func(_ string, d *proof.Disk, _ []byte) { d.Size = 500 }, ""},
		{"disk zeroed", "", func(_ string, _ *proof.Disk, image []byte) { clear(image) }, "no encryption is found"},
		{"disk in plain", "", func(_ string, d *proof.Disk, _ []byte) {
			b := read(t, plain)
			d.ReaderAt, d.Size = bytes.NewReader(b), int64(len(b))
		}, "ext4 in plain"},
		{"disk empty", "", func(_ string, d *proof.Disk, _ []byte) { d.Size = 0 }, "no encryption is found"},
		{"unreadable", "", func(_ string, d *proof.Disk, _ []byte) { d.ReaderAt = broken{} }, "the disk can't be read: "},
		{"unreadable key-slot area", "", func(v string, d *proof.Disk, _ []byte) { d.ReaderAt = broken{d.ReaderAt, int64(area[v]), 4096} }, "the disk can't be read: "},
		{"unreadable data", "", func(v string, d *proof.Disk, _ []byte) { d.ReaderAt = broken{d.ReaderAt, int64(start[v]), 4096} }, "the disk can't be read: "},
	} {
		for version, image := range images {
			if test.only != "" && test.only != version {
				continue
			}
			t.Run(version+" "+test.name, func(t *testing.T) {
				image := bytes.Clone(image)
				d := disk("os", image, passphrase)
				test.spoil(version, &d, image)
				v := prove(t, d)
				one := v.Disks[0]
				if v.State != proof.Failed || one.State != proof.Failed || one.Advice == "" || one.Kind == "" || v.Advice == "" {
					t.Errorf("the verdict is %+v", v)
				}
				if !strings.Contains(one.Reason, test.want) || !strings.Contains(v.Reason, one.Reason) {
					t.Errorf("the reason is %q, without %q", one.Reason, test.want)
				}
				if shown, _ := json.Marshal(v); strings.Contains(string(shown), "passphrase") {
					t.Errorf("the key leaks in %s", shown)
				}
			})
		}
	}
}

var errBroken = errors.New("chunk 7 is damaged")

// broken can't read some of its bytes; the zero value can't read any.
type broken struct {
	io.ReaderAt
	from, n int64
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if b.ReaderAt == nil || off < b.from+b.n && off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}
