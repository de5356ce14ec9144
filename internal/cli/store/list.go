package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/recovery"
)

func listCommand(o Options) *cobra.Command {
	c, disk := &call{now: o.Now}, ""
	cmd := &cobra.Command{
		Use:   "list DIR",
		Short: "List the recovery points of a store",
		Long: `List the recovery points of a store, newest first. A point that cannot be read is told on standard error,
and the exit code is then 1.`,
		Example: `  kluis store list /backup/disks
  kluis store list /backup/disks --disk web1-os --output json`,
		Args: cobra.ExactArgs(1),
	}
	c.bindKey(cmd)
	cmd.Flags().StringVar(&disk, "disk", "", "only points with this disk")
	cmd.RunE = c.run(func(args []string) error { return c.list(args[0], disk) })
	return cmd
}

type listed struct {
	ID     string              `json:"id"`
	Time   time.Time           `json:"time"`
	Labels map[string]string   `json:"labels,omitempty"`
	Disks  []recovery.DiskInfo `json:"disks"`
}

func (c *call) list(dir, disk string) (err error) {
	s, err := c.openToRead(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	points, damage := pointsOf(c.ctx(), s.Store, disk)
	if points == nil && damage != nil {
		return damage
	}
	all := make([]listed, len(points))
	for i, p := range points {
		all[i] = listed{p.ID, p.Time, p.Labels, p.Disks()}
	}
	err = c.print(all, func(w io.Writer) {
		row(w, "POINT", "TIME", "DISK", "SIZE", "NEW", "STORED")
		for _, p := range all {
			for _, d := range p.Disks {
				row(w, p.ID, p.Time.Format(time.DateTime), d.Name, size(d.Size), size(d.Counters.New), size(d.Counters.Stored))
			}
		}
	})
	return errors.Join(err, damage)
}

// pointsOf returns the points that have a disk, or all if it is not named, newest first. Points that can't
// be read are left out, and told in the error.
func pointsOf(ctx context.Context, s *recovery.Store, disk string) ([]*recovery.Point, error) {
	points, err := s.Points(ctx)
	points = slices.DeleteFunc(points, func(p *recovery.Point) bool {
		return disk != "" && !slices.ContainsFunc(p.Disks(), func(d recovery.DiskInfo) bool { return d.Name == disk })
	})
	slices.SortFunc(points, func(a, b *recovery.Point) int { return b.Time.Compare(a.Time) })
	return points, err
}

// pick returns the point and the disk that a person named: 'latest' is the newest, and a disk need not be
// named where there is one.
func pick(ctx context.Context, s *recovery.Store, point, disk string) (*recovery.Point, *recovery.Disk, error) {
	var p *recovery.Point
	var err error
	if point == "latest" {
		points, err := pointsOf(ctx, s, disk)
		if err != nil {
			return nil, nil, fmt.Errorf("look for the newest point: %w; name the point", err)
		}
		if len(points) == 0 {
			return nil, nil, fmt.Errorf("the store has no point with that disk: %w", recovery.ErrNoPoint)
		}
		p = points[0]
	} else if p, err = s.Point(ctx, point); err != nil {
		return nil, nil, err
	}
	if disks := p.Disks(); disk == "" && len(disks) == 1 {
		disk = disks[0].Name
	} else if disk == "" {
		names := make([]string, len(disks))
		for i, d := range disks {
			names[i] = d.Name
		}
		return nil, nil, fmt.Errorf("recovery point %s has %d disks, name one with --disk: %q", p.ID, len(disks), names)
	}
	d, err := p.Disk(disk)
	return p, d, err
}
