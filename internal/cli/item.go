package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var itemColumns = []column[client.Item]{
	{"Name", func(i client.Item) string { return i.Properties.FriendlyName }},
	{"State", func(i client.Item) string {
		if i.Properties.DeferredDelete {
			return "Deleted (erased in " + i.Properties.EraseIn[:strings.IndexByte(i.Properties.EraseIn+".", '.')] + " days)"
		}
		return i.Properties.ProtectionState
	}},
	{"Policy", func(i client.Item) string { return i.Properties.PolicyName }},
	{"Last backup", func(i client.Item) string { return i.Properties.LastBackupStatus }},
	{"At", func(i client.Item) string {
		if i.Properties.LastBackupStatus == "" {
			return "" // Azure writes a date long past for "never"
		}
		return i.Properties.LastBackupTime
	}},
	{"VM", func(i client.Item) string { return i.Properties.SourceResourceID }},
}

var itemDetails = append(itemColumns[:len(itemColumns):len(itemColumns)],
	column[client.Item]{"Problem", func(i client.Item) string {
		return lines(i.Properties.HealthDetails, func(h client.HealthDetail) string {
			return strings.Join(append([]string{h.Title + ": " + h.Message}, h.Recommendations...), "\n\t")
		})
	}},
	column[client.Item]{"Drift", func(i client.Item) string {
		return lines(i.Properties.Drift, func(d client.Drift) string {
			return fmt.Sprintf("%s: %s by its settings, %s by its bytes (%s)\n\t%s", d.Disk, d.Settings, d.Bytes, d.Found, d.Advice)
		})
	}},
)

func protectableItemCommand() *cobra.Command {
	return withVault(noun("protectable-item", "VMs that could be protected", "VMs that no vault protects yet.",
		verb("list", "List the VMs that could be protected", "kluis protectable-item list", cobra.NoArgs, func(c *call) error {
			vault, err := c.vaultID()
			if err != nil {
				return err
			}
			all, err := c.ProtectableItems(c.ctx(), vault)
			if err != nil {
				return err
			}
			return table(c, all, rawOf, []column[client.ProtectableItem]{
				{"Name", func(i client.ProtectableItem) string { return i.Properties.FriendlyName }},
				{"Group", func(i client.ProtectableItem) string { return i.Properties.ResourceGroup }},
				{"VM", func(i client.ProtectableItem) string { return i.Properties.VirtualMachineID }},
			})
		}),
	))
}

func itemCommand() *cobra.Command {
	list := verb("list", "List what a vault protects", "kluis item list", cobra.NoArgs, func(c *call) error {
		vault, err := c.vaultID()
		if err != nil {
			return err
		}
		all, err := c.Items(c.ctx(), vault)
		if err != nil {
			return err
		}
		return table(c, all, rawOf, itemColumns)
	})
	show := verb("show ITEM", "Show a protected item", "kluis item show web-1", cobra.ExactArgs(1), func(c *call) error {
		i, err := c.item(c.args[0])
		if err != nil {
			return err
		}
		if i, err = c.Item(c.ctx(), i.ARMID()); err != nil {
			return err
		}
		return details(c, i, rawOf, itemDetails)
	})
	return withVault(noun("item", "Protected items: VMs and the policy that protects them",
		`A protected item is a VM and the policy that protects it. It is named like its VM.

A VM can be protected if it was deployed through Resource Manager and, when it is encrypted, has both BEK
and KEK in a key vault that the Backup Management Service may read (kluis keyvault grant-backup).`,
		itemEnable(), list, show, itemDisks(), itemDisable(),
		verb("delete ITEM", "End the protection of a VM and delete its recovery points", "kluis item delete web-1", cobra.ExactArgs(1), func(c *call) error {
			i, err := c.item(c.args[0])
			if err != nil {
				return err
			}
			if err := c.DeleteItem(c.ctx(), i.ARMID()); err != nil {
				return err
			}
			if left, err := c.Item(c.ctx(), i.ARMID()); err == nil && left.Properties.DeferredDelete {
				c.done("Deleted protected item %s. It can be undeleted until it is erased.", i.Properties.FriendlyName)
				return nil
			}
			c.done("Deleted protected item %s.", i.Properties.FriendlyName)
			return nil
		}),
		changeItem("undelete ITEM", "Take back the deletion of a VM's recovery points", "kluis item undelete web-1", func(c *call, i client.Item) (client.Item, error) {
			return c.Undelete(c.ctx(), i)
		}),
		policyFlag(changeItem("set-policy ITEM", "Give a protected VM another policy", "kluis item set-policy web-1 --policy monthly", underPolicy)),
		policyFlag(changeItem("resume ITEM", "Resume the backups of a VM whose protection was stopped", "kluis item resume web-1 --policy nightly", underPolicy)),
	))
}

