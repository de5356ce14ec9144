package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var alertColumns = []column[client.Alert]{
	{"Time", func(a client.Alert) string { return a.Properties.CreatedTime }},
	{"Severity", func(a client.Alert) string { return a.Properties.Severity }},
	{"Item", func(a client.Alert) string { return lastPart(a.Properties.ProtectedItemID, ";") }},
	{"Point", func(a client.Alert) string { return lastPart(a.Properties.RecoveryPointID, "/") }},
	{"Code", func(a client.Alert) string { return a.Properties.Code }},
	{"Message", func(a client.Alert) string { return a.Properties.Message }},
	{"What to do", func(a client.Alert) string { return a.Properties.Recommendation }},
}

func lastPart(s, separator string) string { return s[strings.LastIndex(s, separator)+1:] }

func alertCommand() *cobra.Command {
	list := verb("list", "List what should be looked at, newest first", "kluis alert list\nkluis alert list --item web-1", cobra.NoArgs, func(c *call) error {
		vault, err := c.vaultID()
		if err != nil {
			return err
		}
		all, err := c.Alerts(c.ctx(), vault)
		if err != nil {
			return err
		}
		if name := c.flag("item"); name != "" {
			i, err := c.item(name)
			if err != nil {
				return err
			}
			var of []client.Alert
			for _, a := range all {
				if strings.EqualFold(a.Properties.ProtectedItemID, i.ID) {
					of = append(of, a)
				}
			}
			all = of
		}
		return table(c, all, rawOf, alertColumns)
	})
	list.Flags().StringP("item", "i", "", "only those of this protected item: the name of its VM, or an id")
	return withVault(noun("alert", "What somebody should look at",
		`An alert is raised when a backup or a restore fails, when a recovery point cannot be proved to open, when a
disk is encrypted and the VM does not say so (or the reverse), when a recovery store is damaged, and when
backup data is deleted. Alerts are only ever added.`, list))
}
