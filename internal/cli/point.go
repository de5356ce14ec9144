package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var pointColumns = []column[client.Point]{
	nameColumn[client.PointProperties](),
	{"Time", func(p client.Point) string { return p.Properties.Time }},
	{"Consistency", func(p client.Point) string { return p.Properties.Type }},
	{"Encrypted", func(p client.Point) string {
		if p.Properties.Encrypted {
			return "yes"
		}
		return "no"
	}},
	{"Proof", func(p client.Point) string {
		if p.Properties.Proof == nil {
			return ""
		}
		return p.Properties.Proof.State
	}},
	{"Expires", func(p client.Point) string { return p.Properties.Retention.ExpiryTime }},
}

var pointDetails = append(pointColumns[:len(pointColumns):len(pointColumns)],
	column[client.Point]{"Reason", func(p client.Point) string {
		if p.Properties.Proof == nil {
			return ""
		}
		return p.Properties.Proof.Reason
	}},
	column[client.Point]{"Disks", func(p client.Point) string {
		return lines(p.Properties.Disks, func(d client.PointDisk) string {
			how := ""
			switch {
			case d.Incremental:
				how = " of what changed"
			case d.Rescanned != "":
				how = " as a whole, because " + d.Rescanned
			}
			return fmt.Sprintf("%s: %s, read %s%s, stored %s, reused %s", d.Name, size(d.Size), size(d.Counters.Read), how, size(d.Counters.Stored), size(d.Counters.Reused))
		})
	}},
	column[client.Point]{"Proofs", func(p client.Point) string {
		if p.Properties.Proof == nil {
			return ""
		}
		return lines(p.Properties.Proof.Disks, func(d client.DiskProof) string {
			line := strings.Join(strings.Fields(fmt.Sprintf("%s: %s %s %s %s", d.Name, d.State, d.Encryption, d.FileSystem, cmp.Or(d.Reason, d.Note))), " ")
			if d.Advice != "" {
				line += "\n\t" + d.Advice
			}
			return line
		})
	}},
	column[client.Point]{"Drill", func(p client.Point) string {
		d := p.Properties.Drill
		if d == nil {
			return "none"
		}
		return strings.TrimSpace(fmt.Sprintf("%s at %s on %s (%s, %.1f s) %s", d.State, d.Time, d.Host, d.Sign, float64(d.BootMS)/1000, d.Reason))
	}},
	column[client.Point]{"Keys", func(p client.Point) string {
		return lines(p.Properties.KeysAndSecrets, func(k client.DiskKeyBackup) string {
			return fmt.Sprintf("%s: secret %s, key %s", k.Disk, k.SecretURL, k.KeyURL)
		})
	}},
)

// lines puts each thing on a line of its own, in the second column.
func lines[T any](all []T, line func(T) string) string {
	var s []string
	for _, v := range all {
		s = append(s, line(v))
	}
	return strings.Join(s, "\n\t")
}

func itemFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("item", "i", "", "protected item: the name of its VM, or an id")
	return require(cmd, "item")
}

// itemOfFlag is the protected item that --item names.
func (c *call) itemOfFlag() (client.Item, error) {
	name := c.flag("item")
	return c.item(name)
}

// point reads a recovery point of an item; "latest" is the newest.
func (c *call) point(item client.Item, name string) (client.Point, error) {
	if name == "latest" {
		all, err := c.RecoveryPoints(c.ctx(), item.ARMID())
		if err != nil {
			return client.Point{}, err
		}
		name = ""
		newest := ""
		for _, p := range all {
			if p.Properties.Time > newest {
				name, newest = p.Name, p.Properties.Time
			}
		}
		if name == "" {
			return client.Point{}, &client.Error{Code: "RecoveryPointNotFound", Target: item.ID,
				Message: fmt.Sprintf("%s has no recovery point.", item.Properties.FriendlyName),
				Advice:  "Back it up first: kluis backup now " + item.Properties.FriendlyName}
		}
	}
	return c.RecoveryPoint(c.ctx(), item.ARMID(), name)
}

func recoveryPointCommand() *cobra.Command {
	return withVault(noun("recovery-point", "Recovery points: what a backup left",
		`A recovery point holds the disks as ciphertext, the VM's configuration, and the backups of key and secret.
It carries a proof: whether its own keys open its own disks.`,
		itemFlag(verb("list", "List the recovery points of an item", "kluis recovery-point list --item web-1", cobra.NoArgs, func(c *call) error {
			i, err := c.itemOfFlag()
			if err != nil {
				return err
			}
			all, err := c.RecoveryPoints(c.ctx(), i.ARMID())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, pointColumns)
		})),
		itemFlag(verb("show POINT", "Show a recovery point with its disks, keys and proof",
			"kluis recovery-point show latest --item web-1", cobra.ExactArgs(1), func(c *call) error {
				i, err := c.itemOfFlag()
				if err != nil {
					return err
				}
				p, err := c.point(i, c.args[0])
				if err != nil {
					return err
				}
				return details(c, p, rawOf, pointDetails)
			})),
		exportCommand(),
		revokeCommand(),
	))
}
