package partition_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kluis/internal/volume/partition"
)

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

const (
	efi   = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// made is what sfdisk and fdisk made, and what they say of it.
var made = map[string]partition.Table{
	"gpt": {Scheme: "gpt", SectorSize: 512, Partitions: []partition.Partition{
		{Number: 1, Offset: 40 * 512, Size: 100 * 512, Type: efi, Name: "boot"},
		{Number: 2, Offset: 200 * 512, Size: 1000 * 512, Type: linux, Name: "Daten ä"},
	}},
	"gpt4k": {Scheme: "gpt", SectorSize: 4096, Partitions: []partition.Partition{
		{Number: 1, Offset: 10 * 4096, Size: 91 * 4096, Type: linux},
		{Number: 5, Offset: 200 * 4096, Size: 101 * 4096, Type: linux},
	}},
	"mbr": {Scheme: "mbr", SectorSize: 512, Partitions: []partition.Partition{
		{Number: 1, Offset: 64 * 512, Size: 100 * 512, Type: "83"},
		{Number: 5, Offset: 300 * 512, Size: 200 * 512, Type: "83"},
		{Number: 6, Offset: 600 * 512, Size: 300 * 512, Type: "8e"},
	}},
}

func TestRead(t *testing.T) {
	for name, want := range made {
		t.Run(name, func(t *testing.T) {
			b := load(t, name)
			got, err := partition.Read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			grown := append(b, make([]byte, 1<<20)...)
			got, err = partition.Read(bytes.NewReader(grown), int64(len(grown)))
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("on a disk that has grown: %v %s", err, diff)
			}
		})
	}
}

