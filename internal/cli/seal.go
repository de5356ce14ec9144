package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var sealColumns = []column[client.Seal]{
	{"Root key", func(s client.Seal) string { return s.Root }},
	{"Under older root keys", func(s client.Seal) string { return strconv.Itoa(s.Pending) }},
}

func sealCommand() *cobra.Command {
	status := verb("status", "Show the root key's id, and how much is still under an older one", "kluis seal status", cobra.NoArgs, func(c *call) error {
		s, err := c.Seal(c.ctx())
		if err != nil {
			return err
		}
		return details(c, s, itself, sealColumns)
	})
	rotate := verb("rotate", "Make a new root key, and seal everything anew under it", "kluis seal rotate", cobra.NoArgs, func(c *call) error {
		s, err := c.RotateSeal(c.ctx())
		if err != nil {
			return err
		}
		return details(c, s, itself, sealColumns)
	})
	rotate.Long = `Make a new root key, and seal everything anew under it. The server goes on serving meanwhile and may be killed at
any moment: what is left is done after its next start. Older root keys stay, to open the backups of keys that lie
in recovery points.`
	return noun("seal", "The root key, under which keys and secrets are stored",
		"Everything secret is stored encrypted under a root key, and the root key is encrypted to the recipients of age identities.",
		status, rotate, sealRecipients())
}

func sealRecipients() *cobra.Command {
	show := func(c *call, s client.Seal, err error) error {
		if err != nil {
			return err
		}
		return table(c, s.Recipients, itself, []column[string]{{"Recipient", func(r string) string { return r }}})
	}
	list := verb("list", "List who opens the root key; the server itself comes first", "kluis seal recipients list", cobra.NoArgs, func(c *call) error {
		s, err := c.Seal(c.ctx())
		return show(c, s, err)
	})
	add := verb("add RECIPIENT", "Let one more age identity, or a key service outside, open the root key", `kluis seal recipients add age1…
kluis seal recipients add azure-key-vault:https://kv1.vault.azure.net/keys/unseal
kluis seal recipients add transit:https://bao.example.com:8200/v1/transit/keys/kluis`, cobra.ExactArgs(1), func(c *call) error {
		s, err := c.AddRecipient(c.ctx(), c.args[0])
		return show(c, s, err)
	})
	add.Long = `Let one more age identity, or a key service outside, open the root key.

A key service is an Azure key vault (or that of another Kluis), or the transit engine of OpenBao or HashiCorp Vault. The
file of 'kluis serve --key-services' names it. It wraps the server's identity; at a start without the identity
file, the server asks it to unwrap. When it is added, write a recovery kit; then seal/seal-identity.txt may be
taken away from the server, and whoever takes its disks opens nothing without the key service.`
	remove := verb("remove RECIPIENT", "Take a recipient away", "kluis seal recipients remove age1…", cobra.ExactArgs(1), func(c *call) error {
		s, err := c.RemoveRecipient(c.ctx(), c.args[0])
		return show(c, s, err)
	})
	remove.Long = `Take a recipient away. It still opens copies of root.age from before, so rotate the root key next. The last key service
stays as long as the server has no identity file to start with.`
	cmd := &cobra.Command{Use: "recipients", Short: "List, add and remove who opens the root key", Long: `The root key is encrypted to each recipient, so each opens it with an identity of his own: the server's, which it needs
to start, and others that are kept offline for the day when the server's is lost.`, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usagef("%s needs a command: list, add, remove", cmd.CommandPath())
	}}
	cmd.AddCommand(list, add, remove)
	return cmd
}
