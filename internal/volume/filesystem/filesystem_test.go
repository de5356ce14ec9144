package filesystem_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/volume/filesystem"
)

const (
	mib = 1 << 20
	tib = 1 << 40
)

// made is what other people's tools made, and what they and blkid say of it.
var made = []struct {
	name string
	size int64
	want filesystem.FileSystem
}{
	{"ext2", 4 * mib, filesystem.FileSystem{Type: "ext2", UUID: "5f5eb4d4-7047-4595-8359-380e5e8d4487", Label: "lbl-ext2", Size: 4 * mib}},
	{"ext3", 4 * mib, filesystem.FileSystem{Type: "ext3", UUID: "32f8932e-cbee-48aa-93d6-1edb0b702466", Label: "lbl-ext3", Size: 4 * mib}},
	{"ext4", 4 * mib, filesystem.FileSystem{Type: "ext4", UUID: "bd1481a1-85ec-4da7-ab53-4bfc99356a44", Label: "lbl-ext4", Size: 4 * mib}},
	{"ext4-1k", 4 * mib, filesystem.FileSystem{Type: "ext4", UUID: "c5079828-9d8f-4773-afd5-6a4a498c8c8f", Size: 4 * mib}},
	{"ext4-big", 3 * tib, filesystem.FileSystem{Type: "ext4", UUID: "49cc5ef9-0d8d-49bd-9b5c-7b2e9108bf22", Size: 3 * tib}},
	{"ext4-bigalloc", 64 * mib, filesystem.FileSystem{Type: "ext4", UUID: "fedc3b4b-adff-41b4-800d-985c3c467224", Size: 64 * mib}},
	{"xfs", 300 * mib, filesystem.FileSystem{Type: "xfs", UUID: "751789fb-bf04-428e-af20-521ec1bbfc5a", Label: "kluisxfs", Size: 300 * mib}},
	{"xfs4k", 300 * mib, filesystem.FileSystem{Type: "xfs", UUID: "c29e4c5a-76c3-4d93-a499-aa5789b417bb", Size: 300 * mib}},
	{"xfsv4", 300 * mib, filesystem.FileSystem{Type: "xfs", UUID: "04a83e45-5794-4662-8a1c-c365ec8e87b2", Size: 300 * mib}},
	{"btrfs-crc32c", 120 * mib, filesystem.FileSystem{Type: "btrfs", UUID: "a60043bc-13c1-4b95-83d7-e29afde747d6", Label: "a label", Size: 120 * mib}},
	{"btrfs-xxhash", 120 * mib, filesystem.FileSystem{Type: "btrfs", UUID: "cf02e086-eaa1-4c03-9adf-436f3c4e3527", Label: "a label", Size: 120 * mib}},
	{"btrfs-sha256", 120 * mib, filesystem.FileSystem{Type: "btrfs", UUID: "17154144-eb4a-4d4d-94a0-4fcfe4d56b79", Label: "a label", Size: 120 * mib}},
	{"btrfs-blake2", 120 * mib, filesystem.FileSystem{Type: "btrfs", UUID: "332a8bca-d62b-4d11-b241-d1207b96a7ec", Label: "a label", Size: 120 * mib}},
	{"lvm", 64 * mib, filesystem.FileSystem{Type: "lvm", UUID: "5zFtnz-UIGg-PgKM-EbA1-v3bh-zcPQ-fLr7cJ", Size: 64 * mib}},
	{"swap", mib, filesystem.FileSystem{Type: "swap", UUID: "87e457b1-d90a-46f7-b08f-12b7cfdbbc38", Label: "swaplabel", Size: mib}},
	{"vfat16", 16 * mib, filesystem.FileSystem{Type: "vfat", UUID: "0711-CD16", Label: "KLUIS", Size: 16 * mib}},
	{"vfat32", 64 * mib, filesystem.FileSystem{Type: "vfat", UUID: "0711-E19F", Size: 64 * mib}},
	{"ntfs", 8 * mib, filesystem.FileSystem{Type: "ntfs", UUID: "6EEC1B0257C3D349", Size: 8*mib - 512}},
}

func load(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecognise(t *testing.T) {
	for _, test := range made {
		t.Run(test.name, func(t *testing.T) {
			b := load(t, test.name)
			got, err := filesystem.Recognise(bytes.NewReader(b), test.size)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			var damage *filesystem.DamageError
			if _, err := filesystem.Recognise(bytes.NewReader(b), test.want.Size-1); !errors.As(err, &damage) || !strings.Contains(err.Error(), "and the volume has") {
				t.Errorf("on a volume that is a byte too short: %v", err)
			}
		})
	}
}

// TestDamage flips every bit of the superblocks that have a checksum: none is taken for sound.
func TestDamage(t *testing.T) {
	ranges := map[string][2]int{
		"ext4": {1024, 2048}, "xfs": {0, 512}, "xfs4k": {0, 4096}, "lvm": {512, 1024},
		"btrfs-crc32c": {64 << 10, 68 << 10}, "btrfs-sha256": {64 << 10, 68 << 10}, "btrfs-blake2": {64 << 10, 68 << 10},
	}
	for _, test := range made {
		within, ok := ranges[test.name]
		if !ok {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			b := load(t, test.name)
			for at := within[0]; at < within[1]; at++ {
				if test.name == "btrfs-crc32c" && at >= 64<<10+4 && at < 64<<10+32 {
					continue // room for a longer checksum: nobody looks at it
				}
				b[at] ^= 1 << (at % 8)
				if got, err := filesystem.Recognise(bytes.NewReader(b), test.size); err == nil {
					t.Errorf("with a flipped bit at %d it is taken for %+v", at, got)
				}
				b[at] ^= 1 << (at % 8)
			}
		})
	}
}

func TestNotRecognised(t *testing.T) {
	for name, b := range map[string][]byte{"empty": nil, "short": make([]byte, 100), "zeros": make([]byte, 128<<10), "ones": bytes.Repeat([]byte{0xff}, 128<<10)} {
		if got, err := filesystem.Recognise(bytes.NewReader(b), int64(len(b))); !errors.Is(err, filesystem.ErrNotRecognised) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := filesystem.Recognise(bytes.NewReader(nil), mib); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("a volume that can't be read: %v", err)
	}
}

// placed is a volume of zeros with one piece in it.
type placed struct {
	at int64
	b  []byte
}

func (v placed) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if from := v.at - off; from >= 0 && from < int64(len(p)) {
		copy(p[from:], v.b)
	} else if from < 0 && -from < int64(len(v.b)) {
		copy(p, v.b[-from:])
	}
	return len(p), nil
}

func FuzzRecognise(f *testing.F) {
	for _, test := range made {
		at := map[string]int64{"ext": 1024, "swa": 1024, "btr": 64 << 10}[test.name[:3]]
		b := load(f, test.name)[at:]
		b = b[:min(len(b), 4096)]
		f.Add(bytes.TrimRight(b, "\x00"), at, test.size)
	}
	f.Fuzz(func(t *testing.T, b []byte, at, size int64) {
		fs, err := filesystem.Recognise(placed{at, b}, size)
		if err == nil && (fs.Type == "" || fs.Size < 0 || fs.Size > size) {
			t.Errorf("%d bytes are taken for %+v", size, fs)
		}
	})
}
