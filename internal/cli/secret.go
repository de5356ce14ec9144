package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
	"kluis/internal/secret"
)

var secretColumns = []column[client.Secret]{
	{"Name", func(s client.Secret) string { name, _ := nameAndVersion(s.ID); return name }},
	{"Content type", func(s client.Secret) string { return s.ContentType }},
	{"Wrapped by", func(s client.Secret) string { return s.Tags["DiskEncryptionKeyEncryptionKeyURL"] }},
	{"Created", func(s client.Secret) string { return unix(s.Attributes.Created) }},
	{"Id", func(s client.Secret) string { return s.ID }},
}

func secretCommand() *cobra.Command {
	list := verb("list", "List the secrets of a key vault", "kluis secret list --keyvault prod-keys", cobra.NoArgs, func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		all, err := c.Secrets(c.ctx(), uri)
		if err != nil {
			return err
		}
		return table(c, all, itself, secretColumns)
	})
	return withKeyVault(noun("secret", "Secrets of a key vault: BEKs that open disks",
		`A BEK is a secret that opens a disk. Azure Disk Encryption keeps it wrapped by a KEK, with the content
type 'Wrapped BEK' and tags that name the KEK; 'kluis secret set --bek-file' writes it so.

Values are never printed unless --show-value asks for it.`,
		append([]*cobra.Command{secretSet(), list, secretShow()}, contentVerbs(client.KindSecret)...)...))
}

func secretSet() *cobra.Command {
	cmd := verb("set NAME", "Write a secret, or a new version of it", `
# the passphrase of a disk, wrapped by the key prod-kek of the same key vault
kluis secret set 7856433B-F7AC-4CFF-9E14-048525CD9AE2 --bek-file passphrase --wrap-with prod-kek
# any other secret, from standard input
kluis secret set smtp-password --value-file - < password`, cobra.ExactArgs(1), func(c *call) error {
		bekFile, valueFile := c.flag("bek-file"), c.flag("value-file")
		if (bekFile == "") == (valueFile == "") {
			return usagef("say either --bek-file or --value-file")
		}
		if bekFile == "" && (c.given("wrap-with") || c.given("alg") || c.given("machine")) {
			return usagef("--wrap-with, --alg and --machine are for --bek-file")
		}
		data, err := readFile(c.cmd, bekFile+valueFile)
		if err != nil {
			return err
		}
		value := secret.New(data)
		defer value.Wipe()
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		var s client.Secret
		if bekFile == "" {
			s, err = c.SetSecret(c.ctx(), uri, c.args[0], value, c.flag("content-type"), nil)
		} else {
			s, err = c.setBEK(uri, value)
		}
		if err != nil {
			return err
		}
		return details(c, s, itself, secretColumns)
	})
	f := cmd.Flags()
	f.String("value-file", "", "file with the value, taken as it is; - is standard input")
	f.String("content-type", "", "content type of the value")
	f.String("bek-file", "", "file with what opens the disk, taken as it is (mind a line end); - is standard input")
	f.String("wrap-with", "", "KEK that wraps the BEK: the name of a key in the same key vault, or a key's URL")
	f.String("alg", client.RSAOAEP256, "how it is wrapped: RSA-OAEP or RSA-OAEP-256")
	f.String("machine", "", "name of the VM, for the tag MachineName")
	return cmd
}

// setBEK writes a BEK as Azure Disk Encryption does.
func (c *call) setBEK(uri string, value secret.Bytes) (client.Secret, error) {
	b := client.BEK{Name: c.args[0], Key: value, KEK: c.flag("wrap-with"), Alg: c.flag("alg"), Machine: c.flag("machine")}
	if b.KEK != "" && !strings.Contains(b.KEK, "/") {
		k, err := c.Key(c.ctx(), uri, b.KEK)
		if err != nil {
			return client.Secret{}, err
		}
		b.KEK = k.ID()
	}
	return c.SetBEK(c.ctx(), uri, b)
}

func secretShow() *cobra.Command {
	cmd := verb("show NAME", "Show the newest version of a secret", "kluis secret show smtp-password --show-value", cobra.ExactArgs(1), func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		if !c.is("show-value") {
			s, err := c.Secret(c.ctx(), uri, c.args[0])
			if err != nil {
				return err
			}
			return details(c, s, itself, secretColumns)
		}
		s, err := c.SecretValue(c.ctx(), uri, c.args[0])
		if err != nil {
			return err
		}
		defer s.Value.Wipe()
		shown := func(s client.Secret) any {
			return map[string]any{"id": s.ID, "contentType": s.ContentType, "tags": s.Tags, "attributes": s.Attributes, "value": string(s.Value.Reveal())}
		}
		return details(c, s, shown, append(secretColumns[:len(secretColumns):len(secretColumns)],
			column[client.Secret]{"Value", func(s client.Secret) string { return string(s.Value.Reveal()) }}))
	})
	cmd.Flags().Bool("show-value", false, "print the value")
	return cmd
}
