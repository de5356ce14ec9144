package stage

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"crypto/rand"

	"kluis/internal/client"
	"kluis/internal/secret"
	"kluis/internal/volume/volumetest"
)

// Location is where everything on a stage is.
const Location = "westeurope"

const diskSize = 8 << 20 // before it is encrypted; a LUKS2 header takes 16 MiB more

// Keys are a key vault that lets Backup Management Service read, and a KEK in it.
type Keys struct {
	Vault client.KeyVault
	KEK   client.Key
}

// NewKeys makes a group and a key vault with a KEK in it.
func (s *Server) NewKeys(ctx context.Context, group, vault string) (k Keys, err error) {
	if _, err = s.PutGroup(ctx, group, Location); err != nil {
		return k, err
	}
	me, err := s.ObjectID(ctx)
	if err != nil {
		return k, err
	}
	k.Vault, err = s.PutKeyVault(ctx, s.KeyVaultID(group, vault), Location, client.KeyVaultProperties{EnabledForDiskEncryption: true,
		AccessPolicies: []client.AccessPolicy{
			{TenantID: s.TenantID(), ObjectID: me, Permissions: client.EveryPermission()},
			{TenantID: s.TenantID(), ObjectID: client.BackupManagementService, Permissions: client.AzureBackupTemplate()}}})
	if err != nil {
		return k, err
	}
	k.KEK, err = s.CreateKey(ctx, k.Vault.Properties.VaultURI, "kek", 2048)
	return k, err
}

// NewMachine makes an encrypted VM: an OS disk, raw, and a data disk in each of the formats. A BEK of each disk is in
// the key vault, wrapped by its KEK.
func (s *Server) NewMachine(ctx context.Context, group, name string, k Keys, formats ...string) error {
	var disks []client.Disk
	for lun, format := range append([]string{"raw"}, formats...) {
		d, err := s.newDisk(ctx, group, fmt.Sprintf("%s-%d", name, lun), format, k)
		if err != nil {
			return fmt.Errorf("make disk %d of %s: %w", lun, name, err)
		}
		disks = append(disks, d)
	}
	_, err := s.PutVM(ctx, s.VMID(group, name), client.VMOf(Location, "Linux", disks[0], disks[1:]...))
	return err
}

func (s *Server) newDisk(ctx context.Context, group, name, format string, k Keys) (client.Disk, error) {
	random := make([]byte, 16)
	_, _ = rand.Read(random)
	passphrase := hex.EncodeToString(random)
	file := filepath.Join(s.Images, group+"-"+name+"."+format)
	if err := newVolume(ctx, file, format, passphrase, name); err != nil {
		return client.Disk{}, err
	}
	bek, err := s.SetBEK(ctx, k.Vault.Properties.VaultURI, client.BEK{Name: name, Key: secret.New([]byte(passphrase)), KEK: k.KEK.ID(), Machine: name})
	if err != nil {
		return client.Disk{}, err
	}
	return s.ImportDisk(ctx, s.DiskID(group, name), Location, file, "Linux", client.Encryption(k.Vault.ARMID(), bek.ID, k.KEK.ID()))
}

// newVolume makes an image of a LUKS volume with a file system in it.
func newVolume(ctx context.Context, file, format, passphrase, content string) error {
	dir, err := os.MkdirTemp("", "kluis-volume-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	root, plain, raw := filepath.Join(dir, "root"), filepath.Join(dir, "plain"), filepath.Join(dir, "raw")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "content"), []byte(content), 0o644); err != nil {
		return err
	}
	if err := volumetest.MakeFileSystem(ctx, plain, diskSize, root); err != nil {
		return err
	}
	if err := volumetest.Encrypt(ctx, plain, raw, []byte(passphrase), volumetest.Options{Version: 2}); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", format, raw, file).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img: %w\n%s", err, out)
	}
	return nil
}
