package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func cloudCommand() *cobra.Command {
	secret := verb("secret", "Print the client secret that the other commands of cloud refer to", `export AZURE_CLIENT_SECRET="$(kluis cloud secret)"`, cobra.NoArgs, func(c *call) error {
		value := c.ClientSecret()
		if outputOf(c.cmd) == formatJSON {
			return printJSON(c.cmd.OutOrStdout(), map[string]string{"clientSecret": string(value.Reveal())})
		}
		_, err := fmt.Fprintf(c.cmd.OutOrStdout(), "%s\n", value.Reveal())
		return err
	})
	secret.Long = `Print the client secret of the admin file, and nothing else. What the other commands print calls this one, so that the
secret stands neither in their output nor in a list of processes.`
	return noun("cloud", "Point Azure's own clients to this server",
		`Print what to type so that Azure's own clients work with this server: it is a cloud of its own to them, beside the public one.
What is printed for a shell can be run as it is: eval "$(kluis cloud az)".`,
		cloudAz(), cloudEnv(), cloudTerraform(), cloudPowerShell(), cloudHosts(), secret)
}

// sheet is what to set and what to run, in the words of a POSIX shell.
type sheet struct {
	notes       []string
	environment []setting
	commands    []string
}

// setting is a variable. If from is a command, the value is what the command prints.
type setting struct{ name, value, from string }

// printSheet writes a sheet as a script.
func printSheet(c *call, s sheet) error {
	if outputOf(c.cmd) == formatJSON {
		values, from := map[string]string{}, map[string]string{}
		for _, e := range s.environment {
			if e.from != "" {
				from[e.name] = e.from
			} else {
				values[e.name] = e.value
			}
		}
		return printJSON(c.cmd.OutOrStdout(), map[string]any{"environment": values, "environmentFrom": from, "commands": slices.Concat([]string{}, s.commands)})
	}
	w := c.cmd.OutOrStdout()
	comment(w, s.notes...)
	for _, e := range s.environment {
		value := quote(e.value)
		if e.from != "" {
			value = `"$(` + e.from + `)"`
		}
		_, _ = fmt.Fprintf(w, "export %s=%s\n", e.name, value)
	}
	for _, command := range s.commands {
		_, _ = fmt.Fprintln(w, command)
	}
	return nil
}

func comment(w io.Writer, lines ...string) {
	for _, line := range lines {
		_, _ = fmt.Fprintln(w, "# "+line)
	}
}

// quote makes one word of a text, for a POSIX shell.
func quote(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// secretCommand is this program, printing the secret.
func (c *call) secretCommand() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	admin, err := filepath.Abs(adminFile(c.cmd))
	if err != nil {
		return "", err
	}
	return quote(program) + " cloud secret --admin " + quote(admin), nil
}

// trusted is the file of the server's certificate authority, wherever the reader stands.
func (c *call) trusted() (string, error) { return filepath.Abs(c.CAFile()) }

// withProxyException is NO_PROXY as it is here and now, with the server in it.
func (c *call) withProxyException() string {
	return including(os.Getenv("NO_PROXY"), ",", c.Host())
}

// including puts a part before the others of a list, unless it is there.
func including(list, separator, part string) string {
	if list == "" {
		return part
	}
	if slices.Contains(strings.Split(list, separator), part) {
		return list
	}
	return part + separator + list
}

func cloudEnv() *cobra.Command {
	cmd := verb("env", "Print the variables that Azure's SDKs read", `eval "$(kluis cloud env)"`, cobra.NoArgs, func(c *call) error {
		ca, err := c.trusted()
		if err != nil {
			return err
		}
		secret, err := c.secretCommand()
		if err != nil {
			return err
		}
		return printSheet(c, sheet{
			notes: []string{
				"Azure's SDKs, pointed to " + c.Endpoint() + `. Run: eval "$(kluis cloud env)"`,
				"Programs must switch instance discovery off (DisableInstanceDiscovery), or they ask a public host about this one,",
				"and name the Resource Manager: endpoint and audience are " + c.Endpoint() + ".",
				"SSL_CERT_FILE takes the place of the system's authorities, for Go and for OpenSSL.",
			},
			environment: []setting{
				{name: "AZURE_AUTHORITY_HOST", value: c.Endpoint() + "/"},
				{name: "AZURE_TENANT_ID", value: c.TenantID()},
				{name: "AZURE_SUBSCRIPTION_ID", value: c.Subscription().Subscription},
				{name: "AZURE_CLIENT_ID", value: c.ClientID()},
				{name: "AZURE_CLIENT_SECRET", from: secret},
				{name: "SSL_CERT_FILE", value: ca},
				{name: "REQUESTS_CA_BUNDLE", value: ca},
				{name: "NODE_EXTRA_CA_CERTS", value: ca},
				{name: "NO_PROXY", value: c.withProxyException()},
			},
		})
	})
	cmd.Long = `Print the variables that azidentity and its kin read in every language, and where each language looks for authorities.`
	return cmd
}
