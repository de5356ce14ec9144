package main_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/internal/volume/volumetest"
)

// windowsDisk is a disk of a Windows VM: one partition with NTFS in it, encrypted by BitLocker.
func windowsDisk(t *testing.T) (disk, bek []byte) {
	t.Helper()
	f := must[*os.File](t)(os.Open("../../internal/volume/filesystem/testdata/ntfs.gz"))
	defer f.Close()
	plain := make([]byte, 8<<20)
	n := copy(plain, must[[]byte](t)(io.ReadAll(must[*gzip.Reader](t)(gzip.NewReader(f)))))
	if n == 0 {
		t.Fatal("there is no file system")
	}
	volume, bek, err := volumetest.BitLocker(plain, volumetest.BitLockerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	disk = make([]byte, 1<<20, 1<<20+len(volume))
	sectors := len(volume) / 512
	copy(disk[450:], []byte{0x07, 0, 0, 0, 0, 1 << 20 / 512 >> 8, 0, 0, byte(sectors), byte(sectors >> 8)})
	disk[510], disk[511] = 0x55, 0xAA
	return append(disk, volume...), bek
}

// windows registers a VM whose disks are wrapped each by another algorithm; keys say which disk's BEK each
// disk is said to open with.
func (m *machine) windows(ctx context.Context, t *testing.T, name string, keys map[string]string) client.Item {
	t.Helper()
	disks, beks := map[string]client.Disk{}, map[string][]byte{}
	urls := map[string]string{}
	for disk, algorithm := range map[string]string{"os": "RSA-OAEP", "log": "RSA-OAEP-256", "data": "RSA1_5"} {
		image, bek := windowsDisk(t)
		m.files[name+disk], beks[disk] = filepath.Join(m.s.images, name+disk+".raw"), bek
		if err := os.WriteFile(m.files[name+disk], image, 0o600); err != nil {
			t.Fatal(err)
		}
		s := must[client.Secret](t)(m.s.SetBEK(ctx, m.kv.Properties.VaultURI, client.BEK{Name: "bek-" + name + disk, Alg: algorithm,
			Key: secret.New(bek), KEK: m.kek.ID(), Machine: name, FileName: "4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK"}))
		urls[disk] = s.ID
	}
	for disk, key := range keys {
		disks[disk] = must[client.Disk](t)(m.s.ImportDisk(ctx, m.s.DiskID(group, name+disk), location, m.files[name+disk], "Windows",
			client.Encryption(m.kv.ARMID(), urls[key], m.kek.ID())))
	}
	vm := m.s.VMID(group, name)
	must[client.VM](t)(m.s.PutVM(ctx, vm, client.VMOf(location, "Windows", disks["os"], disks["log"], disks["data"])))
	return must[client.Item](t)(m.s.EnableProtection(ctx, m.vault, vm, "DefaultPolicy"))
}

// TestWindows backs up VMs whose disks BitLocker encrypted: with their own keys they are proved, and with
// each other's the job warns and the point says whose key it is.
func TestWindows(t *testing.T) {
	s := newServer(t, "")
	ctx := soon(t)
	m := &machine{s: s, files: map[string]string{}}
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	m.vault = s.RecoveryVaultID(group, "vault1")
	must[client.RecoveryVault](t)(s.PutRecoveryVault(ctx, m.vault, location, "LocallyRedundant"))
	m.makeKeyVault(ctx, t)
	m.grantBackup(ctx, t)
	m.kek = must[client.Key](t)(s.CreateKey(ctx, m.kv.Properties.VaultURI, "kek1", 3072))

	own := m.windows(ctx, t, "win1", map[string]string{"os": "os", "log": "log", "data": "data"})
	job := m.backUp(ctx, t, own)
	proof := must[client.Point](t)(s.RecoveryPoint(ctx, own.ARMID(), job.Properties.Bag("Recovery Point Id"))).Properties.Proof
	if proof == nil || proof.State != client.Proved || len(proof.Disks) != 3 {
		t.Fatalf("the proof is %+v", proof)
	}
	for _, d := range proof.Disks {
		if d.State != client.Proved || d.Encryption != "BitLocker AES-XTS-128" || d.FileSystem != "ntfs" {
			t.Errorf("the proof of disk %s is %+v", d.Name, d)
		}
	}

	swapped := m.windows(ctx, t, "win2", map[string]string{"os": "os", "log": "data", "data": "log"})
	id := must[string](t)(s.Backup(ctx, swapped.ARMID(), ""))
	job = must[client.Job](t)(s.WaitJob(ctx, m.vault, id, nil))
	if job.Properties.Status != "CompletedWithWarnings" {
		t.Errorf("the job ended %s", job.Properties.Status)
	}
	proof = must[client.Point](t)(s.RecoveryPoint(ctx, swapped.ARMID(), job.Properties.Bag("Recovery Point Id"))).Properties.Proof
	if proof == nil || proof.State == client.Proved || !strings.Contains(proof.Reason, "and the volume has no protector of that name") || proof.Advice == "" {
		t.Errorf("with each other's keys the proof is %+v", proof)
	}
}

// TestWindowsKeyTakenIn takes the .BEK file of a disk that Windows encrypted into a key vault by the command, as it
// is and only if it opens the disk. The next recovery point is proved with it.
func TestWindowsKeyTakenIn(t *testing.T) {
	s := newServer(t, "")
	ctx := soon(t)
	must[client.Group](t)(s.PutGroup(ctx, group, location))
	m := &machine{s: s}
	m.makeKeyVault(ctx, t)
	m.grantBackup(ctx, t)
	m.kek = must[client.Key](t)(s.CreateKey(ctx, m.kv.Properties.VaultURI, "kek1", 2048))
	image, bek := windowsDisk(t)
	_, other := windowsDisk(t)
	disk, right, wrong := filepath.Join(s.images, "win1.raw"), filepath.Join(t.TempDir(), "right.BEK"), filepath.Join(t.TempDir(), "wrong.BEK")
	for path, data := range map[string][]byte{disk: image, right: bek, wrong: other} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.mustRun(ctx, t, "win1", "vm", "register", "win1", "--os-disk", disk, "--os-type", "Windows", "--location", location)
	set := []string{"vm", "encryption", "set", "win1", "--key-vault", kvName, "--kek", "kek1", "--bek-file"}
	s.mustFail(ctx, t, "EncryptionKeyDoesNotOpenDisk", append(set, wrong)...)
	if secrets := must[[]client.Secret](t)(s.Secrets(ctx, m.kv.Properties.VaultURI)); len(secrets) != 0 {
		t.Errorf("a wrong .BEK file left %d secrets", len(secrets))
	}
	s.mustRun(ctx, t, "BitLocker AES-XTS-128", append(set, right)...)
	secrets := must[[]client.Secret](t)(s.Secrets(ctx, m.kv.Properties.VaultURI))
	if len(secrets) != 1 || secrets[0].ContentType != "Wrapped BEK" || !strings.HasSuffix(secrets[0].Tags["DiskEncryptionKeyFileName"], ".BEK") {
		t.Fatalf("the key was kept as %+v", secrets)
	}
	name := secrets[0].ID[strings.Index(secrets[0].ID, "/secrets/")+len("/secrets/"):]
	if kept := must[secret.Bytes](t)(s.BEKValue(ctx, m.kv.Properties.VaultURI, name)); !bytes.Equal(kept.Reveal(), bek) {
		t.Error("what was kept is not the .BEK file")
	}
	s.mustRun(ctx, t, "vault1", "vault", "create", "vault1", "--redundancy", "local", "--location", location)
	s.mustRun(ctx, t, "win1", "item", "enable", "win1")
	s.mustRun(ctx, t, "Completed", "backup", "now", "win1")
	s.mustRun(ctx, t, "proved BitLocker AES-XTS-128 ntfs", "recovery-point", "show", "latest", "--item", "win1")
}
