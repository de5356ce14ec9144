package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/objects"
	"kluis/internal/objects/cloud"
	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
)

func initCommand(o Options) *cobra.Command {
	c := &call{now: o.Now}
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a recovery store in a folder or bucket",
		Long: `Make a recovery store in a folder, which is made if it is not there, or in a bucket, which must be there.

If the key file is not there, a new key is drawn and written to it. Nobody can read the store without it:
keep a copy of it in another place than the store.`,
		Example: `  kluis store init /backup/disks --key-file /etc/kluis/disks.key`,
		Args:    cobra.ExactArgs(1),
	}
	c.bind(cmd)
	cmd.Flags().StringVar(&c.key.file, "key-file", "", "file with the store's master key; made if it is not there (default: the file named by "+keyFileVariable+")")
	cmd.RunE = c.run(func(args []string) error { return c.initialize(args[0]) })
	return cmd
}

// newPlace opens a bucket, which must exist, or a folder, which is made.
func (c *call) newPlace(dir string) (place, error) {
	if cloud.Is(dir) {
		return cloud.Open(c.ctx(), dir)
	}
	return folder.Open(dir)
}

type created struct {
	Store   string `json:"store"`
	ID      string `json:"id"`
	KeyFile string `json:"keyFile"`
	NewKey  bool   `json:"newKey"`
}

func (c *call) initialize(dir string) (err error) {
	if _, err := c.key.path(); err != nil {
		return err
	}
	b, err := c.newPlace(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if _, err := recovery.Open(c.ctx(), b, recovery.Options{Now: c.now}); !errors.Is(err, recovery.ErrNoStore) {
		return fmt.Errorf("%s holds a recovery store already; use it as it is, or choose another folder", dir)
	}
	for o, err := range b.List(c.ctx(), "") {
		if err != nil {
			return err
		}
		return cli.UsageError(fmt.Errorf("%s is not empty (it holds %s): choose a folder for the store alone", dir, o.Name))
	}
	key, path, isNew, err := c.key.readOrCreate()
	if err != nil {
		return err
	}
	s, err := recovery.Create(c.ctx(), b, recovery.Options{Key: key, Now: c.now})
	if errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("%s holds a recovery store already", dir)
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return c.print(created{dir, s.ID(), path, isNew}, func(w io.Writer) {
		row(w, "Store", dir)
		row(w, "Id", s.ID())
		row(w, "Key file", path)
		if isNew {
			_, _ = fmt.Fprintln(c.cmd.ErrOrStderr(), "A new key was made. Nobody can read the store without it: keep a copy of the key file in another place.")
		}
	})
}
