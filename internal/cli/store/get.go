package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/fabric/image"
	"kluis/internal/recovery"
)

// getFlags say how a disk is restored.
type getFlags struct {
	format, disk string
	inPlace      bool
}

func getCommand(o Options) *cobra.Command {
	c, f := &call{now: o.Now}, getFlags{}
	cmd := &cobra.Command{
		Use:   "get DIR POINT IMAGE",
		Short: "Restore a disk of a recovery point to an image",
		Long: `Restore a disk of a recovery point to a new image. POINT is an id, or 'latest'.

The image is written beside its name and gets the name when it is complete and durable; one that exists is
never replaced. With --in-place an image or block device that exists is made equal to the point: it is
read, and only what differs is written. Such a restore can be cut short and done again.`,
		Example: `  kluis store get /backup/disks latest /images/web1-again.raw
  kluis store get /backup/disks 1789000000000000 /images/web1.qcow2 --format qcow2 --disk web1-os
  kluis store get /backup/disks latest /dev/vg0/web1 --in-place`,
		Args: cobra.ExactArgs(3),
	}
	c.bindKey(cmd)
	cmd.Flags().StringVar(&f.format, "format", "raw", formatsHelp)
	cmd.Flags().StringVar(&f.disk, "disk", "", "name of the disk, if the point has several")
	cmd.Flags().BoolVar(&f.inPlace, "in-place", false, "make a raw image or a block device that exists equal to the point")
	cmd.RunE = c.run(func(args []string) error { return c.get(args[0], args[1], args[2], f) })
	return cmd
}

// restored is what get did.
type restored struct {
	Point   string  `json:"point"`
	Disk    string  `json:"disk"`
	Image   string  `json:"image"`
	Size    int64   `json:"size"`
	Written int64   `json:"written"` // bytes; the rest are holes, or were right already
	Digest  string  `json:"digest"`
	Seconds float64 `json:"seconds"`
}

func (c *call) get(dir, point, path string, f getFlags) (err error) {
	start := c.now()
	s, err := c.openToRead(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p, d, err := pick(c.ctx(), s.Store, point, f.disk)
	if err != nil {
		return err
	}
	progress, stop := c.watch("restore " + d.Name())
	defer stop()
	written, err := c.restore(s.Store, p, d, path, f, progress)
	if err != nil {
		return err
	}
	stop()
	done := restored{p.ID, d.Name(), path, d.Size(), written, d.Digest(), seconds(c.now().Sub(start))}
	return c.print(done, func(w io.Writer) {
		row(w, "Point", done.Point)
		row(w, "Disk", fmt.Sprintf("%s, %v", done.Disk, size(done.Size)))
		row(w, "Image", done.Image)
		row(w, "Written", size(done.Written))
	})
}

// restore writes the disk, and returns how many bytes it wrote.
func (c *call) restore(s *recovery.Store, p *recovery.Point, d *recovery.Disk, path string, f getFlags, progress recovery.Progress) (int64, error) {
	target, err := image.CreateFile(c.ctx(), path, f.format, d.Size())
	if err != nil {
		return 0, err
	}
	if err := s.Restore(c.ctx(), d, target, progress); err != nil {
		return 0, errors.Join(err, target.Abort())
	}
	return dataOf(p, d), target.Commit()
}

// dataOf is how much of a disk is not in holes.
func dataOf(p *recovery.Point, d *recovery.Disk) int64 {
	for _, info := range p.Disks() {
		if info.Name == d.Name() {
			return info.Size - info.Counters.Zero
		}
	}
	return 0
}
