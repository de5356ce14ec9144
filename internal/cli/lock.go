package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

var lockColumns = []column[client.Lock]{
	nameColumn[client.LockProperties](),
	{"Level", func(l client.Lock) string { return l.Properties.Level }},
	{"Scope", func(l client.Lock) string { return l.ARMID().Extended().String() }},
	{"Notes", func(l client.Lock) string { return l.Properties.Notes }},
}

func lockCommand() *cobra.Command {
	return noun("lock", "Locks: what nobody can delete or change",
		`A lock keeps a subscription, a resource group or a resource, and everything in it, from being deleted
(CanNotDelete) or from being changed at all (ReadOnly), whatever roles somebody has. It does not stop what the server
does by itself: backups go on, and recovery points go when their time is over.`,
		lockCreate(), lockList(), lockDelete())
}

func lockCreate() *cobra.Command {
	cmd := verb("create NAME", "Set a lock", `
kluis lock create keep -g prod
kluis lock create keep --level ReadOnly --scope /subscriptions/…/vaults/nightly --notes "audit until May"`, cobra.ExactArgs(1), func(c *call) error {
		scope, err := c.scopeFlag()
		if err != nil {
			return err
		}
		l, err := c.PutLock(c.ctx(), scope, c.args[0], client.LockProperties{Level: lockLevel(c.flag("level")), Notes: c.flag("notes")})
		if err != nil {
			return err
		}
		return details(c, l, rawOf, lockColumns)
	})
	cmd.Flags().String("level", "CanNotDelete", "CanNotDelete or ReadOnly")
	cmd.Flags().String("notes", "", "why it is there")
	return withScope(cmd)
}

// lockLevel takes the words also as flags are written, read-only.
func lockLevel(s string) string { return strings.ReplaceAll(s, "-", "") }

func lockList() *cobra.Command {
	return withScope(verb("list", "List the locks of a scope, above it and below it", "kluis lock list -g prod", cobra.NoArgs, func(c *call) error {
		scope, err := c.scopeFlag()
		if err != nil {
			return err
		}
		all, err := c.Locks(c.ctx(), scope)
		if err != nil {
			return err
		}
		return table(c, all, rawOf, lockColumns)
	}))
}

func lockDelete() *cobra.Command {
	return withScope(verb("delete NAME", "Remove a lock, where it was set", "kluis lock delete keep -g prod", cobra.ExactArgs(1), func(c *call) error {
		scope, err := c.scopeFlag()
		if err != nil {
			return err
		}
		if err := c.DeleteLock(c.ctx(), scope, c.args[0]); err != nil {
			return err
		}
		c.done("Removed the lock %s of %s.", c.args[0], scope)
		return nil
	}))
}
