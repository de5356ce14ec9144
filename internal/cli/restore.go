package cli

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

func restoreCommand() *cobra.Command {
	return withVault(noun("restore", "Restore disks, keys and secrets of a recovery point",
		`Restore what a recovery point holds.

'restore disks' writes the disks to a resource group, and configuration and deployment template to a
storage account; 'kluis deployment create' makes a VM of them. If key and secret are gone, 'restore keys'
brings them back from the recovery point first; if the key vault itself is gone, create it again before.
'restore drill' boots a machine of a recovery point, apart from everything, and throws it away.`,
		restoreDisks(), restoreKeys(), restoreDrill()))
}

func pointFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("point", "p", "", "recovery point, or latest")
	return itemFlag(require(cmd, "point"))
}

// pointOfFlags is the recovery point that --item and --point name.
func (c *call) pointOfFlags() (client.Item, client.Point, error) {
	name := c.flag("point")
	i, err := c.itemOfFlag()
	if err != nil {
		return client.Item{}, client.Point{}, err
	}
	p, err := c.point(i, name)
	return i, p, err
}

func restoreDisks() *cobra.Command {
	cmd := verb("disks", "Restore the disks of a recovery point and wait for the job",
		"kluis restore disks --item web-1 --point latest --target-group restored --storage-account staging", cobra.NoArgs, func(c *call) error {
			target := c.flag("target-group")
			account := c.flag("storage-account")
			vault, err := c.recoveryVault()
			if err != nil {
				return err
			}
			i, p, err := c.pointOfFlags()
			if err != nil {
				return err
			}
			storage := c.StorageAccountID(vault.ARMID().ResourceGroup, account)
			if _, err := c.PutStorageAccount(c.ctx(), storage, vault.Location); err != nil {
				return err
			}
			r := client.RestoreRequest{TargetGroup: c.Subscription().Group(target), StorageAccount: storage, Region: vault.Location}
			if c.given("lun") {
				if r.DiskLUNs, err = c.cmd.Flags().GetIntSlice("lun"); err != nil {
					return err
				}
			}
			job, err := c.RestoreDisks(c.ctx(), i, p.Name, r)
			if err != nil {
				return err
			}
			return c.followUnless(vault.ARMID(), job)
		})
	f := cmd.Flags()
	f.String("target-group", "", "resource group of the restored disks; it must exist")
	f.String("storage-account", "", "storage account for configuration and template, in the vault's resource group; made if it is not there")
	f.IntSlice("lun", nil, "restore these data disks only, besides the OS disk")
	return noWait(pointFlags(require(cmd, "target-group", "storage-account")))
}

func restoreDrill() *cobra.Command {
	cmd := verb("drill", "Boot a machine of a recovery point and throw it away",
		"kluis restore drill --item web-1 --point latest --check 'systemctl is-active postgresql'\nkluis restore drill --item web-1 --point latest --port 22 --port-says SSH-", cobra.NoArgs, func(c *call) error {
			vault, err := c.recoveryVault()
			if err != nil {
				return err
			}
			i, p, err := c.pointOfFlags()
			if err != nil {
				return err
			}
			limit, err := c.cmd.Flags().GetDuration("limit")
			if err != nil {
				return err
			}
			port, err := c.cmd.Flags().GetInt("port")
			if err != nil {
				return err
			}
			r := client.DrillRequest{Host: c.flag("host"), Console: c.flag("console"), Port: port, PortText: c.flag("port-says"), Seconds: int(limit.Seconds())}
			if command := c.flag("check"); command != "" {
				r.Check = []string{"/bin/sh", "-c", command}
			}
			job, err := c.StartDrill(c.ctx(), i.ARMID(), p.Name, r)
			if err != nil {
				return err
			}
			return c.followUnless(vault.ARMID(), job)
		})
	cmd.Long = `Boot a machine of a recovery point on a libvirt host, from the recovery store itself and with the keys that are in the
point. When the guest's agent answers (or what is asked for instead: its console shows a text, a port answers), and the check
ends well, the drill has passed. The machine is thrown away; the verdict stays on the recovery point (kluis recovery-point show).

The machine has its network interfaces, each on a network that reaches nobody, neither the host nor anything behind it: DHCP
gives it an address there, and that is all. --port asks a TCP port at the address of the first one. It answers when the guest
takes a connection and holds it, whatever it expects then; with --port-says it must also say the text, as SSH, SMTP and
databases like MySQL do before the client says anything. --console and --port can be asked for together.`
	f := cmd.Flags()
	f.String("host", "", "libvirt host; the one that the VM was on, or the only one, if not given")
	f.String("console", "", "text that its serial console must show, instead of its agent's answer")
	f.Int("port", 0, "TCP port of the machine that must take a connection, instead of its agent's answer")
	f.String("port-says", "", "text that the port must say by itself")
	f.String("check", "", "command of the guest's shell that must end well; it takes the right to decrypt the point")
	f.Duration("limit", 10*time.Minute, "how long all of it may take")
	return noWait(pointFlags(cmd))
}

func restoreKeys() *cobra.Command {
	cmd := verb("keys", "Restore keys and secrets of a recovery point into a key vault",
		"kluis restore keys --item web-1 --point latest --keyvault prod-keys", cobra.NoArgs, func(c *call) error {
			_, p, err := c.pointOfFlags()
			if err != nil {
				return err
			}
			restored, err := c.restoreKeysOf(p)
			if len(restored) > 0 {
				if printed := table(c, restored, itself, restoredColumns); printed != nil {
					return printed
				}
			}
			return err
		})
	cmd.Long = `Restore keys and secrets of a recovery point into a key vault.

What came from a key vault outside the server goes back there: the server gives it back, with the
credentials that it has for that key vault. They need the permission restore for keys and secrets.`
	return withKeyVault(pointFlags(cmd))
}

// restoreKeysOf gives back what a recovery point holds, wherever it came from.
func (c *call) restoreKeysOf(p client.Point) (restored []client.Restored, err error) {
	some, all := p.Properties.KeysOutside()
	if some {
		if restored, err = c.RestoreKeysOutside(c.ctx(), p); err != nil || all {
			return restored, err
		}
	}
	v, err := c.keyVaultOf(p)
	if err != nil {
		return restored, err
	}
	own, err := c.RestoreKeys(c.ctx(), v.Properties.VaultURI, p)
	return append(restored, own...), err
}

// keyVaultOf is the key vault that --keyvault names, else the one that the recovery point's keys came from.
func (c *call) keyVaultOf(p client.Point) (client.KeyVault, error) {
	name := flagOr(c.cmd, "keyvault", "KLUIS_KEYVAULT")
	if name == "" && len(p.Properties.KeysAndSecrets) > 0 {
		for _, k := range slices.Backward(p.Properties.KeysAndSecrets) {
			if !k.Outside {
				name = k.SecretVaultID
			}
		}
	}
	return c.keyVault(name)
}

var restoredColumns = []column[client.Restored]{
	{"Name", func(r client.Restored) string { name, _ := nameAndVersion(r.URL); return name }},
	{"What", func(r client.Restored) string { return string(r.Kind[:len(r.Kind)-1]) }},
	{"Result", func(r client.Restored) string {
		if r.Existed {
			return "was there"
		}
		return "restored"
	}},
	{"Id", func(r client.Restored) string { return r.URL }},
}
