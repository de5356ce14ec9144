package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/client"
)

// contentVerbs are the verbs that keys and secrets have in common.
func contentVerbs(kind client.Kind) []*cobra.Command {
	one := strings.TrimSuffix(string(kind), "s")
	name := map[client.Kind]string{client.KindKey: "prod-kek", client.KindSecret: "7856433B-F7AC-4CFF-9E14-048525CD9AE2"}[kind]
	backup := verb("backup NAME", "Write a backup of a "+one+", sealed by the server, to a file",
		fmt.Sprintf("kluis %s backup %s --file %s.backup", one, name, one), cobra.ExactArgs(1), func(c *call) error {
			file := c.flag("file")
			uri, err := c.keyVaultURI()
			if err != nil {
				return err
			}
			value, err := c.BackUpContent(c.ctx(), uri, kind, c.args[0])
			if err != nil {
				return err
			}
			if err := writeNew(file, []byte(value)); err != nil {
				return err
			}
			c.done("Wrote the backup of %s %s to %s.", one, c.args[0], file)
			return nil
		})
	backup.Flags().StringP("file", "f", "", "file to write; it must not exist")
	require(backup, "file")
	restore := verb("restore", "Restore a "+one+" from a backup", fmt.Sprintf("kluis %s restore --file %s.backup", one, one), cobra.NoArgs, func(c *call) error {
		file := c.flag("file")
		data, err := readFile(c.cmd, file)
		if err != nil {
			return err
		}
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		id, err := c.RestoreContent(c.ctx(), uri, kind, strings.TrimSpace(string(data)))
		if err != nil {
			return err
		}
		return details(c, map[string]string{"id": id}, itself, []column[map[string]string]{{"Id", func(m map[string]string) string { return m["id"] }}})
	})
	restore.Flags().StringP("file", "f", "", "file with the backup; - is standard input")
	require(restore, "file")
	remove := verb("delete NAME", "Put a "+one+" into soft delete", fmt.Sprintf("kluis %s delete %s", one, name), cobra.ExactArgs(1), func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		if err := c.DeleteContent(c.ctx(), uri, kind, c.args[0]); err != nil {
			return err
		}
		c.done("Deleted %s %s; it can be recovered until it is purged.", one, c.args[0])
		return nil
	})
	purge := verb("purge NAME", "Destroy a deleted "+one, fmt.Sprintf("kluis %s purge %s", one, name), cobra.ExactArgs(1), func(c *call) error {
		uri, err := c.keyVaultURI()
		if err != nil {
			return err
		}
		if err := c.PurgeContent(c.ctx(), uri, kind, c.args[0]); err != nil {
			return err
		}
		c.done("Purged %s %s.", one, c.args[0])
		return nil
	})
	return []*cobra.Command{backup, restore, remove, purge}
}

// maxInput is more than any key, template or backup needs.
const maxInput = 16 << 20

// readFile reads a file, or standard input for "-".
func readFile(cmd *cobra.Command, name string) ([]byte, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, UsageError(err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxInput {
		return nil, usagef("%s is longer than %d bytes", name, maxInput)
	}
	return data, nil
}

// writeNew writes a file for this user alone, and never over another.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return UsageError(err)
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.Close()
}

// unix is a time in seconds for a person.
func unix(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

// lastPart is the name at the end of a URL, version is what follows it.
func nameAndVersion(address string) (name, version string) {
	for _, kind := range []client.Kind{client.KindKey, client.KindSecret} {
		if _, after, ok := strings.Cut(address, "/"+string(kind)+"/"); ok {
			name, version, _ = strings.Cut(after, "/")
			return name, version
		}
	}
	return address, ""
}
