package cli

import (
	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var diskColumns = []column[client.Disk]{
	nameColumn[client.DiskProperties](), groupColumn[client.DiskProperties](),
	{"Size", func(d client.Disk) string {
		if d.Properties.DiskSizeBytes > 0 {
			return size(d.Properties.DiskSizeBytes)
		}
		return size(d.Properties.DiskSizeGB << 30)
	}},
	{"State", func(d client.Disk) string { return d.Properties.DiskState }},
	{"Encryption", func(d client.Disk) string {
		e := d.Properties.EncryptionSettingsCollection
		switch {
		case e == nil || !e.Enabled || len(e.EncryptionSettings) == 0:
			return "none"
		case e.EncryptionSettings[0].KeyEncryptionKey == nil:
			return "BEK alone"
		}
		return "BEK and KEK"
	}},
	{"Image", func(d client.Disk) string { return d.Properties.CreationData.SourceURI }},
}

const diskType = "Microsoft.Compute/disks"

func diskCommand() *cobra.Command {
	return noun("disk", "Disks: image files that the server knows",
		"A disk is an image file under a folder that the server allows. 'kluis vm register' makes disks and VM in one go.",
		diskCreate(), accessVerbs("a disk", "disk", "web-1-os", diskType),
		downloadVerb("a disk", `
kluis disk download web-1-os web-1.raw -g prod
kluis disk download web-1-os web-1.vhd -g prod --format vhd`, diskType),
		verb("list", "List the disks", "kluis disk list -g prod", cobra.NoArgs, func(c *call) error {
			all, err := c.Disks(c.ctx(), c.scope())
			if err != nil {
				return err
			}
			return table(c, all, rawOf, diskColumns)
		}),
		verb("show NAME", "Show a disk", "kluis disk show web-1-os -g prod", cobra.ExactArgs(1), func(c *call) error {
			id, err := c.id(c.args[0], diskType)
			if err != nil {
				return err
			}
			d, err := c.Disk(c.ctx(), id)
			if err != nil {
				return err
			}
			return details(c, d, rawOf, diskColumns)
		}),
		verb("delete NAME", "Delete a disk", "kluis disk delete web-1-os -g prod", cobra.ExactArgs(1), func(c *call) error {
			id, err := c.id(c.args[0], diskType)
			if err != nil {
				return err
			}
			if err := c.DeleteDisk(c.ctx(), id); err != nil {
				return err
			}
			c.done("Deleted disk %s.", id.Name())
			return nil
		}),
	)
}

func diskCreate() *cobra.Command {
	cmd := verb("create NAME", "Make a disk that is a copy of a snapshot, or of another disk", `
kluis disk create web-1-again -g prod --snapshot web-1-before
kluis disk create web-2-os -g prod --disk web-1-os`, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], diskType)
		if err != nil {
			return err
		}
		source, err := c.copySource()
		if err != nil {
			return err
		}
		d, err := c.PutDisk(c.ctx(), id, client.CopyOf(c.flag("location"), source))
		if err != nil {
			return err
		}
		return details(c, d, rawOf, diskColumns)
	})
	return locationFlag(sourceFlags(cmd))
}
