package volumetest_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

// TestEncryptFails leaves nothing behind when it fails, and touches nothing that was there.
func TestEncryptFails(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	dir := t.TempDir()
	plain, out := filepath.Join(dir, "plain"), filepath.Join(dir, "out")
	if err := os.WriteFile(plain, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, make([]byte, 4608), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		plain string
		o     volumetest.Options
		want  string
	}{
		{"no content", context.Background(), filepath.Join(dir, "missing"), volumetest.Options{}, "no such file"},
		{"part of a sector", context.Background(), odd, volumetest.Options{SectorSize: 4096}, "not a multiple of 4096"},
		{"a cipher that cryptsetup refuses", context.Background(), plain, volumetest.Options{Cipher: "rot13-xts-plain64"}, "run cryptsetup"},
		{"a cipher that isn't known here", context.Background(), plain, volumetest.Options{Cipher: "aes-ctr-plain64", KeyBits: 256}, `cipher "aes-ctr-plain64"`},
		{"cancelled", cancelled, plain, volumetest.Options{}, "cancel"},
	} {
		err := volumetest.Encrypt(test.ctx, test.plain, out, []byte("key"), test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s is left behind", test.name, out)
		}
	}
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte("key"), volumetest.Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, []byte("precious")) {
		t.Errorf("the file that was there holds %q, %v", b, err)
	}
}

func TestMakeFileSystemFails(t *testing.T) {
	dir := t.TempDir()
	if err := volumetest.MakeFileSystem(context.Background(), filepath.Join(dir, "image"), 1<<20, filepath.Join(dir, "missing")); err == nil {
		t.Error("a file system is made of a folder that isn't there")
	}
}
