package cli

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// host is a name that must resolve, and to what.
type host struct {
	Address string `json:"address"`
	Name    string `json:"name"`
}

func cloudHosts() *cobra.Command {
	cmd := verb("hosts", "Print the names of this server for /etc/hosts", "kluis cloud hosts | sudo tee -a /etc/hosts", cobra.NoArgs, func(c *call) error {
		address, err := c.address()
		if err != nil {
			return err
		}
		names, err := c.hostNames()
		if err != nil {
			return err
		}
		hosts := make([]host, len(names))
		for i, name := range names {
			hosts[i] = host{address, name}
		}
		if outputOf(c.cmd) == formatJSON {
			return printJSON(c.cmd.OutOrStdout(), hosts)
		}
		w := c.cmd.OutOrStdout()
		if strings.EqualFold(c.Host(), "localhost") || strings.HasSuffix(strings.ToLower(c.Host()), ".localhost") {
			comment(w, "All names below localhost resolve by themselves after: apt-get install libnss-myhostname")
		} else {
			comment(w, "A DNS server can answer for all of them: *.vault."+c.Host()+" and *.blob."+c.Host())
		}
		for _, h := range hosts {
			_, _ = fmt.Fprintf(w, "%s %s\n", h.Address, h.Name)
		}
		return nil
	})
	cmd.Long = `Print the lines of /etc/hosts by which the names of this server resolve: its own, and one for each key vault and storage
account that there is. Who makes another needs another line, so a package or a DNS server is better; the first line says which.`
	cmd.Flags().String("address", "", "IP address of the server (default: what its name resolves to here)")
	return cmd
}

// address is the server's, IPv4 if it has one.
func (c *call) address() (string, error) {
	if given := c.flag("address"); given != "" {
		if net.ParseIP(given) == nil {
			return "", usagef("--address %s: it is no IP address", given)
		}
		return given, nil
	}
	found, err := net.DefaultResolver.LookupHost(c.ctx(), c.Host())
	if err != nil {
		return "", usagef("--address is required: %v", err)
	}
	if i := slices.IndexFunc(found, func(a string) bool { return net.ParseIP(a).To4() != nil }); i >= 0 {
		return found[i], nil
	}
	return found[0], nil
}

// hostNames are those of the server, its key vaults and its storage accounts.
func (c *call) hostNames() ([]string, error) {
	vaults, err := c.KeyVaults(c.ctx(), c.Subscription())
	if err != nil {
		return nil, err
	}
	accounts, err := c.StorageAccounts(c.ctx(), c.Subscription())
	if err != nil {
		return nil, err
	}
	names := []string{c.Host()}
	add := func(address string) { // in the path form all are on the server's own host
		if u, err := url.Parse(address); err == nil && u.Hostname() != "" && !slices.Contains(names, u.Hostname()) {
			names = append(names, u.Hostname())
		}
	}
	for _, v := range vaults {
		add(v.Properties.VaultURI)
	}
	for _, a := range accounts {
		add(a.Properties.PrimaryEndpoints["blob"])
	}
	return names, nil
}
