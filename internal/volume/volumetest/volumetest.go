// Package volumetest makes real encrypted volumes for tests and for the demo.
//
// cryptsetup writes the header, so what is read later was made by the tool that guests use. Without
// device-mapper it can't write content: the volume key is chosen here, given to cryptsetup, and the
// sectors are encrypted here too, by code that shares nothing with the reader under test. Keys go to
// cryptsetup through pipes; none is ever in a file.
package volumetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// Options say how a volume is encrypted. The zero value is LUKS2 with Argon2id, aes-xts-plain64 with a key
// of 512 bits and sectors of 512 bytes, with key derivation as cheap as cryptsetup allows.
type Options struct {
	Version    int    // 1 or 2
	PBKDF      string // pbkdf2, argon2i, argon2id
	SectorSize int    // 512 or 4096; LUKS1 has 512
	Iterations int    // of PBKDF2, at least 1000; passes of Argon2, at least 4
	MemoryKiB  int    // of Argon2, at least 32
	Cipher     string // aes-xts-plain64, aes-xts-plain, aes-cbc-essiv:sha256, aes-cbc-plain64
	KeyBits    int
	Hash       string // sha1, sha256, sha512
	KeySlot    int
	Label      string // LUKS2 only
}

func (o Options) withDefaults() Options {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	text := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&o.Version, 2)
	text(&o.PBKDF, map[int]string{1: "pbkdf2", 2: "argon2id"}[o.Version])
	set(&o.SectorSize, 512)
	set(&o.Iterations, map[bool]int{true: 1000, false: 4}[o.PBKDF == "pbkdf2"])
	set(&o.MemoryKiB, 64)
	text(&o.Cipher, "aes-xts-plain64")
	set(&o.KeyBits, map[bool]int{true: 512, false: 256}[strings.Contains(o.Cipher, "-xts-")])
	text(&o.Hash, "sha256")
	return o
}

// headerSize is where the data begins: 16 MiB for LUKS2 and 2 MiB for LUKS1, as cryptsetup has it.
func (o Options) headerSize() int64 {
	if o.Version == 1 {
		return 2 << 20
	}
	return 16 << 20
}

// Encrypt makes out a LUKS volume whose decrypted content is the file plain, byte for byte. The size of
// plain must be a multiple of the sector size. out must not exist. When Encrypt fails, out is removed.
func Encrypt(ctx context.Context, plain, out string, passphrase []byte, o Options) (err error) {
	o = o.withDefaults()
	in, err := os.Open(plain)
	if err != nil {
		return fmt.Errorf("encrypt a volume: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return fmt.Errorf("encrypt a volume: %w", err)
	}
	if info.Size() == 0 || info.Size()%int64(o.SectorSize) != 0 {
		return fmt.Errorf("encrypt a volume: %s has %d bytes, not a multiple of %d", plain, info.Size(), o.SectorSize)
	}
	to, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("encrypt a volume: %w", err)
	}
	defer func() {
		if err = errors.Join(err, to.Close()); err != nil {
			err = errors.Join(err, os.Remove(out))
		}
	}()
	if err := to.Truncate(o.headerSize() + info.Size()); err != nil {
		return fmt.Errorf("encrypt a volume: %w", err)
	}
	volumeKey := make([]byte, o.KeyBits/8)
	defer clear(volumeKey)
	_, _ = rand.Read(volumeKey) // never fails
	if err := format(ctx, out, passphrase, volumeKey, o); err != nil {
		return err
	}
	if err := encryptSectors(ctx, in, to, info.Size(), volumeKey, o); err != nil {
		return fmt.Errorf("encrypt %s: %w", plain, err)
	}
	return nil
}

// format writes the header and one key slot.
func format(ctx context.Context, out string, passphrase, volumeKey []byte, o Options) error {
	args := []string{"luksFormat", "--batch-mode", "--disable-locks", "--type", "luks" + strconv.Itoa(o.Version),
		"--key-file", "-", "--volume-key-file", "/dev/fd/3", "--key-size", strconv.Itoa(o.KeyBits), "--cipher", o.Cipher, "--hash", o.Hash,
		"--key-slot", strconv.Itoa(o.KeySlot), "--pbkdf-force-iterations", strconv.Itoa(o.Iterations),
		"--offset", strconv.FormatInt(o.headerSize()/512, 10)}
	if o.Version == 2 {
		args = append(args, "--pbkdf", o.PBKDF, "--sector-size", strconv.Itoa(o.SectorSize), "--label", o.Label)
		if o.PBKDF != "pbkdf2" {
			args = append(args, "--pbkdf-memory", strconv.Itoa(o.MemoryKiB), "--pbkdf-parallel", "1")
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("give cryptsetup a volume key: %w", err)
	}
	defer read.Close()
	// A pipe holds more than a key, so this doesn't wait for cryptsetup.
	_, err = write.Write(volumeKey)
	if err = errors.Join(err, write.Close()); err != nil {
		return fmt.Errorf("give cryptsetup a volume key: %w", err)
	}
	cmd := exec.CommandContext(ctx, "cryptsetup", append(args, out)...)
	cmd.Stdin = bytes.NewReader(passphrase)
	cmd.ExtraFiles = []*os.File{read}
	return run(cmd)
}

// MakeFileSystem makes image, of size bytes, an ext4 file system that holds what is under the folder root.
func MakeFileSystem(ctx context.Context, image string, size int64, root string) error {
	f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("make a file system: %w", err)
	}
	return run(exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, image))
}

// run runs a tool; when it fails the error holds what it printed.
func run(cmd *exec.Cmd) error {
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if cmd.Err != nil { // not found on our own PATH: sbin often isn't on it
		if path, err := exec.LookPath("/usr/sbin/" + cmd.Args[0]); err == nil {
			cmd.Path, cmd.Err = path, nil
		}
	}
	if printed, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", cmd.Args[0], err, bytes.TrimSpace(printed))
	}
	return nil
}

// encryptSectors writes the ciphertext of size bytes behind the header, on two cores or more.
func encryptSectors(ctx context.Context, in io.ReaderAt, out io.WriterAt, size int64, key []byte, o Options) error {
	encrypt, err := sectorEncrypter(o.Cipher, key)
	if err != nil {
		return err
	}
	const unit, workers = 1 << 20, 4
	var group sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		group.Go(func() {
			buf := make([]byte, unit)
			for at := int64(w) * unit; at < size && errs[w] == nil; at += workers * unit {
				part := buf[:min(unit, size-at)]
				if _, errs[w] = io.ReadFull(io.NewSectionReader(in, at, int64(len(part))), part); errs[w] != nil {
					return
				}
				for i := 0; i < len(part); i += o.SectorSize {
					encrypt(part[i:i+o.SectorSize], uint64(at+int64(i))/512)
				}
				_, errs[w] = out.WriteAt(part, o.headerSize()+at)
				errs[w] = errors.Join(errs[w], context.Cause(ctx))
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
