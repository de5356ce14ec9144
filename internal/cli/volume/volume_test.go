package volume_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"kluis/internal/cli"
	"kluis/internal/cli/volume"
	"kluis/internal/tooltest"
	"kluis/internal/volume/volumetest"
)

func newRoot() *cobra.Command { return cli.New(nil, volume.Command()) }

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"kluis": func() { os.Exit(cli.Execute(context.Background(), newRoot(), os.Args[1:])) },
	})
}

const recovery = "471207-278498-422125-177177-561902-537405-468006-693451"

// TestScripts are sessions as a user has them, with images of both systems.
func TestScripts(t *testing.T) {
	tooltest.Need(t, "cryptsetup", "mke2fs", "qemu-img", "qemu-nbd")
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			linux(t, env.WorkDir)
			windows(t, env.WorkDir)
			// A txtar file always ends in a newline, and a key file is taken byte for byte.
			return os.WriteFile(filepath.Join(env.WorkDir, "key"), []byte("hush hush"), 0o600)
		},
	})
}

// linux makes linux.raw, a LUKS2 volume with an ext4 file system, and plain.raw, what is inside.
func linux(t *testing.T, dir string) {
	t.Helper()
	plain := filepath.Join(dir, "plain.raw")
	if err := volumetest.MakeFileSystem(context.Background(), plain, 1<<20, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	o := volumetest.Options{Version: 2, Label: "data", KeySlot: 3}
	if err := volumetest.Encrypt(context.Background(), plain, filepath.Join(dir, "linux.raw"), []byte("hush hush"), o); err != nil {
		t.Fatal(err)
	}
}

// windows makes BitLocker volumes: windows.raw with its key in windows.BEK, one of another machine, one whose
// key lies in clear, and one that is being encrypted.
func windows(t *testing.T, dir string) {
	t.Helper()
	for name, o := range map[string]volumetest.BitLockerOptions{
		"windows": {Password: "anaconda", RecoveryPassword: recovery}, "other": {}, "open": {ClearKey: true}, "converting": {State: 2, Next: 4},
	} {
		image, bek, err := volumetest.BitLocker(make([]byte, 1<<20), o)
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string][]byte{name + ".raw": image, name + ".BEK": bek} {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
