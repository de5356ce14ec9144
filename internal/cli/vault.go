package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var vaultColumns = []column[client.RecoveryVault]{
	nameColumn[client.RecoveryVaultProperties](), groupColumn[client.RecoveryVaultProperties](), locationColumn[client.RecoveryVaultProperties](),
	{"Redundancy", func(v client.RecoveryVault) string {
		if v.Properties.Redundancy == nil {
			return ""
		}
		return v.Properties.Redundancy.StandardTierStorageRedundancy
	}},
	{"State", func(v client.RecoveryVault) string { return v.Properties.ProvisioningState }},
}

// redundancies are the values of --redundancy, short and as Azure writes them.
var redundancies = map[string]string{
	"local": "LocallyRedundant", "geo": "GeoRedundant", "zone": "ZoneRedundant",
	"locallyredundant": "LocallyRedundant", "georedundant": "GeoRedundant", "zoneredundant": "ZoneRedundant",
}

func vaultCommand() *cobra.Command {
	create := verb("create NAME", "Create a Recovery Services vault", "kluis vault create backups -g prod --redundancy local", cobra.ExactArgs(1), func(c *call) error {
		redundancy, ok := redundancies[strings.ToLower(c.flag("redundancy"))]
		if !ok {
			return usagef("--redundancy %s: it is local, geo or zone", c.flag("redundancy"))
		}
		id, err := c.id(c.args[0], "Microsoft.RecoveryServices/vaults")
		if err != nil {
			return err
		}
		v, err := c.PutRecoveryVault(c.ctx(), id, c.flag("location"), redundancy)
		if err != nil {
			return err
		}
		return details(c, v, rawOf, vaultColumns)
	})
	create.Flags().String("redundancy", "geo", "how its storage is replicated: local, geo or zone")
	return noun("vault", "Recovery Services vaults: policies, protected items and recovery points",
		"A Recovery Services vault owns backup policies, the items that they protect and their recovery points.",
		locationFlag(create),
		verb("list", "List the Recovery Services vaults", "kluis vault list", cobra.NoArgs, func(c *call) error {
			all, err := c.RecoveryVaults(c.ctx(), c.scope())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, vaultColumns)
		}),
		verb("show NAME", "Show a Recovery Services vault", "kluis vault show backups", cobra.ExactArgs(1), func(c *call) error {
			v, err := c.vaultNamed(c.args[0])
			if err != nil {
				return err
			}
			return details(c, v, rawOf, vaultColumns)
		}),
		verb("delete NAME", "Delete a Recovery Services vault that protects nothing any more", "kluis vault delete backups", cobra.ExactArgs(1), func(c *call) error {
			v, err := c.vaultNamed(c.args[0])
			if err != nil {
				return err
			}
			if err := c.DeleteRecoveryVault(c.ctx(), v.ARMID()); err != nil {
				return err
			}
			c.done("Deleted Recovery Services vault %s.", v.Name)
			return nil
		}),
	)
}

func (c *call) vaultNamed(name string) (client.RecoveryVault, error) {
	all, err := c.RecoveryVaults(c.ctx(), c.scope())
	if err != nil {
		return client.RecoveryVault{}, err
	}
	return choose("Recovery Services vault", name, "resource-group", all)
}
