package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/armid"
	"kluis/internal/client"
)

func vmPower() []*cobra.Command {
	stop := powerVerb("stop NAME", "Shut a VM down on its host", "kluis vm stop web-1 -g lab\nkluis vm stop web-1 -g lab --at-once", "Stopped VM %s.",
		func(c *call, ctx context.Context, vm armid.ID) error {
			if c.is("at-once") {
				return c.CutVM(ctx, vm)
			}
			return c.DeallocateVM(ctx, vm)
		})
	stop.Long = "Shut a VM down on its host. A guest that does not shut down in time is switched off."
	stop.Flags().Bool("at-once", false, "switch it off without asking the guest, which may lose what it has not written")
	start := powerVerb("start NAME", "Start a VM on its host", "kluis vm start web-1 -g lab", "Started VM %s.",
		func(c *call, ctx context.Context, vm armid.ID) error { return c.StartVM(ctx, vm) })
	start.Long = `Start a VM on its host.

The keys of its encrypted disks are got from their key vaults, which must be enabled for disk encryption,
and handed to the guest on a volume in memory that is wiped once the guest is up. Where a key cannot be
had the VM does not start.`
	return []*cobra.Command{
		start, stop,
		powerVerb("restart NAME", "Shut a VM down and start it", "kluis vm restart web-1 -g lab", "Restarted VM %s.",
			func(c *call, ctx context.Context, vm armid.ID) error { return c.RestartVM(ctx, vm) }),
		verb("status NAME", "Show what a VM, its agent and its disks are doing", "kluis vm status web-1 -g lab", cobra.ExactArgs(1), runStatus),
	}
}

func powerVerb(use, short, example, done string, do func(c *call, ctx context.Context, vm armid.ID) error) *cobra.Command {
	return verb(use, short, example, cobra.ExactArgs(1), func(c *call) error {
		id, err := c.id(c.args[0], vmType)
		if err != nil {
			return err
		}
		if err := do(c, c.ctx(), id); err != nil {
			return err
		}
		c.done(done, id.Name())
		return nil
	})
}

// statusLine is one thing that is said of a VM, its agent or a disk.
type statusLine struct {
	Of string `json:"of"`
	client.InstanceStatus
}

func runStatus(c *call) error {
	id, err := c.id(c.args[0], vmType)
	if err != nil {
		return err
	}
	view, err := c.InstanceView(c.ctx(), id)
	if err != nil {
		return err
	}
	var lines []statusLine
	add := func(of string, statuses []client.InstanceStatus) {
		for _, s := range statuses {
			if !strings.HasPrefix(s.Code, "ProvisioningState/succeeded") || of == "agent" {
				lines = append(lines, statusLine{of, s})
			}
		}
	}
	add("VM", view.Statuses)
	add("agent", view.VMAgent.Statuses)
	for _, d := range view.Disks {
		add("disk "+d.Name, d.Statuses)
	}
	return table(c, lines, itself, []column[statusLine]{
		{"Of", func(l statusLine) string { return l.Of }},
		{"Status", func(l statusLine) string { return l.DisplayStatus }},
		{"Message", func(l statusLine) string { return l.Message }},
	})
}
