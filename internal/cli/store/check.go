package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/recovery"
)

func checkCommand(o Options) *cobra.Command {
	c, readData := &call{now: o.Now}, false
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Look whether every recovery point can be restored",
		Long: `Look whether every recovery point can be restored: that its manifests can be read and every chunk is where
it should be. With --read-data every chunk is read, opened, and compared with its id.

Damage is told by recovery point, disk and range, and the exit code is then 1.`,
		Example: `  kluis store check /backup/disks
  kluis store check /backup/disks --read-data --output json`,
		Args: cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.Flags().BoolVar(&readData, "read-data", false, "read every chunk")
	cmd.RunE = c.run(func(args []string) error { return c.check(args[0], readData) })
	return cmd
}

// checked is what check found.
type checked struct {
	recovery.Report
	Damage  []damaged `json:"damage"`
	Seconds float64   `json:"seconds"`
}

// damaged is a part of a recovery point that can't be restored.
type damaged struct {
	Point  string `json:"point,omitempty"`
	Disk   string `json:"disk,omitempty"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Object string `json:"object"`
	Reason string `json:"reason"`
}

func (c *call) check(dir string, readData bool) (err error) {
	start := c.now()
	s, err := c.openToRead(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	progress, stop := c.watch("check")
	defer stop()
	o := recovery.CheckOptions{Progress: progress}
	if readData {
		o.Level = recovery.LevelContent
	}
	report, err := s.Check(c.ctx(), o)
	if err != nil {
		return err
	}
	stop()
	found := checked{Report: report, Damage: damages(report.Damage), Seconds: seconds(c.now().Sub(start))}
	err = c.print(found, func(w io.Writer) {
		row(w, "Points", found.Points)
		row(w, "Disks", found.Disks)
		row(w, "Packs", fmt.Sprintf("%d, and %d that nothing needs", found.Packs, found.Unneeded))
		row(w, "Chunks", fmt.Sprintf("%d, %v as stored", found.Chunks, size(found.Bytes)))
		for _, d := range found.Damage {
			row(w, "DAMAGE", d.String())
		}
	})
	if n := len(found.Damage); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d damaged ranges; what the source still has is stored again by its next backup", n))
	}
	return err
}

func (d damaged) String() string {
	switch {
	case d.Disk != "":
		return fmt.Sprintf("point %s, disk %s, %v at offset %d: %s: %s", d.Point, d.Disk, size(d.Length), d.Offset, d.Object, d.Reason)
	case d.Point != "":
		return fmt.Sprintf("point %s: %s: %s", d.Point, d.Object, d.Reason)
	}
	return d.Object + ": " + d.Reason
}

func damages(all []*recovery.DamageError) []damaged {
	list := make([]damaged, len(all))
	for i, d := range all {
		list[i] = damaged{d.Point, d.Disk, d.Offset, d.Length, d.Object, d.Err.Error()}
	}
	return list
}
