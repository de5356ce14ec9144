package luks_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/secret"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

const passphrase = "a passphrase with a newline\n"

func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if _, err := os.Stat("/usr/sbin/" + name); err != nil {
			t.Skipf("needs %s, which is not installed", name)
		}
	}
}

// shared unpacks a volume that other people's tools made.
func shared(t *testing.T, name string) *bytes.Reader {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		f, err := os.Open(filepath.Join(dir, "shared/testdata/volumes", name))
		if err == nil {
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(z)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.NewReader(b)
		}
		if dir == filepath.Dir(dir) {
			t.Skipf("needs %s in shared/testdata/volumes of a folder above, which isn't there", name)
		}
	}
}

func open(t *testing.T, r *bytes.Reader, key string) (*luks.Volume, error) {
	t.Helper()
	v, err := luks.Open(context.Background(), r, r.Size(), secret.New([]byte(key)))
	if err == nil {
		t.Cleanup(func() { v.Close() })
	}
	return v, err
}

// randomFile makes a file of random bytes and returns them.
func randomFile(t *testing.T, size int) (string, []byte) {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content)
	path := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// encrypted makes a volume and reads it into memory.
func encrypted(t *testing.T, plain string, o volumetest.Options) *bytes.Reader {
	t.Helper()
	out := filepath.Join(t.TempDir(), "volume")
	if err := volumetest.Encrypt(context.Background(), plain, out, []byte(passphrase), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b)
}

// TestOpenMadeByCryptsetup opens what cryptsetup made, over all that can be chosen.
func TestOpenMadeByCryptsetup(t *testing.T) {
	needTool(t, "cryptsetup")
	plain, content := randomFile(t, 1<<20+4096)
	var matrix []volumetest.Options
	for _, cipher := range []volumetest.Options{
		{Cipher: "aes-xts-plain64", KeyBits: 512}, {Cipher: "aes-xts-plain64", KeyBits: 256}, {Cipher: "aes-xts-plain", KeyBits: 512},
		{Cipher: "aes-cbc-essiv:sha256", KeyBits: 256}, {Cipher: "aes-cbc-essiv:sha256", KeyBits: 128}, {Cipher: "aes-cbc-plain64", KeyBits: 256},
	} {
		for _, hash := range []string{"sha1", "sha256", "sha512"} {
			cipher.Hash = hash
			for _, o := range []volumetest.Options{
				{Version: 1, KeySlot: 0}, {Version: 1, KeySlot: 7},
				{Version: 2, PBKDF: "pbkdf2"}, {Version: 2, PBKDF: "argon2i", KeySlot: 3}, {Version: 2, PBKDF: "argon2id", KeySlot: 31, Label: "data disk"},
			} {
				for _, size := range []int{512, 4096} {
					if o.Version == 1 && size != 512 {
						continue
					}
					o.Cipher, o.KeyBits, o.Hash, o.SectorSize = cipher.Cipher, cipher.KeyBits, hash, size
					matrix = append(matrix, o)
				}
			}
		}
	}
	for _, o := range matrix {
		name := fmt.Sprintf("luks%d %s %d %s %s sector %d slot %d", o.Version, o.Cipher, o.KeyBits, o.Hash, o.PBKDF, o.SectorSize, o.KeySlot)
		t.Run(name, func(t *testing.T) {
			image := encrypted(t, plain, o)
			v, err := open(t, image, passphrase)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size()))
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes differ from the %d that were encrypted; error %v", len(got), len(content), err)
			}
			h := v.Info()
			if h.Version != o.Version || h.Cipher != o.Cipher || h.KeyBits != o.KeyBits || h.SectorSize != o.SectorSize ||
				h.Label != o.Label || v.Slot() != o.KeySlot || len(h.Keyslots) != 1 || len(h.UUID) != 36 || len(h.Damage) > 0 {
				t.Errorf("the header says %+v, opened by slot %d", h, v.Slot())
			}
			for _, wrong := range []string{"", strings.TrimSpace(passphrase), passphrase + "\n", passphrase[1:]} {
				if _, err := open(t, image, wrong); !errors.Is(err, luks.ErrWrongKey) {
					t.Errorf("with %q: %v", wrong, err)
				}
			}
		})
	}
}

func TestOpenShared(t *testing.T) {
	for _, name := range []string{"luks1-aes-cbc-essiv.img.gz", "luks2-compat.img.gz"} {
		t.Run(name, func(t *testing.T) {
			v, err := open(t, shared(t, name), "compatkey")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", v.Info())
		})
	}
	for _, name := range []string{"evil_hdr-keyslot_overlap.gz", "evil_hdr-luks_hdr_damage.gz", "luks2_invalid_cipher.img.gz"} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, shared(t, name), "compatkey")
			t.Log(err)
			if err == nil {
				t.Error("it opened")
			}
		})
	}
}
