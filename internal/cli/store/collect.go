package store

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/recovery"
)

// collectFlags say how to collect.
type collectFlags struct {
	grace   time.Duration
	minDead float64
	budget  int64 // MiB
}

func collectCommand(o Options) *cobra.Command {
	c, f := &call{now: o.Now}, collectFlags{grace: 24 * time.Hour, minDead: 0.3}
	cmd := &cobra.Command{
		Use:   "gc DIR",
		Short: "Give back the space of what nothing needs",
		Long: `Give back the space of what nothing needs: packs without a chunk that a recovery point has, and the dead
part of packs that are dead by a third or more, whose living chunks move to new packs.

What was deleted, or was left by a command that was killed, is spared for the grace period. With --grace 0s
it goes at once, and a deleted point cannot be brought back.`,
		Example: `  kluis store gc /backup/disks
  kluis store gc /backup/disks --grace 0s --output json`,
		Args: cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.Flags().DurationVar(&f.grace, "grace", f.grace, "how long what nothing needs is spared")
	cmd.Flags().Float64Var(&f.minDead, "min-dead", f.minDead, "share of a pack that must be dead for the rest to be moved; 0 moves nothing")
	cmd.Flags().Int64Var(&f.budget, "budget", 0, "MiB to move in this run (default: no bound)")
	cmd.RunE = c.run(func(args []string) error { return c.collect(args[0], f) })
	return cmd
}

func (c *call) collect(dir string, f collectFlags) (err error) {
	start := c.now()
	if f.grace < 0 || f.minDead < 0 || f.minDead > 1 || f.budget < 0 {
		return cli.UsageError(errors.New("--grace is a time of zero or more, --min-dead a share from 0 to 1, --budget a number of MiB"))
	}
	s, err := c.openToWrite(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	progress, stop := c.watch("collect")
	defer stop()
	o := recovery.CollectOptions{Grace: f.grace, NoGrace: f.grace == 0, MinDead: f.minDead, Budget: f.budget << 20, Progress: progress}
	if f.minDead == 0 {
		o.Budget = -1
	}
	done, err := s.Collect(c.ctx(), o)
	if err != nil {
		return err
	}
	stop()
	result := struct {
		recovery.Collected
		Damage  []damaged `json:"damage"`
		Seconds float64   `json:"seconds"`
	}{done, damages(done.Damage), seconds(c.now().Sub(start))}
	err = c.print(result, func(w io.Writer) {
		row(w, "Points", fmt.Sprintf("%d removed for good", done.Points))
		row(w, "Packs", fmt.Sprintf("%d removed, %v given back", done.Packs, size(done.Bytes)))
		row(w, "Moved", fmt.Sprintf("what lives of %d packs, %v", done.Compacted, size(done.Rewritten)))
		row(w, "Later", fmt.Sprintf("%d packs, %v, when the grace period is over", done.Left, size(done.LeftBytes)))
		for _, d := range result.Damage {
			row(w, "DAMAGE", d.String())
		}
	})
	if len(result.Damage) > 0 {
		err = errors.Join(err, errors.New("what damaged recovery points may need was spared"))
	}
	return err
}
