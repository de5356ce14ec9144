package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"kluis/internal/secret"
	"kluis/internal/volume/luks"
	"kluis/internal/volume/volumetest"
)

// The files of the data disk that the story looks at again after the restore.
const (
	letterFile = "/srv/letter.txt" // never changes
	ledgerFile = "/srv/ledger.bin" // changes between the two backups
)

// disk is one encrypted volume of the demo's VM.
type disk struct {
	name       string
	format     string // raw or qcow2
	file       string // the image
	size       int64  // what the VM sees
	passphrase secret.Bytes
	options    volumetest.Options
	secretURL  string
	sha        []string // of what the VM sees, at each backup

	ledgerSize int64    // 0: there is no ledger on this disk
	ledgerAt   []extent // where it lies in the decrypted volume
	ledger     []string // its sha256 at each backup
	letter     string   // sha256
}

// extent is a range of a volume.
type extent struct{ offset, size int64 }

// makePassphrase makes the key of a volume. It is text, since Linux guests type it like any passphrase.
func makePassphrase() secret.Bytes {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	return secret.New([]byte(base64.StdEncoding.EncodeToString(random)))
}

// make builds the volume: a folder of files becomes an ext4 file system, that a LUKS volume, that an image.
func (d *disk) make(ctx context.Context, dir string, content int64, progress func(float64, string)) error {
	root := filepath.Join(dir, d.name+".root")
	plain := filepath.Join(dir, d.name+".plain")
	defer func() { _ = os.RemoveAll(root) }()
	defer func() { _ = os.Remove(plain) }()
	if err := d.writeFiles(root, content*7/10, func(part float64) { progress(0.5*part, d.name+": files") }); err != nil {
		return err
	}
	progress(0.5, d.name+": ext4")
	if err := volumetest.MakeFileSystem(ctx, plain, content, root); err != nil {
		return err
	}
	if d.ledgerSize > 0 {
		var err error
		if d.ledgerAt, err = extentsOf(ctx, plain, ledgerFile, d.ledgerSize); err != nil {
			return err
		}
	}
	progress(0.7, d.name+": LUKS"+strconv.Itoa(d.options.Version))
	raw := filepath.Join(dir, d.name+".raw")
	if err := volumetest.Encrypt(ctx, plain, raw, d.passphrase.Reveal(), d.options); err != nil {
		return err
	}
	d.file = filepath.Join(imageFolder(dir), d.name+"."+d.format)
	if d.format == "raw" {
		if err := os.Rename(raw, d.file); err != nil {
			return fmt.Errorf("put the image in place: %w", err)
		}
	} else {
		progress(0.9, d.name+": "+d.format)
		if _, err := tool(ctx, "qemu-img", "convert", "-f", "raw", "-O", d.format, raw, d.file); err != nil {
			return err
		}
		if err := os.Remove(raw); err != nil {
			return fmt.Errorf("remove the raw image: %w", err)
		}
	}
	return d.remember(ctx, dir)
}

// writeFiles fills the folder: half of it text that compresses well, half of it noise that does not.
func (d *disk) writeFiles(root string, total int64, progress func(float64)) error {
	files := filepath.Join(root, "srv", "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	letter := []byte("Dear reader,\nthis letter was on the disk " + d.name + " when everything was still there.\n")
	if err := os.WriteFile(filepath.Join(root, letterFile), letter, 0o644); err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	sum := sha256.Sum256(letter)
	d.letter = hex.EncodeToString(sum[:])
	if d.ledgerSize > 0 {
		sum := sha256.New()
		if err := writeNoise(filepath.Join(root, ledgerFile), d.ledgerSize, sum); err != nil {
			return err
		}
		d.ledger = append(d.ledger, hex.EncodeToString(sum.Sum(nil)))
	}
	const each = 4 << 20
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and nobody loses a file. ", each/70))
	for i := int64(0); i*each < total-d.ledgerSize; i++ {
		name := filepath.Join(files, fmt.Sprintf("%05d", i))
		if i%2 == 0 {
			if err := writeNoise(name, each, io.Discard); err != nil {
				return err
			}
		} else if err := os.WriteFile(name, text, 0o644); err != nil {
			return fmt.Errorf("make files: %w", err)
		}
		progress(float64(i*each) / float64(total))
	}
	return nil
}

// writeNoise makes a file of n random bytes and adds them to the sum as well.
func writeNoise(name string, n int64, sum io.Writer) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	_, err = io.CopyN(io.MultiWriter(f, sum), rand.Reader, n)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	return nil
}

// remember takes the sha256 of what the VM sees on the disk now.
func (d *disk) remember(ctx context.Context, dir string) error {
	sha, size, err := hashImage(ctx, dir, d.file)
	d.sha, d.size = append(d.sha, sha), size
	return err
}