func itemEnable() *cobra.Command {
	cmd := verb("enable VM", "Protect a VM by a policy", "kluis item enable web-1 -g prod --policy DefaultPolicy", cobra.ExactArgs(1), func(c *call) error {
		vm, err := c.id(c.args[0], vmType)
		if err != nil {
			return err
		}
		vault, err := c.vaultID()
		if err != nil {
			return err
		}
		disks, err := c.disks()
		if err != nil {
			return err
		}
		i, err := c.EnableProtectionOf(c.ctx(), vault, vm, c.flag("policy"), disks)
		if err != nil {
			return err
		}
		return details(c, i, rawOf, itemColumns)
	})
	return diskFlags(policyFlag(cmd))
}

func itemDisks() *cobra.Command {
	return diskFlags(changeItem("select-disks ITEM", "Choose the data disks of a VM that are backed up",
		"kluis item select-disks web-1 --exclude-luns 1,2\nkluis item select-disks web-1", func(c *call, i client.Item) (client.Item, error) {
			disks, err := c.disks()
			if err != nil {
				return i, err
			}
			if disks == nil {
				disks = &client.ItemDisks{} // all
			}
			return c.SelectDisks(c.ctx(), i, *disks)
		}))
}

func diskFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().IntSlice("exclude-luns", nil, "data disks that are left out of backups, by LUN (default: none)")
	cmd.Flags().IntSlice("include-luns", nil, "the only data disks that are backed up beside the OS disk; -1 for none of them")
	cmd.MarkFlagsMutuallyExclusive("exclude-luns", "include-luns")
	return cmd
}

// disks is what the flags select; nil when they say nothing.
func (c *call) disks() (*client.ItemDisks, error) {
	exclude, err := c.cmd.Flags().GetIntSlice("exclude-luns")
	if err != nil {
		return nil, err
	}
	include, err := c.cmd.Flags().GetIntSlice("include-luns")
	if err != nil {
		return nil, err
	}
	switch {
	case c.cmd.Flags().Changed("exclude-luns"):
		return &client.ItemDisks{Exclusion: &client.DiskExclusion{Luns: exclude}}, nil
	case c.cmd.Flags().Changed("include-luns"):
		include = slices.DeleteFunc(include, func(lun int) bool { return lun < 0 })
		return &client.ItemDisks{Exclusion: &client.DiskExclusion{Luns: include, Inclusion: true}}, nil
	}
	return nil, nil
}

func policyFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("policy", "DefaultPolicy", "backup policy of the vault")
	return cmd
}

func underPolicy(c *call, i client.Item) (client.Item, error) {
	return c.SetPolicy(c.ctx(), i, c.flag("policy"))
}

func itemDisable() *cobra.Command {
	return changeItem("disable ITEM", "Stop the backups of a VM and keep its recovery points", "kluis item disable web-1", func(c *call, i client.Item) (client.Item, error) {
		return c.StopProtection(c.ctx(), i)
	})
}

// changeItem is a command that does one thing with an item and shows what has become of it.
func changeItem(use, short, example string, change func(*call, client.Item) (client.Item, error)) *cobra.Command {
	return verb(use, short, example, cobra.ExactArgs(1), func(c *call) error {
		i, err := c.item(c.args[0])
		if err != nil {
			return err
		}
		if i, err = change(c, i); err != nil {
			return err
		}
		return details(c, i, rawOf, itemColumns)
	})
}

func backupCommand() *cobra.Command {
	cmd := verb("now ITEM", "Back up a VM now and wait for the job", "kluis backup now web-1\nkluis backup now web-1 --no-wait --output json", cobra.ExactArgs(1), func(c *call) error {
		i, err := c.item(c.args[0])
		if err != nil {
			return err
		}
		job, err := c.Backup(c.ctx(), i.ARMID(), c.flag("keep-until"))
		if err != nil {
			return err
		}
		return c.followUnless(client.VaultOf(i.ARMID()), job)
	})
	cmd.Flags().String("keep-until", "", "when the recovery point expires, such as 2027-01-31T00:00:00Z (default: in 30 days)")
	noWait(cmd)
	return withVault(noun("backup", "Back up a VM now", "Backups run by the item's policy; 'kluis backup now' runs one at once.", cmd))
}
