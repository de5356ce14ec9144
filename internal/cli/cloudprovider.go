package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func cloudTerraform() *cobra.Command {
	cmd := verb("terraform", "Print the provider block for Terraform and OpenTofu", "kluis cloud terraform > provider.tf", cobra.NoArgs, func(c *call) error {
		cloud, err := c.Cloud(c.ctx())
		if err != nil {
			return err
		}
		ca, err := c.trusted()
		if err != nil {
			return err
		}
		secret, err := c.secretCommand()
		if err != nil {
			return err
		}
		settings := []setting{
			{name: "metadata_host", value: c.Authority()},
			{name: "environment", value: cloud.Name},
			{name: "tenant_id", value: c.TenantID()},
			{name: "subscription_id", value: c.Subscription().Subscription},
			{name: "client_id", value: c.ClientID()},
			{name: "resource_provider_registrations", value: "none"},
		}
		if outputOf(c.cmd) == formatJSON {
			provider := map[string]any{"features": map[string]any{}}
			for _, s := range settings {
				provider[s.name] = s.value
			}
			return printJSON(c.cmd.OutOrStdout(), map[string]any{"provider": map[string]any{"azurerm": provider},
				"environment": map[string]string{"SSL_CERT_FILE": ca}, "environmentFrom": map[string]string{"ARM_CLIENT_SECRET": secret}})
		}
		w := c.cmd.OutOrStdout()
		comment(w, "The azurerm provider, pointed to "+c.Endpoint()+". Before it runs:",
			"  export SSL_CERT_FILE="+quote(ca), `  export ARM_CLIENT_SECRET="$(`+secret+`)"`)
		_, _ = fmt.Fprint(w, "provider \"azurerm\" {\n  features {}\n\n")
		for _, s := range settings {
			_, _ = fmt.Fprintf(w, "  %-31s = %q\n", s.name, s.value)
		}
		_, err = fmt.Fprintln(w, "}")
		return err
	})
	cmd.Long = `Print the block that points the azurerm provider of Terraform and OpenTofu here, as the principal of the admin file. The client
secret is not in it: two comments at its head say what to export before the provider runs.`
	return cmd
}

func cloudPowerShell() *cobra.Command {
	cmd := verb("powershell", "Print what signs Azure PowerShell in here", "kluis cloud powershell | pwsh -NoExit -Command -", cobra.NoArgs, func(c *call) error {
		cloud, err := c.Cloud(c.ctx())
		if err != nil {
			return err
		}
		ca, err := c.trusted()
		if err != nil {
			return err
		}
		admin, err := filepath.Abs(adminFile(c.cmd))
		if err != nil {
			return err
		}
		base := c.Endpoint()
		arguments := []setting{
			{name: "Name", value: cloud.Name},
			{name: "ActiveDirectoryEndpoint", value: base + "/adfs/"},
			{name: "ActiveDirectoryServiceEndpointResourceId", value: base},
			{name: "ResourceManagerEndpoint", value: base},
			{name: "GalleryEndpoint", value: base},
			{name: "GraphEndpoint", value: base},
			{name: "GraphAudience", value: base},
			{name: "AdTenant", value: c.TenantID()},
			{name: "StorageEndpoint", value: cloud.Suffixes.Storage},
			{name: "AzureKeyVaultDnsSuffix", value: cloud.Suffixes.KeyVaultDNS},
			{name: "AzureKeyVaultServiceEndpointResourceId", value: "https://" + cloud.Suffixes.KeyVaultDNS},
		}
		add := "Add-AzEnvironment -EnableAdfsAuthentication"
		for _, a := range arguments {
			add += " -" + a.name + " " + quotePowerShell(a.value)
		}
		commands := []string{
			add,
			"$secret = ConvertTo-SecureString -AsPlainText -Force (Get-Content " + quotePowerShell(admin) + " | ConvertFrom-Json).clientSecret",
			"$credential = New-Object System.Management.Automation.PSCredential(" + quotePowerShell(c.ClientID()) + ", $secret)",
			"Connect-AzAccount -Environment " + quotePowerShell(cloud.Name) + " -ServicePrincipal -Tenant " + quotePowerShell(c.TenantID()) +
				" -Subscription " + quotePowerShell(c.Subscription().Subscription) + " -Credential $credential",
		}
		if outputOf(c.cmd) == formatJSON {
			return printJSON(c.cmd.OutOrStdout(), map[string]any{"environment": map[string]string{"SSL_CERT_FILE": ca}, "commands": commands})
		}
		w := c.cmd.OutOrStdout()
		comment(w, "Azure PowerShell, pointed to "+base+".", "On Windows, let the system trust the server once: Import-Certificate -FilePath "+quotePowerShell(ca)+` -CertStoreLocation Cert:\CurrentUser\Root`,
			"Elsewhere, start PowerShell with SSL_CERT_FILE="+quote(ca))
		_, err = fmt.Fprintln(w, strings.Join(commands, "\n"))
		return err
	})
	cmd.Long = `Print what makes this server an environment of Azure PowerShell (Az.Accounts) and signs in as the principal of the admin file. The
client secret is read from that file when the lines run.`
	return cmd
}

func quotePowerShell(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
