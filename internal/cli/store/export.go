package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/nbd"
)

func exportCommand(o Options) *cobra.Command {
	c, disk, socket := &call{now: o.Now}, "", ""
	cmd := &cobra.Command{
		Use:   "export DIR POINT",
		Short: "Serve a disk of a recovery point as a block device, at once",
		Long: `Serve a disk of a recovery point over NBD, read-only, on a unix socket, until the command is stopped (Ctrl-C).
POINT is an id, or 'latest'. Nothing is restored beforehand: what is read comes from the store when it is read.

A virtual machine can run from it at once, through an overlay that takes what it writes. The disk is as the
guest wrote it: whoever has its key opens it with cryptsetup or dislocker on their side.`,
		Example: `  kluis store export /backup/disks latest --socket /run/web1.sock
  qemu-img create -f qcow2 -F raw -b 'nbd+unix:///?socket=/run/web1.sock' /images/web1-now.qcow2
  nbd-client -unix /run/web1.sock /dev/nbd0 && cryptsetup open --readonly /dev/nbd0 web1`,
		Args: cobra.ExactArgs(2),
	}
	c.bindKey(cmd)
	cmd.Flags().StringVar(&disk, "disk", "", "name of the disk, if the point has several")
	cmd.Flags().StringVar(&socket, "socket", "", "path of the unix socket to serve on")
	cmd.RunE = c.run(func(args []string) error {
		if socket == "" {
			return cli.UsageError(errors.New("no socket: give --socket PATH"))
		}
		return c.export(args[0], args[1], disk, socket)
	})
	return cmd
}

func (c *call) export(dir, point, disk, socket string) (err error) {
	s, err := c.openToRead(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p, d, err := pick(c.ctx(), s.Store, point, disk)
	if err != nil {
		return err
	}
	defer d.Hold()()
	server := nbd.NewServer(nbd.ServerOptions{})
	defer func() { _ = server.Close() }() // nothing is written that could be lost
	if err := server.Offer(nbd.Export{Description: fmt.Sprintf("disk %s of recovery point %s", d.Name(), p.ID), Disk: d}); err != nil {
		return err
	}
	syscall.Umask(0o177) // the socket is its owner's from its first moment on
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve on %s: %w", socket, err)
	}
	defer context.AfterFunc(c.ctx(), func() { _ = server.Close() })()
	url := "nbd+unix:///?socket=" + socket
	result := map[string]any{"point": p.ID, "disk": d.Name(), "size": d.Size(), "url": url}
	if err := c.print(result, func(w io.Writer) {
		row(w, "Point", p.ID)
		row(w, "Disk", fmt.Sprintf("%s, %v", d.Name(), size(d.Size())))
		row(w, "Serving", url)
	}); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := server.Serve(l); !errors.Is(err, nbd.ErrServerClosed) {
		return err
	}
	return nil
}
