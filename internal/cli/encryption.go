package cli

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
	"kluis/internal/secret"
)

func vmEncryption() *cobra.Command {
	cmd := &cobra.Command{Use: "encryption", Short: "The keys of a VM's disks", Long: "The keys of a VM's disks.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a command: %s", cmd.CommandPath(), strings.Join(names(cmd), ", "))
		}}
	cmd.AddCommand(encryptionSet(), encryptionEnable())
	return cmd
}

func encryptionSet() *cobra.Command {
	cmd := verb("set VM", "Take the key of a disk that is encrypted already into a key vault", `
kluis vm encryption set web-1 -g prod --passphrase-file passphrase --key-vault prod-keys --kek prod-kek
kluis vm encryption set db-1 -g prod --disk db-1-data-0 --bek-file 5F1E….BEK --key-vault prod-keys --kek prod-kek`,
		cobra.ExactArgs(1), runEncryptionSet)
	cmd.Long = `Take the key of a disk that is encrypted already into a key vault.

The key is tried on the disk first: one that does not open it is refused, and nothing is stored. Then it is
wrapped by the KEK and kept as a secret, as Azure Disk Encryption would have done, and the encryption
settings of the disk (and of the VM, for its OS disk) name the two. From then on backups hold the key, and
every recovery point is proved to open.`
	f := cmd.Flags()
	f.String("passphrase-file", "", "file with the passphrase (Linux), with or without a line end; - is standard input")
	f.String("bek-file", "", "the .BEK file (Windows), taken as it is")
	f.String("key-vault", "", "key vault for the secret, name or id; not needed if there is only one")
	f.String("kek", "", "KEK that wraps the key: the name of a key in the same key vault")
	f.String("disk", "", "name of the disk (default: the OS disk)")
	return require(cmd, "kek")
}

func runEncryptionSet(c *call) error {
	passphraseFile, bekFile := c.flag("passphrase-file"), c.flag("bek-file")
	if (passphraseFile == "") == (bekFile == "") {
		return usagef("say either --passphrase-file or --bek-file")
	}
	vm, err := c.id(c.args[0], vmType)
	if err != nil {
		return err
	}
	data, err := readFile(c.cmd, passphraseFile+bekFile)
	if err != nil {
		return err
	}
	key := secret.New(data)
	defer key.Wipe()
	keyVault, err := c.keyVault(c.flag("key-vault"))
	if err != nil {
		return err
	}
	kek, err := c.Key(c.ctx(), keyVault.Properties.VaultURI, c.flag("kek"))
	if err != nil {
		return err
	}
	disk, err := c.diskOf(vm, c.flag("disk"))
	if err != nil {
		return err
	}
	opened, key, err := c.tryKey(vm, disk, key, passphraseFile != "")
	if err != nil {
		return err
	}
	name := strings.ToUpper(uuid.NewString())
	b := client.BEK{Name: name, Key: key, KEK: kek.ID(), Machine: vm.Name()}
	if bekFile != "" {
		b.FileName = name + ".BEK"
	}
	s, err := c.SetBEK(c.ctx(), keyVault.Properties.VaultURI, b)
	if err != nil {
		return err
	}
	if err := c.SetEncryption(c.ctx(), vm, disk, client.Encryption(keyVault.ARMID(), s.ID, kek.ID())); err != nil {
		return err
	}
	return details(c, keptKey{opened, s.ID, kek.ID()}, itself, []column[keptKey]{
		{"Disk", func(k keptKey) string { return k.Disk }},
		{"Encryption", func(k keptKey) string { return k.Encryption }},
		{"Holds", func(k keptKey) string { return k.FileSystem }},
		{"Secret", func(k keptKey) string { return k.SecretURL }},
		{"Wrapped by", func(k keptKey) string { return k.KeyURL }},
	})
}

// keptKey is a key that is now in a key vault, and the disk that it opens.
type keptKey struct {
	client.OpenedDisk
	SecretURL string `json:"secretUrl"`
	KeyURL    string `json:"keyUrl"`
}

func encryptionEnable() *cobra.Command {
	cmd := verb("enable VM", "Make the key of a new VM's disk", `
kluis vm encryption enable web-1 -g lab --key-vault prod-keys
kluis vm encryption enable db-1 -g lab --disk db-1-vdb --key-vault prod-keys --kek prod-kek`,
		cobra.ExactArgs(1), runEncryptionEnable)
	cmd.Long = `Make the key of a disk that its guest is to encrypt.

A passphrase is drawn, wrapped by the KEK (which is made if there is none of that name), and kept as a
secret, and the encryption settings of the disk (and of the VM, for its OS disk) name the two. When the VM
starts it finds the passphrase on a volume labelled BEK VOLUME, in the file LinuxPassPhraseFileName, for
cryptsetup luksFormat --key-file; nobody has to see it. A disk that is encrypted already keeps its key with
kluis vm encryption set.`
	f := cmd.Flags()
	f.String("key-vault", "", "key vault for key and secret, name or id; not needed if there is only one")
	f.String("kek", "kek", "KEK that wraps the key: the name of a key in the key vault")
	f.String("disk", "", "name of the disk (default: the OS disk)")
	return cmd
}

