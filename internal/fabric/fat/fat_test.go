package fat_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/fabric/fat"
	"kluis/internal/tooltest"
)

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return out
}

// What is written is read by programs that others wrote, and they find nothing wrong with it.
func TestVolume(t *testing.T) {
	tooltest.Need(t, "mtype", "mdir", "mlabel", "fsck.vfat", "blkid")
	files := []fat.File{
		{Name: "LinuxPassPhraseFileName", Content: []byte("correct horse battery staple")},
		{Name: "5F1E7D3A-0000-4000-8000-00112233AABB.BEK", Content: bytes.Repeat([]byte{0, 255}, 70)},
		{Name: "thirteen.long", Content: bytes.Repeat([]byte("cluster"), 1000)},
		{Name: "empty", Content: nil},
		{Name: "exactly", Content: make([]byte, 512)},
		{Name: "schlüssel", Content: []byte("x")},
	}
	v, err := fat.Volume("BEK VOLUME", files)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, v, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "fsck.vfat", "-n", path)
	if label := strings.TrimSpace(string(run(t, "blkid", "-p", "-o", "value", "-s", "LABEL", path))); label != "BEK VOLUME" {
		t.Errorf("label %q", label)
	}
	for _, f := range files[:5] {
		if got := run(t, "mtype", "-i", path, "::"+f.Name); !bytes.Equal(got, f.Content) {
			t.Errorf("%s holds %q", f.Name, got)
		}
	}
	if listed := string(run(t, "mdir", "-b", "-i", path, "::")); strings.Count(listed, "\n") != len(files) {
		t.Errorf("folder: %s", listed)
	}
}

func TestVolumeRefused(t *testing.T) {
	for name, test := range map[string]struct {
		label string
		files []fat.File
	}{
		"no label":       {"", nil},
		"long label":     {"TWELVE CHARS", nil},
		"small letters":  {"label", nil},
		"no name":        {"L", []fat.File{{Name: ""}}},
		"a path":         {"L", []fat.File{{Name: "a/b"}}},
		"long name":      {"L", []fat.File{{Name: strings.Repeat("n", 256)}}},
		"too much":       {"L", []fat.File{{Name: "n", Content: make([]byte, fat.Size)}}},
		"too many files": {"L", manyFiles(64)},
	} {
		if v, err := fat.Volume(test.label, test.files); err == nil || v != nil {
			t.Errorf("%s: a volume of %d bytes, %v", name, len(v), err)
		}
	}
	if _, err := fat.Volume("L", []fat.File{{Name: "n", Content: make([]byte, 2031*512)}}); err != nil {
		t.Errorf("a file that just fits: %v", err)
	}
}

func manyFiles(n int) (files []fat.File) {
	for range n {
		files = append(files, fat.File{Name: "name"})
	}
	return files
}
