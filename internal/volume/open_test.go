package volume_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume"
	"kluis/internal/volume/bitlocker"
	"kluis/internal/volume/volumetest"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func openOne(b []byte, v volume.Volume, key string) (volume.Opened, string, error) {
	return volume.Open(context.Background(), bytes.NewReader(b), v, secret.New([]byte(key)))
}

// TestOpen opens what Inspect found, and says why when it doesn't.
func TestOpen(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	content := randomBytes(128 << 10)
	plain, out := filepath.Join(t.TempDir(), "plain"), filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(plain, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte("key"), volumetest.Options{KeySlot: 2}); err != nil {
		t.Fatal(err)
	}
	linux, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	windows, bek, err := volumetest.BitLocker(content, volumetest.BitLockerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	open, _, err := volumetest.BitLocker(content, volumetest.BitLockerOptions{ClearKey: true})
	if err != nil {
		t.Fatal(err)
	}
	converting, _, err := volumetest.BitLocker(content, volumetest.BitLockerOptions{State: 2, Next: 4})
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(windows)
	clear(broken[128<<10 : 128<<10+3*64<<10])
	for _, test := range []struct {
		name  string
		image []byte
		key   string
		by    string
		why   error
	}{
		{"LUKS", linux, "key", "key slot 2", nil},
		{"LUKS, another key", linux, "kez", "", volume.ErrWrongKey},
		{"BitLocker", windows, string(bek), "protector ", nil},
		{"BitLocker, another key", windows, "password", "", volume.ErrWrongKey},
		{"BitLocker, truncated key", windows, string(bek[:99]), "", volume.ErrWrongKey},
		{"BitLocker, no key", windows, "", "", volume.ErrWrongKey},
		{"BitLocker, not protected", open, "", "(clearKey)", nil},
		{"BitLocker, converting", converting, string(bek), "", volume.ErrUnsupported},
		{"BitLocker, damaged", broken, string(bek), "", volume.ErrDamaged},
		{"plain", load(t, "filesystem/testdata/ntfs.gz"), "key", "", volume.ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, by, err := openOne(test.image, inspect(t, test.image).Volumes[0], test.key)
			if !errors.Is(err, test.why) || !strings.Contains(by, test.by) {
				t.Fatalf("opened by %q, error %v", by, err)
			}
			if err != nil {
				return
			}
			got := make([]byte, len(content))
			if _, err := v.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, content) {
				t.Errorf("the content differs, error %v", err)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInspectBitLocker tells protectors and states without a key.
func TestInspectBitLocker(t *testing.T) {
	for _, test := range []struct {
		o         volumetest.BitLockerOptions
		kinds     string
		converted bool
		want      string
	}{
		{volumetest.BitLockerOptions{}, "externalKey", false, ""},
		{volumetest.BitLockerOptions{ClearKey: true, ToGo: true, Cipher: "AES-CBC-256"}, "externalKey clearKey", false, ""},
		{volumetest.BitLockerOptions{State: 2, Next: 4, SectorSize: 4096}, "externalKey", true, volume.Encrypting},
		{volumetest.BitLockerOptions{State: 5, Next: 1}, "externalKey", true, volume.Decrypting},
	} {
		image, _, err := volumetest.BitLocker(randomBytes(64<<10), test.o)
		if err != nil {
			t.Fatal(err)
		}
		v := inspect(t, image).Volumes[0]
		var kinds []string
		for _, p := range v.Protectors {
			kinds = append(kinds, p.Kind)
		}
		if v.Kind != volume.BitLocker || !v.Encrypted || strings.Join(kinds, " ") != test.kinds || v.Conversion != test.want || v.Unprotected != test.o.ClearKey ||
			(v.Converted > 0) != test.converted || len(v.UUID) != 36 || v.Unsupported != "" || len(v.Damage) > 0 {
			t.Errorf("%+v: %+v", test.o, v)
		}
	}
	h := volume.Volume{Protectors: []bitlocker.Protector{{ID: "x", Kind: "y"}}}
	if _, _, err := volume.Open(context.Background(), bytes.NewReader(nil), h, secret.Bytes{}); !errors.Is(err, volume.ErrUnsupported) {
		t.Errorf("what isn't encrypted opens: %v", err)
	}
}

// cryptsetup runs it on an image file, with the key "key".
func cryptsetup(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("cryptsetup", append([]string{"--batch-mode", "--disable-locks", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"}, args...)...)
	cmd.Stdin = strings.NewReader("key")
	if printed, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup %q: %v: %s", args, err, printed)
	}
}

// TestInspectReencryption recognises that cryptsetup has begun to encrypt a disk.
func TestInspectReencryption(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, make([]byte, 40<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "reencrypt", "--encrypt", "--init-only", "--type", "luks2", "--reduce-device-size", "32M", image)
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if v := inspect(t, b).Volumes[0]; v.Kind != volume.LUKS2 || v.Conversion != volume.Encrypting || v.Unsupported != "" {
		t.Errorf("%+v", v)
	}
}

// TestDetachedHeader finds the header of an OS disk's partition on its boot partition, in a file system.
func TestDetachedHeader(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	for _, version := range []int{1, 2} {
		header, data := filepath.Join(t.TempDir(), "header"), filepath.Join(t.TempDir(), "data")
		key, volumeKey := randomBytes(64), filepath.Join(t.TempDir(), "key")
		for path, b := range map[string][]byte{data: make([]byte, 1<<20), volumeKey: key} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"luksFormat", "--type", fmt.Sprintf("luks%d", version), "--header", header, "--volume-key-file", volumeKey,
			"--key-size", "512", "--cipher", "aes-xts-plain64", "--offset", "0", data}
		if version == 2 { // a header of 16 MiB wouldn't be in one piece on a small file system
			args = append(args, "--luks2-keyslots-size", "1M", "--sector-size", "512")
		}
		cryptsetup(t, args...)
		bootFS := bootWith(t, header)
		content := append(load(t, "filesystem/testdata/ext4.gz"), randomBytes(64<<10)...)
		content = append(content, make([]byte, 4<<20-len(content))...)
		encrypted := bytes.Clone(content)
		x, err := xts.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(encrypted); at += 512 {
			x.Encrypt(encrypted[at:at+512], encrypted[at:at+512], uint64(at/512))
		}
		disk := mbr(bootFS, encrypted)
		d := inspect(t, disk)
		if len(d.Volumes) != 2 || d.Volumes[0].Kind != "ext4" || d.Volumes[1].Header == nil || d.Volumes[1].Header.Partition != 1 ||
			d.Volumes[1].Kind != fmt.Sprintf("luks%d", version) || !d.Encrypted() {
			t.Fatalf("LUKS%d: %+v", version, d)
		}
		v, by, err := openOne(disk, d.Volumes[1], "key")
		if err != nil || by != "key slot 0" {
			t.Fatalf("LUKS%d: %q, %v", version, by, err)
		}
		got := make([]byte, len(content))
		if _, err := v.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("LUKS%d: the content differs, error %v", version, err)
		}
		if _, _, err := openOne(disk, d.Volumes[1], "kez"); !errors.Is(err, volume.ErrWrongKey) {
			t.Errorf("LUKS%d with another key: %v", version, err)
		}
		// A header has one volume: the largest.
		if d := inspect(t, mbr(bootFS, encrypted[:1<<20], encrypted)); d.Volumes[1].Encrypted || !d.Volumes[2].Encrypted {
			t.Errorf("LUKS%d: %+v", version, d)
		}
		// Without noise there is nothing whose header could be missing.
		if d := inspect(t, mbr(bootFS, make([]byte, len(encrypted)))); d.Encrypted() {
			t.Errorf("LUKS%d: %+v", version, d)
		}
		if d := inspect(t, mbr(make([]byte, 1<<20), encrypted)); d.Encrypted() {
			t.Errorf("LUKS%d: %+v", version, d)
		}
	}
}

// bootWith makes a boot file system that holds a header as a file in one piece, as dd leaves it: mke2fs would
// make holes of its zeros, so it gets noise of the same length, which the header then replaces.
func bootWith(t *testing.T, header string) []byte {
	t.Helper()
	b, err := os.ReadFile(header)
	if err != nil {
		t.Fatal(err)
	}
	noise, root, image := randomBytes(len(b)), t.TempDir(), filepath.Join(t.TempDir(), "boot")
	if err := os.Mkdir(filepath.Join(root, "luks"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "luks/osluksheader"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.MakeFileSystem(context.Background(), image, 32<<20, root); err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(boot, noise)
	if at < 0 {
		t.Fatal("mke2fs didn't keep the file in one piece")
	}
	copy(boot[at:], b)
	return boot
}

// mbr puts partitions one after the other behind an MBR, each beginning at a whole MiB.
func mbr(partitions ...[]byte) []byte {
	disk := make([]byte, 1<<20)
	for i, p := range partitions {
		entry := disk[446+16*i:]
		entry[4] = 0x83
		for j, n := range []int{len(disk) / 512, len(p) / 512} {
			for k := range 4 {
				entry[8+4*j+k] = byte(n >> (8 * k))
			}
		}
		disk = append(disk, p...)
		disk = append(disk, make([]byte, (1<<20-len(p)%(1<<20))%(1<<20))...)
	}
	disk[510], disk[511] = 0x55, 0xAA
	return disk
}

// TestLargeSectors finds the partitions of an MBR that counts in sectors of 4096 bytes.
func TestLargeSectors(t *testing.T) {
	windows, _, err := volumetest.BitLocker(randomBytes(64<<10), volumetest.BitLockerOptions{SectorSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	disk := mbr(windows)
	copy(disk[446+8:], []byte{0, 1, 0, 0, byte(len(windows) / 4096), 0, 0, 0})
	if d := inspect(t, disk); d.Scheme != "mbr" || len(d.Volumes) != 1 || d.Volumes[0].Offset != 1<<20 || d.Volumes[0].Kind != volume.BitLocker {
		t.Errorf("%+v", d)
	}
}

// FuzzInspect looks at whatever a disk may begin with, and opens what it finds when that is cheap.
func FuzzInspect(f *testing.F) {
	windows, bek, err := volumetest.BitLocker(make([]byte, 64<<10), volumetest.BitLockerOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(windows[:512], int64(len(windows)))
	f.Add(mbr(make([]byte, 1<<20))[:512], int64(2<<20))
	f.Add([]byte("LUKS\xba\xbe\x00\x02"), int64(1<<20))
	f.Add([]byte("\xeb\x52\x90NTFS    \x00\x02\x08"), int64(1<<40))
	f.Fuzz(func(t *testing.T, first []byte, size int64) {
		if size < 0 || len(first) > 64<<10 {
			return
		}
		d, err := volume.Inspect(padded(first), size)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range d.Volumes {
			if v.Kind == "" || v.Offset < 0 || v.Size < 0 || v.Offset > size-v.Size {
				t.Errorf("a volume %+v on a disk of %d bytes", v, size)
			}
			if v.Kind == volume.BitLocker {
				_, _, _ = volume.Open(context.Background(), padded(first), v, secret.Copy(bek))
			}
		}
	})
}
