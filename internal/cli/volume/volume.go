// Package volume is the commands that look at a disk itself, with no server running: what it holds, how that
// is encrypted, and whether a key opens it.
//
// They only read. A key comes from a file or from standard input, never from the command line, where other
// users of the machine could see it; nothing that is printed holds any of it.
package volume

import "github.com/spf13/cobra"

// Command returns 'kluis volume'.
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "volume",
		Short: "Look at disk images without a server",
		Long: `Look at disk images without a server: what a disk holds, how its volumes are encrypted, and whether a key
opens them. Nothing is written.`,
		Example: `  kluis volume inspect /images/web1-os.qcow2
  kluis volume inspect /images/web1-os.qcow2 --key-file /keys/web1.BEK`,
	}
	c.AddCommand(inspectCommand())
	return c
}
