package cli

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

var vmColumns = []column[client.VM]{
	nameColumn[client.VMProperties](), groupColumn[client.VMProperties](), locationColumn[client.VMProperties](),
	{"OS", func(v client.VM) string { return v.Properties.StorageProfile.OSDisk.OSType }},
	{"Disks", func(v client.VM) string { return strconv.Itoa(1 + len(v.Properties.StorageProfile.DataDisks)) }},
	{"State", func(v client.VM) string { return v.Properties.ProvisioningState }},
	idColumn[client.VMProperties](),
}

const vmType = "Microsoft.Compute/virtualMachines"

func vmCommand() *cobra.Command {
	return noun("vm", "Virtual machines",
		"A VM is a machine of a libvirt host that the server looks after, or image files under folders that it allows.", append(vmPower(),
			vmRegister(), vmCreate(), vmEncryption(),
			verb("list", "List the VMs", "kluis vm list", cobra.NoArgs, func(c *call) error {
				all, err := c.VMs(c.ctx(), c.scope())
				if err != nil {
					return err
				}
				return table(c, all, rawOf, vmColumns)
			}),
			verb("show NAME", "Show a VM", "kluis vm show web-1 -g prod", cobra.ExactArgs(1), func(c *call) error {
				id, err := c.id(c.args[0], vmType)
				if err != nil {
					return err
				}
				v, err := c.VM(c.ctx(), id)
				if err != nil {
					return err
				}
				return details(c, v, rawOf, vmColumns)
			}),
			verb("delete NAME", "Delete a VM; its disks stay", "kluis vm delete web-1 -g prod", cobra.ExactArgs(1), func(c *call) error {
				id, err := c.id(c.args[0], vmType)
				if err != nil {
					return err
				}
				if err := c.DeleteVM(c.ctx(), id); err != nil {
					return err
				}
				c.done("Deleted VM %s.", id.Name())
				return nil
			}),
		)...)
}

func vmCreate() *cobra.Command {
	cmd := verb("create NAME", "Make a VM of disks that exist", `
kluis vm create web-2 -g prod --attach-os-disk web-2-os --attach-data-disk web-2-data`, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], vmType)
		if err != nil {
			return err
		}
		var disks []client.Disk
		for _, name := range append([]string{c.flag("attach-os-disk")}, c.list("attach-data-disk")...) {
			disk, err := c.id(name, diskType)
			if err != nil {
				return err
			}
			d, err := c.Disk(c.ctx(), disk)
			if err != nil {
				return err
			}
			disks = append(disks, d)
		}
		osType := c.flag("os-type")
		if osType == "" {
			osType = disks[0].Properties.OSType
		}
		vm, err := c.PutVM(c.ctx(), id, client.VMOf(c.flag("location"), osType, disks[0], disks[1:]...))
		if err != nil {
			return err
		}
		return details(c, vm, rawOf, vmColumns)
	})
	f := cmd.Flags()
	f.String("attach-os-disk", "", "disk that the VM boots from, name or id")
	f.StringArray("attach-data-disk", nil, "another disk, name or id; may be given several times, in the order of LUNs")
	f.String("os-type", "", "Linux or Windows (default: what the disk says)")
	return locationFlag(require(cmd, "attach-os-disk"))
}

func vmRegister() *cobra.Command {
	cmd := verb("register NAME", "Take in image files as the disks of a VM", `
kluis vm register web-1 -g prod --os-disk /images/web-1.qcow2
# two encrypted disks: one secret for each, OS disk first, and one key and key vault for both
kluis vm register db-1 -g prod --os-disk /images/db-os.raw --data-disk /images/db-data.qcow2 \
  --key-vault prod-keys --encryption-key https://prod-keys.vault.localhost:8443/keys/kek/4fd2… \
  --encryption-secret https://prod-keys.vault.localhost:8443/secrets/OS-BEK/91ab… \
  --encryption-secret https://prod-keys.vault.localhost:8443/secrets/DATA-BEK/c07e…`, cobra.ExactArgs(1), runRegister)
	cmd.Long = `Take in image files as the disks of a VM.

Each file becomes a disk resource and the VM is made of them. The files stay where they are, under a
folder that the server allows. Encryption is given a disk, OS disk first: one --encryption-secret for
each disk ("" for a disk that is not encrypted); --encryption-key and --key-vault once for all, or once
for each.

Keys and secrets may lie in a key vault outside the server, if it is told so (kluis serve --key-services):
--key-vault is then the key vault's id, /subscriptions/…/vaults/NAME.`
	f := cmd.Flags()
	f.String("os-disk", "", "image file of the OS disk")
	f.StringArray("data-disk", nil, "image file of a data disk; may be given several times, in the order of LUNs")
	f.String("os-type", "Linux", "Linux or Windows")
	f.StringArray("encryption-secret", nil, "URL of the secret (BEK) of a disk")
	f.StringArray("encryption-key", nil, "URL of the key (KEK) that wraps the secret")
	f.StringArray("key-vault", nil, "key vault of secret and key, name or id")
	return locationFlag(require(cmd, "os-disk"))
}

