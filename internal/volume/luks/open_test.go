package luks_test

import (
	"bytes"
	"compress/gzip"
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
	"pgregory.net/rapid"

	"kluis/internal/secret"
	"kluis/internal/tooltest"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

const passphrase = "a passphrase with a newline\n"

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
	tooltest.Need(t, "cryptsetup")
	plain, content := randomFile(t, 1<<20+4096)
	var matrix []volumetest.Options
	for _, o := range []volumetest.Options{
		{Version: 1, PBKDF: "pbkdf2"}, {Version: 1, PBKDF: "pbkdf2", KeySlot: 7},
		{Version: 2, PBKDF: "pbkdf2", SectorSize: 512}, {Version: 2, PBKDF: "pbkdf2", SectorSize: 4096},
		{Version: 2, PBKDF: "argon2i", KeySlot: 3, SectorSize: 512}, {Version: 2, PBKDF: "argon2id", KeySlot: 31, Label: "data disk", SectorSize: 4096},
	} {
		for _, cipher := range []volumetest.Options{
			{Cipher: "aes-xts-plain64", KeyBits: 512}, {Cipher: "aes-xts-plain64", KeyBits: 256}, {Cipher: "aes-xts-plain", KeyBits: 512},
			{Cipher: "aes-cbc-essiv:sha256", KeyBits: 256}, {Cipher: "aes-cbc-essiv:sha256", KeyBits: 128}, {Cipher: "aes-cbc-plain64", KeyBits: 256},
		} {
			o.Cipher, o.KeyBits, o.Hash = cipher.Cipher, cipher.KeyBits, "sha256"
			matrix = append(matrix, o)
		}
		for _, hash := range []string{"sha1", "sha512"} {
			o.Cipher, o.KeyBits, o.Hash = "aes-xts-plain64", 512, hash
			matrix = append(matrix, o)
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
			if h.Version != o.Version || h.Cipher != o.Cipher || h.KeyBits != o.KeyBits || h.SectorSize != max(o.SectorSize, 512) ||
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
			image := shared(t, name)
			if _, err := open(t, image, "compatkey"); err != nil {
				t.Error(err)
			}
			if _, err := open(t, image, "compatkez"); !errors.Is(err, luks.ErrWrongKey) {
				t.Errorf("with another key: %v", err)
			}
		})
	}
	for name, want := range map[string]string{
		"evil_hdr-keyslot_overlap.gz":   "the LUKS header is damaged: key slot 2: its area overlaps that of key slot 1",
		"evil_hdr-luks_hdr_damage.gz":   "the LUKS header is damaged: key slot 2: its area overlaps the header",
		"luks2_invalid_cipher.img.gz":   `the LUKS volume can't be read: segment "0": cipher "capi:xts(ecb(aes-generic))-plain64" is not known`,
		"bitlk-aes-xts-256.img.gz":      luks.ErrNotLUKS.Error(),
		"bitlk-togo-aes-xts-128.img.gz": luks.ErrNotLUKS.Error(),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := open(t, shared(t, name), "compatkey"); err == nil || err.Error() != want {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// busyQEMU is what qemu-img says when its own stop-watch for key derivation was disturbed, which happens on
// a machine that does other things too. It has done nothing then, and is asked again.
const busyQEMU = "Unable to get accurate CPU usage"

// TestQEMU reads what qemu encrypted, and has qemu read what we encrypted.
func TestQEMU(t *testing.T) {
	tooltest.Need(t, "qemu-img")
	plain, content := randomFile(t, 3<<20)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	qemu := func(t *testing.T, args ...string) {
		t.Helper()
		args = append([]string{args[0], "--object", "secret,id=key,file=" + key}, args[1:]...)
		for {
			printed, err := exec.Command("qemu-img", args...).CombinedOutput()
			if bytes.Contains(printed, []byte(busyQEMU)) {
				continue
			}
			if err != nil {
				t.Fatalf("qemu-img %q: %v: %s", args, err, printed)
			}
			return
		}
	}
	t.Run("reads", func(t *testing.T) {
		tooltest.Need(t, "cryptsetup")
		for _, cipher := range []string{"aes-xts-plain64", "aes-cbc-essiv:sha256"} {
			out, back := filepath.Join(t.TempDir(), "luks1"), filepath.Join(t.TempDir(), "back")
			if err := volumetest.Encrypt(context.Background(), plain, out, []byte(passphrase), volumetest.Options{Version: 1, Cipher: cipher}); err != nil {
				t.Fatal(err)
			}
			qemu(t, "convert", "--image-opts", "driver=luks,key-secret=key,file.filename="+out, "-O", "raw", back)
			if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: qemu reads other bytes, error %v", cipher, err)
			}
		}
	})
	t.Run("writes", func(t *testing.T) {
		for _, options := range []string{",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256", ",hash-alg=sha512"} {
			out := filepath.Join(t.TempDir(), "luks")
			qemu(t, "convert", "-f", "raw", "-O", "luks", "-o", "key-secret=key,iter-time=10"+options, plain, out)
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			v, err := open(t, bytes.NewReader(b), passphrase)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size())); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: we read other bytes, error %v", options, err)
			}
		}
	})
}

