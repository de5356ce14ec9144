package proof_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"kluis/internal/proof"
	"kluis/internal/tooltest"
	"kluis/internal/volume"
	"kluis/internal/volume/filesystem"
	"kluis/internal/volume/volumetest"
)

// What is opened is what was encrypted, wherever on the disk it lies; what is not encrypted has nothing to open.
func TestOpen(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs")
	plain := fileSystem(t)
	content := read(t, plain)
	image := encrypted(t, plain, passphrase, volumetest.Options{Version: 2, PBKDF: "pbkdf2"})
	table := unzip(t, "../volume/testdata/gpt.gz")
	for name, test := range map[string]struct {
		disk       proof.Disk
		partitions []int
	}{
		"whole disk":    {disk("os", image, passphrase), []int{0}},
		"not encrypted": {disk("os", content, passphrase), nil},
		"plain parts":   {disk("os", table, passphrase), nil},
	} {
		opened, err := proof.Open(t.Context(), test.disk)
		if err != nil || len(opened) != len(test.partitions) {
			t.Errorf("%s: %d volumes, %v", name, len(opened), err)
		}
		for i, v := range opened {
			got := make([]byte, v.Size())
			if _, err := v.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) || v.Partition != test.partitions[i] || !bytes.Equal(got, content) {
				t.Errorf("%s: another content in partition %d, %v", name, v.Partition, err)
			}
			if v.Encryption != "LUKS2 aes-xts-plain64" {
				t.Errorf("%s: encryption is %q", name, v.Encryption)
			}
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	_, err := proof.Open(t.Context(), disk("os", image, "the wrong passphrase"))
	if !errors.Is(err, volume.ErrWrongKey) {
		t.Errorf("with the wrong key: %v", err)
	}
	if _, err := proof.Open(t.Context(), disk("os", image, "")); err == nil {
		t.Error("opened without a key")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := proof.Open(ctx, disk("os", image, passphrase)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A Windows disk has its volume in a partition.
func TestOpenPartition(t *testing.T) {
	image, bek := bitLocker(t, ntfs(t), volumetest.BitLockerOptions{})
	partitioned := append(make([]byte, 1<<20), image...)
	partitioned[510], partitioned[511], partitioned[450] = 0x55, 0xAA, 0x07
	binary.LittleEndian.PutUint32(partitioned[454:], 1<<20/512)
	binary.LittleEndian.PutUint32(partitioned[458:], uint32(len(image)/512))
	opened, err := proof.Open(t.Context(), windowsDisk(partitioned, bek))
	if err != nil || len(opened) != 1 || opened[0].Partition != 1 || opened[0].Encryption != "BitLocker AES-XTS-128" {
		t.Fatalf("opened %+v, %v", opened, err)
	}
	if fs, err := filesystem.Recognise(opened[0], opened[0].Size()); err != nil || fs.Type != "ntfs" {
		t.Errorf("inside is %+v, %v", fs, err)
	}
	if err := opened[0].Close(); err != nil {
		t.Error(err)
	}
}
