package store

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

func indexCommand(o Options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "index",
		Short:   "Work on the index of a store",
		Long:    "Work on the index of a store: which chunks it has, and where. It is a cache of what the packs themselves say.",
		Example: `  kluis store index rebuild /backup/disks`,
	}
	cmd.AddCommand(rebuildCommand(o))
	return cmd
}

func rebuildCommand(o Options) *cobra.Command {
	c := &call{now: o.Now}
	cmd := &cobra.Command{
		Use:   "rebuild DIR",
		Short: "Make the index anew from the packs",
		Long: `Make the index anew from the footers of all packs. It is never needed: an index that is lost, old or damaged
is noticed and made anew where it is wrong. It is here for those who want to be sure.`,
		Example: `  kluis store index rebuild /backup/disks`,
		Args:    cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.RunE = c.run(func(args []string) error { return c.rebuild(args[0]) })
	return cmd
}

func (c *call) rebuild(dir string) (err error) {
	start := c.now()
	s, err := c.openToWrite(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	progress, stop := c.watch("read packs")
	defer stop()
	if err := s.RebuildIndex(c.ctx(), progress); err != nil {
		return err
	}
	stop()
	stats, err := s.Stat(c.ctx())
	if err != nil {
		return err
	}
	result := map[string]any{"packs": stats.Packs, "bytes": stats.Stored, "seconds": seconds(c.now().Sub(start))}
	return c.print(result, func(w io.Writer) {
		row(w, "Packs", stats.Packs)
		row(w, "Stored", size(stats.Stored))
	})
}
