package cli

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

//go:embed sitecustomize.py
var startUp []byte

func cloudAz() *cobra.Command {
	cmd := verb("az", "Print what signs the azure-cli in here", `eval "$(kluis cloud az)"
az backup vault list`, cobra.NoArgs, func(c *call) error {
		cloud, err := c.Cloud(c.ctx())
		if err != nil {
			return err
		}
		dir, err := c.azFolder()
		if err != nil {
			return err
		}
		ca, err := c.trusted()
		if err != nil {
			return err
		}
		login, err := c.azLogin()
		if err != nil {
			return err
		}
		python := filepath.Join(dir, "python")
		if err := writeStartUp(python); err != nil {
			return err
		}
		authority := c.Endpoint() + "/adfs"
		return printSheet(c, sheet{
			notes: []string{`az, pointed to ` + c.Endpoint() + `. Run: eval "$(kluis cloud az)"`},
			environment: []setting{
				{name: "AZURE_CONFIG_DIR", value: dir},
				{name: "AZURE_CORE_COLLECT_TELEMETRY", value: "0"},
				{name: "REQUESTS_CA_BUNDLE", value: ca},
				{name: "NO_PROXY", value: c.withProxyException()},
				{name: "PYTHONPATH", value: including(os.Getenv("PYTHONPATH"), string(os.PathListSeparator), python)},
			},
			commands: []string{
				fmt.Sprintf("grep -qsF %s %s || az cloud register --name %s --cloud-config %s", quote(authority),
					quote(filepath.Join(dir, "clouds.config")), quote(cloud.Name), quote(string(azCloud(authority, c.Endpoint(), cloud)))),
				"az cloud set --name " + quote(cloud.Name) + " --only-show-errors",
				login,
			},
		})
	})
	cmd.Long = `Print what signs the azure-cli in here, as the principal of the admin file; eval "$(kluis cloud az)" does it. With
--device-code a person signs in: az shows a code, which is typed into a page of the server.

az gets a folder of its own for what it keeps, so that nothing of what you use it for elsewhere changes; it is the
folder that this command prints, and that it makes. az keeps the client secret in it. To have az as it was, open another
shell. A file in the folder mends a fault of Debian's package when az starts; see its head.

The authority is in the style of AD FS, since with one in the style of Entra az asks a public host whether it is genuine.`
	cmd.Flags().String("config-dir", "", "folder for what az keeps (default: one for each server, in your configuration folder)")
	cmd.Flags().Bool("device-code", false, "have a person sign in (kluis user create), instead of the principal of the admin file")
	return cmd
}

// azLogin is the command that signs in.
func (c *call) azLogin() (string, error) {
	if c.is("device-code") {
		return "az login --use-device-code --output none", nil
	}
	secret, err := c.secretCommand()
	return secret + " | az login --service-principal --username " + quote(c.ClientID()) + " --tenant " + quote(c.TenantID()) + " --password @- --output none --only-show-errors", err
}

// azCloud describes the server in az's own words, all of them: az has no flag for the place of Microsoft Graph, where
// it looks up whom an access policy is for.
func azCloud(authority, endpoint string, c client.Cloud) []byte {
	text, _ := json.Marshal(map[string]any{ // strings never fail
		"endpoints": map[string]string{"resource_manager": endpoint, "management": endpoint, "active_directory": authority,
			"active_directory_resource_id": endpoint, "active_directory_graph_resource_id": endpoint, "microsoft_graph_resource_id": endpoint},
		"suffixes": map[string]string{"keyvault_dns": "." + c.Suffixes.KeyVaultDNS, "storage_endpoint": c.Suffixes.Storage},
	})
	return text
}

// azFolder is where az keeps what belongs to this server; only its user can enter.
func (c *call) azFolder() (string, error) {
	dir := c.flag("config-dir")
	if dir == "" {
		home, err := os.UserConfigDir()
		if err != nil {
			return "", usagef("--config-dir is required: %v", err)
		}
		dir = filepath.Join(home, "kluis", "az-"+strings.ReplaceAll(c.Authority(), ":", "-"))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// writeStartUp writes what Python loads when az starts. A file that is as it should be is left alone: az may be
// reading it.
func writeStartUp(dir string) error {
	file := filepath.Join(dir, "sitecustomize.py")
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, startUp) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, startUp, 0o600)
}
