// Package cli is the user's commands.
//
// A command is a noun and a verb: kluis vault create, kluis backup now. It talks to a server through its
// public API and nothing else, so whatever a command does, a script can do with any Azure client. One
// file holds one noun.
//
// Results go to standard output, as a table for people or as the server's own JSON; progress and errors
// go to standard error. The exit code is 0 when the work is done, 1 when it failed, and 2 when the command
// was not understood and nothing was tried.
package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// New returns the root command. What isn't a client's comes from outside: the serve command, since only
// main knows the server's parts (it may be nil), and offline, the commands that need no server.
func New(serve *cobra.Command, offline ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "kluis",
		Short: "Back up encrypted virtual machines together with the keys that open them",
		Long: `Kluis backs up encrypted virtual machines together with the keys that open them, proves that every
recovery point can be opened, and speaks Azure Backup's REST API.

Start a server with 'kluis serve'; it writes an admin.json that all other commands use to find it:
from --admin, else from KLUIS_ADMIN, else from the data folder (KLUIS_DATA, or /var/lib/kluis).
KLUIS_RESOURCE_GROUP and KLUIS_VAULT stand in for --resource-group and --vault.

Exit codes: 0 done; 1 failed (the server refused, or the job failed); 2 the command was not understood.`,
		Example: `  kluis serve --data /srv/kluis --allow-images /srv/images
  export KLUIS_ADMIN=/srv/kluis/admin.json KLUIS_RESOURCE_GROUP=prod KLUIS_VAULT=backups
  kluis group create prod
  kluis keyvault create prod-keys
  kluis keyvault grant-backup prod-keys
  kluis vault create backups
  kluis item enable web-1
  kluis backup now web-1
  kluis recovery-point list --item web-1`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddGroup(
		&cobra.Group{ID: "backup", Title: "Back up and restore:"},
		&cobra.Group{ID: "things", Title: "What is backed up:"},
		&cobra.Group{ID: "server", Title: "The server:"},
	)
	if len(offline) > 0 { // a group without commands would still print its title
		root.AddGroup(&cobra.Group{ID: "offline", Title: "Without a server:"})
	}
	for _, c := range []struct {
		group    string
		commands []*cobra.Command
	}{
		{"backup", []*cobra.Command{vaultCommand(), policyCommand(), protectableItemCommand(), itemCommand(), backupCommand(), jobCommand(),
			recoveryPointCommand(), restoreCommand(), alertCommand(), deploymentCommand()}},
		{"things", []*cobra.Command{groupCommand(), keyVaultCommand(), keyCommand(), secretCommand(), diskCommand(), snapshotCommand(), hostCommand(), vmCommand()}},
		{"server", []*cobra.Command{serve, cloudCommand(), roleCommand(), lockCommand(), principalCommand(), userCommand(), auditCommand(), sealCommand()}},
		{"offline", offline},
	} {
		for _, command := range c.commands {
			if command != nil {
				command.GroupID = c.group
				root.AddCommand(command)
			}
		}
	}
	markFailures(root)
	return root
}

// usageError is a command that was not understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// UsageError marks an error as a mistake in how the command was given.
func UsageError(err error) error { return usageError{err} }

func usagef(format string, args ...any) error { return UsageError(fmt.Errorf(format, args...)) }

// failure is an error of the command's own work; whatever comes from elsewhere is cobra's, about usage.
type failure struct{ error }

func (e failure) Unwrap() error { return e.error }

// markFailures wraps what the commands return, so that Execute can tell it from cobra's complaints.
func markFailures(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return failure{err}
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		markFailures(c)
	}
}

// Execute runs the command that args name, tells an error on standard error and returns the exit code.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	_, failed := errors.AsType[failure](err)
	if u, ok := errors.AsType[usageError](err); ok || !failed {
		if ok {
			err = u.error
		}
		printError(cmd, err)
		if outputOf(cmd) != formatJSON {
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "\nSee: %s --help\n", cmd.CommandPath())
		}
		return exitUsage
	}
	printError(cmd, err)
	return exitFailed
}
