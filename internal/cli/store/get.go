package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/fabric/image"
	"kluis/internal/recovery"
)

// getFlags say how a disk is restored.
type getFlags struct {
	format, disk string
	inPlace      bool
	sync         bool
	maxRate      int64 // bytes a second
}

func getCommand(o Options) *cobra.Command {
	c, f := &call{now: o.Now}, getFlags{}
	cmd := &cobra.Command{
		Use:   "get DIR POINT IMAGE",
		Short: "Restore a disk of a recovery point to an image",
		Long: `Restore a disk of a recovery point to a new image. POINT is an id, or 'latest'.

The image is written beside its name and gets the name when it is complete; one that exists is never
replaced. As with cp, what the command has written may still be on its way to the disk; --sync waits for
that, so that the image is whole after a power cut too. A raw image whose restore was cut short is gone on with when the command is given again.

With --in-place a raw image or block device that exists is made equal to the point: it is read, and only
what differs is written. That too can be cut short and done again.`,
		Example: `  kluis store get /backup/disks latest /images/web1-again.raw
  kluis store get /backup/disks 1789000000000000 /images/web1.qcow2 --format qcow2 --disk web1-os
  kluis store get /backup/disks latest /dev/vg0/web1 --in-place`,
		Args: cobra.ExactArgs(3),
	}
	c.bindKey(cmd)
	cmd.Flags().StringVar(&f.format, "format", "raw", formatsHelp)
	cmd.Flags().StringVar(&f.disk, "disk", "", "name of the disk, if the point has several")
	cmd.Flags().BoolVar(&f.inPlace, "in-place", false, "make a raw image or a block device that exists equal to the point")
	cmd.Flags().BoolVar(&f.sync, "sync", false, "wait until all of it is on the disk")
	cmd.Flags().Int64Var(&f.maxRate, "max-rate", 0, "write no more than this many bytes a second (default: no bound)")
	cmd.RunE = c.run(func(args []string) error { return c.get(args[0], args[1], args[2], f) })
	return cmd
}

// restored is what get did.
type restored struct {
	Point string `json:"point"`
	Disk  string `json:"disk"`
	Image string `json:"image"`
	recovery.Restored
	Resumed bool    `json:"resumed,omitempty"` // it went on with an image that was begun before
	Digest  string  `json:"digest"`
	Seconds float64 `json:"seconds"`
}

func (c *call) get(dir, point, path string, f getFlags) (err error) {
	start := c.now()
	if f.inPlace && f.format != image.Raw {
		return cli.UsageError(fmt.Errorf("--in-place is for raw images and block devices, not for %s", f.format))
	}
	if f.maxRate < 0 {
		return cli.UsageError(errors.New("--max-rate is not negative"))
	}
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
	done := restored{Point: p.ID, Disk: d.Name(), Image: path, Digest: d.Digest()}
	o := recovery.RestoreOptions{Rate: recovery.NewRate(f.maxRate), Progress: progress}
	if f.inPlace {
		done.Restored, err = c.replace(s.Store, d, path, f, o)
	} else {
		done.Restored, done.Resumed, err = c.create(s.Store, d, path, f, o)
	}
	if err != nil {
		return err
	}
	stop()
	done.Seconds = seconds(c.now().Sub(start))
	return c.print(done, func(w io.Writer) {
		row(w, "Point", done.Point)
		row(w, "Disk", fmt.Sprintf("%s, %v", done.Disk, size(done.Size)))
		row(w, "Image", done.Image)
		row(w, "Written", size(done.Written))
		if done.Read > 0 {
			row(w, "Right already", size(done.Same))
			row(w, "Zeroed", size(done.Zeroed))
		}
	})
}

// create restores to a new image. What an earlier attempt has left of it is gone on with.
func (c *call) create(s *recovery.Store, d *recovery.Disk, path string, f getFlags, o recovery.RestoreOptions) (done recovery.Restored, resumed bool, err error) {
	target, err := image.CreateFile(c.ctx(), path, f.format, d.Size())
	if err != nil {
		return done, false, err
	}
	if !f.sync {
		target.InNoHurry()
	}
	o.InPlace, o.NoSync = target.Resumed(), true // Commit makes it durable, if it shall be
	done, err = s.Restore(c.ctx(), d, target, o)
	switch {
	case err == nil && f.sync:
		return done, o.InPlace, target.Commit()
	case err == nil:
		return done, o.InPlace, target.CommitSoon()
	case c.ctx().Err() != nil:
		return done, false, errors.Join(err, target.Keep()) // the next attempt goes on with it
	}
	return done, false, errors.Join(err, target.Abort())
}

// replace makes an image or a device that exists equal to the disk.
func (c *call) replace(s *recovery.Store, d *recovery.Disk, path string, f getFlags, o recovery.RestoreOptions) (done recovery.Restored, err error) {
	target, err := image.OpenUsed(path)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	o.InPlace, o.NoSync = true, !f.sync
	return s.Restore(c.ctx(), d, target, o)
}
