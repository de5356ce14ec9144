package image

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/fabric"
	"kluis/internal/tooltest"
)

// loop makes a block device of a file.
func loop(t *testing.T, path string) string {
	t.Helper()
	tooltest.Need(t, "losetup")
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("this machine gives no loop devices: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v: %s", device, err, out)
		}
	})
	return device
}

func mustOpenUsed(t *testing.T, path string) *Used {
	t.Helper()
	u, err := OpenUsed(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func TestUsed(t *testing.T) {
	for _, kind := range []string{"file", "device"} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			want := bytes.Repeat([]byte{0xaa}, 4*mib)
			write(t, path, want)
			if kind == "device" {
				path = loop(t, path)
			}
			u := mustOpenUsed(t, path)
			if size, err := u.Size(); size != 4*mib || err != nil {
				t.Errorf("size %d, %v", size, err)
			}
			for _, r := range [][2]int64{{0, mib}, {2*mib + 100, 777}, {4*mib - 512, 512}} {
				if err := u.WriteZeroes(r[0], r[1]); err != nil {
					t.Error(err)
				}
				clear(want[r[0] : r[0]+r[1]])
			}
			copy(want[3*mib:], "something else")
			if _, err := u.WriteAt([]byte("something else"), 3*mib); err != nil {
				t.Error(err)
			}
			var data int64
			for off := int64(0); off < 4*mib; {
				start, n, err := u.NextData(off)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				data, off = data+n, start+n
			}
			if kind == "file" && data > 3*mib {
				t.Errorf("%d bytes of data: zeroes have made no hole", data)
			}
			if err := u.Sync(); err != nil {
				t.Error(err)
			}
			got := make([]byte, 4*mib)
			if _, err := u.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("content: %v", err)
			}
			err := u.Truncate(4*mib + 512)
			if kind == "device" {
				wantKind(t, err, fabric.NoSpace)
			} else if size, _ := u.Size(); err != nil || size != 4*mib+512 {
				t.Errorf("grown to %d, %v", size, err)
			}
			if err := u.Truncate(mib); err != nil {
				t.Error(err)
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			if kind == "file" {
				want = want[:mib]
			}
			mustHold(t, path, Raw, want)
		})
	}
}

func TestUsedRefuses(t *testing.T) {
	_, err := OpenUsed(t.TempDir())
	wantKind(t, err, fabric.NotRegular)
	_, err = OpenUsed(filepath.Join(t.TempDir(), "none"))
	wantKind(t, err, fabric.Missing)

	path := filepath.Join(t.TempDir(), "disk")
	write(t, path, make([]byte, mib))
	first := mustOpenUsed(t, path)
	_, err = OpenUsed(path)
	wantKind(t, err, fabric.InUse)
	_, err = OpenFile(t.Context(), path, Raw)
	wantKind(t, err, fabric.InUse)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	reader, err := OpenFile(t.Context(), path, Raw)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	_, err = OpenUsed(path)
	wantKind(t, err, fabric.InUse)
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
}
