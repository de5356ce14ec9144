package cli

import (
	"fmt"
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
	{"Soft delete", func(v client.RecoveryVault) string {
		if s := v.Properties.Security; s != nil && s.SoftDelete != nil && s.SoftDelete.State != "Disabled" {
			return fmt.Sprintf("%d days", s.SoftDelete.Days)
		}
		return ""
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
		redundancy, err := c.redundancy()
		if err != nil {
			return err
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
		locationFlag(create), vaultUpdate(),
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

// softDeleteStates are the values of --soft-delete, as Azure writes them.
var softDeleteStates = map[string]string{"enabled": "Enabled", "disabled": "Disabled", "always-on": "AlwaysON"}

func vaultUpdate() *cobra.Command {
	cmd := verb("update NAME", "Change the settings of a Recovery Services vault", "kluis vault update backups --soft-delete enabled --soft-delete-days 30",
		cobra.ExactArgs(1), func(c *call) error {
			redundancy, err := c.redundancy()
			if err != nil {
				return err
			}
			soft, err := c.softDelete()
			if err != nil {
				return err
			}
			v, err := c.vaultNamed(c.args[0])
			if err != nil {
				return err
			}
			if v, err = c.UpdateRecoveryVault(c.ctx(), v.ARMID(), redundancy, soft); err != nil {
				return err
			}
			return details(c, v, rawOf, vaultColumns)
		})
	cmd.Flags().String("redundancy", "", "how its storage is replicated: local, geo or zone; only while it protects nothing")
	cmd.Flags().String("soft-delete", "", "whether deleted recovery points can be undeleted: enabled, disabled, or always-on, which cannot be changed again")
	cmd.Flags().Int("soft-delete-days", 0, "for how many days: 14 to 180")
	return cmd
}

// redundancy is what --redundancy says in Azure's words; "" when it is not given.
func (c *call) redundancy() (string, error) {
	short := strings.ToLower(c.flag("redundancy"))
	redundancy, ok := redundancies[short]
	if !ok && short != "" {
		return "", usagef("--redundancy %s: it is local, geo or zone", short)
	}
	return redundancy, nil
}

// softDelete is what the flags say; nil when none is given.
func (c *call) softDelete() (*client.SoftDeleteSettings, error) {
	short := strings.ToLower(c.flag("soft-delete"))
	state, ok := softDeleteStates[short]
	if !ok && short != "" {
		return nil, usagef("--soft-delete %s: it is enabled, disabled or always-on", short)
	}
	days, err := c.cmd.Flags().GetInt("soft-delete-days")
	if err != nil || state == "" && days == 0 {
		return nil, err
	}
	return &client.SoftDeleteSettings{State: state, Days: days}, nil
}

func (c *call) vaultNamed(name string) (client.RecoveryVault, error) {
	all, err := c.RecoveryVaults(c.ctx(), c.scope())
	if err != nil {
		return client.RecoveryVault{}, err
	}
	return choose("Recovery Services vault", name, "resource-group", all)
}
