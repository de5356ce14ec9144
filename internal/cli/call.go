package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

// call is one run of a command: its flags, its arguments and the server it speaks to.
type call struct {
	*client.Client
	cmd  *cobra.Command
	args []string
}

// noun makes a command that holds verbs. The flags that all verbs share stand here.
func noun(use, short, long string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usagef("%s needs a command: %s", cmd.CommandPath(), strings.Join(names(cmd), ", "))
	}}
	f := cmd.PersistentFlags()
	f.String("admin", "", "file that says where the server is and as whom to speak to it (KLUIS_ADMIN)")
	f.StringP("output", "o", formatTable, "table or json")
	f.StringP("resource-group", "g", "", "resource group (KLUIS_RESOURCE_GROUP)")
	cmd.AddCommand(verbs...)
	return cmd
}

func names(cmd *cobra.Command) (all []string) {
	for _, c := range cmd.Commands() {
		all = append(all, c.Name())
	}
	return all
}

// withVault adds the flag that names the Recovery Services vault to all verbs of a noun.
func withVault(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().StringP("vault", "v", "", "Recovery Services vault, name or id (KLUIS_VAULT); not needed if there is only one")
	return cmd
}

// withKeyVault does the same for the key vault.
func withKeyVault(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().StringP("keyvault", "k", "", "key vault, name or id (KLUIS_KEYVAULT); not needed if there is only one")
	return cmd
}

// verb makes a command that does something. Its example is written without the leading spaces.
func verb(use, short, example string, args cobra.PositionalArgs, run func(*call) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: short + ".", Args: args,
		Example: "  " + strings.ReplaceAll(strings.TrimSpace(example), "\n", "\n  "),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format := outputOf(cmd); format != formatTable && format != formatJSON {
				return usagef("--output %s: it is table or json", format)
			}
			admin, err := client.ReadAdmin(adminFile(cmd))
			if err != nil {
				return err
			}
			c, err := client.New(admin)
			if err != nil {
				return err
			}
			return run(&call{c, cmd, args})
		},
	}
}

// adminFile is where the server's address and the credentials are.
func adminFile(cmd *cobra.Command) string {
	if file := flagOr(cmd, "admin", "KLUIS_ADMIN"); file != "" {
		return file
	}
	return filepath.Join(DataFolder(), "admin.json")
}

// DataFolder is where the server of this machine keeps what it keeps, unless a flag says otherwise.
func DataFolder() string {
	if data := os.Getenv("KLUIS_DATA"); data != "" {
		return data
	}
	return "/var/lib/kluis"
}

// require says which flags a command can't do without.
func require(cmd *cobra.Command, flags ...string) *cobra.Command {
	for _, f := range flags {
		if err := cmd.MarkFlagRequired(f); err != nil {
			panic(err) // the flag is not declared: a mistake in this package
		}
	}
	return cmd
}

// flagOr is the value of a flag, else of a variable.
func flagOr(cmd *cobra.Command, flag, variable string) string {
	if f := cmd.Flag(flag); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	return os.Getenv(variable)
}

func (c *call) ctx() context.Context    { return c.cmd.Context() }
func (c *call) flag(name string) string { return c.cmd.Flag(name).Value.String() }
func (c *call) given(name string) bool  { return c.cmd.Flags().Changed(name) }
func (c *call) is(name string) bool     { return c.flag(name) == "true" }
func (c *call) list(name string) []string {
	values, err := c.cmd.Flags().GetStringArray(name)
	if err != nil {
		panic(err) // the flag is declared as another type: a mistake in this package
	}
	return values
}

// group is the resource group; it must be given.
func (c *call) group() (string, error) {
	if g := flagOr(c.cmd, "resource-group", "KLUIS_RESOURCE_GROUP"); g != "" {
		return g, nil
	}
	return "", usagef("--resource-group is required (or KLUIS_RESOURCE_GROUP)")
}

// scope is the resource group if one is given, else the subscription.
func (c *call) scope() armid.ID {
	if g := flagOr(c.cmd, "resource-group", "KLUIS_RESOURCE_GROUP"); g != "" {
		return c.Subscription().Group(g)
	}
	return c.Subscription()
}

// id reads the name or the id of a resource; a name is taken to be in the resource group.
func (c *call) id(name, typ string) (armid.ID, error) {
	if strings.HasPrefix(name, "/") {
		id, err := armid.Parse(name)
		if err != nil {
			return armid.ID{}, UsageError(err)
		}
		return id, nil
	}
	group, err := c.group()
	if err != nil {
		return armid.ID{}, err
	}
	return c.ResourceID(group, typ, name), nil
}

// choose finds the resource that a name or id means among all there are. An empty name means the only one.
func choose[P any](what, name, flag string, all []client.Resource[P]) (client.Resource[P], error) {
	var found []client.Resource[P]
	for _, r := range all {
		if name == "" || strings.EqualFold(r.Name, name) || strings.EqualFold(r.ID, name) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		var ids []string
		for _, r := range found {
			ids = append(ids, r.ID)
		}
		return client.Resource[P]{}, usagef("which %s? Say --%s with one of:\n  %s", what, flag, strings.Join(ids, "\n  "))
	case name == "":
		return client.Resource[P]{}, &client.Error{Code: "ResourceNotFound", Message: fmt.Sprintf("There is no %s.", what),
			Advice: fmt.Sprintf("Create one, or name it with --%s.", flag)}
	}
	return client.Resource[P]{}, &client.Error{Code: "ResourceNotFound", Target: name, Message: fmt.Sprintf("There is no %s %s.", what, name),
		Advice: "Check the name; the command 'list' shows what there is."}
}

// recoveryVault is the vault that --vault names, or the only one.
func (c *call) recoveryVault() (client.RecoveryVault, error) {
	all, err := c.RecoveryVaults(c.ctx(), c.Subscription())
	if err != nil {
		return client.RecoveryVault{}, err
	}
	return choose("Recovery Services vault", flagOr(c.cmd, "vault", "KLUIS_VAULT"), "vault", all)
}

// vaultID is the id of that vault.
func (c *call) vaultID() (armid.ID, error) {
	v, err := c.recoveryVault()
	return v.ARMID(), err
}

// keyVault is the key vault of a name or id, or the only one. Key vault names are unique.
func (c *call) keyVault(name string) (client.KeyVault, error) {
	all, err := c.KeyVaults(c.ctx(), c.Subscription())
	if err != nil {
		return client.KeyVault{}, err
	}
	return choose("key vault", name, "keyvault", all)
}

// keyVaultURI is where keys and secrets of the key vault that --keyvault names are read and written.
func (c *call) keyVaultURI() (string, error) {
	v, err := c.keyVault(flagOr(c.cmd, "keyvault", "KLUIS_KEYVAULT"))
	return v.Properties.VaultURI, err
}

// item finds a protected item of the vault by the name of its VM, its own name or an id.
func (c *call) item(name string) (client.Item, error) {
	vault, err := c.vaultID()
	if err != nil {
		return client.Item{}, err
	}
	all, err := c.Items(c.ctx(), vault)
	if err != nil {
		return client.Item{}, err
	}
	for _, i := range all {
		if strings.EqualFold(name, i.Properties.FriendlyName) || strings.EqualFold(name, i.Properties.SourceResourceID) {
			name = i.ID
			break
		}
	}
	return choose("protected item", name, "item", all)
}