// cryptsetup runs it on an image file, with a key on its standard input.
func cryptsetup(t *testing.T, stdin string, args ...string) error {
	t.Helper()
	cmd := exec.Command("cryptsetup", append([]string{"--batch-mode", "--disable-locks", "--key-file", "-"}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	if printed, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cryptsetup %q: %w: %s", args, err, printed)
	}
	return nil
}

// TestAgreesWithCryptsetup asks cryptsetup itself about the same keys.
func TestAgreesWithCryptsetup(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	plain, _ := randomFile(t, 1<<20)
	for _, o := range []volumetest.Options{
		{Version: 1}, {Version: 1, Cipher: "aes-cbc-essiv:sha256", Hash: "sha512", KeySlot: 7}, {Version: 2},
		{Version: 2, PBKDF: "pbkdf2", Hash: "sha1", SectorSize: 4096, KeySlot: 5}, {Version: 2, PBKDF: "argon2i", KeyBits: 256},
	} {
		out := filepath.Join(t.TempDir(), "volume")
		if err := volumetest.Encrypt(context.Background(), plain, out, []byte(passphrase), o); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{passphrase, "another", passphrase[1:]} {
			_, ours := open(t, bytes.NewReader(b), key)
			theirs := cryptsetup(t, key, "open", "--test-passphrase", out)
			if (ours == nil) != (theirs == nil) {
				t.Errorf("%+v with %q: we say %v, cryptsetup says %v", o, key, ours, theirs)
			}
		}
	}
}

// TestSeveralKeys adds keys and takes one away again; the key slot says which one it was.
func TestSeveralKeys(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	plain, _ := randomFile(t, 1<<20)
	for _, o := range []volumetest.Options{{Version: 1}, {Version: 2}} {
		dir := t.TempDir()
		out := filepath.Join(dir, "volume")
		if err := volumetest.Encrypt(context.Background(), plain, out, []byte(passphrase), o); err != nil {
			t.Fatal(err)
		}
		for slot, key := range map[string]string{"1": "second", "5": "fifth"} {
			file := filepath.Join(dir, key)
			if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := cryptsetup(t, passphrase, "luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-slot", slot, out, file); err != nil {
				t.Fatal(err)
			}
		}
		if err := cryptsetup(t, "", "luksKillSlot", out, "0"); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		for key, slot := range map[string]int{"second": 1, "fifth": 5, passphrase: -1} {
			v, err := open(t, bytes.NewReader(b), key)
			switch {
			case slot < 0 && !errors.Is(err, luks.ErrWrongKey):
				t.Errorf("LUKS%d: the key that was taken away: %v", o.Version, err)
			case slot >= 0 && err != nil:
				t.Errorf("LUKS%d: key %q: %v", o.Version, key, err)
			case slot >= 0 && (v.Slot() != slot || len(v.Info().Keyslots) != 2):
				t.Errorf("LUKS%d: key %q opened slot %d of %v", o.Version, key, v.Slot(), v.Info().Keyslots)
			}
		}
	}
}

// TestReadAt reads every which way and compares.
func TestReadAt(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	plain, content := randomFile(t, 300<<10)
	v, err := open(t, encrypted(t, plain, volumetest.Options{SectorSize: 4096}), passphrase)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		off := rapid.IntRange(0, len(content)+5000).Draw(t, "off")
		p := make([]byte, rapid.IntRange(0, 150<<10).Draw(t, "n"))
		n, err := v.ReadAt(p, int64(off))
		want := content[min(off, len(content)):min(off+len(p), len(content))]
		if !bytes.Equal(p[:n], want) || (n < len(p)) != (errors.Is(err, io.EOF) && len(p) > 0) && off < len(content) {
			t.Fatalf("%d bytes and %v, where there are %d", n, err, len(want))
		}
	})
	if _, err := v.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is read")
	}
}

