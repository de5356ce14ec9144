package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/client"
	"kluis/internal/nbd"
)

func exportCommand() *cobra.Command {
	cmd := verb("export", "Serve a disk of a recovery point on a local socket, to take files out",
		`kluis recovery-point export --item web-1 --point latest
kluis recovery-point export --item web-1 --point latest --disk web-1-data --decrypt --socket /run/web-1.sock`,
		cobra.NoArgs, func(c *call) error {
			i, p, err := c.pointOfFlags()
			if err != nil {
				return err
			}
			disk := c.flag("disk")
			if disk == "" {
				disk = osDisk(p)
			}
			m, err := c.ProvisionMount(c.ctx(), i.ARMID(), p.Name, []string{disk}, c.is("decrypt"))
			if err != nil {
				return err
			}
			defer m.Key.Wipe()
			err = c.serveMount(m)
			ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx()), 10*time.Second)
			defer cancel()
			return errors.Join(err, c.RevokeMount(ctx, i.ARMID(), p.Name, m.ID))
		})
	cmd.Long = `Serve a disk of a recovery point, read-only, on a Unix socket of this machine until Ctrl-C.

Whatever speaks NBD can read it: qemu-img, qemu-nbd, nbd-client, guestmount. Nothing is restored: what is read
comes from the recovery store at that moment. The disk is as the guest wrote it, encrypted. With --decrypt what
is encrypted on it is opened by the server, with the keys in the recovery point; this needs a role such as Owner,
and stands in the key vault's log of uses (kluis audit).`
	f := cmd.Flags()
	f.StringP("disk", "d", "", "name of the disk (default: the OS disk)")
	f.Bool("decrypt", false, "serve what is encrypted opened, with the keys in the recovery point")
	f.String("socket", "", "path of the socket (default: one in a new folder that only you can enter)")
	return pointFlags(cmd)
}

func revokeCommand() *cobra.Command {
	return pointFlags(verb("revoke", "End everything that serves disks of a recovery point",
		"kluis recovery-point revoke --item web-1 --point latest", cobra.NoArgs, func(c *call) error {
			i, p, err := c.pointOfFlags()
			if err != nil {
				return err
			}
			if err := c.RevokeMount(c.ctx(), i.ARMID(), p.Name, ""); err != nil {
				return err
			}
			c.done("The disks of recovery point %s are not served any more.", p.Name)
			return nil
		}))
}

func osDisk(p client.Point) string {
	for _, d := range p.Properties.Disks {
		if d.LUN < 0 {
			return d.Name
		}
	}
	return ""
}

// localExport is a disk on the socket, as it is told.
type localExport struct {
	client.MountedDisk

	URI string `json:"uri"`
}

// localMount is what is served, as it is told.
type localMount struct {
	ID        string        `json:"id"`
	Expiry    string        `json:"expiryTime"`
	Decrypted bool          `json:"decrypted"`
	Socket    string        `json:"socket"`
	Exports   []localExport `json:"exports"`
}

// serveMount offers what the server serves over TLS on a socket, until the command is interrupted or the server
// ends it.
func (c *call) serveMount(m client.Mount) (err error) {
	server := nbd.NewServer(nbd.ServerOptions{})
	defer func() { err = errors.Join(err, server.Close()) }()
	told := localMount{ID: m.ID, Expiry: m.Expiry, Decrypted: m.Decrypted}
	ended := make(chan struct{}, len(m.Disks))
	for _, d := range m.Disks {
		upstream, err := dialMount(c.ctx(), m, d.Export)
		if err != nil {
			return err
		}
		defer func() { _ = upstream.Close() }()
		go func() { <-upstream.Done(); ended <- struct{}{} }()
		name := "" // what clients ask for that name nothing
		if len(m.Disks) > 1 {
			name = strconv.Itoa(d.Partition)
		}
		if err := server.Offer(nbd.Export{Name: name, Description: d.Name, Disk: nbd.Forwarded{Client: upstream}}); err != nil {
			return err
		}
		told.Exports = append(told.Exports, localExport{d, "nbd+unix:///" + name})
	}
	listener, remove, err := listenSocket(c.flag("socket"))
	if err != nil {
		return err
	}
	defer remove()
	told.Socket = listener.Addr().String()
	for i := range told.Exports {
		told.Exports[i].URI += "?socket=" + told.Socket
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	if err := c.tellMount(told); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-c.ctx().Done():
		return nil
	case <-ended:
		return &client.Error{Code: "MountEnded", Target: m.ID, Message: "The server does not serve the disk any more.",
			Advice: "It was revoked, its time was over (" + m.Expiry + "), or the server stopped. Export the disk again."}
	}
}

func dialMount(ctx context.Context, m client.Mount, export string) (*nbd.Client, error) {
	config, err := m.TLS()
	if err != nil {
		return nil, err
	}
	if config.ServerName, _, err = net.SplitHostPort(m.Address); err != nil {
		return nil, err
	}
	c, err := nbd.DialTLS(ctx, "tcp", m.Address, config, export, nbd.ContextAllocation)
	if err != nil {
		return nil, fmt.Errorf("reach the disk at %s (see --export-listen of the server): %w", m.Address, err)
	}
	return c, nil
}

// listenSocket listens on a socket that only its owner can use.
func listenSocket(path string) (_ net.Listener, remove func(), err error) {
	remove = func() {}
	if path == "" {
		dir, err := os.MkdirTemp("", "kluis-")
		if err != nil {
			return nil, nil, err
		}
		remove = func() { _ = os.RemoveAll(dir) }
		path = filepath.Join(dir, "disk.sock")
	}
	mask := syscall.Umask(0o077)
	defer syscall.Umask(mask)
	l, err := net.Listen("unix", path)
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("listen on the socket: %w", err)
	}
	return l, remove, nil
}

func (c *call) tellMount(m localMount) error {
	if outputOf(c.cmd) == formatJSON {
		return printJSON(c.cmd.OutOrStdout(), m)
	}
	for _, e := range m.Exports {
		what, mount := e.Encryption+", opened", "mount -o ro /dev/nbd0 /mnt"
		if e.Encryption == "" {
			what, mount = "as the guest wrote it", "cryptsetup open --readonly /dev/nbd0 disk && mount -o ro /dev/mapper/disk /mnt   (if it is encrypted)"
		}
		name := e.Name
		if e.Partition > 0 {
			name += fmt.Sprintf(", partition %d", e.Partition)
		}
		c.done("Disk %s (%s, %s) is at %s\n", name, size(e.Size), what, e.URI)
		c.done("  qemu-img convert -f raw -O qcow2 '%s' copy.qcow2", e.URI)
		c.done("  guestmount --ro --format=raw -a '%s' -i /mnt", strings.NewReplacer("nbd+unix:///?", "nbd://?", "nbd+unix://", "nbd://").Replace(e.URI))
		c.done("  qemu-nbd --connect /dev/nbd0 --read-only --format raw '%s'", e.URI)
		c.done("  %s\n", mount)
	}
	c.done("It ends at %s, or with Ctrl-C.", m.Expiry)
	return nil
}
