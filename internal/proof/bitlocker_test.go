package proof_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kluis/internal/proof"
	"kluis/internal/secret"
	"kluis/internal/volume/volumetest"
)

// ntfs is a volume with a boot sector of NTFS, in as many bytes as BitLocker's maker wants.
func ntfs(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, 8<<20)
	copy(b, unzip(t, "../volume/filesystem/testdata/ntfs.gz"))
	return b
}

func bitLocker(t testing.TB, plain []byte, o volumetest.BitLockerOptions) (image, bek []byte) {
	t.Helper()
	image, bek, err := volumetest.BitLocker(plain, o)
	if err != nil {
		t.Fatal(err)
	}
	return image, bek
}

// windowsDisk is a disk that a Windows VM's settings call encrypted.
func windowsDisk(image, bek []byte) proof.Disk { return disk("os", image, string(bek)) }

// TestBitLocker proves volumes with each kind of key that a secret may hold.
func TestBitLocker(t *testing.T) {
	const recovery = "471207-278498-422125-177177-561902-537405-468006-693451"
	image, bek := bitLocker(t, ntfs(t), volumetest.BitLockerOptions{Password: "anaconda", RecoveryPassword: recovery})
	for _, key := range []string{string(bek), "anaconda", recovery} {
		v := prove(t, windowsDisk(image, []byte(key)))
		d := v.Disks[0]
		if v.State != proof.Proved || d.Encryption != "BitLocker AES-XTS-128" || d.FileSystem != "ntfs" || len(d.UUID) != 36 || d.BytesRead > 1<<20 {
			t.Errorf("the verdict is %+v", v)
		}
	}
	partitioned := append(make([]byte, 1<<20), image...)
	partitioned[510], partitioned[511], partitioned[450] = 0x55, 0xAA, 0x07
	binary.LittleEndian.PutUint32(partitioned[454:], 1<<20/512)
	binary.LittleEndian.PutUint32(partitioned[458:], uint32(len(image)/512))
	if v := prove(t, windowsDisk(partitioned, bek)); v.State != proof.Proved || v.Disks[0].FileSystem != "ntfs" {
		t.Errorf("in a partition: %+v", v)
	}
}

// TestShared proves what Windows made.
func TestShared(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	name := "shared/testdata/volumes/"
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("needs shared/testdata/volumes in a folder above, which isn't there")
		}
	}
	image := unzip(t, filepath.Join(dir, name, "bitlk-aes-xts-128-startup-key.img.gz"))
	d := windowsDisk(image, read(t, filepath.Join(dir, name, "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK")))
	if v := prove(t, d); v.State != proof.Proved || v.Disks[0].FileSystem != "ntfs" || v.Disks[0].BytesRead > 1<<20 {
		t.Errorf("the verdict is %+v", v)
	}
}