// change rewrites the ledger through the encryption, with the volume's own key, as a running guest
// would. It is for LUKS1, the version that qemu-io can write.
func (d *disk) change(ctx context.Context, dir string) error {
	sum := sha256.New()
	args := []string{"--object", "secret,id=key,file=/dev/stdin,format=raw", "--image-opts",
		"driver=luks,key-secret=key,file.driver=" + d.format + ",file.file.driver=file,file.file.filename=" + d.file}
	for i, e := range d.ledgerAt {
		piece := filepath.Join(dir, fmt.Sprintf("ledger.%d", i))
		defer func() { _ = os.Remove(piece) }()
		if err := writeNoise(piece, e.size, sum); err != nil {
			return err
		}
		args = append(args, "-c", fmt.Sprintf("write -q -s %s %d %d", piece, e.offset, e.size))
	}
	cmd := exec.CommandContext(ctx, "qemu-io", append(args, "-c", "flush")...)
	cmd.Stdin = strings.NewReader(string(d.passphrase.Reveal()))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("change the disk %s: %w: %s", d.name, err, out)
	}
	if len(out) > 0 { // qemu-io tells of a failed command and exits as if nothing were
		return fmt.Errorf("change the disk %s: %s", d.name, out)
	}
	d.ledger = append(d.ledger, hex.EncodeToString(sum.Sum(nil)))
	return d.remember(ctx, dir)
}

// extentsOf finds where a file lies in a file system. The size must be a whole number of blocks.
func extentsOf(ctx context.Context, image, file string, size int64) ([]extent, error) {
	stats, err := tool(ctx, "debugfs", "-R", "show_super_stats -h", image)
	if err != nil {
		return nil, err
	}
	_, after, _ := strings.Cut(stats, "Block size:")
	block, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the file system's block size: %w", err)
	}
	out, err := tool(ctx, "debugfs", "-R", "blocks "+file, image)
	if err != nil {
		return nil, err
	}
	numbers := strings.Fields(out)
	if int64(len(numbers))*block != size {
		return nil, fmt.Errorf("find %s in the file system: %d bytes lie in %d blocks of %d", file, size, len(numbers), block)
	}
	var extents []extent
	for _, n := range numbers {
		number, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("find %s in the file system: %w", file, err)
		}
		if last := len(extents) - 1; last >= 0 && extents[last].offset+extents[last].size == number*block {
			extents[last].size += block
		} else {
			extents = append(extents, extent{number * block, block})
		}
	}
	return extents, nil
}

// rawImage returns a file that holds what a VM sees on the image, and what removes that file again.
func rawImage(ctx context.Context, dir, image string) (string, func(), error) {
	out, err := tool(ctx, "qemu-img", "info", "--output=json", image)
	if err != nil {
		return "", nil, err
	}
	var info struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		return "", nil, fmt.Errorf("look at %s: %w", image, err)
	}
	// qemu-img sees the LUKS header of a raw image and calls its format luks.
	if info.Format != "qcow2" {
		return image, func() {}, nil
	}
	raw := filepath.Join(dir, filepath.Base(image)+".seen")
	if _, err := tool(ctx, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw); err != nil {
		return "", nil, err
	}
	return raw, func() { _ = os.Remove(raw) }, nil
}

// hashImage returns sha256 and size of what a VM sees on the image.
func hashImage(ctx context.Context, dir, image string) (sha string, size int64, err error) {
	raw, remove, err := rawImage(ctx, dir, image)
	if err != nil {
		return "", 0, err
	}
	defer remove()
	f, err := os.Open(raw)
	if err != nil {
		return "", 0, fmt.Errorf("read image: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	size, err = io.Copy(sum, f)
	if err != nil {
		return "", 0, fmt.Errorf("read image: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), size, nil
}

// hashFilesWithin decrypts the volume on the image and returns the sha256 of files in its file system.
func hashFilesWithin(ctx context.Context, dir, image string, key secret.Bytes, files ...string) ([]string, error) {
	raw, remove, err := rawImage(ctx, dir, image)
	if err != nil {
		return nil, err
	}
	defer remove()
	plain := filepath.Join(dir, "decrypted")
	defer func() { _ = os.Remove(plain) }()
	if err := decrypt(ctx, raw, plain, key); err != nil {
		return nil, err
	}
	var sums []string
	for _, file := range files {
		dump := filepath.Join(dir, "dumped")
		if _, err := tool(ctx, "debugfs", "-R", "dump "+file+" "+dump, plain); err != nil {
			return nil, err
		}
		data, err := os.ReadFile(dump)
		if err != nil {
			return nil, fmt.Errorf("read %s out of the file system: %w", file, err)
		}
		if err := os.Remove(dump); err != nil {
			return nil, fmt.Errorf("remove the copy of %s: %w", file, err)
		}
		sum := sha256.Sum256(data)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	return sums, nil
}

// decrypt writes the content of a LUKS volume to a file.
func decrypt(ctx context.Context, raw, plain string, key secret.Bytes) error {
	f, err := os.Open(raw)
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	volume, err := luks.Open(ctx, f, info.Size(), key)
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	defer func() { _ = volume.Close() }()
	out, err := os.Create(plain)
	if err != nil {
		return fmt.Errorf("decrypt volume: %w", err)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, io.NewSectionReader(volume, 0, volume.Size()), make([]byte, 1<<20))
	if err != nil {
		_ = out.Close()
		return fmt.Errorf("decrypt volume: %w", err)
	}
	return out.Close()
}

// tool runs a tool and returns what it printed; when it fails, the error says what it complained about.
// debugfs and mke2fs live where only root looks.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}