// passphraseBytes is how much chance is in a passphrase.
const passphraseBytes = 32

func runEncryptionEnable(c *call) error {
	vm, err := c.id(c.args[0], vmType)
	if err != nil {
		return err
	}
	disk, err := c.diskOf(vm, c.flag("disk"))
	if err != nil {
		return err
	}
	is, err := c.Disk(c.ctx(), disk)
	if err != nil {
		return err
	}
	if e := is.Properties.EncryptionSettingsCollection; e != nil && e.Enabled {
		return usagef("the disk %s has a key already: %s", disk.Name(), e.EncryptionSettings[0].DiskEncryptionKey.SecretURL)
	}
	keyVault, err := c.keyVault(c.flag("key-vault"))
	if err != nil {
		return err
	}
	if !keyVault.Properties.EnabledForDiskEncryption {
		return usagef("the key vault %s is not enabled for disk encryption, and would give no key to a VM that starts", keyVault.Name)
	}
	kek, err := c.Key(c.ctx(), keyVault.Properties.VaultURI, c.flag("kek"))
	if client.IsNotFound(err) {
		kek, err = c.CreateKey(c.ctx(), keyVault.Properties.VaultURI, c.flag("kek"), kekBits)
	}
	if err != nil {
		return err
	}
	drawn := make([]byte, passphraseBytes)
	_, _ = rand.Read(drawn) // it never fails
	key := secret.New([]byte(base64.StdEncoding.EncodeToString(drawn)))
	defer key.Wipe()
	clear(drawn)
	s, err := c.SetBEK(c.ctx(), keyVault.Properties.VaultURI, client.BEK{Name: strings.ToUpper(uuid.NewString()), Key: key, KEK: kek.ID(), Machine: vm.Name()})
	if err != nil {
		return err
	}
	if err := c.SetEncryption(c.ctx(), vm, disk, client.Encryption(keyVault.ARMID(), s.ID, kek.ID())); err != nil {
		return err
	}
	made := madeKey{disk.Name(), s.ID, kek.ID()}
	return details(c, made, itself, []column[madeKey]{
		{"Disk", func(k madeKey) string { return k.Disk }},
		{"Secret", func(k madeKey) string { return k.SecretURL }},
		{"Wrapped by", func(k madeKey) string { return k.KeyURL }},
	})
}

// kekBits is the size of a KEK.
const kekBits = 3072

// madeKey is a key that was made, and the disk that it is for.
type madeKey struct {
	Disk      string `json:"disk"`
	SecretURL string `json:"secretUrl"`
	KeyURL    string `json:"keyUrl"`
}

// diskOf is the id of a VM's disk; without a name, of its OS disk.
func (c *call) diskOf(vm armid.ID, name string) (armid.ID, error) {
	v, err := c.VM(c.ctx(), vm)
	if err != nil {
		return armid.ID{}, err
	}
	profile := v.Properties.StorageProfile
	refs := []*client.Ref{profile.OSDisk.ManagedDisk}
	for _, d := range profile.DataDisks {
		refs = append(refs, d.ManagedDisk)
	}
	var there []string
	for _, ref := range refs {
		if ref == nil {
			continue
		}
		id, err := armid.Parse(ref.ID)
		if err != nil {
			return armid.ID{}, err
		}
		if name == "" || strings.EqualFold(id.Name(), name) {
			return id, nil
		}
		there = append(there, id.Name())
	}
	return armid.ID{}, usagef("%s has no disk %q; it has: %s", vm.Name(), name, strings.Join(there, ", "))
}

// tryKey tries the key on the disk. A passphrase that does not fit is tried once more without the line end that
// editors and echo leave; what fits is returned.
func (c *call) tryKey(vm, disk armid.ID, key secret.Bytes, passphrase bool) (client.OpenedDisk, secret.Bytes, error) {
	opened, err := c.TryKey(c.ctx(), vm, disk.Name(), key)
	if trimmed := bytes.TrimRight(key.Reveal(), "\r\n"); err != nil && passphrase && 0 < len(trimmed) && len(trimmed) < key.Len() {
		if again, err := c.TryKey(c.ctx(), vm, disk.Name(), secret.New(trimmed)); err == nil {
			return again, secret.New(trimmed), nil
		}
	}
	return opened, key, err
}
