package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/recovery"
)

// putFlags say how an image is put.
type putFlags struct {
	format, disk, point, parent, changed string

	audit              float64
	chunkSize, maxRate int64 // KiB, bytes a second
}

func putCommand(o Options) *cobra.Command {
	c, f := &call{now: o.Now}, putFlags{}
	cmd := &cobra.Command{
		Use:   "put DIR IMAGE",
		Short: "Store an image as a new recovery point",
		Long: `Store an image as a new recovery point with one disk.

What the newest point of the same disk has already is not stored again. With --changed only the listed
extents are read: all else must be as it was in the parent, which --parent should then name.`,
		Example: `  kluis store put /backup/disks /images/web1.raw
  kluis store put /backup/disks /images/web1.qcow2 --format qcow2 --disk web1-os
  kluis store put /backup/disks /images/web1.raw --parent 1789000000000000 --changed changed.json`,
		Args: cobra.ExactArgs(2),
	}
	c.bindKey(cmd)
	cmd.Flags().StringVar(&f.format, "format", "raw", formatsHelp)
	cmd.Flags().StringVar(&f.disk, "disk", "disk", "name of the disk; points of the same disk build on each other")
	cmd.Flags().StringVar(&f.point, "point", "", "id of the new point (default: the time in microseconds)")
	cmd.Flags().StringVar(&f.parent, "parent", "latest", "id of the point to compare with; 'latest' is the disk's newest, 'none' compares with nothing")
	cmd.Flags().StringVar(&f.changed, "changed", "", `JSON file with what changed since the parent: [{"offset":N,"length":N},…]`)
	cmd.Flags().Float64Var(&f.audit, "audit", 1.0/32, "share of what is listed to read beyond the list, at random, to see whether it leaves something out")
	cmd.Flags().Int64Var(&f.chunkSize, "chunk-size", 0, "size of the disk's chunks in KiB: 64 to 1024, a power of two (default: that of the parent, or else 64, and 256 for a disk that compresses)")
	cmd.Flags().Int64Var(&f.maxRate, "max-rate", 0, "read no more than this many bytes a second (default: no bound)")
	cmd.RunE = c.run(func(args []string) error { return c.put(args[0], args[1], f) })
	return cmd
}

// stored is what put did.
type stored struct {
	Point   string `json:"point"`
	Disk    string `json:"disk"`
	Parent  string `json:"parent,omitempty"`
	Size    int64  `json:"size"`
	Read    int64  `json:"read"`
	Changed *int64 `json:"changed,omitempty"` // as the list says
	Audited int64  `json:"audited,omitempty"` // of what was read
	Zero    int64  `json:"zero"`
	New     int64  `json:"new"`
	Reused  int64  `json:"reused"`
	Stored  int64  `json:"stored"`
	Digest  string `json:"digest"`

	Seconds float64 `json:"seconds"`
}

func (c *call) put(dir, path string, f putFlags) (err error) {
	start := c.now()
	if f.changed != "" && f.parent == "none" {
		return cli.UsageError(errors.New("--changed says what changed since a parent, and --parent none says that there is none"))
	}
	if f.audit < 0 || f.audit > 1 || f.chunkSize < 0 || f.maxRate < 0 {
		return cli.UsageError(errors.New("--audit is a share from 0 to 1; --chunk-size and --max-rate are not negative"))
	}
	if f.point == "" {
		f.point = strconv.FormatInt(start.UnixMicro(), 10)
	}
	s, err := c.openToWrite(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	src, err := openSource(c.ctx(), path, f.format, f.changed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	parent, parentID, err := parentOf(c.ctx(), s.Store, f, src.Size())
	if err != nil {
		return err
	}
	progress, stop := c.watch("store " + f.disk)
	defer stop()
	o := recovery.DiskOptions{Parent: parent, ChunkSize: f.chunkSize << 10, Rate: recovery.NewRate(f.maxRate), Progress: progress}
	if f.changed != "" {
		o.Changed, o.Audit = true, int64(f.audit*float64(src.bytes()))
	}
	counters, digest, err := c.write(s.Store, src, f, o)
	if _, lie := errors.AsType[*recovery.UnreportedError](err); lie {
		return fmt.Errorf("%w; put the image again without --changed", err)
	} else if err != nil {
		return err
	}
	stop()
	done := stored{Point: f.point, Disk: f.disk, Parent: parentID, Size: counters.Size, Read: counters.Read, Audited: counters.Audited, Zero: counters.Zero,
		New: counters.New, Reused: counters.Reused, Stored: counters.Stored, Digest: digest, Seconds: seconds(c.now().Sub(start))}
	if f.changed != "" {
		n := src.bytes()
		done.Changed = &n
	}
	return c.print(done, func(w io.Writer) {
		row(w, "Point", done.Point)
		row(w, "Disk", fmt.Sprintf("%s, %v", done.Disk, size(done.Size)))
		if parentID != "" {
			row(w, "Parent", parentID)
		}
		row(w, "Read", size(done.Read))
		row(w, "Zero", size(done.Zero))
		row(w, "New", size(done.New))
		row(w, "Reused", size(done.Reused))
		row(w, "Stored", size(done.Stored))
	})
}

// write makes the point. What was read counts only if the image was the same to the end.
func (c *call) write(s *recovery.Store, src *source, f putFlags, o recovery.DiskOptions) (counters recovery.Counters, digest string, err error) {
	w, err := s.Begin(c.ctx(), f.point)
	if err != nil {
		return counters, "", err
	}
	defer w.Abort() // does nothing once committed
	if counters, err = w.WriteDisk(c.ctx(), f.disk, src, o); err != nil {
		return counters, "", err
	}
	if err := src.Verify(c.ctx()); err != nil {
		return counters, "", err
	}
	p, err := w.Commit(c.ctx(), nil)
	if err != nil {
		return counters, "", err
	}
	return counters, p.Disks()[0].Digest, nil
}

// parentOf finds the disk that the new one is compared with; nil if there is none. A disk that was resized
// is compared with nothing, unless the caller counts on its parent.
func parentOf(ctx context.Context, s *recovery.Store, f putFlags, size int64) (*recovery.Disk, string, error) {
	switch f.parent {
	case "none":
		return nil, "", nil
	case "latest":
		points, err := pointsOf(ctx, s, f.disk)
		if err != nil {
			return nil, "", err
		}
		if len(points) == 0 {
			if f.changed != "" {
				return nil, "", fmt.Errorf("no point has a disk %q that the changed extents could refer to; leave out --changed", f.disk)
			}
			return nil, "", nil
		}
		f.parent = points[0].ID
	}
	p, err := s.Point(ctx, f.parent)
	if err != nil {
		return nil, "", err
	}
	d, err := p.Disk(f.disk)
	if err != nil {
		return nil, "", err
	}
	if d.Size() != size && f.changed == "" {
		return nil, "", nil
	}
	return d, p.ID, nil
}
