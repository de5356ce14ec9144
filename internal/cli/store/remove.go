package store

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
)

func removeCommand(o Options) *cobra.Command {
	c := &call{now: o.Now}
	cmd := &cobra.Command{
		Use:   "rm DIR POINT...",
		Short: "Delete recovery points",
		Long: `Delete recovery points. They leave the list at once; 'kluis store gc' gives their space back when their
grace period is over.`,
		Example: `  kluis store rm /backup/disks 1789000000000000`,
		Args:    cobra.MinimumNArgs(2),
	}
	c.bindKey(cmd)
	cmd.RunE = c.run(func(args []string) error { return c.remove(args[0], args[1:]) })
	return cmd
}

func (c *call) remove(dir string, ids []string) (err error) {
	s, err := c.openToWrite(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, id := range ids { // all or none: a mistyped id among them is found before anything is deleted
		if _, err := s.Point(c.ctx(), id); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := s.Delete(c.ctx(), id); err != nil {
			return err
		}
	}
	return c.print(map[string]any{"deleted": ids}, func(w io.Writer) {
		for _, id := range ids {
			row(w, "Deleted", id)
		}
	})
}
