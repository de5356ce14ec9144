package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/fabric/image"
	"kluis/internal/secret"
	"kluis/internal/volume"
	"kluis/internal/volume/filesystem"
)

// report is what there is to say about a disk.
type report struct {
	Image  string `json:"image"`
	Format string `json:"format"`
	volume.Disk
	// Key is what the key does, a line an encrypted volume; nil when none was given.
	Key []tried `json:"key,omitempty"`
}

// tried is what a key does to a volume.
type tried struct {
	Partition int    `json:"partition,omitempty"`
	Opens     bool   `json:"opens"`
	By        string `json:"by,omitempty"`     // key slot or protector
	Holds     string `json:"holds,omitempty"`  // what is inside
	Reason    string `json:"reason,omitempty"` // why it doesn't open
}

// inspection is one run of the command.
type inspection struct {
	cmd    *cobra.Command
	format string
	out    string
	key    keySource
}

func inspectCommand() *cobra.Command {
	c := &inspection{}
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Tell what a disk holds, and whether a key opens it",
		Long: `Tell what a disk holds: partitions and file systems, LUKS and BitLocker volumes with their ciphers, key
slots or protectors, what is damaged, and whether encryption is under way. That needs no key.

With a key, each encrypted volume is tried. A key is the exact bytes of a file (--key-file: a LUKS passphrase
or key file, a .BEK file, or a file with a BitLocker password or recovery password), or the first line of
standard input (--password-stdin, or --recovery-password for BitLocker's 48 digits).

Exit codes: 0 told, and the key opens all that is encrypted; 1 the key doesn't, or the image can't be read;
2 the command was not understood.`,
		Example: `  kluis volume inspect /images/web1-os.qcow2
  kluis volume inspect /images/win1-os.vhd --key-file 4381F759-C4F8-4DE0-BB61-FC33A831BDA5.BEK
  systemd-ask-password | kluis volume inspect /dev/sdb --password-stdin --output json`,
		Args: cobra.ExactArgs(1),
	}
	c.cmd = cmd
	f := cmd.Flags()
	f.StringVarP(&c.out, "output", "o", formatTable, "table or json")
	f.StringVar(&c.format, "format", "", "format of the image: raw, qcow2, vhd or vhdx (default: recognised)")
	f.StringVar(&c.key.file, "key-file", "", "file whose bytes are the key")
	f.BoolVar(&c.key.password, "password-stdin", false, "read a password, one line, from standard input")
	f.BoolVar(&c.key.recovery, "recovery-password", false, "read a BitLocker recovery password, one line, from standard input")
	cmd.MarkFlagsMutuallyExclusive("key-file", "password-stdin", "recovery-password")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) }
	return cmd
}

func (c *inspection) run(ctx context.Context, path string) (err error) {
	if c.out != formatTable && c.out != formatJSON {
		return cli.UsageError(fmt.Errorf("--output is %q: want table or json", c.out))
	}
	if formats := []string{"", "raw", "qcow2", "vhd", "vhdx"}; !slices.Contains(formats, c.format) {
		return cli.UsageError(fmt.Errorf("--format is %q: want raw, qcow2, vhd or vhdx", c.format))
	}
	key, given, err := c.key.read(c.cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer key.Wipe()
	disk, err := image.OpenFile(ctx, path, c.format)
	if err != nil {
		return fmt.Errorf("open the image: %w", err)
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	found, err := volume.Inspect(disk, disk.Size())
	if err != nil {
		return err
	}
	r := report{Image: path, Format: disk.Format(), Disk: found}
	if given {
		if r.Key, err = try(ctx, disk, found, key); err != nil {
			return err
		}
	}
	if err := c.print(r); err != nil {
		return err
	}
	return r.verdict(given)
}

// try opens each encrypted volume. The error is the disk's or the context's.
func try(ctx context.Context, disk *image.OpenDisk, found volume.Disk, key secret.Bytes) ([]tried, error) {
	var all []tried
	for _, v := range found.Volumes {
		if !v.Encrypted {
			continue
		}
		one := tried{Partition: v.Partition}
		opened, by, err := volume.Open(ctx, disk, v, key)
		switch {
		case err == nil:
			one.Opens, one.By = true, by
			one.Holds, err = inside(opened)
			if err = errors.Join(err, opened.Close()); err != nil {
				return nil, err
			}
		case errors.Is(err, volume.ErrWrongKey) || errors.Is(err, volume.ErrDamaged) || errors.Is(err, volume.ErrUnsupported):
			one.Reason = err.Error()
		default:
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// inside tells what an opened volume holds.
func inside(opened volume.Opened) (string, error) {
	fs, err := filesystem.Recognise(opened, opened.Size())
	var damage *filesystem.DamageError
	switch {
	case err == nil:
		return describe(fs.Type, fs.UUID, fs.Label), nil
	case errors.As(err, &damage):
		return damage.Error(), nil
	case errors.Is(err, filesystem.ErrNotRecognised):
		return "nothing that is recognised", nil
	}
	return "", err
}

// verdict is nil when there is nothing to complain of: a key, if one was given, opens all that is encrypted.
func (r report) verdict(given bool) error {
	if given && len(r.Key) == 0 {
		return errors.New("the key opens nothing: no encrypted volume is found on the disk")
	}
	for _, k := range r.Key {
		if !k.Opens {
			return fmt.Errorf("the key doesn't open %s: %s", place(k.Partition), k.Reason)
		}
	}
	return nil
}

func place(partition int) string {
	if partition == 0 {
		return "the disk"
	}
	return fmt.Sprintf("partition %d", partition)
}
