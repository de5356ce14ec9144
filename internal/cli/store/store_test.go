package store_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"kluis/internal/cli"
	"kluis/internal/cli/store"
	"kluis/internal/seal"
)

func execute(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return cli.Execute(ctx, cli.New(nil, store.Command(store.Options{Now: time.Now})), args)
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kluis": func() { os.Exit(execute(os.Args[1:])) }})
}

// The scripts are sessions as a user has them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"image": image, "flip": flip, "waitfor": waitFor},
		Setup: func(env *testscript.Env) error {
			env.Setenv("KLUIS_STORE_KEY_FILE", filepath.Join(env.WorkDir, "store.key"))
			return nil
		},
	})
}

// image FILE SEED: a raw image of 3 MiB with noise, zeros and text in it.
func image(ts *testscript.TestScript, _ bool, args []string) {
	data := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte([]byte(strings.Repeat(args[1], 32)[:32])))
	_, err := random.Read(data[:1<<20])
	ts.Check(err)
	copy(data[2<<20:], bytes.Repeat([]byte("The quick brown fox. "), 4000))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// waitfor SOCKET: until somebody listens there.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for range 3000 {
		if c, err := net.Dial("unix", ts.MkAbs(args[0])); err == nil {
			_ = c.Close()
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	ts.Fatalf("nobody listens on %s", args[0])
}

// flip DIR: a bit in the middle of the largest file below DIR.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	largest, size := "", int64(0)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	}))
	data, err := os.ReadFile(largest)
	ts.Check(err)
	data[200_000] ^= 1
	ts.Check(os.Chmod(largest, 0o600))
	ts.Check(os.WriteFile(largest, data, 0o600))
}

// The store of a server is opened with the server's identity file and nothing else.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	root, _, err := seal.OpenOrCreate(filepath.Join(dir, "seal"), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	storeDir := filepath.Join(dir, "store")
	makeServerStore(t, storeDir, root)
	identity := filepath.Join(dir, "seal", seal.IdentityFile)
	code, out, errs := run(t, "store", "list", storeDir, "--identity", identity, "--output", "json")
	var points []any
	if err := json.Unmarshal([]byte(out), &points); code != 0 || err != nil || len(points) != 0 {
		t.Errorf("exit code %d, %q, %q, %v", code, out, errs, err)
	}
	other := filepath.Join(dir, "other")
	if _, _, err := seal.OpenOrCreate(other, seal.Options{}); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t, "store", "list", storeDir, "--identity", filepath.Join(other, seal.IdentityFile)); code != 1 || !strings.Contains(errs, "wrapped key") {
		t.Errorf("another identity: exit code %d, %q", code, errs)
	}
	if code, _, errs := run(t, "store", "list", storeDir, "--identity", identity, "--key-file", "x"); code != 2 || !strings.Contains(errs, "not both") {
		t.Errorf("both: exit code %d, %q", code, errs)
	}
	if _, err := os.Stat(filepath.Join(storeDir, ".tmp")); err == nil {
		entries, err := os.ReadDir(filepath.Join(storeDir, ".tmp"))
		if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
			t.Errorf("reading left %d files behind, %v", len(entries), err)
		}
	}
}

func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := cli.New(nil, store.Command(store.Options{Now: time.Now}))
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(t.Context(), root, args)
	return code, out.String(), errs.String()
}
