package cli

import (
	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var keyColumns = []column[client.Key]{
	{"Name", func(k client.Key) string { name, _ := nameAndVersion(k.ID()); return name }},
	{"Created", func(k client.Key) string { return unix(k.Attributes.Created) }},
	{"Id", func(k client.Key) string { return k.ID() }},
}

func keyCommand() *cobra.Command {
	create := verb("create NAME", "Create an RSA key, or a new version of it", "kluis key create prod-kek --keyvault prod-keys --size 3072", cobra.ExactArgs(1), func(c *call) error {
		bits, err := c.cmd.Flags().GetInt("size")
		if err != nil {
			return err
		}
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		k, err := c.CreateKey(c.ctx(), uri, c.args[0], bits)
		if err != nil {
			return err
		}
		return details(c, k, itself, keyColumns)
	})
	create.Flags().Int("size", 3072, "bits: 2048, 3072 or 4096")
	list := verb("list", "List the keys of a key vault", "kluis key list --keyvault prod-keys", cobra.NoArgs, func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		all, err := c.Keys(c.ctx(), uri)
		if err != nil {
			return err
		}
		return table(c, all, itself, keyColumns)
	})
	show := verb("show NAME", "Show the newest version of a key", "kluis key show prod-kek --keyvault prod-keys", cobra.ExactArgs(1), func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		k, err := c.Key(c.ctx(), uri, c.args[0])
		if err != nil {
			return err
		}
		return details(c, k, itself, keyColumns)
	})
	return withKeyVault(noun("key", "Keys of a key vault: KEKs that wrap BEKs",
		"A KEK is a key that wraps the secrets (BEKs) which open disks. Private keys never leave the server in plain.",
		append([]*cobra.Command{create, list, show}, contentVerbs(client.KindKey)...)...))
}