func runRegister(c *call) error {
	osFile := c.flag("os-disk")
	id, err := c.id(c.args[0], vmType)
	if err != nil {
		return err
	}
	files := append([]string{osFile}, c.list("data-disk")...)
	encryption, err := c.encryptionOf(len(files))
	if err != nil {
		return err
	}
	var disks []client.Disk
	for i, file := range files {
		if file, err = filepath.Abs(file); err != nil {
			return UsageError(err)
		}
		name, osType := fmt.Sprintf("%s-data-%d", id.Name(), i-1), ""
		if i == 0 {
			name, osType = id.Name()+"-os", c.flag("os-type")
		}
		d, err := c.ImportDisk(c.ctx(), c.DiskID(id.ResourceGroup, name), c.flag("location"), file, osType, encryption[i])
		if err != nil {
			return err
		}
		disks = append(disks, d)
	}
	vm, err := c.PutVM(c.ctx(), id, client.VMOf(c.flag("location"), c.flag("os-type"), disks[0], disks[1:]...))
	if err != nil {
		return err
	}
	return details(c, vm, rawOf, vmColumns)
}

// encryptionOf reads the encryption settings of n disks from the flags; nil for a disk in plain.
func (c *call) encryptionOf(n int) ([]*client.EncryptionSettingsCollection, error) {
	settings := make([]*client.EncryptionSettingsCollection, n)
	secrets := c.list("encryption-secret")
	if len(secrets) == 0 {
		if len(c.list("encryption-key"))+len(c.list("key-vault")) > 0 {
			return nil, usagef("--encryption-key and --key-vault need --encryption-secret")
		}
		return settings, nil
	}
	if len(secrets) != n {
		return nil, usagef("%d disks and %d --encryption-secret: give one for each disk, \"\" for one that is not encrypted", n, len(secrets))
	}
	keys, err := spread("encryption-key", c.list("encryption-key"), n)
	if err != nil {
		return nil, err
	}
	vaults, err := spread("key-vault", c.list("key-vault"), n)
	if err != nil {
		return nil, err
	}
	for i, url := range secrets {
		if url == "" {
			continue
		}
		if !strings.HasPrefix(url, "https://") {
			return nil, usagef("--encryption-secret %s: it is a secret's URL", url)
		}
		vault, err := c.keyVaultOfDisk(vaults[i])
		if err != nil {
			return nil, err
		}
		settings[i] = client.Encryption(vault, url, keys[i])
	}
	return settings, nil
}

// keyVaultOfDisk is the key vault that --key-vault names. An id that names none of the server's is taken as it is: that of a
// key vault outside, which the server knows by its URLs.
func (c *call) keyVaultOfDisk(name string) (armid.ID, error) {
	if id, err := armid.Parse(name); err == nil && id.Is("Microsoft.KeyVault/vaults") {
		return id, nil
	}
	vault, err := c.keyVault(name)
	if err != nil {
		return armid.ID{}, err
	}
	return vault.ARMID(), nil
}

// spread gives each of n disks its value: none, one for all, or one for each.
func spread(flag string, values []string, n int) ([]string, error) {
	all := make([]string, n)
	switch len(values) {
	case 0:
	case n:
		copy(all, values)
	case 1:
		for i := range all {
			all[i] = values[0]
		}
	default:
		return nil, usagef("%d disks and %d --%s: give it once, or once for each disk", n, len(values), flag)
	}
	return all, nil
}
