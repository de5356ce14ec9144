// Package kit is the command that writes a recovery kit: what opens a recovery store when the server is gone.
//
// It reads the server's data folder itself and asks no server: the identity that opens everything must never pass over a
// network, not even to the one who owns it.
package kit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/keyservice"
	"kluis/internal/seal"
)

// Options are what the command needs from outside.
type Options struct {
	Now func() time.Time
}

// Command returns `kluis recovery-kit`.
func Command(o Options) *cobra.Command {
	var data, out string
	var so seal.Options
	var passphraseFile, services string
	cmd := &cobra.Command{
		Use:   "recovery-kit",
		Short: "Write the kit that opens everything when the server is gone",
		Long: `Write the recovery kit of a server: one text file with the identities that open its root key, and the root key
itself, wrapped. With it and the recovery store an empty machine gets back disks, keys and secrets; without it nobody
does. Whoever holds both can read every key and secret, so keep the kit offline and apart from the store: print it,
or put it on a medium that lies in a safe.

Write a new one after the identities have changed. After 'kluis seal rotate' an older kit still does, with the copy of
the root keys that the server leaves in the recovery store. A server may run meanwhile.`,
		Example: `  kluis recovery-kit --data /var/lib/kluis --out /media/safe/kluis-kit.txt
  kluis recovery-kit --data /var/lib/kluis | lp`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if passphraseFile != "" {
				p, err := seal.ReadPassphrase(passphraseFile)
				if err != nil {
					return err
				}
				so.Passphrase = p
				defer p.Wipe()
			}
			outside, err := keyservice.Open(services, keyservice.Options{})
			if err != nil {
				return err
			}
			so.Outside = keyservice.Bound{Services: outside, Context: cmd.Context()}
			text, err := seal.WriteKit(filepath.Join(data, "seal"), so, seal.Kit{Made: o.Now(), Notes: notes(data)})
			if err != nil {
				return fmt.Errorf("write recovery kit: %w", err)
			}
			defer clear(text)
			return deliver(cmd, out, text)
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", cli.DataFolder(), "data folder of the server (KLUIS_DATA)")
	f.StringVar(&out, "out", "", "file to write, which must not exist; without it the kit is printed")
	f.StringVar(&so.Identity, "seal-identity", "", "file of the age identities (default: DATA/seal/seal-identity.txt)")
	f.StringVar(&passphraseFile, "seal-passphrase-file", "", "file of the passphrase that protects the identity file")
	f.StringVar(&services, "key-services", "", "file of the key services outside; one of them unwraps the identity where it lies in no file")
	return cmd
}

// notes tell a person with nothing but this page what it is for.
func notes(data string) []string {
	all := []string{
		"Whoever holds this page and the recovery store can read every key and secret. Keep it offline, and show it to nobody.",
		"It is an age identity file: what takes one takes this (kluis store … --identity, age -d -i).",
	}
	var ids struct {
		TenantID       string `json:"tenantId"`
		SubscriptionID string `json:"subscriptionId"`
	}
	text, err := os.ReadFile(filepath.Join(data, "installation.json"))
	if err == nil && json.Unmarshal(text, &ids) == nil {
		all = append(all, "tenant: "+ids.TenantID, "subscription: "+ids.SubscriptionID)
	}
	return all
}

// deliver prints the kit, or writes it to a new file that only its owner reads.
func deliver(cmd *cobra.Command, path string, text []byte) error {
	if path == "" {
		_, err := cmd.OutOrStdout().Write(text)
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write recovery kit: %w", err)
	}
	if err := writeWhole(f, text); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("write recovery kit: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Wrote %s. It opens everything: keep it offline, apart from the recovery store.\n", path)
	return err
}

func writeWhole(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
