package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

type keyVaultColumn = column[client.KeyVault]

var keyVaultColumns = []keyVaultColumn{
	nameColumn[client.KeyVaultProperties](), groupColumn[client.KeyVaultProperties](), locationColumn[client.KeyVaultProperties](),
	{"Uri", func(v client.KeyVault) string { return v.Properties.VaultURI }},
	{"Backup access", func(v client.KeyVault) string {
		if v.Properties.EnableRBACAuthorization {
			return "by roles"
		}
		for _, p := range v.Properties.AccessPolicies {
			if strings.EqualFold(p.ObjectID, client.BackupManagementService) {
				return "keys " + strings.Join(p.Permissions.Keys, ",") + "; secrets " + strings.Join(p.Permissions.Secrets, ",")
			}
		}
		return "none"
	}},
}

func keyVaultCommand() *cobra.Command {
	return noun("keyvault", "Key vaults: where BEKs and KEKs are",
		`A key vault holds the secrets (BEKs) that open disks and the keys (KEKs) that wrap them.

Backups read them as the principal Backup Management Service, which has no access until it is given:
'kluis keyvault grant-backup' adds an access policy with Azure's template 'Azure Backup', which is
read-only: get, list and backup. Where a key vault leaves access to roles (create --rbac), it gives the role
Key Vault Backup Service, which allows the same.`,
		keyVaultCreate(), keyVaultList(), keyVaultShow(), keyVaultDelete(), keyVaultPurge(), keyVaultRecover(), keyVaultGrantBackup(), keyVaultSetPolicy())
}

func keyVaultCreate() *cobra.Command {
	cmd := verb("create NAME", "Create a key vault whose content you may use", "kluis keyvault create prod-keys -g prod", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], "Microsoft.KeyVault/vaults")
		if err != nil {
			return err
		}
		me, err := c.ObjectID(c.ctx())
		if err != nil {
			return err
		}
		days, err := c.cmd.Flags().GetInt("soft-delete-days")
		if err != nil {
			return err
		}
		p := client.KeyVaultProperties{EnabledForDiskEncryption: true, SoftDeleteRetentionInDays: days, EnableRBACAuthorization: c.is("rbac")}
		if !p.EnableRBACAuthorization {
			p.AccessPolicies = []client.AccessPolicy{{TenantID: c.TenantID(), ObjectID: me, Permissions: client.EveryPermission()}}
		}
		v, err := c.PutKeyVault(c.ctx(), id, c.flag("location"), p)
		if err != nil {
			return err
		}
		if p.EnableRBACAuthorization {
			return c.grantRole(v, me, client.KeyVaultAdministrator)
		}
		return details(c, v, rawOf, keyVaultColumns)
	})
	cmd.Flags().Bool("rbac", false, "leave access to keys and secrets to roles, not to access policies")
	cmd.Flags().Int("soft-delete-days", 90, "how long what was deleted can be recovered, 7 to 90")
	return locationFlag(cmd)
}

func keyVaultList() *cobra.Command {
	cmd := verb("list", "List the key vaults", "kluis keyvault list\nkluis keyvault list --deleted", cobra.NoArgs, func(c *call) error {
		if c.is("deleted") {
			all, err := c.DeletedKeyVaults(c.ctx())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, []column[client.DeletedKeyVault]{
				nameColumn[client.DeletedKeyVaultProperties](),
				{"Location", func(v client.DeletedKeyVault) string { return v.Properties.Location }},
				{"Deleted", func(v client.DeletedKeyVault) string { return v.Properties.DeletionDate }},
				{"Purged at", func(v client.DeletedKeyVault) string { return v.Properties.ScheduledPurgeDate }},
			})
		}
		all, err := c.KeyVaults(c.ctx(), c.scope())
		if err != nil {
			return err
		}
		return table(c, all, rawOf, keyVaultColumns)
	})
	cmd.Flags().Bool("deleted", false, "list the key vaults in soft delete")
	return cmd
}

func keyVaultShow() *cobra.Command {
	return verb("show NAME", "Show a key vault", "kluis keyvault show prod-keys", cobra.ExactArgs(1), func(c *call) error {
		v, err := c.keyVault(c.args[0])
		if err != nil {
			return err
		}
		return details(c, v, rawOf, keyVaultColumns)
	})
}