// TestBitLockerSabotage spoils a Windows disk, or its key, in one way at a time. None is called proved.
func TestBitLockerSabotage(t *testing.T) {
	plain := ntfs(t)
	image, bek := bitLocker(t, plain, volumetest.BitLockerOptions{})
	other, otherBEK := bitLocker(t, plain, volumetest.BitLockerOptions{})
	const copies, size = 8 << 20, 64 << 10
	relocated := copies + 3*size
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, bek, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := func(change func(c []byte)) func(*proof.Disk, []byte) {
		return func(_ *proof.Disk, b []byte) {
			for i := range 3 {
				c := b[copies+i*size : copies+(i+1)*size]
				change(c)
				n := int(binary.LittleEndian.Uint16(c[8:])) << 4
				binary.LittleEndian.PutUint32(c[n+4:], crc32.ChecksumIEEE(c[:n]))
			}
		}
	}
	find := func(c []byte, kind byte) int { return bytes.Index(c, []byte{kind, 0, 8, 0, 1, 0}) - 2 }
	for _, test := range []struct {
		name  string
		spoil func(d *proof.Disk, image []byte)
		want  string
	}{
		{"BEK of another VM", func(d *proof.Disk, _ []byte) { d.BEK = secret.Copy(otherBEK) }, "the volume has no protector of that name"},
		{"another version of the BEK", func(d *proof.Disk, _ []byte) {
			b := bytes.Clone(bek)
			b[len(b)-20] ^= 0x55
			d.BEK = secret.New(b)
		}, "the key opens none of the protectors of its kind (externalKey: 1)"},
		{"truncated BEK", func(d *proof.Disk, _ []byte) { d.BEK = secret.Copy(bek[:100]) }, "the .BEK file is damaged: it says that it has"},
		{"BEK in base64 once more", func(d *proof.Disk, _ []byte) {
			d.BEK = secret.New([]byte("nAAAAAEAAAAwAAAAnAAAAFn3gUP4xOBNu2H8M6gxvaUBAAAA"))
		}, "there is none of its kind (password)"},
		{"bytes that are no key", func(d *proof.Disk, _ []byte) { d.BEK = secret.New([]byte{0xff, 0xfe, 0xfd}) }, "a password is text"},
		{"a Linux passphrase", func(d *proof.Disk, _ []byte) { d.BEK = secret.New([]byte(passphrase)) }, "there is none of its kind (password)"},
		{"flipped bit in the wrapped key", func(d *proof.Disk, _ []byte) {
			b := bytes.Clone(wrapped)
			b[7] ^= 1
			value, err := rsa.DecryptOAEP(sha256.New(), nil, key, b, nil)
			d.BEK, d.NoBEK = secret.New(value), err
		}, "the BEK can't be had from the recovery point: crypto/rsa: decryption error"},
		{"version of the key gone", func(d *proof.Disk, _ []byte) {
			d.BEK, d.NoBEK = secret.Bytes{}, errors.New("the backup of the key doesn't hold the version that wraps the secret")
		}, "doesn't hold the version that wraps the secret"},
		{"no key", func(d *proof.Disk, _ []byte) { d.BEK = secret.Bytes{} }, "the recovery point has no key for it"},
		{"swapped disk", func(d *proof.Disk, _ []byte) { d.ReaderAt = bytes.NewReader(other) }, "the volume has no protector of that name"},
		{"boot sector zeroed", func(_ *proof.Disk, b []byte) { clear(b[:512]) }, "no encryption is found"},
		{"flipped bit in the signature", func(_ *proof.Disk, b []byte) { b[4] ^= 1 }, "no encryption is found"},
		{"flipped bit in the identifier", func(_ *proof.Disk, b []byte) { b[165] ^= 1 }, "boot sector: it has BitLocker's signature"},
		{"flipped bit in a place", func(_ *proof.Disk, b []byte) { b[186] ^= 1 }, "copy 2 of the BitLocker metadata is damaged"},
		{"flipped bit in one copy", func(_ *proof.Disk, b []byte) { b[copies+size+150] ^= 1 }, "copy 2 of the BitLocker metadata is damaged: CRC: it doesn't agree with the metadata; the key opens the volume by the other copy"},
		{"one copy zeroed", func(_ *proof.Disk, b []byte) { clear(b[copies : copies+size]) }, "copy 1 of the BitLocker metadata is damaged: signature"},
		{"all copies zeroed", func(_ *proof.Disk, b []byte) { clear(b[copies : copies+3*size]) }, "all three copies of the metadata"},
		{"flipped bit in all copies, CRC mended", all(func(c []byte) { c[84] ^= 1 }), "the hash of the metadata disagrees"},
		{"flipped bit in the protector, CRC mended", all(func(c []byte) { c[find(c, 2)+120] ^= 1 }), "opens none of the protectors"},
		{"flipped bit in the FVEK, CRC mended", all(func(c []byte) { c[bytes.Index(c, []byte{3, 0, 5, 0, 1, 0})+40] ^= 1 }), "the hash of the metadata disagrees"},
		{"protector taken away, CRC mended", all(func(c []byte) { c[find(c, 2)+2] = 0x0b }), "protectors: there is none"},
		{"flipped bit in the superblock", func(_ *proof.Disk, b []byte) { b[relocated+4] ^= 1 }, "the key opens the volume, and no file system"},
		{"superblock zeroed", func(_ *proof.Disk, b []byte) { clear(b[relocated : relocated+512]) }, "the key opens the volume, and no file system"},
		{"disk cut short", func(d *proof.Disk, _ []byte) { d.Size -= 1 << 20 }, "damaged: "},
		{"disk cut by a sector", func(d *proof.Disk, _ []byte) { d.Size -= 512 }, "bytes are encrypted, and the disk has"},
		{"being encrypted", func(d *proof.Disk, _ []byte) {
			b, k := bitLocker(t, plain, volumetest.BitLockerOptions{State: 2, Next: 4})
			d.ReaderAt, d.BEK = bytes.NewReader(b), secret.New(k)
		}, "the guest is encrypting the volume: 4325376 of 8650752 bytes are encrypted"},
		{"being decrypted", func(d *proof.Disk, _ []byte) {
			b, k := bitLocker(t, plain, volumetest.BitLockerOptions{State: 5, Next: 1})
			d.ReaderAt, d.BEK = bytes.NewReader(b), secret.New(k)
		}, "the guest is decrypting the volume"},
		{"not protected", func(d *proof.Disk, _ []byte) {
			b, _ := bitLocker(t, plain, volumetest.BitLockerOptions{ClearKey: true})
			d.ReaderAt, d.BEK = bytes.NewReader(b), secret.Bytes{}
			d.Size = int64(len(b))
		}, "not protected: BitLocker keeps its key in clear"},
		{"disk zeroed", func(_ *proof.Disk, b []byte) { clear(b) }, "no encryption is found"},
		{"disk in plain", func(d *proof.Disk, _ []byte) { d.ReaderAt = bytes.NewReader(plain); d.Size = int64(len(plain)) }, "ntfs in plain"},
		{"unreadable metadata", func(d *proof.Disk, _ []byte) { d.ReaderAt = broken{d.ReaderAt, copies, 512} }, "the disk can't be read: "},
		{"unreadable data", func(d *proof.Disk, _ []byte) { d.ReaderAt = broken{d.ReaderAt, int64(relocated), 512} }, "the disk can't be read: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := bytes.Clone(image)
			d := windowsDisk(b, bytes.Clone(bek))
			test.spoil(&d, b)
			v := prove(t, d)
			if one := v.Disks[0]; v.State != proof.Failed || one.Advice == "" || one.Kind == "" || !strings.Contains(one.Reason, test.want) {
				t.Errorf("the verdict is %+v, without %q", v, test.want)
			}
		})
	}
}

