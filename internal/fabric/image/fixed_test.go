package image

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	someID   = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	someTime = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
)

// The footer of a disk of 1 GiB, byte for byte.
func TestFixedFooterGolden(t *testing.T) {
	footer := fixedFooter(1<<30, someID, someTime)
	got := hex.Dump(footer[:])
	golden := filepath.Join("testdata", "fixed-footer.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got != string(want) {
		t.Errorf("%v\n%s", err, got)
	}
}

// What QEMU makes of the image is the disk, whole, whatever its geometry says.
func TestFixedVHDIsTheDisk(t *testing.T) {
	tooltest.Need(t, "qemu-img", "qemu-nbd")
	h := newHouse(t)
	for name, make := range map[string]func() (path, format string){
		"raw": func() (string, string) { path, _ := h.sparse("raw", 40*mib+512*3); return path, Raw },
		"qcow2": func() (string, string) {
			path, _ := h.sparse("q", 24*mib)
			return h.convert(path, "qcow2"), Qcow2
		},
		"not whole sectors": func() (string, string) { path, _ := h.sparse("odd", 9*mib+100); return path, Raw },
	} {
		t.Run(name, func(t *testing.T) {
			path, format := make()
			disk := h.mustSnapshot(path, format, 0)
			v := AsFixedVHD(disk, someID, someTime)
			whole, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
			if err != nil || int64(len(whole)) != v.Size() {
				t.Fatalf("%d bytes of %d, %v", len(whole), v.Size(), err)
			}
			if err := iotest.TestReader(io.NewSectionReader(v, v.Size()-2000, 2000), whole[len(whole)-2000:]); err != nil {
				t.Error(err)
			}
			vhd := filepath.Join(h.other, "disk.vhd")
			write(t, vhd, whole)
			size := fmt.Sprintf("(%d bytes)", v.Size()-vhdFooterSize)
			if info := run(t, "qemu-img", "info", "-f", "vpc", vhd); !strings.Contains(info, size) {
				t.Errorf("QEMU doesn't see a disk of %s:\n%s", size, info)
			}
			run(t, "qemu-img", "compare", "-f", format, "-F", "vpc", path, vhd)
			if header, err := identify(bytes.NewReader(whole), v.Size()); err != nil || header.format != VHD || header.size != v.Size()-vhdFooterSize {
				t.Errorf("%+v, %v", header, err)
			}
			wantOnlyZerosBetween(t, v, whole)
		})
	}
}

// wantOnlyZerosBetween: who reads the extents alone has everything.
func wantOnlyZerosBetween(t *testing.T, v *FixedVHD, whole []byte) {
	t.Helper()
	sparse := make([]byte, len(whole))
	end := int64(-1)
	for e, err := range v.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset <= end || e.Offset%sector != 0 || e.Length%sector != 0 || e.Length == 0 {
			t.Errorf("extent %+v after one that ends at %d", e, end)
		}
		end = e.Offset + e.Length
		copy(sparse[e.Offset:end], whole[e.Offset:end])
	}
	if end != v.Size() || !bytes.Equal(sparse, whole) {
		t.Errorf("the extents end at %d of %d, or leave something out", end, v.Size())
	}
}

// nothing is a disk without a byte.
type nothing struct{ fabric.Disk }

func (nothing) Size() int64 { return 0 }

func TestFixedVHDReadsNothingBeyondItsEnd(t *testing.T) {
	v := AsFixedVHD(nothing{}, someID, someTime)
	if v.Size() != vhdFooterSize {
		t.Errorf("an empty disk has %d bytes", v.Size())
	}
	p := make([]byte, 10)
	if n, err := v.ReadAt(p, v.Size()); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := v.ReadAt(p, v.Size()-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := v.ReadAt(p, -1); err == nil {
		t.Error("there is something before the beginning")
	}
}

// Geometries as the specification computes them, from the smallest disk to the largest that has one.
func TestGeometry(t *testing.T) {
	for _, test := range []struct {
		disk                       int64
		cylinders, heads, perTrack uint32
	}{
		{0, 0, 4, 17}, {10 << 20, 301, 4, 17}, {1 << 30, 2080, 16, 63}, {16 * 63 * 65535 * sector, 16191, 16, 255}, {1 << 50, 65535, 16, 255},
	} {
		if got := geometry(test.disk / sector); got != test.cylinders<<16|test.heads<<8|test.perTrack {
			t.Errorf("%d bytes: %d/%d/%d, want %+v", test.disk, got>>16, got>>8&255, got&255, test)
		}
	}
}