// TestDetached opens volumes whose headers are files of their own, as cryptsetup makes them.
func TestDetached(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	for _, test := range []struct {
		version, sectorSize int
		offset              int64 // of the data
	}{{1, 512, 0}, {2, 512, 0}, {2, 4096, 0}, {2, 512, 1 << 20}} {
		dir := t.TempDir()
		header, data := filepath.Join(dir, "header"), filepath.Join(dir, "data")
		key, content := make([]byte, 64), make([]byte, 256<<10)
		_, _ = rand.Read(key)
		_, _ = rand.Read(content)
		volumeKey := filepath.Join(dir, "key")
		for path, b := range map[string][]byte{volumeKey: key, data: make([]byte, test.offset+int64(len(content)))} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"luksFormat", "--type", fmt.Sprintf("luks%d", test.version), "--header", header, "--volume-key-file", volumeKey, "--key-size", "512",
			"--cipher", "aes-xts-plain64", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--offset", fmt.Sprint(test.offset / 512)}
		if test.version == 2 {
			args = append(args, "--sector-size", fmt.Sprint(test.sectorSize))
		}
		if err := cryptsetup(t, passphrase, append(args, data)...); err != nil {
			t.Fatal(err)
		}
		x, err := xts.NewCipher(aes.NewCipher, key)
		if err != nil {
			t.Fatal(err)
		}
		encrypted := append(make([]byte, test.offset), content...)
		for at := 0; at < len(content); at += test.sectorSize {
			p := encrypted[int(test.offset)+at:][:test.sectorSize]
			x.Encrypt(p, p, uint64(at/512))
		}
		b, err := os.ReadFile(header)
		if err != nil {
			t.Fatal(err)
		}
		v, err := luks.OpenDetached(context.Background(), bytes.NewReader(b), int64(len(b)), bytes.NewReader(encrypted), int64(len(encrypted)), secret.New([]byte(passphrase)))
		if err != nil {
			t.Fatalf("%+v: %v", test, err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(v, 0, v.Size())); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%+v: the content differs, error %v", test, err)
		}
		if test.offset == 0 {
			if _, err := open(t, bytes.NewReader(b), passphrase); err == nil || !strings.Contains(err.Error(), "a detached header") {
				t.Errorf("%+v: without its data it opens: %v", test, err)
			}
		}
		if _, err := luks.OpenDetached(context.Background(), bytes.NewReader(b), int64(len(b)), bytes.NewReader(nil), 0, secret.New([]byte(passphrase))); err == nil {
			t.Errorf("%+v: without any data it opens", test)
		}
	}
}

// TestReencryption recognises volumes whose encryption cryptsetup began to change.
func TestReencryption(t *testing.T) {
	tooltest.Need(t, "cryptsetup")
	for mode, args := range map[string][]string{
		"encrypt":   {"--encrypt", "--type", "luks2", "--reduce-device-size", "32M"},
		"decrypt":   {"--decrypt", "--header", "detached", "--force-offline-reencrypt"},
		"reencrypt": nil,
	} {
		t.Run(mode, func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, make([]byte, 40<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			header := image
			cheap := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
			if mode != "encrypt" {
				if err := cryptsetup(t, passphrase, append(cheap, "luksFormat", "--type", "luks2", image)...); err != nil {
					t.Fatal(err)
				}
			}
			if mode == "decrypt" {
				header = filepath.Join(filepath.Dir(image), "detached")
				args[2] = header
				cheap = nil
			}
			if err := cryptsetup(t, passphrase, append(append([]string{"reencrypt", "--init-only"}, args...), append(cheap, image)...)...); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(header)
			if err != nil {
				t.Fatal(err)
			}
			var reencrypt *luks.ReencryptError
			if _, err := open(t, bytes.NewReader(b), passphrase); !errors.As(err, &reencrypt) || reencrypt.Mode != mode {
				t.Errorf("the error is %v, the mode %+v", err, reencrypt)
			}
		})
	}
}