// TestNotProtected takes a volume whose key lies in clear for what the settings say of it.
func TestNotProtected(t *testing.T) {
	image, bek := bitLocker(t, ntfs(t), volumetest.BitLockerOptions{ClearKey: true})
	nobody := windowsDisk(image, nil)
	nobody.ExpectEncrypted = false
	if v := prove(t, nobody); v.State != proof.NotEncrypted || v.Disks[0].Encryption != "BitLocker AES-XTS-128, not protected" || v.Disks[0].FileSystem != "ntfs" {
		t.Errorf("that nobody meant to protect: %+v", v)
	}
	if v := prove(t, windowsDisk(image, bek)); v.State != proof.Proved {
		t.Errorf("whose protection is suspended: %+v", v)
	}
	clear(image[8<<20+3*64<<10:][:512])
	if v := prove(t, nobody); v.State != proof.Failed {
		t.Errorf("with a broken file system: %+v", v)
	}
}

// TestBitLockerSabotageAtRandom flips a bit anywhere in the metadata that are in use.
func TestBitLockerSabotageAtRandom(t *testing.T) {
	image, bek := bitLocker(t, ntfs(t), volumetest.BitLockerOptions{})
	const copies, size = 8 << 20, 64 << 10
	used := int(binary.LittleEndian.Uint16(image[copies+8:])) << 4
	rapid.Check(t, func(t *rapid.T) {
		at := copies + rapid.IntRange(0, 2).Draw(t, "copy")*size + rapid.IntRange(0, used-1).Draw(t, "at")
		bit := rapid.IntRange(0, 7).Draw(t, "bit")
		image[at] ^= 1 << bit
		defer func() { image[at] ^= 1 << bit }()
		v, err := proof.Prove(context.Background(), []proof.Disk{windowsDisk(image, bek)}, now)
		if err != nil || v.State != proof.Failed || v.Reason == "" || v.Advice == "" {
			t.Fatalf("the verdict is %+v, error %v", v, err)
		}
	})
}
