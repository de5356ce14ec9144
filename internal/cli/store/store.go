// Package store is the commands that work on a recovery store itself, with no server running: to check it,
// to measure it, and to get disks out of it when nothing else is left.
//
// A store is opened with its master key, which is in a file of its own (--key-file) or, for the store of a
// server, wrapped in the store and opened with the server's age identity (--identity). A point that is made
// here has one disk, named with --disk.
//
// Results go to standard output, for people or as one JSON object; progress goes to standard error, as a bar
// at a terminal and else as a line of JSON a second.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/objects"
	"kluis/internal/objects/cloud"
	"kluis/internal/objects/folder"
	"kluis/internal/recovery"
)

// Options are what the commands take from outside.
type Options struct {
	Now func() time.Time
}

// Command returns 'kluis store'.
func Command(o Options) *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Work on a recovery store without a server",
		Long: `Work on a recovery store without a server: make one, put images into it, get them out, check it.

DIR is a folder, or a bucket: s3://BUCKET/PREFIX?region=… or azblob://CONTAINER/PREFIX?storage_account=…,
with credentials from where the SDKs look for them (docs/operations.md).

A store is opened with its master key: from --key-file, else from the file named by KLUIS_STORE_KEY_FILE.
The stores of a server (DATA/store/stores/*/*) are opened with --identity and the server's identity file
(DATA/seal/seal-identity.txt, or your copy of it).

One process at a time writes to a store; others can read it meanwhile.`,
		Example: `  kluis store init /backup/disks --key-file /etc/kluis/disks.key
  export KLUIS_STORE_KEY_FILE=/etc/kluis/disks.key
  kluis store put /backup/disks /images/web1.qcow2 --format qcow2
  kluis store list /backup/disks
  kluis store get /backup/disks latest /images/web1-again.raw
  kluis store check /backup/disks --read-data`,
	}
	c.AddCommand(initCommand(o), putCommand(o), listCommand(o), getCommand(o), exportCommand(o), checkCommand(o), statCommand(o), removeCommand(o), collectCommand(o), indexCommand(o))
	return c
}

// call is one command while it runs.
type call struct {
	cmd *cobra.Command
	now func() time.Time
	key keySource
	out string // "table" or "json"
}

func (c *call) ctx() context.Context { return c.cmd.Context() }

// bind gives a command the flags that all have.
func (c *call) bind(cmd *cobra.Command) {
	c.cmd = cmd
	cmd.Flags().StringVarP(&c.out, "output", "o", formatTable, "table or json")
}

// bindKey gives a command the flags that say how to open a store.
func (c *call) bindKey(cmd *cobra.Command) {
	c.bind(cmd)
	cmd.Flags().StringVar(&c.key.file, "key-file", "", "file with the store's master key, 64 hex digits (default: the file named by "+keyFileVariable+")")
	cmd.Flags().StringVar(&c.key.identity, "identity", "", "age identity file that opens the wrapped key in the store of a server")
}

// run makes a RunE that checks --output first.
func (c *call) run(f func(args []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		if c.out != formatTable && c.out != formatJSON {
			return cli.UsageError(fmt.Errorf("--output is %q: want table or json", c.out))
		}
		return f(args)
	}
}

// place is where a store is: a folder or a bucket.
type place interface {
	objects.Bucket
	io.Closer
}

// bucket opens the place of a store that exists.
func (c *call) bucket(dir string) (place, error) {
	if cloud.Is(dir) {
		return cloud.Open(c.ctx(), dir)
	}
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("no recovery store at %s: %w", dir, err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("no recovery store at %s: it is no folder", dir)
	}
	return folder.Open(dir)
}

// opened is a store together with its bucket.
type opened struct {
	*recovery.Store
	bucket io.Closer
}

func (o opened) Close() error { return errors.Join(o.Store.Close(), o.bucket.Close()) }

// openToRead opens a store with its key, whoever works on it meanwhile.
func (c *call) openToRead(dir string) (*opened, error) {
	return c.open(dir, func(o *recovery.Options) { o.ReadOnly = true })
}

// openToNote opens a store as its owner, so that what is found can be noted in it; while another process owns
// it, or where it can't be written to, it is opened to be read.
func (c *call) openToNote(dir string) (*opened, error) {
	s, err := c.openToWrite(dir)
	_, owned := errors.AsType[*recovery.OwnedError](err)
	if owned || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		_, _ = fmt.Fprintf(c.cmd.ErrOrStderr(), "What is found is not noted in the store: %v\n", err)
		return c.openToRead(dir)
	}
	return s, err
}

// openToWrite opens a store with its key, as its one owner.
func (c *call) openToWrite(dir string) (*opened, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	owner := fmt.Sprintf("kluis store %s, process %d on %s", c.cmd.Name(), os.Getpid(), host)
	return c.open(dir, func(o *recovery.Options) { o.Owner = owner })
}

func (c *call) open(dir string, change func(*recovery.Options)) (*opened, error) {
	b, err := c.bucket(dir)
	if err != nil {
		return nil, err
	}
	s, err := c.openBucket(dir, b, change)
	if err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("%s: %w", dir, explain(err))
	}
	return &opened{s, b}, nil
}

func (c *call) openBucket(dir string, b objects.Bucket, change func(*recovery.Options)) (*recovery.Store, error) {
	key, err := c.key.read(c.ctx(), b)
	if err != nil {
		return nil, err
	}
	o := recovery.Options{Key: key, Now: c.now, Cache: cacheOf(dir)}
	change(&o)
	return recovery.Open(c.ctx(), b, o)
}

// cacheOf is where the index of a store is kept: in a folder beside the store's own files, where the name with a
// dot keeps it out of the store; for a bucket among the user's caches, if there are any.
func cacheOf(dir string) string {
	if !cloud.Is(dir) {
		return filepath.Join(dir, ".index")
	}
	caches, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(caches, "kluis")
}

// explain says what to do about the errors that a person can mend.
func explain(err error) error {
	switch {
	case errors.Is(err, recovery.ErrNoStore):
		return fmt.Errorf("%w; make one with 'kluis store init'", err)
	case errors.Is(err, recovery.ErrWrongKey):
		return fmt.Errorf("%w; give the file that 'kluis store init' made, or --identity for the store of a server", err)
	}
	return err
}
