package volume_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

func unzip(t *testing.T, r io.Reader) []byte {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return unzip(t, f)
}

// shared unpacks a volume that other people's tools made.
func shared(t *testing.T, name string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if f, err := os.Open(filepath.Join(dir, "shared/testdata/volumes", name)); err == nil {
			defer f.Close()
			return unzip(t, f)
		}
		if dir == filepath.Dir(dir) {
			t.Skipf("needs %s in shared/testdata/volumes of a folder above, which isn't there", name)
		}
	}
}

func inspect(t *testing.T, b []byte) volume.Disk {
	t.Helper()
	d, err := volume.Inspect(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestInspectShared(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"luks1-aes-cbc-essiv.img.gz", "luks1 aes-cbc-essiv:sha256"},
		{"luks2-compat.img.gz", "luks2 aes-cbc-essiv:sha256"},
		{"bitlk-aes-xts-128-startup-key.img.gz", "bitlocker"},
		{"bitlk-aes-cbc-elephant-128.img.gz", "bitlocker"},
		{"bitlk-togo-aes-xts-128.img.gz", "bitlocker"},
		{"evil_hdr-keyslot_overlap.gz", "luks damaged: key slot 2: its area overlaps that of key slot 1"},
		{"evil_hdr-luks_hdr_damage.gz", "luks damaged: key slot 2: its area overlaps the header"},
		{"luks2_invalid_cipher.img.gz", "luks can't be read: segment \"0\": cipher"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := inspect(t, shared(t, test.name))
			if d.Scheme != volume.SchemeNone || len(d.Volumes) != 1 || !d.Encrypted() {
				t.Fatalf("%+v", d)
			}
			v := d.Volumes[0]
			got := strings.TrimSpace(v.Kind + " " + v.Cipher)
			for _, more := range append(v.Damage, v.Unsupported) {
				_, what, _ := strings.Cut(more, " header is ")
				_, cannot, _ := strings.Cut(more, " volume ")
				got = strings.TrimSpace(got + " " + what + cannot)
			}
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("it is %q, not %q", got, test.want)
			}
		})
	}
}

func TestInspectPlain(t *testing.T) {
	for _, name := range []string{"ext4", "xfs", "btrfs-crc32c", "lvm", "swap", "vfat16", "vfat32", "ntfs"} {
		const size = 300 << 20
		d, err := volume.Inspect(padded(load(t, "filesystem/testdata/"+name+".gz")), size)
		if err != nil {
			t.Fatal(err)
		}
		want, _, _ := strings.Cut(name, "-")
		want = strings.TrimRight(want, "1236")
		if d.Scheme != volume.SchemeNone || len(d.Volumes) != 1 || d.Volumes[0].Kind != want || d.Encrypted() {
			t.Errorf("%s is %+v", name, d)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 100), make([]byte, 1<<20)} {
		want := volume.Disk{Scheme: "none", Size: int64(len(b)), Volumes: []volume.Volume{{Size: int64(len(b)), Kind: volume.Unknown}}}
		if diff := cmp.Diff(want, inspect(t, b)); diff != "" {
			t.Error(diff)
		}
	}
}

// padded is followed by zeros without end.
type padded []byte

func (b padded) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(b)) {
		copy(p, b[off:])
	}
	return len(p), nil
}

// TestMadeOver makes a file system over a LUKS2 volume: the second copy of the header is still there, and
// isn't what the disk holds any more.
func TestMadeOver(t *testing.T) {
	disk := shared(t, "luks2-compat.img.gz")
	copy(disk, load(t, "filesystem/testdata/ext4.gz")[:16<<10])
	if d := inspect(t, disk); d.Encrypted() || d.Volumes[0].Kind != "ext4" || d.Volumes[0].Label != "lbl-ext4" {
		t.Errorf("%+v", d)
	}
}

// TestInspectPartitions finds a LUKS volume in a partition, and opens it where it was found.
func TestInspectPartitions(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	dir := t.TempDir()
	plain, out := filepath.Join(dir, "plain"), filepath.Join(dir, "out")
	if err := volumetest.MakeFileSystem(context.Background(), plain, 1<<20, dir); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte("key"), volumetest.Options{Version: 1}); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		partition int
		offset    int64
	}{
		{"gpt", 2, 4096 * 512}, {"mbr", 1, 2048 * 512}, {"mbr", 5, 12288 * 512},
	} {
		disk := load(t, "testdata/"+test.name+".gz")
		copy(disk[test.offset:], image)
		d := inspect(t, disk)
		at := slices.IndexFunc(d.Volumes, func(v volume.Volume) bool { return v.Partition == test.partition })
		if at < 0 || len(d.Volumes) != 2 || d.Scheme != test.name || !d.Encrypted() {
			t.Fatalf("%s: %+v", test.name, d)
		}
		found := d.Volumes[at]
		if found.Offset != test.offset || found.Kind != volume.LUKS1 || d.Volumes[1-at].Kind != volume.Unknown {
			t.Fatalf("%s: %+v", test.name, d)
		}
		v, err := luks.Open(context.Background(), io.NewSectionReader(bytes.NewReader(disk), found.Offset, found.Size), found.Size, secret.New([]byte("key")))
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		got := make([]byte, len(content))
		if _, err := v.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, content) {
			t.Errorf("%s: the content differs, error %v", test.name, err)
		}
		v.Close()
	}
}

var errBroken = errors.New("bad sector")

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

func TestUnreadable(t *testing.T) {
	if _, err := volume.Inspect(broken{}, 1<<20); !errors.Is(err, errBroken) {
		t.Errorf("the error is %v", err)
	}
}

func TestJSON(t *testing.T) {
	d := inspect(t, shared(t, "luks2-compat.img.gz"))
	d.Volumes[0].UUID = "…"
	got, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "scheme": "none",
  "size": 4194816,
  "volumes": [
    {
      "offset": 0,
      "size": 4194816,
      "kind": "luks2",
      "encrypted": true,
      "uuid": "…",
      "cipher": "aes-cbc-essiv:sha256",
      "keyBits": 128,
      "sectorSize": 512,
      "keySlots": [
        {
          "id": 0,
          "kdf": "pbkdf2",
          "hash": "sha256",
          "iterations": 1862
        },
        {
          "id": 1,
          "kdf": "argon2id",
          "iterations": 4,
          "memoryKiB": 65536,
          "threads": 2
        }
      ]
    }
  ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}