func TestDamagedGPT(t *testing.T) {
	whole := load(t, "gpt")
	end := len(whole)
	for name, test := range map[string]struct {
		spoil  []int
		damage []string
	}{
		"first header":   {[]int{512 + 40}, []string{"the first copy: the partition table is damaged: GPT header: its checksum doesn't agree"}},
		"first magic":    {[]int{512}, []string{"the first copy: the partition table is damaged: GPT: the disk announces one, and there is no header"}},
		"first entries":  {[]int{1024 + 200}, []string{"the first copy: the partition table is damaged: GPT entries: their checksum doesn't agree"}},
		"second header":  {[]int{end - 512 + 40}, []string{"the second copy: the partition table is damaged: GPT header: its checksum doesn't agree"}},
		"second entries": {[]int{end - 33*512 + 8}, []string{"the second copy: the partition table is damaged: GPT entries: their checksum doesn't agree"}},
		"both":           {[]int{512 + 40, end - 512 + 40}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(whole)
			for _, at := range test.spoil {
				b[at] ^= 1
			}
			got, err := partition.Read(bytes.NewReader(b), int64(len(b)))
			var damage *partition.DamageError
			if test.damage == nil {
				if !errors.As(err, &damage) || damage.Where != "GPT header" {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			want := made["gpt"]
			want.Damage = test.damage
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
}

// TestCutShort takes away the end of a disk: what isn't there any more is named.
func TestCutShort(t *testing.T) {
	b := load(t, "gpt")[:600*512]
	got, err := partition.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(got.Partitions) != 1 || len(got.Damage) != 2 || got.Damage[0] != "partition 2 is not on the disk" {
		t.Errorf("%+v, %v", got, err)
	}
	b = load(t, "mbr")[:500*512]
	got, err = partition.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(got.Partitions) != 1 || len(got.Damage) != 1 || got.Damage[0] != "partition 2 is not on the disk" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestCircle makes the chain of logical partitions lead back to its beginning.
func TestCircle(t *testing.T) {
	b := load(t, "mbr")
	const extended = 256 * 512
	binary.LittleEndian.PutUint32(b[extended+446+16+8:], 0)
	got, err := partition.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(got.Damage) != 1 || len(got.Partitions) > 200 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestHybrid reads a GPT whose MBR lists its partitions too, for old firmware.
func TestHybrid(t *testing.T) {
	b := load(t, "gpt")
	le := binary.LittleEndian
	copy(b[446+16:446+32], b[446:446+16]) // the protective entry comes second
	clear(b[446 : 446+16])
	b[446+4] = 0x83
	le.PutUint32(b[446+8:], 40)
	le.PutUint32(b[446+12:], 100)
	got, err := partition.Read(bytes.NewReader(b), int64(len(b)))
	if diff := cmp.Diff(made["gpt"], got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if got, err := partition.ReadMBR(bytes.NewReader(b), int64(len(b)), 4096); !errors.Is(err, partition.ErrNoTable) {
		t.Errorf("as an MBR: %+v, %v", got, err)
	}
}

// TestLargeSectors reads an MBR, with a logical partition, that counts in sectors of 4096 bytes.
func TestLargeSectors(t *testing.T) {
	small := load(t, "mbr")
	b := make([]byte, 8*len(small))
	copy(b, small[:512])
	copy(b[256*4096:], small[256*512:257*512])
	copy(b[599*4096:], small[599*512:600*512])
	got, err := partition.ReadMBR(bytes.NewReader(b), int64(len(b)), 4096)
	want := made["mbr"]
	want.SectorSize, want.Partitions = 4096, nil
	for _, p := range made["mbr"].Partitions {
		p.Offset, p.Size = 8*p.Offset, 8*p.Size
		want.Partitions = append(want.Partitions, p)
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestNoTable(t *testing.T) {
	signed := make([]byte, 4096)
	signed[510], signed[511] = 0x55, 0xAA
	for name, b := range map[string][]byte{"empty": nil, "short": make([]byte, 511), "zeros": make([]byte, 4096), "a signature alone": signed} {
		if got, err := partition.Read(bytes.NewReader(b), int64(len(b))); !errors.Is(err, partition.ErrNoTable) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// sparse is a disk of zeros with a few pieces in it.
type sparse map[int64][]byte

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for at, b := range s {
		if at >= off && at < off+int64(len(p)) {
			copy(p[at-off:], b)
		}
	}
	return len(p), nil
}

func checkRead(t *testing.T, r io.ReaderAt, size int64) {
	table, err := partition.Read(r, size)
	checkTable(t, table, err, size)
	table, err = partition.ReadMBR(r, size, 4096)
	checkTable(t, table, err, size)
}

func checkTable(t *testing.T, table partition.Table, err error, size int64) {
	if err != nil {
		return
	}
	if len(table.Partitions) > 1024 {
		t.Errorf("%d partitions", len(table.Partitions))
	}
	for _, p := range table.Partitions {
		if p.Offset <= 0 || p.Size <= 0 || p.Offset > size-p.Size {
			t.Errorf("partition %+v on a disk of %d bytes", p, size)
		}
	}
}

// FuzzMBR fuzzes the entries of an MBR and of the links of its logical partitions.
func FuzzMBR(f *testing.F) {
	b := load(f, "mbr")
	f.Add(b[446:510], b[256*512+446:256*512+510], int64(len(b)))
	f.Add(b[446:510], b[:64], int64(1<<40))
	f.Fuzz(func(t *testing.T, first, link []byte, size int64) {
		disk := sparse{446: first[:min(len(first), 64)], 510: {0x55, 0xAA}}
		for at := int64(1); at < 4096; at *= 2 {
			disk[at*512+446] = link[:min(len(link), 64)]
			disk[at*512+510] = []byte{0x55, 0xAA}
		}
		checkRead(t, disk, size)
	})
}

// FuzzGPT fuzzes a GPT's header and entries, under checksums that agree.
func FuzzGPT(f *testing.F) {
	b := load(f, "gpt")
	f.Add(b[512:512+92], b[1024:1024+256], int64(len(b)))
	f.Add(b[512:512+92], b[1024:1024+256], int64(1<<40))
	f.Fuzz(func(t *testing.T, header, entries []byte, size int64) {
		if len(header) < 92 || len(entries) > 16<<10 {
			return
		}
		header, le := bytes.Clone(header[:92]), binary.LittleEndian
		if n := int64(le.Uint32(header[80:])) * int64(le.Uint32(header[84:])); n > 0 && n <= 1<<20 {
			whole := make([]byte, n)
			copy(whole, entries)
			le.PutUint32(header[88:], crc32.ChecksumIEEE(whole))
		}
		clear(header[16:20])
		le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
		at := int64(le.Uint64(header[72:])) * 512
		disk := sparse{446 + 4: {0xEE}, 510: {0x55, 0xAA}, 512: header, at: entries}
		checkRead(t, disk, size)
	})
}
