package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/recovery"
)

func statCommand(o Options) *cobra.Command {
	c := &call{now: o.Now}
	cmd := &cobra.Command{
		Use:   "stat DIR",
		Short: "Say what is in a store and what it takes",
		Long: `Say what is in a store and what it takes: how much the disks of all recovery points hold, how much is
stored for that, and how much of what is stored nothing needs any more.`,
		Example: `  kluis store stat /backup/disks --output json`,
		Args:    cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.RunE = c.run(func(args []string) error { return c.stat(args[0]) })
	return cmd
}

func (c *call) stat(dir string) (err error) {
	s, err := c.openToRead(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	stats, err := s.Stat(c.ctx())
	if err != nil {
		return err
	}
	result := struct {
		recovery.Stats
		Damage []damaged `json:"damage"`
	}{stats, damages(stats.Damage)}
	err = c.print(result, func(w io.Writer) {
		row(w, "Points", fmt.Sprintf("%d, and %d deleted ones within their grace period", stats.Points, stats.Trash))
		row(w, "Disks", fmt.Sprintf("%d of %v, of that %v not in holes", stats.Disks, size(stats.Logical), size(stats.Data)))
		row(w, "Stored", fmt.Sprintf("%v in %d packs", size(stats.Stored), stats.Packs))
		row(w, "Needed", size(stats.Live))
		row(w, "Not needed", fmt.Sprintf("%v, 'kluis store gc' gives it back", size(stats.Dead)))
		row(w, "Condemned", fmt.Sprintf("%v in %d packs, until their grace period is over", size(stats.CondemnedBytes), stats.Condemned))
		for _, d := range result.Damage {
			row(w, "DAMAGE", d.String())
		}
	})
	if len(result.Damage) > 0 {
		err = errors.Join(err, errors.New("what is damaged is not counted"))
	}
	return err
}
