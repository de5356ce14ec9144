package cli

import (
	"github.com/spf13/cobra"

	"kluis/internal/client"
)

const defaultLocation = "local"

func locationFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("location", "l", defaultLocation, "location; VM, key vault and Recovery Services vault must share one")
	return cmd
}

func groupCommand() *cobra.Command {
	columns := []column[client.Group]{nameColumn[client.GroupProperties](), locationColumn[client.GroupProperties](), idColumn[client.GroupProperties]()}
	return noun("group", "Resource groups", "Resource groups hold everything else: VMs, disks, key vaults and Recovery Services vaults.",
		locationFlag(verb("create NAME", "Create a resource group", "kluis group create prod", cobra.ExactArgs(1), func(c *call) error {
			g, err := c.PutGroup(c.ctx(), c.args[0], c.flag("location"))
			if err != nil {
				return err
			}
			return details(c, g, rawOf, columns)
		})),
		verb("list", "List the resource groups", "kluis group list", cobra.NoArgs, func(c *call) error {
			all, err := c.Groups(c.ctx())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, columns)
		}),
		verb("show NAME", "Show a resource group", "kluis group show prod", cobra.ExactArgs(1), func(c *call) error {
			g, err := c.Group(c.ctx(), c.args[0])
			if err != nil {
				return err
			}
			return details(c, g, rawOf, columns)
		}),
		verb("delete NAME", "Delete a resource group", "kluis group delete prod", cobra.ExactArgs(1), func(c *call) error {
			if err := c.DeleteGroup(c.ctx(), c.args[0]); err != nil {
				return err
			}
			c.done("Deleted resource group %s.", c.args[0])
			return nil
		}),
	)
}
