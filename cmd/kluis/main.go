// Command kluis is the server and its command line.
//
// This package reads the configuration, builds the parts and ties them together; it is the only place
// that knows all of them. What the parts do is in internal/; docs/architecture.md draws the house.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/cli/kit"
	storecommands "kluis/internal/cli/store"
	volumecommands "kluis/internal/cli/volume"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := cli.New(serveCommand(), guardCommand(), storecommands.Command(storecommands.Options{Now: time.Now}), volumecommands.Command(), kit.Command(kit.Options{Now: time.Now}))
	os.Exit(cli.Execute(ctx, root, os.Args[1:]))
}

func serveCommand() *cobra.Command {
	c := defaults()
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server on one HTTPS listener until it is told to stop (Ctrl-C, SIGTERM).

The first start makes everything it needs in the data folder: the database, the recovery store, a
certificate authority of its own, the root key, and admin.json with the credentials that the other
commands use. Each setting can be a flag, a variable (KLUIS_LISTEN) or a line of the file given with
--config (listen: …).`,
		Example: `  kluis serve --data /var/lib/kluis --allow-images /var/lib/libvirt/images
  KLUIS_DATABASE=postgres://kluis@db/kluis kluis serve --config /etc/kluis.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.resolve(cmd.Flags(), file, os.LookupEnv); err != nil {
				return cli.UsageError(err)
			}
			log, err := logger(c.LogLevel)
			if err != nil {
				return cli.UsageError(err)
			}
			return serve(cmd.Context(), c, log, cmd.OutOrStdout())
		},
	}
	c.bind(cmd.Flags())
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML); its names are those of the flags")
	return cmd
}

func logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level %q is not debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}

// lock makes sure that one server at a time works in a data folder. A server that was killed while it started a program
// leaves the lock to it until that begins to run: so a lock is waited for, but not for long.
func lock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(lockTime)
	defer late.Stop()
	tick := time.NewTicker(lockTime / 50)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-late.C:
			_ = f.Close()
			return nil, fmt.Errorf("another server works in this data folder (%s is locked); stop it, or give this one another --data", path)
		}
	}
}

// lockTime is how long a lock is waited for.
const lockTime = 2 * time.Second