func keyVaultDelete() *cobra.Command {
	return verb("delete NAME", "Put a key vault into soft delete", "kluis keyvault delete prod-keys", cobra.ExactArgs(1), func(c *call) error {
		v, err := c.keyVault(c.args[0])
		if err != nil {
			return err
		}
		if err := c.DeleteKeyVault(c.ctx(), v.ARMID()); err != nil {
			return err
		}
		c.done("Deleted key vault %s; it can be recovered until it is purged.", v.Name)
		return nil
	})
}

// deletedKeyVault finds a key vault in soft delete by its name.
func (c *call) deletedKeyVault(name string) (client.DeletedKeyVault, error) {
	all, err := c.DeletedKeyVaults(c.ctx())
	if err != nil {
		return client.DeletedKeyVault{}, err
	}
	return choose("deleted key vault", name, "name", all)
}

func keyVaultPurge() *cobra.Command {
	return verb("purge NAME", "Destroy a deleted key vault with all that is in it", "kluis keyvault purge prod-keys", cobra.ExactArgs(1), func(c *call) error {
		v, err := c.deletedKeyVault(c.args[0])
		if err != nil {
			return err
		}
		if err := c.PurgeKeyVault(c.ctx(), v.Properties.Location, v.Name); err != nil {
			return err
		}
		c.done("Purged key vault %s.", v.Name)
		return nil
	})
}

func keyVaultRecover() *cobra.Command {
	return verb("recover NAME", "Bring a deleted key vault back", "kluis keyvault recover prod-keys", cobra.ExactArgs(1), func(c *call) error {
		deleted, err := c.deletedKeyVault(c.args[0])
		if err != nil {
			return err
		}
		id, err := c.id(deleted.Properties.VaultID, "")
		if err != nil {
			return err
		}
		v, err := c.PutKeyVault(c.ctx(), id, deleted.Properties.Location, client.KeyVaultProperties{CreateMode: "recover"})
		if err != nil {
			return err
		}
		return details(c, v, rawOf, keyVaultColumns)
	})
}

func keyVaultGrantBackup() *cobra.Command {
	return verb("grant-backup NAME", "Let the Backup Management Service read a key vault", "kluis keyvault grant-backup prod-keys", cobra.ExactArgs(1), func(c *call) error {
		v, err := c.keyVault(c.args[0])
		if err != nil {
			return err
		}
		if v.Properties.EnableRBACAuthorization {
			return c.grantRole(v, client.BackupManagementService, client.KeyVaultBackupService)
		}
		return c.grant(v, client.BackupManagementService, client.AzureBackupTemplate())
	})
}

func keyVaultSetPolicy() *cobra.Command {
	cmd := verb("set-policy NAME", "Add permissions for a principal",
		"kluis keyvault set-policy prod-keys --object-id 5f1e… --secret-permissions get,list", cobra.ExactArgs(1), func(c *call) error {
			principal := c.flag("object-id")
			v, err := c.keyVault(c.args[0])
			if err != nil {
				return err
			}
			return c.grant(v, principal, client.Permissions{Keys: words(c.flag("key-permissions")), Secrets: words(c.flag("secret-permissions"))})
		})
	cmd.Flags().String("object-id", "", "object id of the principal")
	cmd.Flags().String("key-permissions", "", "verbs such as get,list,backup")
	cmd.Flags().String("secret-permissions", "", "verbs such as get,list,backup")
	return require(cmd, "object-id")
}

// grant adds permissions and shows the key vault as it is then.
func (c *call) grant(v client.KeyVault, principal string, p client.Permissions) error {
	if err := c.AddAccessPolicy(c.ctx(), v.ARMID(), principal, p); err != nil {
		return err
	}
	v, err := c.KeyVault(c.ctx(), v.ARMID())
	if err != nil {
		return err
	}
	return details(c, v, rawOf, keyVaultColumns)
}

// grantRole gives a role at the key vault, and shows it.
func (c *call) grantRole(v client.KeyVault, principal, name string) error {
	role, err := c.Role(c.ctx(), name)
	if err != nil {
		return err
	}
	if _, err := c.AssignRole(c.ctx(), v.ARMID(), role, principal); err != nil {
		return err
	}
	return details(c, v, rawOf, keyVaultColumns)
}

// words splits a list at commas and spaces.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}
