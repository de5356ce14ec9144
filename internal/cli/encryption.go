package cli

import (
	"bytes"
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
	cmd.AddCommand(encryptionSet())
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
