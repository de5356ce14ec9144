package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

func hostCommand() *cobra.Command {
	columns := []column[client.Host]{
		nameColumn[client.HostProperties](), groupColumn[client.HostProperties](), locationColumn[client.HostProperties](),
		{"VMs", func(h client.Host) string { return strconv.Itoa(len(h.Properties.VirtualMachines)) }},
		{"State", func(h client.Host) string {
			for _, s := range h.Properties.InstanceView.Statuses {
				return s.DisplayStatus
			}
			return ""
		}},
		idColumn[client.HostProperties](),
	}
	return noun("host", "Hosts that run VMs",
		"The libvirt hosts that the server looks after are those of its configuration (kluis serve --hosts). What they run are VMs in the resource group of the host's name.",
		verb("list", "List the hosts", "kluis host list", cobra.NoArgs, func(c *call) error {
			all, err := c.Hosts(c.ctx())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, columns)
		}))
}
