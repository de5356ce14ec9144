package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/recovery"
)

// checkFlags say how deep a check goes.
type checkFlags struct {
	readData, scrub bool
	budget          int64 // MiB
}

func checkCommand(o Options) *cobra.Command {
	c, f := &call{now: o.Now}, checkFlags{}
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Look whether every recovery point can be restored",
		Long: `Look whether every recovery point can be restored: that its manifests can be read and every chunk is where
it should be. With --read-data every chunk is read, opened, and compared with its id. With --scrub the
bytes of all packs are compared with their checksums: that needs no key.

With --budget a check reads so much and no more, and begins with what was not verified for the longest time: what
was verified is noted in the store, so that many such checks verify everything in turn.

Damage is told by recovery point, disk and range, and the exit code is then 1. It is noted in the store: the
next 'put' of an image that still has what is damaged stores it again, and all recovery points are whole.`,
		Example: `  kluis store check /backup/disks
  kluis store check /backup/disks --read-data --output json
  kluis store check /backup/disks --scrub --budget 51200`,
		Args: cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.Flags().BoolVar(&f.readData, "read-data", false, "read and open every chunk")
	cmd.Flags().BoolVar(&f.scrub, "scrub", false, "compare all packs with their checksums, without a key")
	cmd.Flags().Int64Var(&f.budget, "budget", 0, "MiB to read in this run (default: all)")
	cmd.RunE = c.run(func(args []string) error {
		switch {
		case f.scrub && f.readData:
			return cli.UsageError(errors.New("--read-data reads what --scrub reads, and more: give one of them"))
		case f.budget < 0 || f.budget > 0 && !f.scrub && !f.readData:
			return cli.UsageError(errors.New("--budget is a number of MiB for --read-data or --scrub"))
		case f.scrub:
			return c.scrub(args[0], f)
		}
		return c.check(args[0], f)
	})
	return cmd
}

// checked is what check found.
type checked struct {
	recovery.Report
	Damage  []damaged `json:"damage"`
	Seconds float64   `json:"seconds"`
}

func (c *call) check(dir string, f checkFlags) (err error) {
	start := c.now()
	open := c.openToNote
	if !f.readData {
		open = c.openToRead // there is nothing to note
	}
	s, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	progress, stop := c.watch("check")
	defer stop()
	o := recovery.CheckOptions{Level: recovery.LevelStructure, Budget: f.budget << 20, Progress: progress}
	if f.readData {
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
		if f.readData {
			row(w, "Read", fmt.Sprintf("%d packs, %v; %d packs are left", found.Verified, size(found.Read), found.Left))
		}
		if found.Healed > 0 {
			row(w, "Healed", fmt.Sprintf("%d chunks are damaged in one place and whole in another", found.Healed))
		}
		for _, d := range found.Damage {
			row(w, "DAMAGE", d.String())
		}
	})
	if n := len(found.Damage); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d damaged ranges; what the source still has is stored again by its next backup", n))
	}
	return err
}

// scrubbed is what scrub found.
type scrubbed struct {
	Packs   int       `json:"packs"`
	Bytes   int64     `json:"bytes"`
	Left    int       `json:"left"`
	Damage  []damaged `json:"damage"`
	Seconds float64   `json:"seconds"`
}

// scrub needs no key, and so cannot say what of which recovery point the damage hits.
func (c *call) scrub(dir string, f checkFlags) (err error) {
	start := c.now()
	b, err := c.bucket(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	progress, stop := c.watch("scrub")
	defer stop()
	found, err := recovery.Scrub(c.ctx(), b, recovery.ScrubOptions{Now: c.now, Budget: f.budget << 20, Progress: progress})
	if err != nil {
		return err
	}
	stop()
	result := scrubbed{Packs: found.Packs, Bytes: found.Bytes, Left: found.Left, Damage: []damaged{}, Seconds: seconds(c.now().Sub(start))}
	for _, d := range found.Damage {
		result.Damage = append(result.Damage, damaged{Offset: d.Offset, Length: d.Length, Object: d.Object, Reason: "not as it was written"})
	}
	err = c.print(result, func(w io.Writer) {
		row(w, "Packs", fmt.Sprintf("%d, %v; %d are left", result.Packs, size(result.Bytes), result.Left))
		for _, d := range result.Damage {
			row(w, "DAMAGE", fmt.Sprintf("%s, %v at offset %d", d.Object, size(d.Length), d.Offset))
		}
	})
	if n := len(result.Damage); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d damaged ranges; 'kluis store check --read-data' says what they hit", n))
	}
	return err
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
