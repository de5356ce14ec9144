package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

const snapshotType = "Microsoft.Compute/snapshots"

var snapshotColumns = []column[client.Snapshot]{
	nameColumn[client.DiskProperties](), groupColumn[client.DiskProperties](),
	{"Size", func(s client.Snapshot) string { return size(s.Properties.DiskSizeBytes) }},
	{"State", func(s client.Snapshot) string { return s.Properties.DiskState }},
	{"Of", func(s client.Snapshot) string {
		source := s.Properties.CreationData.SourceResourceID
		return source[strings.LastIndexByte(source, '/')+1:]
	}},
	idColumn[client.DiskProperties](),
}

func snapshotCommand() *cobra.Command {
	create := verb("create NAME", "Keep a disk as it is now", `
kluis snapshot create web-1-before -g prod --disk web-1-os
kluis snapshot create copy -g prod --snapshot web-1-before`, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], snapshotType)
		if err != nil {
			return err
		}
		source, err := c.copySource()
		if err != nil {
			return err
		}
		s, err := c.PutSnapshot(c.ctx(), id, client.CopyOf(c.flag("location"), source))
		if err != nil {
			return err
		}
		return details(c, s, rawOf, snapshotColumns)
	})
	return noun("snapshot", "Snapshots: disks as they were at one moment",
		"A snapshot is a copy of a disk's image that nobody writes to. A disk can be made of it (kluis disk create), and its bytes can be read.",
		locationFlag(sourceFlags(create)),
		verb("list", "List the snapshots", "kluis snapshot list -g prod", cobra.NoArgs, func(c *call) error {
			all, err := c.Snapshots(c.ctx(), c.scope())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, snapshotColumns)
		}),
		verb("show NAME", "Show a snapshot", "kluis snapshot show web-1-before -g prod", cobra.ExactArgs(1), func(c *call) error {
			id, err := c.id(c.args[0], snapshotType)
			if err != nil {
				return err
			}
			s, err := c.Snapshot(c.ctx(), id)
			if err != nil {
				return err
			}
			return details(c, s, rawOf, snapshotColumns)
		}),
		verb("delete NAME", "Delete a snapshot with its file", "kluis snapshot delete web-1-before -g prod", cobra.ExactArgs(1), func(c *call) error {
			id, err := c.id(c.args[0], snapshotType)
			if err != nil {
				return err
			}
			if err := c.DeleteSnapshot(c.ctx(), id); err != nil {
				return err
			}
			c.done("Deleted snapshot %s.", id.Name())
			return nil
		}),
		accessVerbs("a snapshot", "snapshot", "web-1-before", snapshotType),
		downloadVerb("a snapshot", "kluis snapshot download web-1-before web-1.raw -g prod", snapshotType),
	)
}

// sourceFlags name what a copy is made of.
func sourceFlags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("disk", "", "disk that is copied, name or id")
	cmd.Flags().String("snapshot", "", "snapshot that is copied, name or id")
	return cmd
}

func (c *call) copySource() (armid.ID, error) {
	disk, snapshot := c.flag("disk"), c.flag("snapshot")
	switch {
	case (disk == "") == (snapshot == ""):
		return armid.ID{}, usagef("say either --disk or --snapshot")
	case disk != "":
		return c.id(disk, diskType)
	}
	return c.id(snapshot, snapshotType)
}

// accessVerbs grant and revoke the right to read the bytes of a thing at a URL.
func accessVerbs(thing, noun, name, typ string) *cobra.Command {
	cmd := &cobra.Command{Use: "access", Short: "The right to read the bytes of " + thing + " at a URL", Long: "The right to read the bytes of " + thing + " at a URL.", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a command: %s", cmd.CommandPath(), strings.Join(names(cmd), ", "))
		}}
	grant := verb("grant NAME", "Make a URL at which "+thing+" is read", "kluis "+noun+" access grant "+name+" -g prod --for 2h", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], typ)
		if err != nil {
			return err
		}
		d, err := c.cmd.Flags().GetDuration("for")
		if err != nil {
			return UsageError(err)
		}
		address, err := c.GrantAccess(c.ctx(), id, d)
		if err != nil {
			return err
		}
		return details(c, access{id.String(), address}, itself, accessColumns)
	})
	grant.Long = `Make a URL at which ` + thing + ` is read, as a fixed VHD: by curl, azcopy or any client of Azure's blobs.

Whoever has the URL reads it, until it expires or is revoked. Meanwhile it is neither deleted nor attached.`
	grant.Flags().Duration("for", time.Hour, "how long, up to 1440h")
	cmd.AddCommand(grant, verb("revoke NAME", "Make the URL of "+thing+" void", "kluis "+noun+" access revoke "+name+" -g prod", cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], typ)
		if err != nil {
			return err
		}
		if err := c.RevokeAccess(c.ctx(), id); err != nil {
			return err
		}
		c.done("Revoked access to %s.", id.Name())
		return nil
	}))
	return cmd
}

type access struct {
	ID  string `json:"id"`
	URL string `json:"accessSAS"`
}

var accessColumns = []column[access]{{"URL", func(a access) string { return a.URL }}}
